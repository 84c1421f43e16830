"""The difference of two versions, from their intervals: units added, removed and moved, with counts and bytes.

Within one repository the cost is proportional to the number of changes between the two; only the size of what both
share is summed over a whole version. Versions of two repositories are compared unit by unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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
from registry_sync.db.queries import built_once, page_bounds
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
_CONTENT = {MANIFESTS.kind: manifests, BLOBS.kind: blobs}
#: A version's repository and number, as placeholders of a statement that is built once.
_Placeholders = tuple[str, int]


@dataclass(frozen=True)
class _Side:
    """One of the two versions; ``row`` is None for the empty one."""

    repository_id: str
    number: int
    row: Row[Any] | None

    @property
    def ids(self) -> tuple[str, int]:
        return self.repository_id, self.number

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
        tags=_tag_difference(connection, side, other, request),
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
    return _tag_difference(connection, side, other, PageRequest(limit=limit), by_change=True)


def _side(connection: Connection, repository_id: str, number: int) -> _Side:
    if number != EMPTY_NUMBER:
        return _Side(repository_id, number, require_row(connection, repository_id, number))
    latest_number(connection, repository_id)
    return _Side(repository_id, number, None)


class _Base(Enum):
    """Which version the other one is, seen from the one whose units are selected."""

    EARLIER = "earlier in the same repository"
    LATER = "later in the same repository, or the same"
    ELSEWHERE = "in another repository"

    @property
    def reverse(self) -> _Base:
        return {_Base.EARLIER: _Base.LATER, _Base.LATER: _Base.EARLIER}.get(self, self)


def _base_of(side: _Side, other: _Side) -> _Base:
    if side.repository_id != other.repository_id:
        return _Base.ELSEWHERE
    return _Base.EARLIER if side.number > other.number else _Base.LATER


def _only(intervals: Intervals, side: _Placeholders, other: _Placeholders, base: _Base) -> Select[Any]:
    """Keys of the units and links that ``side`` holds and ``other`` does not."""
    rows, elsewhere = intervals.table, intervals.table.alias("elsewhere")
    is_missing = there_is_none(
        elsewhere.c.repository_id == other[0],
        intervals.is_alike(elsewhere, rows),
        covers(elsewhere, other[1]),
    )
    statement = select(*(rows.c[name] for name in intervals.unit)).where(
        rows.c.repository_id == side[0], covers(rows, side[1]), is_missing
    )
    # An index skips what both hold without interruption.
    if base is _Base.EARLIER:
        return statement.where(rows.c.version_added > other[1])
    if base is _Base.LATER:
        # Where both are the same version nothing is missing, whichever of the two conditions it is.
        return statement.where(rows.c.version_removed <= other[1])
    return statement


def _changed_tags(side: _Placeholders, other: _Placeholders, base: _Base) -> Subquery:
    """Tags that differ: ``name``, and the digests ``before`` and ``after``, NULL where there is none."""
    nothing = cast(null(), String)
    after = _tag_digests(_only(TAGS, side, other, base)).add_columns(
        nothing.label("before"), manifests.c.digest.label("after")
    )
    before = _tag_digests(_only(TAGS, other, side, base.reverse)).add_columns(
        manifests.c.digest.label("before"), nothing.label("after")
    )
    either = union_all(after, before).subquery("either")
    return (
        select(either.c.name, func.max(either.c.before).label("before"), func.max(either.c.after).label("after"))
        .group_by(either.c.name)
        .subquery("changes")
    )


@built_once
def _count_tags(
    repository_id: str, number: int, base_repository_id: str, base_number: int, *, base: _Base
) -> Select[int, int, int]:
    """How many tags differ, and how many of them were ``added`` and ``removed``."""
    changes = _changed_tags((repository_id, number), (base_repository_id, base_number), base)
    return select(
        func.count(),
        func.count(case((changes.c.before.is_(None), 1))).label("added"),
        func.count(case((changes.c.after.is_(None), 1))).label("removed"),
    ).select_from(changes)


@built_once
def _select_tags(  # noqa: PLR0917  # placeholders, passed on as tuples
    repository_id: str,
    number: int,
    base_repository_id: str,
    base_number: int,
    offset: int,
    limit: int,
    *,
    base: _Base,
    by_change: bool,
) -> Select[Any]:
    changes = _changed_tags((repository_id, number), (base_repository_id, base_number), base)
    keys = (_change_order(changes), changes.c.name) if by_change else (changes.c.name,)
    return select(changes).order_by(*keys).offset(offset).limit(limit)


def _tag_difference(
    connection: Connection, side: _Side, other: _Side, request: PageRequest, *, by_change: bool = False
) -> TagDifference:
    """Tags in the order of their names, or for ``by_change`` in that of :func:`_change_order`."""
    ids, base = (*side.ids, *other.ids), _base_of(side, other)
    counts = connection.execute(*_count_tags(*ids, base=base)).one()
    moved = counts[0] - counts.added - counts.removed
    rows = connection.execute(*_select_tags(*ids, *page_bounds(request), base=base, by_change=by_change))
    return TagDifference(
        page=Page(tuple(_tag_change(row) for row in rows), counts[0]),
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
        connection.execute(*_some_link(*one.ids, *another.ids, base=_base_of(one, another))).first() is not None
        for one, another in ((side, other), (other, side))
    )


@built_once
def _some_link(
    repository_id: str, number: int, base_repository_id: str, base_number: int, *, base: _Base
) -> Select[Any]:
    return _only(LINKS, (repository_id, number), (base_repository_id, base_number), base).limit(1)


def _tag_digests(tag_ids: Select[Any]) -> Select[Any]:
    only = tag_ids.subquery("only")
    return (
        select(tags.c.name).join(only, only.c.tag_id == tags.c.id).join(manifests, manifests.c.id == tags.c.manifest_id)
    )


def _tag_change(row: Row[Any]) -> TagChange:
    before, after = (None if digest is None else Digest(digest) for digest in (row.before, row.after))
    return TagChange(TagName(row.name), before, after)


def _changed_units(intervals: Intervals, side: _Placeholders, other: _Placeholders, base: _Base) -> Subquery:
    """Units that differ: ``digest``, ``media_type``, ``size_bytes`` and ``change``."""
    return union_all(
        _contents(intervals, _only(intervals, side, other, base), Change.ADDED),
        _contents(intervals, _only(intervals, other, side, base.reverse), Change.REMOVED),
    ).subquery("changes")


@built_once
def _sum_units(
    repository_id: str,
    number: int,
    base_repository_id: str,
    base_number: int,
    *,
    intervals: Intervals,
    base: _Base,
) -> Select[Any]:
    """For each ``change`` that there is: how many ``units``, and their ``size_bytes``."""
    changes = _changed_units(intervals, (repository_id, number), (base_repository_id, base_number), base)
    size_bytes = func.coalesce(func.sum(changes.c.size_bytes), 0).label("size_bytes")
    return select(changes.c.change, func.count().label("units"), size_bytes).group_by(changes.c.change)


@built_once
def _select_units(  # noqa: PLR0917  # as above
    repository_id: str,
    number: int,
    base_repository_id: str,
    base_number: int,
    offset: int,
    limit: int,
    *,
    intervals: Intervals,
    base: _Base,
) -> Select[Any]:
    changes = _changed_units(intervals, (repository_id, number), (base_repository_id, base_number), base)
    return select(changes).order_by(changes.c.digest, changes.c.change).offset(offset).limit(limit)


def _unit_difference(
    connection: Connection, intervals: Intervals, side: _Side, other: _Side, request: PageRequest
) -> UnitDifference:
    ids, base = (*side.ids, *other.ids), _base_of(side, other)
    amounts = {row.change: row for row in connection.execute(*_sum_units(*ids, intervals=intervals, base=base))}
    added, removed = (
        (int(amounts[change.value].units), int(amounts[change.value].size_bytes)) if change.value in amounts else (0, 0)
        for change in (Change.ADDED, Change.REMOVED)
    )
    rows = connection.execute(*_select_units(*ids, *page_bounds(request), intervals=intervals, base=base))
    shared_count = side.present_count(intervals) - added[0]
    present_bytes = _present_bytes(*side.ids, intervals=intervals)
    shared_bytes = int(connection.execute(*present_bytes).scalar_one()) - added[1] if shared_count else 0
    return UnitDifference(
        page=Page(tuple(map(_unit_change, rows)), added[0] + removed[0]),
        count=Amounts(added[0], shared_count, removed[0]),
        size_bytes=Amounts(added[1], shared_bytes, removed[1]),
    )


def _contents(intervals: Intervals, unit_ids: Select[Any], change: Change) -> Select[Any]:
    content, only = _CONTENT[intervals.kind], unit_ids.subquery("only")
    return select(
        content.c.digest, content.c.media_type, content.c.size_bytes, literal(change.value).label("change")
    ).join(only, only.c[intervals.unit[0]] == content.c.id)


@built_once
def _present_bytes(repository_id: str, number: int, *, intervals: Intervals) -> Select[Any]:
    content, rows = _CONTENT[intervals.kind], intervals.table
    return (
        select(func.coalesce(func.sum(content.c.size_bytes), 0))
        .join(rows, rows.c[intervals.unit[0]] == content.c.id)
        .where(rows.c.repository_id == repository_id, covers(rows, number))
    )


def _unit_change(row: Row[Any]) -> UnitChange:
    return UnitChange(Change(row.change), Digest(row.digest), row.media_type, row.size_bytes)
