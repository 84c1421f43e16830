"""Rows of versions as values, and the tables of intervals under one interface; within the caller's transaction.

:data:`INTERVALS` lists all four tables: a version's tags, manifests and blobs, and its links. Every operation on a
whole version (rollback, deletion, retention) goes through it, so that no table is skipped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select, tuple_, update

from registry_sync.db.content.closures import LinkRows, is_in_latest, is_present, reached, read_children
from registry_sync.db.queries import in_batches
from registry_sync.db.tables import (
    blobs,
    manifests,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    tags,
    version_holds,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import ContentSummary, Gap, Hold, RepositoryVersion, VersionOrigin, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import DerivedVersion
from registry_sync.errors import RecordNotFound


def note_leftovers(connection: Connection, repository_id: str) -> None:
    """Records whether the latest version contains manifests that no tag reaches. Reads the whole version."""
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
    """A table of intervals. ``unit`` names the columns that identify a unit, ``said`` the columns that describe it.

    Two intervals of one unit with different descriptions are different content, though only one of them may be open.
    """

    kind: str
    table: Any
    unit: tuple[str, ...]
    said: tuple[str, ...] = ()

    def is_same_unit(self, one: Any, other: Any) -> ColumnElement[bool]:
        """Whether rows of two aliases of the table are intervals of one unit in one repository."""
        return and_(*(one.c[name] == other.c[name] for name in ("repository_id", *self.unit)))

    def is_same(self, one: Any, other: Any) -> ColumnElement[bool]:
        """As :meth:`is_same_unit`, with the same description."""
        return and_(one.c.repository_id == other.c.repository_id, self.is_alike(one, other))

    def is_alike(self, one: Any, other: Any) -> ColumnElement[bool]:
        """Whether rows of two aliases of the table describe one unit alike, in any repositories."""
        units = (one.c[name] == other.c[name] for name in self.unit)
        return and_(*units, *(one.c[name].is_not_distinct_from(other.c[name]) for name in self.said))


TAGS = Intervals("tags", repository_tags, ("tag_id",))
MANIFESTS = Intervals("manifests", repository_manifests, ("manifest_id",))
BLOBS = Intervals("blobs", repository_blobs, ("blob_id",))
LINKS = Intervals("links", repository_links, ("parent_id", "child_digest"), ("child_id", "kind"))
#: The units that summaries count.
UNITS = (TAGS, MANIFESTS, BLOBS)
INTERVALS = (*UNITS, LINKS)


def covers(rows: Any, number: int) -> ColumnElement[bool]:
    """Whether the interval includes version ``number``; the caller restricts the repository."""
    return and_(
        rows.c.version_added <= number,
        rows.c.version_removed.is_(None) | (rows.c.version_removed > number),
    )


def count_changes(connection: Connection, intervals: Intervals, repository_id: str, number: int) -> tuple[int, int]:
    """How many intervals start with version ``number``, and how many end with it."""
    table = intervals.table
    started, ended = (
        connection.execute(
            select(func.count()).select_from(table).where(table.c.repository_id == repository_id, column == number)
        ).scalar_one()
        for column in (table.c.version_added, table.c.version_removed)
    )
    return started, ended


def latest_number(connection: Connection, repository_id: str) -> int | None:
    """The number of the latest version, None before the first. Raises :class:`RecordNotFound`."""
    row = connection.execute(
        select(repositories.c.latest_number).where(repositories.c.id == repository_id)
    ).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
    number: int | None = row.latest_number
    return number


def resolve_number(connection: Connection, repository_id: str, number: int | None) -> int | None:
    """``number``, which exists, or for None the latest; None before the first. Raises :class:`RecordNotFound`."""
    if number is None:
        return latest_number(connection, repository_id)
    require_row(connection, repository_id, number)
    return number


def require_row(connection: Connection, repository_id: str, number: int) -> Row[Any]:
    """The row of a version. Raises :class:`RecordNotFound`."""
    row = connection.execute(select_version(repository_id, number)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no version {number} of repository {repository_id[:255]!r}")
    return row


def require_version(connection: Connection, repository_id: str, number: int) -> RepositoryVersion:
    """The version with its holds. Raises :class:`RecordNotFound`."""
    return read_versions(connection, [require_row(connection, repository_id, number)])[0]


def select_version(repository_id: str, number: int) -> Select[Any]:
    """A SELECT of the version's row."""
    is_wanted = (repository_versions.c.repository_id == repository_id) & (repository_versions.c.number == number)
    return select(repository_versions).where(is_wanted)


def read_versions(connection: Connection, rows: Sequence[Row[Any]]) -> list[RepositoryVersion]:
    """Rows of versions as values, with the holds and gaps of all of them."""
    holds: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    identity = tuple_(version_holds.c.repository_id, version_holds.c.number)
    for batch in in_batches([(row.repository_id, row.number) for row in rows]):
        statement = select(version_holds).where(identity.in_(batch)).order_by(version_holds.c.tag)
        for hold in connection.execute(statement):
            kept = None if hold.digest is None else Digest(hold.digest)
            holds[hold.repository_id, hold.number].append(Hold(TagName(hold.tag), kept, hold.reason))
    gaps = _gaps(connection, sorted({row.repository_id for row in rows}))
    return [
        RepositoryVersion(
            repository_id=row.repository_id,
            number=row.number,
            created_at=row.created_at,
            summary=_summary(row),
            base_number=row.base_number,
            holds=tuple(holds[row.repository_id, row.number]),
            gaps=tuple(
                gap
                for gap, added, removed in gaps[row.repository_id]
                if added <= row.number and (removed is None or row.number < removed)
            ),
            description=row.description,
            labels=row.labels,
            origin=VersionOrigin(
                VersionOriginKind(row.origin), row.origin_repository_id, row.origin_number, row.created_by
            ),
            referrers_problem=row.referrers_problem,
        )
        for row in rows
    ]


def _gaps(connection: Connection, repository_ids: Sequence[str]) -> Mapping[str, Sequence[tuple[Gap, int, int | None]]]:
    """Every gap of these repositories, with the versions it was added and removed in; there are few."""
    found: dict[str, list[tuple[Gap, int, int | None]]] = defaultdict(list)
    links = repository_links.c
    for batch in in_batches(repository_ids):
        statement = (
            select(links.repository_id, manifests.c.digest, links.child_digest, links.version_added)
            .add_columns(links.version_removed)
            .join(manifests, manifests.c.id == links.parent_id)
            .where(links.repository_id.in_(batch), links.child_id.is_(None))
            .order_by(manifests.c.digest, links.child_digest)
        )
        for row in connection.execute(statement):
            gap = Gap(Digest(row.digest), Digest(row.child_digest))
            found[row.repository_id].append((gap, row.version_added, row.version_removed))
    return found


def derived_version(connection: Connection, repository_id: str, number: int | None) -> DerivedVersion:
    """The result of a rollback or copy, with the count and size of the missing blobs of the latest version."""
    is_member = is_in_latest("blobs", blobs.c.id, repository_id)
    missing = select(func.count(), func.coalesce(func.sum(blobs.c.size_bytes), 0)).where(
        blobs.c.stored_at.is_(None), ~blobs.c.is_foreign, is_member
    )
    count, size_bytes = connection.execute(missing).one()
    version = None if number is None else require_version(connection, repository_id, number)
    return DerivedVersion(version, count, int(size_bytes))


def _summary(row: Row[Any]) -> ContentSummary:
    kinds = {"docker.blob": "blobs", "docker.manifest": "manifests", "docker.tag": "tags"}
    changes = {
        change: {name: getattr(row, f"{kind}_{change}") for name, kind in kinds.items()}
        for change in ("added", "present", "removed")
    }
    return ContentSummary(**changes)
