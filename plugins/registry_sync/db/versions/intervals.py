"""The four tables of intervals seen as one: what a version holds of tags, manifests and blobs, and its links.

Whatever changes one of them as a whole (rollback, deletion, retention) goes through :data:`INTERVALS`, so that none
is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from registry_sync.db.content.closures import LinkRows, is_present, reached, read_children
from registry_sync.db.tables import (
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    tags,
)


def note_leftovers(connection: Connection, repository_id: str) -> None:
    """Looks through the latest version, as a whole, and notes it with the repository."""
    tagged = (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, repository_id))
    )
    present = select(repository_manifests.c.manifest_id).where(is_present(repository_manifests, repository_id))
    children = read_children(connection, LinkRows.of_latest(repository_id))
    needed = reached(connection.execute(tagged).scalars(), children)
    has_leftovers = any(manifest_id not in needed for manifest_id in connection.execute(present).scalars())
    connection.execute(
        update(repositories).where(repositories.c.id == repository_id).values(has_leftovers=has_leftovers)
    )


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
    started, ended = (
        connection.execute(
            select(func.count()).select_from(table).where(table.c.repository_id == repository_id, column == number)
        ).scalar_one()
        for column in (table.c.version_added, table.c.version_removed)
    )
    return started, ended
