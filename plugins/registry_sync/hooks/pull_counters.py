"""Pulls in Airflow's metrics, where the pull API is inside Airflow's API server.

Names begin with ``registry_sync.pull`` and ``registry_sync.on_demand``. Airflow sends them where ``[metrics]`` says,
which is nowhere by default.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.observability import stats

from registry_sync.domain.serving import PullRecord


def count_pull(record: PullRecord) -> None:
    """Counts one request by kind, method and status, its bytes and the code of its error, and times it."""
    kind = {"kind": record.kind}
    stats.incr("registry_sync.pull.requests", tags={**kind, "method": record.method, "status": str(record.status)})
    stats.timing("registry_sync.pull.request_duration", timedelta(seconds=record.seconds), tags=kind)
    if record.sent_bytes:
        stats.incr("registry_sync.pull.sent_bytes", record.sent_bytes, tags=kind)
    if record.code is not None:
        stats.incr("registry_sync.pull.errors", tags={"code": record.code})
    if record.is_pull:
        stats.incr("registry_sync.pull.manifests", tags={"by": "digest" if record.tag is None else "tag"})


#: The names of what the fetching of blobs on demand counts.
_ON_DEMAND = {"miss": "misses", "fetch": "upstream_fetches", "failure": "upstream_failures", "bytes": "upstream_bytes"}


def count_on_demand(event: str, amount: int) -> None:
    """Counts an event of the fetching of blobs on demand: ``miss``, ``fetch``, ``failure`` or ``bytes``."""
    stats.incr(f"registry_sync.on_demand.{_ON_DEMAND[event]}", amount)
