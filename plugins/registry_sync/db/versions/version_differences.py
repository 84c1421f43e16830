"""The difference of two versions, from their intervals: units added, removed and moved, with counts and bytes.

Within one repository the cost is proportional to the number of changes between the two; only the size of what both
share is summed over a whole version. Versions of two repositories are compared unit by unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    Subquery,
    case,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)

from registry_sync.db.content.closures import there_is_none
from registry_sync.db.queries import fetch_page
from registry_sync.db.tables import blobs, manifests, tags
from registry_sync.db.versions.version_rows import (
    BLOBS,
    LINKS,
    MANIFESTS,
    TAGS,
    Intervals,
    covers,
    latest_number,
    require_row,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Page, PageRequest
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import (
    Amounts,
    Change,
    TagChange,
    TagDifference,
    UnitChange,
    UnitDifference,
    VersionDifference,
)

EMPTY_NUMBER = 0
#: The order of :func:`tag_difference`.
_BY_CHANGE = "change"
_CONTENT = {MANIFESTS.kind: manifests, BLOBS.kind: blobs}


@dataclass(frozen=True)
class _Side:
    """One of the two versions; ``row`` is None for the empty one."""

    repository_id: str
    number: int
    row: Row[Any] | None

    def present_count(self, intervals: Intervals) -> int:
        return 0 if self.row is None else int(getattr(self.row, f"{intervals.kind}_present"))


def version_difference(
    connection: Connection, version: tuple[str, int], base: tuple[str, int], request: PageRequest
) -> VersionDifference:
    """The difference from ``base`` to ``version``, each a repository's id and a number, 0 for the empty version.

    Lists are cut to ``request``, counts and bytes are totals. Raises :class:`RecordNotFound`.
    """
    side, other = _side(connection, *version), _side(connection, *base)
    return VersionDifference(
        repository_id=side.repository_id,
        number=side.number,
        base_repository_id=other.repository_id,
        base_number=other.number,
        tags=_tag_difference(connection, side, other, _by_default(request)),
        manifests=_unit_difference(connection, MANIFESTS, side, other, request),
        blobs=_unit_difference(connection, BLOBS, side, other, request),
        has_other_links=_has_other_links(connection, side, other),
    )


def tag_difference(
    connection: Connection, repository_id: str, number: int, base_number: int, limit: int
) -> TagDifference:
    """The tags that differ from ``base_number``, 0 for the empty version, to ``number`` of one repository.

    At most ``limit`` of them: moved ones first, then added, then removed ones, each by name. Raises
    :class:`RecordNotFound`.
    """
    side, other = _side(connection, repository_id, number), _side(connection, repository_id, base_number)
    return _tag_difference(connection, side, other, PageRequest(limit=limit, ordering=_BY_CHANGE))


def _side(connection: Connection, repository_id: str, number: int) -> _Side:
    if number != EMPTY_NUMBER:
        return _Side(repository_id, number, require_row(connection, repository_id, number))
    latest_number(connection, repository_id)
    return _Side(repository_id, number, None)


def _only(intervals: Intervals, side: _Side, other: _Side) -> Select[Any]:
    """Keys of the units and links that ``side`` holds and ``other`` does not."""
    rows, elsewhere = intervals.table, intervals.table.alias("elsewhere")
    is_missing = there_is_none(
        elsewhere.c.repository_id == other.repository_id,
        intervals.is_alike(elsewhere, rows),
        covers(elsewhere, other.number),
    )
    statement = select(*(rows.c[name] for name in intervals.unit)).where(
        rows.c.repository_id == side.repository_id, covers(rows, side.number), is_missing
    )
    if side.repository_id != other.repository_id:
        return statement
    # An index skips what both hold without interruption.
    if side.number > other.number:
        return statement.where(rows.c.version_added > other.number)
    return statement.where(rows.c.version_removed <= other.number)


def _tag_difference(connection: Connection, side: _Side, other: _Side, request: PageRequest) -> TagDifference:
    nothing = cast(null(), String)
    after = _tag_digests(_only(TAGS, side, other)).add_columns(
        nothing.label("before"), manifests.c.digest.label("after")
    )
    before = _tag_digests(_only(TAGS, other, side)).add_columns(
        manifests.c.digest.label("before"), nothing.label("after")
    )
    either = union_all(after, before).subquery("either")
    changes = (
        select(either.c.name, func.max(either.c.before).label("before"), func.max(either.c.after).label("after"))
        .group_by(either.c.name)
        .subquery("changes")
    )
    counts = connection.execute(
        select(
            func.count(),
            func.count(case((changes.c.before.is_(None), 1))).label("added"),
            func.count(case((changes.c.after.is_(None), 1))).label("removed"),
        ).select_from(changes)
    ).one()
    moved = counts[0] - counts.added - counts.removed
    orderings = {"name": changes.c.name, _BY_CHANGE: _change_order(changes)}
    rows, total = fetch_page(connection, select(changes), request, orderings, changes.c.name)
    return TagDifference(
        page=Page(tuple(_tag_change(row) for row in rows), total),
        added_count=counts.added,
        removed_count=counts.removed,
        moved_count=moved,
        shared_count=side.present_count(TAGS) - counts.added - moved,
    )


def _change_order(changes: Subquery) -> ColumnElement[int]:
    """Moved tags before added ones, and these before removed ones."""
    return case((changes.c.after.is_(None), 2), (changes.c.before.is_(None), 1), else_=0)


def _has_other_links(connection: Connection, side: _Side, other: _Side) -> bool:
    return any(
        connection.execute(_only(LINKS, one, another).limit(1)).first() is not None
        for one, another in ((side, other), (other, side))
    )


def _tag_digests(tag_ids: Select[Any]) -> Select[Any]:
    only = tag_ids.subquery("only")
    return (
        select(tags.c.name).join(only, only.c.tag_id == tags.c.id).join(manifests, manifests.c.id == tags.c.manifest_id)
    )


def _tag_change(row: Row[Any]) -> TagChange:
    before, after = (None if digest is None else Digest(digest) for digest in (row.before, row.after))
    return TagChange(TagName(row.name), before, after)


def _unit_difference(
    connection: Connection, intervals: Intervals, side: _Side, other: _Side, request: PageRequest
) -> UnitDifference:
    changes = union_all(
        _contents(intervals, _only(intervals, side, other), Change.ADDED),
        _contents(intervals, _only(intervals, other, side), Change.REMOVED),
    ).subquery("changes")
    amounts = {
        row.change: row
        for row in connection.execute(
            select(
                changes.c.change,
                func.count().label("units"),
                func.coalesce(func.sum(changes.c.size_bytes), 0).label("size_bytes"),
            ).group_by(changes.c.change)
        )
    }
    added, removed = (
        (int(amounts[change.value].units), int(amounts[change.value].size_bytes)) if change.value in amounts else (0, 0)
        for change in (Change.ADDED, Change.REMOVED)
    )
    rows, total = fetch_page(
        connection, select(changes), _by_default(request), {"digest": changes.c.digest}, changes.c.change
    )
    shared_count = side.present_count(intervals) - added[0]
    shared_bytes = _present_bytes(connection, intervals, side) - added[1] if shared_count else 0
    return UnitDifference(
        page=Page(tuple(map(_unit_change, rows)), total),
        count=Amounts(added[0], shared_count, removed[0]),
        size_bytes=Amounts(added[1], shared_bytes, removed[1]),
    )


def _contents(intervals: Intervals, unit_ids: Select[Any], change: Change) -> Select[Any]:
    content, only = _CONTENT[intervals.kind], unit_ids.subquery("only")
    return select(
        content.c.digest, content.c.media_type, content.c.size_bytes, literal(change.value).label("change")
    ).join(only, only.c[intervals.unit[0]] == content.c.id)


def _present_bytes(connection: Connection, intervals: Intervals, side: _Side) -> int:
    content, rows = _CONTENT[intervals.kind], intervals.table
    statement = (
        select(func.coalesce(func.sum(content.c.size_bytes), 0))
        .join(rows, rows.c[intervals.unit[0]] == content.c.id)
        .where(rows.c.repository_id == side.repository_id, covers(rows, side.number))
    )
    return int(connection.execute(statement).scalar_one())


def _unit_change(row: Row[Any]) -> UnitChange:
    return UnitChange(Change(row.change), Digest(row.digest), row.media_type, row.size_bytes)


def _by_default(request: PageRequest) -> PageRequest:
    return PageRequest(request.offset, request.limit)
