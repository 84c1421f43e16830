"""Garbage collection, reclaiming of blobs' bytes, and the end of lost runs.

A collection removes unreachable manifests with their tags, then blobs that only they named, then untracked bytes.
Unreachable content is first recorded as orphaned, and removed when it is still unreachable after a grace period; a
running sync protects the content that it uses. A collection runs concurrently with syncs and other collections, and may
be killed at any point and repeated. Content that cannot be removed, such as an object under a retention lock, does not
stop the rest; it is recorded and reported at the end.

Reclaiming removes the bytes of blobs that only given repositories hold. Their versions stay, and list the missing
blobs. The next sync of a repository that stores blobs fetches them again; repositories whose blobs are fetched on pull
continue to do so.

Lost runs are syncs whose DAG run has ended without a report of it here: a DAG run may be deleted, or the listener may
not reach this database at that point. They are found through Airflow and ended, because they would otherwise run
forever and protect their content from collection.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.runs import LOCAL_DAG_ID, DagRunEnd, RunKey, SyncRun
from registry_sync.domain.storage_reports import Amount, Collection, ContentKind, removal_error
from registry_sync.errors import BlobStoreError, RegistrySyncError
from registry_sync.sync.parallel import for_each

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.db.runs.dag_run_stores import RunEndStore


def end_lost_runs(
    runs: RunEndStore,
    end_of: Callable[[SyncRun], DagRunEnd | None],
    *,
    report: Callable[[str], None],
    repository_id: str | None = None,
    without: str | None = None,
) -> int:
    """Ends the syncs of one repository or of all whose DAG run has ended; their number. ``end_of`` queries Airflow.

    ``without`` is the id of a sync that is known to be running. Costs one query, and one request for each sync that is
    recorded as running.
    """
    count = 0
    for run in runs.unended(repository_id=repository_id):
        is_local = run.key.dag_id == LOCAL_DAG_ID
        end = None if run.id == without else local_run_end(run, utc_now()) if is_local else end_of(run)
        if end is not None and runs.end(run.key.dag_id, run.key.run_id, end.state, end.reason):
            count += 1
            report(
                f"the sync of DAG run {run.key.run_id} of {run.key.dag_id} has ended {end.state.value}: {end.reason}"
            )
    return count


_SEPARATOR = "__"
#: After that long a run of a command on another host counts as lost.
LOST_AFTER = timedelta(hours=24)


def local_key(now: datetime) -> RunKey:
    """The key of a run of this process: ``local__2026-11-25T03:00:00+00:00__worker-1__4711``."""
    return RunKey(
        LOCAL_DAG_ID,
        _SEPARATOR.join(("local", now.isoformat(timespec="milliseconds"), socket.gethostname(), str(os.getpid()))),
    )


def local_run_end(run: SyncRun, now: datetime) -> DagRunEnd | None:
    """``lost`` for a run of :func:`local_key` whose process has gone, as far as that is known; else None."""
    *_, host, pid = run.key.run_id.split(_SEPARATOR)
    if host != socket.gethostname() or not pid.isdigit():
        return DagRunEnd.LOST if now - run.started_at > LOST_AFTER else None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return DagRunEnd.LOST
    except PermissionError:
        return None
    return None


_THREADS = 16
#: The number of transient failures after which the store itself is considered unavailable.
MOST_TRANSIENT = 20


class StoredBytes:
    """The blobs of ``store``; ``failures`` are the errors of what could not be removed, by digest or other name.

    After :data:`MOST_TRANSIENT` transient failures the last one is raised, once running removals have finished.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.failures: dict[str, BlobStoreError] = {}

    def present(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those of ``digests`` that exist; one that cannot be checked counts as missing."""

        def failed(_digest: Digest, error: RegistrySyncError) -> None:
            if error.is_temporary or not isinstance(error, BlobStoreError):
                raise error

        return _those(self._store.has, digests, failed)

    def delete(self, digests: Sequence[Digest], *, stored_before: datetime | None = None) -> set[Digest]:
        """Removes them; returns those that existed and were not written again since ``stored_before``."""
        return _those(
            lambda digest: self._store.delete(digest, stored_before=stored_before), digests, self.record_failure
        )

    def record_failure(self, name: str, error: RegistrySyncError) -> None:
        """Records a failure. Raises it when the store is unavailable, or when it is not an error of the store."""
        if not isinstance(error, BlobStoreError):
            raise error
        self.failures[name] = error
        if error.is_temporary and sum(known.is_temporary for known in self.failures.values()) >= MOST_TRANSIENT:
            raise error

    def raise_failures(self) -> None:
        """Raises one :class:`BlobStoreError` for everything that could not be removed, if there was any."""
        if self.failures:
            raise removal_error(self.failures)


def _those(
    check: Callable[[Digest], bool], digests: Sequence[Digest], failed: Callable[[Digest, RegistrySyncError], None]
) -> set[Digest]:
    found: set[Digest] = set()

    def done(digest: Digest, is_one: bool) -> None:
        if is_one:
            found.add(digest)

    for_each(check, digests, threads=min(_THREADS, len(digests)), done=done, failed=failed)
    return found


#: Records per transaction. A database with a single writer is locked for as long as it takes to remove their bytes.
BATCH_SIZE = 100
_RECORDED_AT_ONCE = 1000


class _Times(NamedTuple):
    now: datetime
    recorded_before: datetime


def collect_orphans(
    database: Database,
    store: BlobStore,
    *,
    grace: timedelta,
    report: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
    wait: Callable[[float], None] = time.sleep,
    batch_size: int = BATCH_SIZE,
) -> Collection:
    """Records unreachable content, and removes what was recorded longer than ``grace`` ago; safe to repeat.

    It also ends claims on downloads whose holders have died. Where any may have, it takes at least the few seconds in
    which a living one shows itself; ``wait`` waits for what is left of them.

    A blob has its own grace period after the last manifest that named it was removed. Bytes without a record are
    removed when they were written longer than ``grace`` ago. What the store cannot remove keeps its record, is tried
    again by the next collection, and is raised as one :class:`BlobStoreError` after everything else was done. Errors of
    the database, and of a store that is unavailable, are raised at once; what was removed until then stays removed.
    """
    now = clock()
    timestamp = _Times(now, now - grace)
    database.mirror_results.delete_old()  # those of mirrors that are in no fleet any more
    holders, seen_at = database.download_claims.holders(), time.monotonic()
    released = database.orphans.release_runs(timestamp.recorded_before)
    if released:
        report(f"released the content of {format_count(released, 'failed or canceled sync')}")
    manifests = _collect_manifests(database, timestamp, batch_size)
    stored = StoredBytes(store)
    blobs, freed = _collect_blobs(database, stored, timestamp, batch_size)
    untracked = Amount()
    for batch in _untracked(database, store, timestamp.recorded_before, batch_size, stored.record_failure):
        untracked += database.blob_bytes.delete_untracked(batch, timestamp.recorded_before, stored)
    _, waiting_manifests = database.orphans.unreachable(ContentKind.MANIFEST, timestamp.recorded_before)
    _, waiting_blobs = database.orphans.unreachable(ContentKind.BLOB, timestamp.recorded_before)
    if holders:
        wait(max(0.0, seen_at + database.download_claims.lapsed_seconds - time.monotonic()))
        if lapsed := database.download_claims.remove_lapsed(holders):
            report(f"ended {format_count(lapsed, 'claim')} on downloads of processes that have died")
    collection = Collection(
        manifests=manifests,
        blobs=blobs,
        freed=freed,
        untracked=untracked,
        waiting_manifests=waiting_manifests,
        waiting_blobs=waiting_blobs,
        released_runs=released,
    )
    report(summary(collection))
    stored.raise_failures()
    return collection


def preview_collection(
    database: Database,
    store: BlobStore,
    *,
    grace: timedelta,
    report: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
    batch_size: int = BATCH_SIZE,
) -> Collection:
    """What :func:`collect_orphans` would remove now, and what would wait; changes nothing.

    Blobs of manifests that would be removed are still named by them, and counted neither as removed nor as waiting.
    """
    recorded_before = clock() - grace
    manifests, waiting_manifests = database.orphans.unreachable(ContentKind.MANIFEST, recorded_before)
    blobs, waiting_blobs = database.orphans.unreachable(ContentKind.BLOB, recorded_before)
    untracked = Amount()
    for batch in _untracked(database, store, recorded_before, batch_size, None):
        untracked += Amount.of(batch.values())
    collection = Collection(
        is_dry_run=True,
        manifests=manifests,
        blobs=blobs,
        freed=database.blob_bytes.due(recorded_before),
        untracked=untracked,
        waiting_manifests=waiting_manifests,
        waiting_blobs=waiting_blobs,
        released_runs=database.orphans.unreleased_runs(recorded_before),
    )
    report(summary(collection))
    return collection


def summary(collection: Collection) -> str:
    """A collection in one line."""
    waiting = collection.waiting_manifests.count + collection.waiting_blobs.count
    return (
        f"{'would remove' if collection.is_dry_run else 'removed'} "
        f"{format_count(collection.manifests.count, 'manifest')}, {format_count(collection.blobs.count, 'blob')} and "
        f"{format_count(collection.untracked.count, 'untracked blob')}, {format_bytes(collection.freed_bytes)}; "
        f"{format_count(waiting, 'orphan')} younger than the grace period"
    )


def _collect_manifests(database: Database, timestamp: _Times, batch_size: int) -> Amount:
    _record_all(database, ContentKind.MANIFEST, timestamp.now)
    removed_records = Amount()
    for ids in _due(database, ContentKind.MANIFEST, timestamp.recorded_before, batch_size):
        removed_records += database.orphans.delete_manifests(ids, timestamp.recorded_before)
    return removed_records


def _collect_blobs(
    database: Database, stored: StoredBytes, timestamp: _Times, batch_size: int
) -> tuple[Amount, Amount]:
    _record_all(database, ContentKind.BLOB, timestamp.now)
    removed_records, freed = Amount(), Amount()
    for ids in _due(database, ContentKind.BLOB, timestamp.recorded_before, batch_size):
        records, removed = database.blob_bytes.delete_orphans(ids, timestamp.recorded_before, stored)
        removed_records, freed = removed_records + records, freed + removed
    return removed_records, freed


def _record_all(database: Database, kind: ContentKind, now: datetime) -> None:
    last: int | None = 0
    while last is not None:
        last = database.orphans.record(kind, now, after_id=last, limit=_RECORDED_AT_ONCE)


def _due(database: Database, kind: ContentKind, recorded_before: datetime, limit: int) -> Iterator[list[int]]:
    last = 0
    while found := database.orphans.due(kind, recorded_before, after_id=last, limit=limit):
        last = found[-1].id
        yield [orphan.id for orphan in found]


def _untracked(
    database: Database,
    store: BlobStore,
    stored_before: datetime,
    batch_size: int,
    unlisted: Callable[[str, BlobStoreError], None] | None,
) -> Iterator[dict[Digest, int]]:
    """Bytes without a record that are old enough, with their sizes, in batches."""
    waiting: dict[Digest, int] = {}
    for entry in store.entries(unlisted):
        if entry.stored_at < stored_before:
            waiting[entry.digest] = entry.size_bytes
        if len(waiting) >= 10 * batch_size:
            yield from _unrecorded(database, waiting, batch_size)
            waiting = {}
    yield from _unrecorded(database, waiting, batch_size)


def _unrecorded(database: Database, sizes: Mapping[Digest, int], batch_size: int) -> Iterator[dict[Digest, int]]:
    unknown = sorted(database.blob_bytes.unrecorded(list(sizes)))
    for start in range(0, len(unknown), batch_size):
        yield {digest: sizes[digest] for digest in unknown[start : start + batch_size]}


def reclaim_blobs(
    database: Database,
    store: BlobStore,
    repository_ids: Sequence[str],
    *,
    kept: Sequence[tuple[str, int]] = (),
    is_dry_run: bool = False,
    batch_size: int = BATCH_SIZE,
    report: Callable[[str], None],
) -> Amount:
    """Removes the bytes of blobs that only these repositories hold, and none of the versions ``kept``.

    Returns the amount. ``kept`` are pairs of repository id and version number. Blobs that another repository holds or a
    running sync uses stay. A dry run removes nothing. Faults of reclaimed blobs are cleared. Raises as
    :func:`~registry_sync.sync.maintenance.collect.collect_orphans` does; a repeat continues.
    """
    removed_records, last, stored = Amount(), 0, StoredBytes(store)
    while found := database.blob_bytes.reclaimable(repository_ids, kept, after_id=last, limit=batch_size):
        last = found[-1].id
        if is_dry_run:
            removed_records += Amount.of(record.size_bytes for record in found)
        else:
            ids = [record.id for record in found]
            removed_records += database.blob_bytes.reclaim(ids, repository_ids, kept, stored)
    if not is_dry_run:
        database.blob_bytes.forget_faults(repository_ids, kept)
    verb = "would reclaim" if is_dry_run else "reclaimed"
    report(f"{verb} {format_bytes(removed_records.size_bytes)} of {format_count(removed_records.count, 'blob')}")
    stored.raise_failures()
    return removed_records
