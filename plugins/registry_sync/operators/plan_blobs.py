"""``PlanBlobsOperator``: the blobs that the store lacks, divided among tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.operators.stage import RegistryRetryPolicy, TaskReport, open_stage
from registry_sync.operators.task_values import find_sync_run

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlanBlobsOperator(BaseOperator):
    """Finds the blobs that a run needs and the store lacks, each once, in shards balanced by bytes.

    Returns one map entry per shard, for ``FetchBlobsOperator.expand(shard=…)``; none when nothing is missing.

    :param sync_run: id of the run, as pushed by a listing task; None for the one listing task upstream of this task
    """

    template_fields: Sequence[str] = ("sync_run",)
    ui_color = "#f8f4e0"
    #: A commit follows, so that nobody is to be notified of its success.
    settles_syncs = False

    def __init__(self, *, sync_run: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("trigger_rule", "none_failed")  # no tag moved, and blobs of the latest version are missing
        super().__init__(**kwargs)
        self.sync_run = sync_run

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """The shards, ``[{"sync_run": id, "shard": number, "shards": count, "label": "1/2 · 9 blobs · 5 MiB"}, …]``."""
        from registry_sync.domain.runs import shard_label
        from registry_sync.sync.plan_blobs import plan_blobs

        with open_stage(context, "plan_blobs") as stage:
            run, remote = stage.find(find_sync_run(self, context, self.sync_run))
            if run.state.is_settled:
                self.log.info("the sync has ended %s, so there is nothing to plan", run.state.value)
                return []
            planned = plan_blobs(
                stage.blobs,
                stage.database,
                run,
                max_shards=stage.max_shards(remote),
                min_shard_bytes=stage.settings.min_shard_bytes,
                report=TaskReport(self.log),
            )
            stage.count_planned(planned)
        context["ti"].xcom_push(
            key="summary",
            value={"needed": planned.needed_count, "stored": planned.stored_count, "foreign": planned.foreign_count},
        )
        count = len(planned.shards)
        return [
            {
                "sync_run": run.id,
                "shard": shard.number,
                "shards": count,
                "label": shard_label(shard.number, count, *shard.contents),
            }
            for shard in planned.shards
        ]
