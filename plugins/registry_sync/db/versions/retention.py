"""Removal of versions: one by number, or all but the newest.

Removing a version removes only its record. Content that other versions hold stays, and bytes stay in the blob store
until garbage collection. The content of the other versions never changes, and numbers are never reused.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from registry_sync.db.tables import repositories, repository_versions
from registry_sync.db.versions.version_rows import (
    INTERVALS,
    UNITS,
    Intervals,
    count_changes,
    note_leftovers,
    require_row,
)
from registry_sync.errors import OnlyVersion

_versions = repository_versions.c


def keep_newest(connection: Connection, repository_id: str, retain_count: int | None) -> None:
    """Removes all but the newest ``retain_count`` versions; None keeps all, and the latest is always kept.

    The records of the kept versions do not change, except that the oldest of them has no base any more. Safe to repeat.
    """
    if retain_count is None:
        return
    kept = select(_versions.number).where(_versions.repository_id == repository_id).order_by(_versions.number.desc())
    numbers = connection.execute(kept.limit(max(retain_count, 1))).scalars().all()
    if numbers:
        _forget_before(connection, repository_id, numbers[-1])


def delete_version(connection: Connection, repository: Row[Any], number: int) -> None:
    """Removes one version of ``repository``, whose row the caller has locked.

    Its additions and removals become those of the next version; after the oldest is removed, the next one stays as it
    is and has no base. After the latest is removed, the previous one is the latest again.

    Raises :class:`RecordNotFound`, and :class:`OnlyVersion` for the last that remains.
    """
    require_row(connection, repository.id, number)
    before = _neighbour(connection, repository.id, func.max(_versions.number), _versions.number < number)
    after = _neighbour(connection, repository.id, func.min(_versions.number), _versions.number > number)
    if before is None and after is None:
        raise OnlyVersion(
            f"version {number} is the only one of repository {repository.name!r}; a repository with content keeps at "
            "least one version; to remove the last one, delete the repository"
        )
    if before is None:
        assert after is not None  # noqa: S101  # said above
        _forget_before(connection, repository.id, after)
        return
    connection.execute(delete(repository_versions).where(_is_version(repository.id, number)))
    if after is None:
        _undo(connection, repository.id, number, before)
    else:
        _squash(connection, repository.id, number, before, after)


def _neighbour(connection: Connection, repository_id: str, wanted: Any, condition: Any) -> int | None:
    number: int | None = connection.execute(
        select(wanted).where(_versions.repository_id == repository_id, condition)
    ).scalar_one()
    return number


def _is_version(repository_id: str, number: int) -> Any:
    return and_(_versions.repository_id == repository_id, _versions.number == number)


def _forget_before(connection: Connection, repository_id: str, oldest: int) -> None:
    """Removes versions before ``oldest``.

    Intervals that ended before it are deleted; those that end with it stay, because they are its removals.
    """
    in_repository = _versions.repository_id == repository_id
    connection.execute(delete(repository_versions).where(in_repository, _versions.number < oldest))
    is_dangling = _versions.base_number < oldest
    connection.execute(update(repository_versions).where(in_repository, is_dangling).values(base_number=None))
    for intervals in INTERVALS:
        table = intervals.table
        connection.execute(
            delete(table).where(table.c.repository_id == repository_id, table.c.version_removed < oldest)
        )


def _undo(connection: Connection, repository_id: str, number: int, before: int) -> None:
    """Reverts the latest version: its additions are deleted, and its removals are present again."""
    for intervals in INTERVALS:
        table = intervals.table
        in_repository = table.c.repository_id == repository_id
        connection.execute(delete(table).where(in_repository, table.c.version_added == number))
        connection.execute(
            update(table).where(in_repository, table.c.version_removed == number).values(version_removed=None)
        )
    connection.execute(update(repositories).where(repositories.c.id == repository_id).values(latest_number=before))
    note_leftovers(connection, repository_id)


def _squash(connection: Connection, repository_id: str, number: int, before: int, after: int) -> None:
    """Moves the additions and removals of version ``number`` to version ``after``, whose base becomes ``before``.

    Units added by the one and removed by the other disappear; units removed and added again were never interrupted.
    """
    counts: dict[str, int] = {}
    for intervals in INTERVALS:
        _squash_intervals(connection, intervals, repository_id, number, after)
        if intervals in UNITS:
            added, removed = count_changes(connection, intervals, repository_id, after)
            counts |= {f"{intervals.kind}_added": added, f"{intervals.kind}_removed": removed}
    connection.execute(
        update(repository_versions).where(_is_version(repository_id, after)).values(base_number=before, **counts)
    )


def _squash_intervals(
    connection: Connection, intervals: Intervals, repository_id: str, number: int, after: int
) -> None:
    table = intervals.table
    in_repository = table.c.repository_id == repository_id
    connection.execute(
        delete(table).where(in_repository, table.c.version_added == number, table.c.version_removed == after)
    )
    again = table.alias("again")
    is_back = and_(intervals.is_same(again, table), again.c.version_added == after)
    returned = connection.execute(
        select(*(table.c[name] for name in (*intervals.unit, "version_added")), again.c.version_removed.label("end"))
        .join(again, is_back)
        .where(in_repository, table.c.version_removed == number)
    ).all()
    for row in returned:
        is_unit = and_(in_repository, *(table.c[name] == getattr(row, name) for name in intervals.unit))
        connection.execute(delete(table).where(is_unit, table.c.version_added == after))
        is_first = and_(is_unit, table.c.version_added == row.version_added)
        connection.execute(update(table).where(is_first).values(version_removed=row.end))
    connection.execute(
        update(table).where(in_repository, table.c.version_removed == number).values(version_removed=after)
    )
    connection.execute(update(table).where(in_repository, table.c.version_added == number).values(version_added=after))
