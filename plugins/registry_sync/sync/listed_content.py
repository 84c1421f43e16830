"""The content of a small run, fetched by the task that listed it, while it has connections and a token.

What would be one task anyway is not worth another: all tags in one shard, and then blobs that would not make two
shards. After a while, and at a failure that may pass, the rest is left to the tasks that follow, which wait and are
retried by themselves. A listing is a whole, and done; nothing here makes it fail but what no retry would mend.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.blob_prefetch import BlobPrefetch
from registry_sync.sync.fetch_blobs import BlobsFetched, fetch_small_run
from registry_sync.sync.fetch_manifests import ManifestsFetched, fetch_manifests
from registry_sync.sync.parallel import warn
from registry_sync.sync.verdicts import reason

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.plan_blobs import BlobsPlanned

#: How long a listing goes on to fetch. Beside a minute the start of more tasks counts for little.
LONGEST_SECONDS = 60.0


@dataclass
class ContentFetched:
    """What was fetched: counts of manifests and of blobs, None where that is left to other tasks.

    ``has_manifests`` says that the manifests of all tags are recorded, ``is_whole`` that all blobs are stored as well,
    or recorded as failed.
    """

    manifests: ManifestsFetched | None = None
    blobs: BlobsFetched | None = None
    has_manifests: bool = False
    is_whole: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """All counts by name; empty for nothing."""
        return {name: count for part in (self.manifests, self.blobs) if part for name, count in asdict(part).items()}

    def __str__(self) -> str:
        return ", ".join(str(part) for part in (self.manifests, self.blobs) if part) or "nothing"


def fetch_listed(
    client: RegistryReader,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    shard_count: int,
    min_shard_bytes: int,
    report: Callable[[str], None],
    on_plan: Callable[[BlobsPlanned], None] = lambda _planned: None,
    clock: Callable[[], float] = time.monotonic,
) -> ContentFetched:
    """Fetches what ``run`` has listed in ``shard_count`` shards, as far as that is one task's work.

    ``on_plan`` as for :func:`~registry_sync.sync.fetch_blobs.fetch_small_run`.
    Raises what no retry would mend, as the stages do.
    """
    fetched, ends_at = ContentFetched(), clock() + LONGEST_SECONDS
    if shard_count > 1:
        return fetched

    def is_over() -> bool:
        return clock() >= ends_at

    try:
        with BlobPrefetch.of(
            client, store, database, run, remote, min_shard_bytes=min_shard_bytes, is_over=is_over
        ) as prefetch:
            for shard in range(shard_count):
                fetched.manifests = fetch_manifests(
                    client,
                    database,
                    run,
                    remote,
                    shard=shard,
                    is_last_try=False,
                    report=report,
                    is_over=is_over,
                    on_manifest=prefetch.add,
                )
            fetched.has_manifests = not database.runs.pending_shards(run.id)
            if fetched.has_manifests and not is_over():
                fetched.blobs = fetch_small_run(
                    client,
                    store,
                    database,
                    run,
                    remote,
                    min_shard_bytes=min_shard_bytes,
                    is_last_try=False,
                    report=report,
                    on_plan=on_plan,
                    is_over=is_over,
                    prefetch=prefetch,
                )
                fetched.is_whole = fetched.blobs is not None and not is_over()
    except RegistrySyncError as problem:
        if not problem.is_temporary:
            raise
        warn(report, f"{reason(problem)}; what is left is fetched by the tasks that follow")
    return fetched
