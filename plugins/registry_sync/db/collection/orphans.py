"""Content that nothing needs: noted when it is first seen so, and removed when that was long enough ago.

A manifest is needed while a version holds it, or a sync under way has listed, read or linked it; that a stored index
lists it is no reason, because what a version takes along is decided by its links. A blob is needed while a stored
manifest names it, or a sync under way plans it. Whoever lost its notes needs nothing, see ``OrphanStore.release_runs``.

Nothing here waits for a sync. Rows that somebody works with are passed over and looked at the next time; those that
are locked are asked again whether they are needed, in a statement that sees what was committed meanwhile.
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

#: Tags in these states lead to nothing that the run takes.
_LEFT_OUT = (TagState.HELD.value, TagState.GONE.value, TagState.FILTERED.value)


def manifest_is_needed() -> ColumnElement[bool]:
    """Whether a row of ``manifests`` is needed; looked up for each row of the enclosing statement."""
    unit = manifests.c.id
    return or_(
        _there_is(repository_manifests.c.manifest_id == unit),
        _there_is(repository_links.c.child_id == unit),
        _there_is(repository_links.c.parent_id == unit),
        _there_is(tags.c.manifest_id == unit, repository_tags.c.tag_id == tags.c.id),
        manifest_is_in_run(),
    )


def manifest_is_in_run() -> ColumnElement[bool]:
    """Whether a sync under way has listed, read or linked a row of ``manifests``."""
    unit = manifests.c.id
    return or_(
        _there_is(run_manifests.c.manifest_id == unit),
        _there_is(run_links.c.child_id == unit),
        _there_is(run_links.c.parent_id == unit),
        _there_is(run_tags.c.digest == manifests.c.digest, run_tags.c.state.not_in(_LEFT_OUT)),
    )


def blob_is_needed() -> ColumnElement[bool]:
    """Whether a row of ``blobs`` is needed; looked up for each row of the enclosing statement."""
    unit = blobs.c.id
    return or_(
        _there_is(manifest_blobs.c.blob_id == unit),
        _there_is(repository_blobs.c.blob_id == unit),
        _there_is(run_blobs.c.blob_id == unit),
    )


def blob_is_in_run() -> ColumnElement[bool]:
    """Whether a sync under way plans a row of ``blobs``, or has a manifest that names it."""
    unit = blobs.c.id
    in_run = manifest_is_in_run()
    return or_(
        _there_is(run_blobs.c.blob_id == unit),
        _there_is(manifest_blobs.c.blob_id == unit, manifests.c.id == manifest_blobs.c.manifest_id, in_run),
    )


def _there_is(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(there_is_none(*conditions))


_ENDED_BADLY = (RunState.FAILED.value, RunState.CANCELED.value)
_UNDER_WAY = (TagState.PENDING.value, TagState.RESOLVED.value, TagState.UNCHANGED.value)
_RELEASED = "what the sync had fetched was collected, because it had ended long before; start a new sync"


@dataclass(frozen=True)
class _Kind:
    """The tables of one kind of content; ``is_needed`` is a condition on rows of ``units``."""

    units: Table
    orphans: Table
    orphan_id: Column[int]
    is_needed: Callable[[], ColumnElement[bool]]


_KINDS = {
    ContentKind.MANIFEST: _Kind(manifests, orphaned_manifests, orphaned_manifests.c.manifest_id, manifest_is_needed),
    ContentKind.BLOB: _Kind(blobs, orphaned_blobs, orphaned_blobs.c.blob_id, blob_is_needed),
}


class OrphanStore:
    """Each method is one or two short transactions and may be repeated, also by several collectors at once."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def release_runs(self, ended_before: datetime) -> int:
        """Forgets what syncs noted that failed or were canceled before then; how many.

        Their tags become held, so that a task that is repeated all the same commits none of them by halves.
        """
        with self._transactions.reading() as connection:
            ended = connection.execute(select(sync_runs.c.id).where(*_has_notes(ended_before))).scalars().all()
        return sum(self._release(run_id, ended_before) for run_id in ended)

    def unreleased_runs(self, ended_before: datetime) -> int:
        """How many syncs :meth:`release_runs` would find."""
        statement = select(func.count()).select_from(sync_runs).where(*_has_notes(ended_before))
        with self._transactions.reading() as connection:
            return connection.execute(statement).scalar_one()

    def note(self, kind: ContentKind, now: datetime, *, after_id: int = 0, limit: int = BATCH_SIZE) -> int | None:
        """Notes which of the next units nothing needs, and forgets that of those that something needs again.

        Gives the id to go on after, None at the end. What was noted before keeps its time.
        """
        tables = _KINDS[kind]
        with self._transactions.reading() as connection:
            ids = _next_ids(connection, tables, after_id, limit)
            differs = bool(ids) and any(
                connection.execute(statement.limit(1)).first() is not None
                for statement in (_unnoted(tables, ids), _needed_again(tables, ids))
            )
        if differs:
            self._note(tables, ids, now)
        return ids[-1] if len(ids) == limit else None

    def due(
        self, kind: ContentKind, noted_before: datetime, *, after_id: int = 0, limit: int = BATCH_SIZE
    ) -> list[ContentRecord]:
        """The next units that were noted before then, by id; whether they are still unneeded is asked again later."""
        tables = _KINDS[kind]
        unit = tables.units.c
        statement = (
            select(unit.id, unit.digest, unit.size_bytes)
            .join(tables.orphans, tables.orphan_id == unit.id)
            .where(tables.orphans.c.orphaned_at < noted_before, unit.id > after_id)
            .order_by(unit.id)
            .limit(limit)
        )
        with self._transactions.reading() as connection:
            rows = connection.execute(statement).all()
        return [ContentRecord(row.id, Digest(row.digest), row.size_bytes) for row in rows]

    def unneeded(self, kind: ContentKind, noted_before: datetime) -> tuple[Amount, Amount]:
        """What would go now, and what would wait for its grace, noted or not; changes nothing."""
        tables = _KINDS[kind]
        unit, noted_at = tables.units.c, tables.orphans.c.orphaned_at
        statement = (
            select(func.count(), func.coalesce(func.sum(unit.size_bytes), 0))
            .select_from(tables.units.outerjoin(tables.orphans, tables.orphan_id == unit.id))
            .where(~tables.is_needed())
        )
        is_young = or_(noted_at.is_(None), noted_at >= noted_before)
        with self._transactions.reading() as connection:
            due = connection.execute(statement.where(noted_at < noted_before)).one()
            waiting = connection.execute(statement.where(is_young)).one()
        return Amount(due[0], int(due[1])), Amount(waiting[0], int(waiting[1]))

    def delete_manifests(self, ids: Sequence[int], noted_before: datetime) -> Amount:
        """Removes those of ``ids`` that are noted since before then and still unneeded, with their dead tags."""
        with self._transactions.writing() as connection:
            rows = lock_unneeded(connection, ContentKind.MANIFEST, ids, noted_before)
            gone = [row.id for row in rows]
            if gone:
                connection.execute(delete(tags).where(tags.c.manifest_id.in_(gone)))
                connection.execute(delete(manifests).where(manifests.c.id.in_(gone)))
        return Amount.of(row.size_bytes for row in rows)

    def _release(self, run_id: str, ended_before: datetime) -> bool:
        with self._transactions.writing() as connection:
            still = select(sync_runs.c.id).where(sync_runs.c.id == run_id, *_has_notes(ended_before))
            if connection.execute(still.with_for_update(key_share=True, skip_locked=True)).first() is None:
                return False
            connection.execute(
                update(run_tags)
                .where(run_tags.c.sync_run_id == run_id, run_tags.c.state.in_(_UNDER_WAY))
                .values(state=TagState.HELD.value, reason=_RELEASED)
            )
            for table in (run_links, run_manifests, run_blobs):
                connection.execute(delete(table).where(table.c.sync_run_id == run_id))
        return True

    def _note(self, tables: _Kind, ids: Sequence[int], now: datetime) -> None:
        with self._transactions.writing() as connection:
            seen = _needed_again(tables, ids).with_for_update(of=tables.orphans, skip_locked=True)
            again = connection.execute(seen).scalars().all()
            connection.execute(delete(tables.orphans).where(tables.orphan_id.in_(again)))
            # Taken, so that a collector beside this one cannot remove them before they are noted.
            taking = _unnoted(tables, ids).order_by(tables.units.c.digest)
            new = connection.execute(taking.with_for_update(read=True, key_share=True, skip_locked=True)).scalars()
            name = tables.orphan_id.name
            insert_absent(connection, tables.orphans, [{name: unit_id, "orphaned_at": now} for unit_id in new])


def lock_unneeded(
    connection: Connection, kind: ContentKind, ids: Sequence[int], noted_before: datetime
) -> Sequence[Any]:
    """Rows ``id``, ``digest``, ``size_bytes`` of ``ids``, locked, noted since before then and needed by nothing.

    Those that something needs again are noted no more; those that somebody works with are left out.
    """
    tables = _KINDS[kind]
    unit = tables.units.c
    # The note is taken with its row: a sync that finds the unit removes the note, and is seen by that.
    taking = (
        select(unit.id)
        .join(tables.orphans, tables.orphan_id == unit.id)
        .where(unit.id.in_(ids), tables.orphans.c.orphaned_at < noted_before)
        .order_by(unit.digest)
    )
    locked = connection.execute(taking.with_for_update(skip_locked=True)).scalars().all()
    # Another statement, which sees what was committed until the rows were taken.
    needed = connection.execute(select(unit.id).where(unit.id.in_(locked), tables.is_needed())).scalars().all()
    connection.execute(delete(tables.orphans).where(tables.orphan_id.in_(needed)))
    free = select(unit.id, unit.digest, unit.size_bytes).where(unit.id.in_(set(locked) - set(needed)))
    return connection.execute(free.order_by(unit.digest)).all()


def _has_notes(ended_before: datetime) -> list[ColumnElement[bool]]:
    """Conditions on syncs that ended badly before then and may still be continued with what they noted."""
    run = sync_runs.c.id
    return [
        sync_runs.c.state.in_(_ENDED_BADLY),
        sync_runs.c.finished_at < ended_before,
        or_(
            exists().where(run_tags.c.sync_run_id == run, run_tags.c.state.in_(_UNDER_WAY)),
            exists().where(run_manifests.c.sync_run_id == run),
            exists().where(run_links.c.sync_run_id == run),
            exists().where(run_blobs.c.sync_run_id == run),
        ),
    ]


def _next_ids(connection: Connection, tables: _Kind, after_id: int, limit: int) -> list[int]:
    unit = tables.units.c.id
    return list(connection.execute(select(unit).where(unit > after_id).order_by(unit).limit(limit)).scalars())


def _unnoted(tables: _Kind, ids: Sequence[int]) -> Select[Any]:
    """Ids of the range of ``ids`` that nothing needs and that are not noted."""
    unit = tables.units.c.id
    is_noted = exists().where(tables.orphan_id == unit)
    return select(unit).where(unit.between(ids[0], ids[-1]), ~is_noted, ~tables.is_needed())


def _needed_again(tables: _Kind, ids: Sequence[int]) -> Select[Any]:
    """Ids of the range of ``ids`` that are noted and that something needs."""
    unit = tables.units.c.id
    return (
        select(unit)
        .join(tables.orphans, tables.orphan_id == unit)
        .where(unit.between(ids[0], ids[-1]), tables.is_needed())
    )
