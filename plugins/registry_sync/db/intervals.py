"""The four tables of intervals seen as one: what a version holds of tags, manifests and blobs, and its links.

Whatever changes one of them as a whole (rollback, deletion, retention) goes through :data:`INTERVALS`, so that none
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from registry_sync.db.tables import repository_blobs, repository_links, repository_manifests, repository_tags


@dataclass(frozen=True)
class Intervals:
    """A table of intervals. ``unit`` names the columns that a unit is told by, ``said`` what is said of it besides.

    Two intervals of a unit of which different things are said are two contents, though only one may be open.
    """

    kind: str
    table: Any
    unit: tuple[str, ...]
    said: tuple[str, ...] = ()

    def is_same_unit(self, one: Any, other: Any) -> ColumnElement[bool]:
        """Whether rows of two aliases of the table are intervals of one unit in one repository."""
        return and_(*(one.c[name] == other.c[name] for name in ("repository_id", *self.unit)))

    def is_same(self, one: Any, other: Any) -> ColumnElement[bool]:
        """As :meth:`is_same_unit`, and the same is said of it."""
        return and_(one.c.repository_id == other.c.repository_id, self.is_alike(one, other))

    def is_alike(self, one: Any, other: Any) -> ColumnElement[bool]:
        """Whether rows of two aliases of the table say the same of one unit, in whichever repositories."""
        units = (one.c[name] == other.c[name] for name in self.unit)
        return and_(*units, *(one.c[name].is_not_distinct_from(other.c[name]) for name in self.said))


TAGS = Intervals("tags", repository_tags, ("tag_id",))
MANIFESTS = Intervals("manifests", repository_manifests, ("manifest_id",))
BLOBS = Intervals("blobs", repository_blobs, ("blob_id",))
LINKS = Intervals("links", repository_links, ("parent_id", "child_digest"), ("child_id", "kind"))
#: What summaries count.
UNITS = (TAGS, MANIFESTS, BLOBS)
INTERVALS = (*UNITS, LINKS)


def covers(rows: Any, number: int) -> ColumnElement[bool]:
    """Whether the interval includes version ``number``, whose repository is the caller's matter."""
    return and_(
        rows.c.version_added <= number,
        rows.c.version_removed.is_(None) | (rows.c.version_removed > number),
    )


def count_changes(connection: Connection, intervals: Intervals, repository_id: str, number: int) -> tuple[int, int]:
    """How many intervals begin with version ``number``, and how many end with it."""
    table = intervals.table
    begun, ended = (
        connection.execute(
            select(func.count()).select_from(table).where(table.c.repository_id == repository_id, column == number)
        ).scalar_one()
        for column in (table.c.version_added, table.c.version_removed)
    )
    return begun, ended
