"""Removal of blobs' bytes: of orphans together with their records, or of bytes alone to reclaim space.

Always in two transactions. The first records the blob as missing, so that a crash in between leaves no blob that is
recorded as stored and is not. The second locks the record, checks again that the bytes are unreferenced, and removes
them: a sync that starts to reference them meanwhile either waits for the lock or is seen by the check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, update

from registry_sync.db.collection.orphans import blob_is_in_run, blob_is_reachable, lock_unreachable
from registry_sync.db.content.closures import is_in_version
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import BATCH_SIZE, in_batches, insert_or_keep, is_one_of
from registry_sync.db.tables import blobs, orphaned_blobs, repository_blobs
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.storage_reports import Amount, ContentKind, ContentRecord

#: The media type of the temporary record of untracked bytes that are being removed.
_UNKNOWN_TYPE = "application/octet-stream"


class Bytes(Protocol):
    """The methods of the blob store that removal uses."""

    @property
    def failures(self) -> Mapping[str, Exception]:
        """The errors of bytes that could not be removed, by digest; their records stay."""

    def present(self, digests: Sequence[Digest], /) -> set[Digest]:
        """Those of ``digests`` that exist."""

    def delete(self, digests: Sequence[Digest], /, *, stored_before: datetime | None = None) -> set[Digest]:
        """Removes them; returns those that existed and were not written again since ``stored_before``."""


class BlobBytesStore:
    """Methods may be repeated, also concurrently; records locked by others are skipped."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def delete_orphans(self, ids: Sequence[int], recorded_before: datetime, stored: Bytes) -> tuple[Amount, Amount]:
        """Removes orphans recorded before ``recorded_before`` that are still unreachable, their bytes first.

        Returns the amounts of removed records and of bytes freed.
        """
        with self._transactions.writing() as connection:
            rows = lock_unreachable(connection, ContentKind.BLOB, ids, recorded_before)
            to_remove = [row.id for row in rows]
            connection.execute(update(blobs).where(blobs.c.id.in_(to_remove)).values(stored_at=None))
        if not to_remove:
            return Amount(), Amount()
        with self._transactions.writing() as connection:
            gone = _lock_missing(connection, to_remove, ~blob_is_reachable())
            _record_kept(connection, to_remove, gone, stored)
            freed = stored.delete([Digest(row.digest) for row in gone])
            gone = _without_failures(connection, gone, stored)
            connection.execute(delete(blobs).where(blobs.c.id.in_([row.id for row in gone])))
        return Amount.of(row.size_bytes for row in gone), _freed(gone, freed)

    def due(self, recorded_before: datetime) -> Amount:
        """Stored bytes of orphans recorded before ``recorded_before`` that are still unreachable; changes nothing."""
        statement = (
            select(func.count(), func.coalesce(func.sum(blobs.c.size_bytes), 0))
            .select_from(blobs.join(orphaned_blobs, orphaned_blobs.c.blob_id == blobs.c.id))
            .where(orphaned_blobs.c.orphaned_at < recorded_before, blobs.c.stored_at.is_not(None), ~blob_is_reachable())
        )
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one()
        return Amount(row[0], int(row[1]))

    def delete_untracked(self, untracked: Mapping[Digest, int], stored_before: datetime, stored: Bytes) -> Amount:
        """Removes bytes without a record, given by digest with their size, that were written before ``stored_before``.

        A temporary record makes a sync that needs one of them wait until they are removed.
        """
        with self._transactions.writing() as connection:
            held = [digest for digest in sorted(untracked) if _hold(connection, digest, untracked[digest])]
            gone = stored.delete(held, stored_before=stored_before)
            connection.execute(delete(blobs).where(blobs.c.digest.in_(held)))
        return Amount.of(untracked[digest] for digest in gone)

    def unrecorded(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of ``digests`` that have no record."""
        unknown = set(digests)
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(unknown)):
                known = connection.execute(
                    select(blobs.c.digest).where(is_one_of(connection, blobs.c.digest, batch))
                ).scalars()
                unknown -= {Digest(digest) for digest in known}
        return unknown

    def reclaimable(
        self,
        repository_ids: Sequence[str],
        kept: Sequence[tuple[str, int]] = (),
        *,
        after_id: int = 0,
        limit: int = BATCH_SIZE,
    ) -> list[ContentRecord]:
        """The next stored blobs, by id, that only these repositories hold, and none of the versions ``kept``.

        Blobs that a running sync uses are omitted. ``kept`` are pairs of repository id and version number.
        """
        statement = (
            select(blobs.c.id, blobs.c.digest, blobs.c.size_bytes)
            .where(blobs.c.stored_at.is_not(None), blobs.c.id > after_id, *_may_be_reclaimed(repository_ids, kept))
            .order_by(blobs.c.id)
            .limit(limit)
        )
        with self._transactions.reading() as connection:
            rows = connection.execute(statement).all()
        return [ContentRecord(row.id, Digest(row.digest), row.size_bytes) for row in rows]

    def reclaim(
        self, ids: Sequence[int], repository_ids: Sequence[str], kept: Sequence[tuple[str, int]], stored: Bytes
    ) -> Amount:
        """Removes the bytes of those of ``ids`` that are still reclaimable, and records the blobs as missing."""
        conditions = _may_be_reclaimed(repository_ids, kept)
        with self._transactions.writing() as connection:
            candidates = select(blobs.c.id).where(blobs.c.id.in_(ids)).order_by(blobs.c.digest)
            locked = connection.execute(candidates.with_for_update(skip_locked=True)).scalars().all()
            # As in lock_unreachable, a separate statement, to see what was committed meanwhile.
            still = select(blobs.c.id).where(blobs.c.id.in_(locked), blobs.c.stored_at.is_not(None), *conditions)
            to_remove = connection.execute(still).scalars().all()
            connection.execute(update(blobs).where(blobs.c.id.in_(to_remove)).values(stored_at=None))
        if not to_remove:
            return Amount()
        with self._transactions.writing() as connection:
            gone = _lock_missing(connection, to_remove, *conditions)
            _record_kept(connection, to_remove, gone, stored)
            freed = stored.delete([Digest(row.digest) for row in gone])
            _without_failures(connection, gone, stored)
        return _freed(gone, freed)

    def forget_faults(self, repository_ids: Sequence[str], kept: Sequence[tuple[str, int]]) -> None:
        """Clears the faults of blobs whose bytes may be reclaimed: these bytes are not needed any more."""
        conditions = (blobs.c.fault.is_not(None), *_may_be_reclaimed(repository_ids, kept))
        with self._transactions.writing() as connection:
            candidates = select(blobs.c.id).where(*conditions).order_by(blobs.c.digest)
            locked = connection.execute(candidates.with_for_update(skip_locked=True, of=blobs)).scalars().all()
            for batch in in_batches(locked):
                connection.execute(update(blobs).where(blobs.c.id.in_(batch)).values(fault=None, fault_at=None))


def _may_be_reclaimed(repository_ids: Sequence[str], kept: Sequence[tuple[str, int]]) -> list[ColumnElement[bool]]:
    is_here = repository_blobs.c.blob_id == blobs.c.id
    return [
        exists().where(is_here, repository_blobs.c.repository_id.in_(repository_ids)),
        ~exists().where(is_here, repository_blobs.c.repository_id.not_in(repository_ids)),
        *(~exists().where(is_here, is_in_version(repository_blobs, repository, number)) for repository, number in kept),
        ~blob_is_in_run(),
    ]


def _lock_missing(connection: Connection, ids: Sequence[int], *conditions: ColumnElement[bool]) -> Sequence[Any]:
    """Those of ``ids``, locked, that are still recorded as missing and match ``conditions``."""
    candidates = select(blobs.c.id).where(blobs.c.id.in_(ids), blobs.c.stored_at.is_(None)).order_by(blobs.c.digest)
    locked = connection.execute(candidates.with_for_update(skip_locked=True)).scalars().all()
    fitting = select(blobs.c.id, blobs.c.digest, blobs.c.size_bytes).where(blobs.c.id.in_(locked), *conditions)
    return connection.execute(fitting.order_by(blobs.c.digest)).all()


def _without_failures(connection: Connection, rows: Sequence[Any], stored: Bytes) -> Sequence[Any]:
    """Those of ``rows`` whose bytes could be removed. The others are recorded as stored again, if they exist."""
    stuck = {row.id: Digest(row.digest) for row in rows if row.digest in stored.failures}
    if not stuck:
        return rows
    present = stored.present(list(stuck.values()))
    existing = [blob_id for blob_id, digest in stuck.items() if digest in present]
    connection.execute(
        update(blobs).where(blobs.c.id.in_(existing), blobs.c.fault.is_(None)).values(stored_at=utc_now())
    )
    return [row for row in rows if row.id not in stuck]


def _record_kept(connection: Connection, ids: Sequence[int], gone: Sequence[Any], stored: Bytes) -> None:
    """Records as stored again the blobs that were recorded as missing, are in use meanwhile, and exist."""
    kept = set(ids) - {row.id for row in gone}
    if not kept:
        return
    candidates = select(blobs.c.id, blobs.c.digest).where(blobs.c.id.in_(kept), blobs.c.stored_at.is_(None))
    candidates = candidates.order_by(blobs.c.digest).with_for_update(key_share=True, skip_locked=True)
    rows = connection.execute(candidates).all()
    present = stored.present([Digest(row.digest) for row in rows])
    existing = [row.id for row in rows if row.digest in present]
    connection.execute(
        update(blobs).where(blobs.c.id.in_(existing), blobs.c.fault.is_(None)).values(stored_at=utc_now())
    )


def _hold(connection: Connection, digest: Digest, size_bytes: int) -> bool:
    """Creates a record of ``digest``; False when there is one already."""
    record = {
        "digest": digest,
        "size_bytes": size_bytes,
        "media_type": _UNKNOWN_TYPE,
        "is_foreign": False,
        "created_at": utc_now(),
    }
    done = connection.execute(insert_or_keep(connection, blobs), record, execution_options={"preserve_rowcount": True})
    return done.rowcount == 1


def _freed(rows: Sequence[Any], digests: set[Digest]) -> Amount:
    return Amount.of(row.size_bytes for row in rows if row.digest in digests)
