"""``FetchBlobsOperator``: the bytes of one shard of blobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.operators.fetch_manifests import MAP_INDEX_TEMPLATE
from registry_sync.operators.stage import RegistryRetryPolicy, TaskReport, open_stage, read_shard
from registry_sync.operators.task_values import refuse_expanded_group

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial


class FetchBlobsOperator(BaseOperator):
    """Fetches the blobs of a shard into the store, each verified by size and digest while it is written.

    :param shard: an entry of the output of ``PlanBlobsOperator``
    """

    template_fields: Sequence[str] = ("shard",)
    ui_color = "#f0e8f8"
    #: A commit follows, so that nobody is to be notified of its success.
    settles_syncs = False

    def __init__(self, *, shard: Mapping[str, Any], **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        super().__init__(**kwargs)
        self.shard = shard

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As Airflow's. Raises :class:`ConfigurationError` in an expanded task group."""
        refuse_expanded_group(cls, kwargs)
        return super().partial(**kwargs)

    def execute(self, context: Context) -> dict[str, int]:
        """Counts of blobs and bytes."""
        from dataclasses import asdict

        from registry_sync.sync.fetch_blobs import fetch_blobs

        with open_stage(context, "fetch_blobs") as stage:
            shard = read_shard(self.shard, "PlanBlobsOperator")
            run, remote = stage.find(shard["sync_run"])
            client, remote = stage.connect(remote, shard["shards"])
            fetched = fetch_blobs(
                client,
                stage.blobs,
                stage.database,
                run,
                remote,
                shard=shard["shard"],
                is_last_try=stage.is_last_try,
                report=TaskReport(self.log),
            )
            stage.count(blobs__fetched=fetched.fetched_count, blobs__failed=fetched.failed_count)
        self.log.info("%s", fetched)
        return asdict(fetched)
