"""A rollback: a new version that holds what an older one held, tags, manifests, blobs and links.

Bytes of it may have been reclaimed meanwhile. That does not stop a rollback: a version is a set of content, told by
digests, and which bytes are in the store is no part of it. They are counted, the tags that lack them are held with that
reason, and the next immediate sync of those tags fetches them; a refusal would keep bad tags in place when they are to
go at once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, literal, select, update

from registry_sync.db.closures import is_present, there_is_none
from registry_sync.db.intervals import INTERVALS, LINKS, UNITS, Intervals, count_changes, covers
from registry_sync.db.lacking_blobs import lost_bytes_of_derived
from registry_sync.db.leftovers import note_leftovers
from registry_sync.db.listings import note_rollback
from registry_sync.db.membership import Difference
from registry_sync.db.new_version import add_version, next_number
from registry_sync.db.version_records import require_row
from registry_sync.domain.origins import Origin, OriginKind


def roll_back(
    connection: Connection, repository: Row[Any], number: int, *, by: str | None, description: str | None
) -> int | None:
    """The number of the version made, None when the latest holds the same; the caller has locked ``repository``.

    The cost follows the difference. What tags were held at that time stays with that version. Raises
    :class:`RecordNotFound`.
    """
    require_row(connection, repository.id, number)
    new_number = next_number(repository)
    for intervals in INTERVALS:
        _close(connection, intervals, repository.id, number, new_number)
        _open(connection, intervals, repository.id, number, new_number)
    difference = made_difference(connection, repository.id, new_number)
    if difference.is_empty:
        return None
    note_leftovers(connection, repository.id)
    note_rollback(connection, repository.id)
    origin = Origin(OriginKind.ROLLBACK, repository.id, number, by)
    holds = lost_bytes_of_derived(connection, repository.id, repository.id, number)
    return add_version(connection, repository, difference, origin=origin, holds=holds, description=description)


def made_difference(connection: Connection, repository_id: str, number: int) -> Difference:
    """What the intervals say that version ``number``, the latest, adds and removes."""
    changes = {unit.kind: count_changes(connection, unit, repository_id, number) for unit in UNITS}
    return Difference(
        added={kind: added for kind, (added, _) in changes.items()},
        removed={kind: removed for kind, (_, removed) in changes.items()},
        has_other_links=any(count_changes(connection, LINKS, repository_id, number)),
    )


def _close(connection: Connection, intervals: Intervals, repository_id: str, number: int, new_number: int) -> None:
    """Ends what is present and was not there then."""
    table, then = intervals.table, intervals.table.alias("at_that_time")
    was_not_there = there_is_none(intervals.is_same(then, table), covers(then, number))
    is_newer = (table.c.version_added > number) & was_not_there
    connection.execute(
        update(table).where(is_present(table, repository_id), is_newer).values(version_removed=new_number)
    )


def _open(connection: Connection, intervals: Intervals, repository_id: str, number: int, new_number: int) -> None:
    """Begins what was there then and is not present."""
    then, now = intervals.table.alias("at_that_time"), intervals.table.alias("now")
    is_absent = there_is_none(intervals.is_same_unit(now, then), now.c.version_removed.is_(None))
    names = [*intervals.unit, *intervals.said]
    rows = select(then.c.repository_id, literal(new_number), *(then.c[name] for name in names)).where(
        then.c.repository_id == repository_id,
        then.c.version_added <= number,
        then.c.version_removed > number,
        is_absent,
    )
    connection.execute(
        insert(intervals.table).from_select(["repository_id", "version_added", *names], rows, include_defaults=False)
    )
