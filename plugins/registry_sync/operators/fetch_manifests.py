"""``FetchManifestsOperator``: the manifests below one shard of tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.operators.stage import RegistryRetryPolicy, TaskReport, open_stage, read_shard, skip
from registry_sync.operators.task_values import is_lone_sync, refuse_expanded_group, task_ids_near

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

#: Shown in the grid instead of the map index.
MAP_INDEX_TEMPLATE = "{{ task.shard['label'] }}"


class FetchManifestsOperator(BaseOperator):
    """Fetches the manifests of a shard of tags, with exact bytes, and records them with their relations.

    A small run with a single shard gets its blobs here too, and the tasks named by ``blob_tasks`` are skipped, unless
    they belong to several syncs.

    :param shard: an entry of the output of ``ListTagsOperator``
    :param blob_tasks: ids of the tasks that plan and fetch blobs, skipped when nothing remains for them; in a task
        group without the group's prefix
    """

    template_fields: Sequence[str] = ("shard",)
    ui_color = "#e8f0e0"
    #: A commit follows, so that nobody is to be notified of its success.
    settles_syncs = False

    def __init__(self, *, shard: Mapping[str, Any], blob_tasks: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        super().__init__(**kwargs)
        self.shard = shard
        self.blob_tasks = blob_tasks

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As Airflow's. Raises :class:`ConfigurationError` in an expanded task group."""
        refuse_expanded_group(cls, kwargs)
        return super().partial(**kwargs)

    def execute(self, context: Context) -> dict[str, int]:
        """Counts of tags and manifests; blobs as well when they were fetched here."""
        from contextlib import ExitStack
        from dataclasses import asdict

        from registry_sync.sync.fetch_blobs import fetch_small_run
        from registry_sync.sync.fetch_manifests import fetch_manifests

        with open_stage(context, "fetch_manifests") as stage:
            shard = read_shard(self.shard, "ListTagsOperator")
            run, remote = stage.find(shard["sync_run"])
            client, remote = stage.connect(remote, shard["shards"])
            last, report = stage.is_last_try, TaskReport(self.log)
            is_small = self.blob_tasks and shard["shards"] == 1 and is_lone_sync(self) and not run.state.is_settled
            blobs = prefetch = None
            work = (client, stage.blobs, stage.database, run, remote) if is_small else None
            min_shard_bytes = stage.settings.min_shard_bytes
            with ExitStack() as closing:
                if work is not None:
                    from registry_sync.sync.blob_prefetch import BlobPrefetch

                    prefetch = closing.enter_context(BlobPrefetch.of(*work, min_shard_bytes=min_shard_bytes))
                fetched = fetch_manifests(
                    client,
                    stage.database,
                    run,
                    remote,
                    shard=shard["shard"],
                    is_last_try=last,
                    report=report,
                    on_manifest=None if prefetch is None else prefetch.add,
                )
                self.log.info("%s", fetched)
                stage.count(manifests__fetched=fetched.manifest_count)
                counts = asdict(fetched)
                if work is not None:
                    blobs = fetch_small_run(
                        *work,
                        min_shard_bytes=min_shard_bytes,
                        is_last_try=last,
                        report=report,
                        on_plan=stage.count_planned,
                        prefetch=prefetch,
                    )
            if blobs is not None:
                stage.count(blobs__fetched=blobs.fetched_count, blobs__failed=blobs.failed_count)
        if blobs is not None:
            context["ti"].xcom_push(key="return_value", value={**counts, **asdict(blobs)})
            skip(context, task_ids_near(self, self.blob_tasks))
        return counts
