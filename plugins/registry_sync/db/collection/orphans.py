"""Orphans: unreachable content, recorded when it is first found, and removed after a grace period.

The roots are repository versions and running syncs. A manifest is reachable while a version holds it, or a running sync
has listed, read or linked it; that a stored index lists it does not count, because links decide what a version
includes. A blob is reachable while a stored manifest names it, or a running sync plans it. A sync whose records were
released is no root any more, see ``OrphanStore.release_runs``.

Nothing here waits for a sync. Rows locked by others are skipped until the next collection; locked rows are checked
again in a separate statement, which sees what was committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, delete, exists, func, not_, or_, select, update

from registry_sync.db.content.closures import there_is_none
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import BATCH_SIZE, insert_absent
from registry_sync.db.runs.unchanged_tags import record_each
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    orphaned_blobs,
    orphaned_manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_blobs,
    run_links,
    run_manifests,
    run_tags,
    sync_runs,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import RunState, TagState
from registry_sync.domain.storage_reports import Amount, ContentKind, ContentRecord

#: Tags in these states lead to nothing that the run includes.
_EXCLUDED = (TagState.HELD.value, TagState.GONE.value, TagState.FILTERED.value)


def manifest_is_reachable() -> ColumnElement[bool]:
    """Whether a row of ``manifests`` is reachable; a correlated condition on the enclosing statement."""
    unit = manifests.c.id
    return or_(
        _any_row(repository_manifests.c.manifest_id == unit),
        _any_row(repository_links.c.child_id == unit),
        _any_row(repository_links.c.parent_id == unit),
        _any_row(tags.c.manifest_id == unit, repository_tags.c.tag_id == tags.c.id),
        manifest_is_in_run(),
    )


def manifest_is_in_run() -> ColumnElement[bool]:
    """Whether a running sync has listed, read or linked a row of ``manifests``."""
    unit = manifests.c.id
    return or_(
        _any_row(run_manifests.c.manifest_id == unit),
        _any_row(run_links.c.child_id == unit),
        _any_row(run_links.c.parent_id == unit),
        _any_row(run_tags.c.digest == manifests.c.digest, run_tags.c.state.not_in(_EXCLUDED)),
    )


def blob_is_reachable() -> ColumnElement[bool]:
    """Whether a row of ``blobs`` is reachable; a correlated condition on the enclosing statement."""
    unit = blobs.c.id
    return or_(
        _any_row(manifest_blobs.c.blob_id == unit),
        _any_row(repository_blobs.c.blob_id == unit),
        _any_row(run_blobs.c.blob_id == unit),
    )


def blob_is_in_run() -> ColumnElement[bool]:
    """Whether a running sync plans a row of ``blobs``, or has a manifest that names it."""
    unit = blobs.c.id
    in_run = manifest_is_in_run()
    return or_(
        _any_row(run_blobs.c.blob_id == unit),
        _any_row(manifest_blobs.c.blob_id == unit, manifests.c.id == manifest_blobs.c.manifest_id, in_run),
    )


def _any_row(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(there_is_none(*conditions))


_ENDED_BADLY = (RunState.FAILED.value, RunState.CANCELED.value)
_UNDER_WAY = (TagState.PENDING.value, TagState.RESOLVED.value, TagState.UNCHANGED.value)
_RELEASED = (
    "the content that the sync had fetched was removed by garbage collection, because the sync had ended long "
    "before; start a new sync"
)


@dataclass(frozen=True)
class _Kind:
    """The tables of one kind of content; ``is_needed`` is the condition that a row of ``units`` is reachable."""

    units: Table
    orphans: Table
    orphan_id: Column[int]
    is_needed: Callable[[], ColumnElement[bool]]


_KINDS = {
    ContentKind.MANIFEST: _Kind(manifests, orphaned_manifests, orphaned_manifests.c.manifest_id, manifest_is_reachable),
    ContentKind.BLOB: _Kind(blobs, orphaned_blobs, orphaned_blobs.c.blob_id, blob_is_reachable),
}


class OrphanStore:
    """Each method is one or two short transactions and may be repeated, also by several collectors concurrently."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def release_runs(self, ended_before: datetime) -> int:
        """Deletes the records of syncs that failed or were canceled before ``ended_before``; the number of these syncs.

        Their tags become held, so that a task that is repeated nevertheless commits none of them incompletely.
        """
        with self._transactions.reading() as connection:
            ended = connection.execute(select(sync_runs.c.id).where(*_has_records(ended_before))).scalars().all()
        return sum(self._release(run_id, ended_before) for run_id in ended)

    def unreleased_runs(self, ended_before: datetime) -> int:
        """How many syncs :meth:`release_runs` would find."""
        statement = select(func.count()).select_from(sync_runs).where(*_has_records(ended_before))
        with self._transactions.reading() as connection:
            return connection.execute(statement).scalar_one()

    def record(self, kind: ContentKind, now: datetime, *, after_id: int = 0, limit: int = BATCH_SIZE) -> int | None:
        """Records which of the next units are unreachable, and deletes the records of those that are reachable again.

        Returns the id to continue after, None at the end. Units recorded earlier keep their timestamp.
        """
        tables = _KINDS[kind]
        with self._transactions.reading() as connection:
            ids = _next_ids(connection, tables, after_id, limit)
            differs = bool(ids) and any(
                connection.execute(statement.limit(1)).first() is not None
                for statement in (_new_orphans(tables, ids), _reachable_again(tables, ids))
            )
        if differs:
            self._record(tables, ids, now)
        return ids[-1] if len(ids) == limit else None

    def due(
        self, kind: ContentKind, recorded_before: datetime, *, after_id: int = 0, limit: int = BATCH_SIZE
    ) -> list[ContentRecord]:
        """The next units recorded before ``recorded_before``, by id; removal checks again that they are unreachable."""
        tables = _KINDS[kind]
        unit = tables.units.c
        statement = (
            select(unit.id, unit.digest, unit.size_bytes)
            .join(tables.orphans, tables.orphan_id == unit.id)
            .where(tables.orphans.c.orphaned_at < recorded_before, unit.id > after_id)
            .order_by(unit.id)
            .limit(limit)
        )
        with self._transactions.reading() as connection:
            rows = connection.execute(statement).all()
        return [ContentRecord(row.id, Digest(row.digest), row.size_bytes) for row in rows]

    def unreachable(self, kind: ContentKind, recorded_before: datetime) -> tuple[Amount, Amount]:
        """The amounts that a collection would remove now, and after the grace period; changes nothing."""
        tables = _KINDS[kind]
        unit, recorded_at = tables.units.c, tables.orphans.c.orphaned_at
        statement = (
            select(func.count(), func.coalesce(func.sum(unit.size_bytes), 0))
            .select_from(tables.units.outerjoin(tables.orphans, tables.orphan_id == unit.id))
            .where(~tables.is_needed())
        )
        is_young = or_(recorded_at.is_(None), recorded_at >= recorded_before)
        with self._transactions.reading() as connection:
            due = connection.execute(statement.where(recorded_at < recorded_before)).one()
            waiting = connection.execute(statement.where(is_young)).one()
        return Amount(due[0], int(due[1])), Amount(waiting[0], int(waiting[1]))

    def delete_manifests(self, ids: Sequence[int], recorded_before: datetime) -> Amount:
        """Removes those of ``ids`` recorded before that time and still unreachable, with their unused tags."""
        with self._transactions.writing() as connection:
            rows = lock_unreachable(connection, ContentKind.MANIFEST, ids, recorded_before)
            gone = [row.id for row in rows]
            if gone:
                connection.execute(delete(tags).where(tags.c.manifest_id.in_(gone)))
                connection.execute(delete(manifests).where(manifests.c.id.in_(gone)))
        return Amount.of(row.size_bytes for row in rows)

    def _release(self, run_id: str, ended_before: datetime) -> bool:
        with self._transactions.writing() as connection:
            still = select(sync_runs.c.id).where(sync_runs.c.id == run_id, *_has_records(ended_before))
            if connection.execute(still.with_for_update(key_share=True, skip_locked=True)).first() is None:
                return False
            record_each(connection, sync_runs.c.id == run_id)
            connection.execute(
                update(run_tags)
                .where(run_tags.c.sync_run_id == run_id, run_tags.c.state.in_(_UNDER_WAY))
                .values(state=TagState.HELD.value, reason=_RELEASED)
            )
            for table in (run_links, run_manifests, run_blobs):
                connection.execute(delete(table).where(table.c.sync_run_id == run_id))
        return True

    def _record(self, tables: _Kind, ids: Sequence[int], now: datetime) -> None:
        with self._transactions.writing() as connection:
            seen = _reachable_again(tables, ids).with_for_update(of=tables.orphans, skip_locked=True)
            again = connection.execute(seen).scalars().all()
            connection.execute(delete(tables.orphans).where(tables.orphan_id.in_(again)))
            # Locked, so that a concurrent collector cannot remove them before they are recorded.
            candidates = _new_orphans(tables, ids).order_by(tables.units.c.digest)
            new = connection.execute(candidates.with_for_update(read=True, key_share=True, skip_locked=True)).scalars()
            name = tables.orphan_id.name
            insert_absent(connection, tables.orphans, [{name: unit_id, "orphaned_at": now} for unit_id in new])


def lock_unreachable(
    connection: Connection, kind: ContentKind, ids: Sequence[int], recorded_before: datetime
) -> Sequence[Any]:
    """Rows ``id``, ``digest``, ``size_bytes`` of those of ``ids``, locked, recorded as orphans and still unreachable.

    Only orphans recorded before ``recorded_before`` count. Records of units that are reachable again are deleted; units
    locked by others are omitted.
    """
    tables = _KINDS[kind]
    unit = tables.units.c
    # The orphan's record is locked with the unit: a sync that uses the unit deletes the record, which is seen here.
    candidates = (
        select(unit.id)
        .join(tables.orphans, tables.orphan_id == unit.id)
        .where(unit.id.in_(ids), tables.orphans.c.orphaned_at < recorded_before)
        .order_by(unit.digest)
    )
    locked = connection.execute(candidates.with_for_update(skip_locked=True)).scalars().all()
    # A separate statement, which sees what was committed until the rows were locked.
    needed = connection.execute(select(unit.id).where(unit.id.in_(locked), tables.is_needed())).scalars().all()
    connection.execute(delete(tables.orphans).where(tables.orphan_id.in_(needed)))
    free = select(unit.id, unit.digest, unit.size_bytes).where(unit.id.in_(set(locked) - set(needed)))
    return connection.execute(free.order_by(unit.digest)).all()


def _has_records(ended_before: datetime) -> list[ColumnElement[bool]]:
    """Conditions on syncs that failed or were canceled before then and whose records allow them to be continued."""
    run = sync_runs.c.id
    return [
        sync_runs.c.state.in_(_ENDED_BADLY),
        sync_runs.c.finished_at < ended_before,
        or_(
            sync_runs.c.base_number.is_not(None),
            exists().where(run_tags.c.sync_run_id == run, run_tags.c.state.in_(_UNDER_WAY)),
            exists().where(run_manifests.c.sync_run_id == run),
            exists().where(run_links.c.sync_run_id == run),
            exists().where(run_blobs.c.sync_run_id == run),
        ),
    ]


def _next_ids(connection: Connection, tables: _Kind, after_id: int, limit: int) -> list[int]:
    unit = tables.units.c.id
    return list(connection.execute(select(unit).where(unit > after_id).order_by(unit).limit(limit)).scalars())


def _new_orphans(tables: _Kind, ids: Sequence[int]) -> Select[Any]:
    """Ids within the range of ``ids`` that are unreachable and not recorded."""
    unit = tables.units.c.id
    is_recorded = exists().where(tables.orphan_id == unit)
    return select(unit).where(unit.between(ids[0], ids[-1]), ~is_recorded, ~tables.is_needed())


def _reachable_again(tables: _Kind, ids: Sequence[int]) -> Select[Any]:
    """Ids within the range of ``ids`` that are recorded and reachable again."""
    unit = tables.units.c.id
    return (
        select(unit)
        .join(tables.orphans, tables.orphan_id == unit)
        .where(unit.between(ids[0], ids[-1]), tables.is_needed())
    )
