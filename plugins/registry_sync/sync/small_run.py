"""A short way for small runs: their few blobs are fetched by the task that fetched their manifests.

A task costs about half a second from trigger to end whatever it does, so that planning and fetching by tasks of
their own is worth while only for more than a small run needs (see docs/adr).
"""

from __future__ import annotations

from collections.abc import Callable

from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.runs import SyncRun
from registry_sync.sync.fetch_blobs import BlobsFetched, fetch_blobs
from registry_sync.sync.plan_blobs import BLOB_OVERHEAD_BYTES, missing_blobs, record_plan
from registry_sync.sync.ports import BlobStore, Database, RegistryClient


def fetch_small_run(
    client: RegistryClient,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    min_shard_bytes: int,
    is_last_try: bool,
    tell: Callable[[str], None],
) -> BlobsFetched | None:
    """Fetches all missing blobs of ``run`` when they would not make two shards; else None, and nothing was done.

    Only for a run whose tags are all in one shard, because it must know everything the run needs.
    """
    missing, planned = missing_blobs(store, database, run)
    if sum(blob.size_bytes + BLOB_OVERHEAD_BYTES for blob in missing) >= 2 * min_shard_bytes:
        return None
    tell(str(planned))
    record_plan(database, run, missing, max_shards=1, min_shard_bytes=min_shard_bytes)
    return fetch_blobs(client, store, database, run, remote, shard=0, is_last_try=is_last_try, tell=tell)
