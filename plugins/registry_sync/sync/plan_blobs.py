"""The third stage: the blobs that the store lacks, each once, in shards of nearly equal work.

The store decides what is present, not the database: a blob that another repository or an earlier try stored is recorded
and not planned; a blob that the database records as stored and the store has lost is planned again. A blob that is
known to be broken is planned whatever the store has under its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import RequiredBlob, SyncRun, plan_shards
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.parallel import for_each

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database

#: The overhead of fetching a blob, in bytes that could have been fetched meanwhile: about a millisecond of processor
#: time at about a gigabyte a second.
BLOB_OVERHEAD_BYTES = 1024 * 1024
_STORE_THREADS = 16
#: A larger config is left for the first pull, as layers are.
MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class BlobShard:
    """The blobs of one task: the shard's number, the count and size of blobs."""

    number: int
    blob_count: int
    size_bytes: int

    @property
    def contents(self) -> tuple[str, str]:
        """``307 blobs`` and ``53 MiB``."""
        return format_count(self.blob_count, "blob"), format_bytes(self.size_bytes)


@dataclass(frozen=True)
class BlobsPlanned:
    """The blobs of a run: all, those in the store, and shards of the missing ones."""

    needed_count: int
    stored_count: int
    foreign_count: int
    missing_count: int
    missing_bytes: int
    shards: tuple[BlobShard, ...] = ()

    def __str__(self) -> str:
        return (
            f"{format_count(self.needed_count, 'blob')} needed, {self.stored_count:,} in the store, "
            f"{self.missing_count:,} to download ({format_bytes(self.missing_bytes)})"
        )


def missing_blobs(store: BlobStore, database: Database, run: SyncRun) -> tuple[list[RequiredBlob], BlobsPlanned]:
    """The blobs that ``run`` needs and ``store`` lacks, and the counts, without shards.

    Of those that the policy leaves for a pull none, but the configs with ``on_demand``; foreign layers count when the
    remote includes them.
    """
    needed = database.runs.required_blobs(run.id)
    if run.policy is Policy.STREAMED:
        return [], BlobsPlanned(len(needed), sum(blob.is_stored for blob in needed), 0, 0, 0)
    wanted = [blob for blob in needed if _is_wanted(blob, run)]
    stored = _stored(store, [blob for blob in wanted if not blob.is_broken])
    found = [blob for blob in wanted if blob.digest in stored and not blob.is_stored]
    database.contents.mark_stored(blob.digest for blob in found)
    if found:
        # A process that removes bytes reads the database first: bytes that are present after the record was written
        # stay.
        stored -= {blob.digest for blob in found} - _stored(store, found)
    lost = [blob.digest for blob in wanted if blob.digest not in stored and blob.is_stored]
    database.contents.mark_lost(lost, FindingKind.MISSING, utc_now())
    database.contents.mark_missing([blob.digest for blob in found if blob.digest not in stored])
    missing = [blob for blob in wanted if blob.digest not in stored]
    size_bytes = sum(blob.size_bytes for blob in missing)
    if run.policy is Policy.IMMEDIATE:
        return missing, BlobsPlanned(len(needed), len(stored), len(needed) - len(wanted), len(missing), size_bytes)
    others = {blob.digest for blob in needed if blob.is_stored} - {blob.digest for blob in wanted}
    return missing, BlobsPlanned(len(needed), len(stored) + len(others), 0, len(missing), size_bytes)


def _is_wanted(blob: RequiredBlob, run: SyncRun) -> bool:
    """Whether the sync itself stores the blob. Configs say what an image is, and are small."""
    if run.policy is Policy.IMMEDIATE:
        return run.remote.include_foreign_layers or not blob.is_foreign
    is_small_config = blob.is_config and blob.size_bytes <= MAX_CONFIG_BYTES
    return run.policy is Policy.ON_DEMAND and is_small_config and not blob.is_foreign


def _stored(store: BlobStore, blobs: Sequence[RequiredBlob]) -> set[Digest]:
    """Those of ``blobs`` that the store has."""
    stored: set[Digest] = set()

    def done(blob: RequiredBlob, is_stored: bool) -> None:
        if is_stored:
            stored.add(blob.digest)

    def failed(_blob: RequiredBlob, error: RegistrySyncError) -> None:
        raise error

    for_each(
        lambda blob: store.has(blob.digest, blob.size_bytes), blobs, threads=_STORE_THREADS, done=done, failed=failed
    )
    return stored


def _record_plan(
    database: Database, run: SyncRun, missing: Sequence[RequiredBlob], *, max_shards: int, min_shard_bytes: int
) -> tuple[BlobShard, ...]:
    """``missing`` in at most ``max_shards`` shards balanced by bytes, recorded with ``run``.

    No shard is smaller than ``min_shard_bytes`` of work, including each blob's overhead.
    """
    of_digest = {blob.digest: blob for blob in missing}
    shards = plan_shards(
        ((digest, blob.size_bytes + BLOB_OVERHEAD_BYTES) for digest, blob in of_digest.items()),
        max_shards=max_shards,
        min_cost=min_shard_bytes,
    )
    planned = {shard.number: [of_digest[digest] for digest in shard.items] for shard in shards}
    database.runs.record_plan(run.id, planned)
    return tuple(
        BlobShard(number, len(blobs), sum(blob.size_bytes for blob in blobs)) for number, blobs in planned.items()
    )


def plan_blobs(
    store: BlobStore,
    database: Database,
    run: SyncRun,
    *,
    max_shards: int,
    min_shard_bytes: int,
    report: Callable[[str], None],
) -> BlobsPlanned:
    """Plans the downloads of ``run``; a repeat plans the blobs that are still missing."""
    missing, counts = missing_blobs(store, database, run)
    shards = _record_plan(database, run, missing, max_shards=max_shards, min_shard_bytes=min_shard_bytes)
    planned = replace(counts, shards=shards)
    report(str(planned))
    return planned
