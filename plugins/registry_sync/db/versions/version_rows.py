"""Rows of versions as values, their removal, and the tables of intervals; within the caller's transaction.

:data:`INTERVALS` lists all four tables: a version's tags, manifests and blobs, and its links. Every operation on a
whole version (rollback, deletion, retention) goes through it, so that no table is skipped.

Removing a version removes only its record. Content that other versions hold stays, and bytes stay in the blob store
until garbage collection. The content of the other versions never changes, and numbers are never reused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, select, true, tuple_, update

from registry_sync.db.content.closures import LinkRows, is_in_latest, is_present, lacks_blob, reached, read_children
from registry_sync.db.queries import built_once, in_batches
from registry_sync.db.runs.listings import latest_number_of
from registry_sync.db.runs.unchanged_tags import record_each
from registry_sync.db.serving_tables import distributions
from registry_sync.db.tables import (
    blobs,
    manifests,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import ContentSummary, Gap, Hold, RepositoryVersion, VersionOrigin, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import DerivedVersion
from registry_sync.errors import OnlyVersion, RecordNotFound, VersionServed


def record_leftovers(connection: Connection, repository_id: str) -> None:
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


TAGS = Intervals("tags", repository_tags, ("tag_id",), ("name",))
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
    started, ended = (
        connection.execute(*_count_intervals(repository_id, number, intervals=intervals, column=column)).scalar_one()
        for column in ("version_added", "version_removed")
    )
    return started, ended


@built_once
def _count_intervals(repository_id: str, number: int, *, intervals: Intervals, column: str) -> Select[int]:
    table = intervals.table
    is_counted = (table.c.repository_id == repository_id) & (table.c[column] == number)
    return select(func.count()).select_from(table).where(is_counted)


def latest_number(connection: Connection, repository_id: str) -> int | None:
    """The number of the latest version, None before the first. Raises :class:`RecordNotFound`."""
    row = connection.execute(*latest_number_of(repository_id)).one_or_none()
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
    row = connection.execute(*select_version(repository_id, number)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no version {number} of repository {repository_id[:255]!r}")
    return row


def require_version(connection: Connection, repository_id: str, number: int) -> RepositoryVersion:
    """The version with its holds. Raises :class:`RecordNotFound`."""
    return read_versions(connection, [require_row(connection, repository_id, number)])[0]


@built_once
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
    for batch in in_batches(repository_ids):
        for row in connection.execute(*_missing_entries(batch)):
            gap = Gap(Digest(row.digest), Digest(row.child_digest))
            found[row.repository_id].append((gap, row.version_added, row.version_removed))
    return found


@built_once
def _missing_entries(repository_ids: Sequence[str]) -> Select[Any]:
    links = repository_links.c
    return (
        select(links.repository_id, manifests.c.digest, links.child_digest, links.version_added)
        .add_columns(links.version_removed)
        .join(manifests, manifests.c.id == links.parent_id)
        .where(links.repository_id.in_(repository_ids), links.child_id.is_(None))
        .order_by(manifests.c.digest, links.child_digest)
    )


def derived_version(connection: Connection, repository_id: str, number: int | None) -> DerivedVersion:
    """The result of a rollback or copy, with the count and size of the missing blobs of the latest version."""
    count, size_bytes = 0, 0
    if lacks_blob(connection, repository_id):
        count, size_bytes = connection.execute(*_sum_missing(repository_id)).one()
    version = None if number is None else require_version(connection, repository_id, number)
    return DerivedVersion(version, count, int(size_bytes))


@built_once
def _sum_missing(repository_id: str) -> Select[Any]:
    """Count and size of the blobs of the latest version that are not stored but are to be."""
    return select(func.count(), func.coalesce(func.sum(blobs.c.size_bytes), 0)).where(
        blobs.c.stored_at.is_(None), ~blobs.c.is_foreign, is_in_latest("blobs", blobs.c.id, repository_id)
    )


def _summary(row: Row[Any]) -> ContentSummary:
    kinds = {"docker.blob": "blobs", "docker.manifest": "manifests", "docker.tag": "tags"}
    changes = {
        change: {name: getattr(row, f"{kind}_{change}") for name, kind in kinds.items()}
        for change in ("added", "present", "removed")
    }
    return ContentSummary(**changes)


_versions = repository_versions.c


def keep_newest(
    connection: Connection, repository_id: str, retain_count: int | None, committing: str | None = None
) -> None:
    """Removes all but the newest ``retain_count`` versions; None keeps all, and the latest is always kept.

    ``committing`` is the id of the run whose version has just been made, which needs its base version no more.

    Versions that distributions serve are kept, too, and do not count among the newest.
    The records of the kept versions do not change, except that the oldest of them has no base any more. Safe to repeat.
    """
    if retain_count is None:
        return
    kept = select(_versions.number).where(_versions.repository_id == repository_id).order_by(_versions.number.desc())
    numbers = connection.execute(kept.limit(max(retain_count, 1))).scalars().all()
    if not numbers:
        return
    served = sorted(number for number in _served(connection, repository_id) if number < numbers[-1])
    _forget_before(connection, repository_id, served[0] if served else numbers[-1], committing)
    if served:
        between = select(_versions.number).where(
            _versions.repository_id == repository_id, _versions.number < numbers[-1], _versions.number.not_in(served)
        )
        for number in connection.execute(between.order_by(_versions.number)).scalars().all():
            neighbours = _neighbours(connection, repository_id, number)
            _remove(connection, repository_id, number, *neighbours, committing=committing)


def delete_version(connection: Connection, repository: Row[Any], number: int) -> None:
    """Removes one version of ``repository``, whose row the caller has locked.

    Its additions and removals become those of the next version; after the oldest is removed, the next one stays as it
    is and has no base. After the latest is removed, the previous one is the latest again.

    Raises :class:`RecordNotFound`, :class:`OnlyVersion` for the last that remains, and :class:`VersionServed`.
    """
    require_row(connection, repository.id, number)
    before, after = _neighbours(connection, repository.id, number)
    if before is None and after is None:
        raise OnlyVersion(
            f"version {number} is the only one of repository {repository.name!r}; a repository with content keeps at "
            "least one version; to remove the last one, delete the repository"
        )
    if served := _served(connection, repository.id).get(number):
        raise VersionServed(
            f"version {number} of repository {repository.name!r} is what the distribution {served!r} serves; "
            "point that at another version first"
        )
    _remove(connection, repository.id, number, before, after)


def _served(connection: Connection, repository_id: str) -> dict[int, str]:
    """Numbers of the versions that distributions are set to serve, with the name of one that does."""
    columns = distributions.c
    rows = connection.execute(
        select(columns.version_number, columns.name).where(
            columns.repository_id == repository_id, columns.version_number.is_not(None)
        )
    )
    return {row.version_number: row.name for row in rows}


def _neighbours(connection: Connection, repository_id: str, number: int) -> tuple[int | None, int | None]:
    """Numbers of the versions just before and just after ``number``; None where there is none."""
    in_repository = _versions.repository_id == repository_id
    before = select(func.max(_versions.number)).where(in_repository, _versions.number < number)
    after = select(func.min(_versions.number)).where(in_repository, _versions.number > number)
    return connection.execute(before).scalar_one(), connection.execute(after).scalar_one()


def _remove(
    connection: Connection,
    repository_id: str,
    number: int,
    before: int | None,
    after: int | None,
    *,
    committing: str | None = None,
) -> None:
    """Removes a version between its neighbours, of which there is at least one."""
    if before is None:
        assert after is not None  # noqa: S101  # the caller's condition
        _forget_before(connection, repository_id, after, committing)
        return
    _record_listings(connection, repository_id, sync_runs.c.base_number == number, committing)
    connection.execute(delete(repository_versions).where(_is_version(repository_id, number)))
    if after is None:
        _undo(connection, repository_id, number, before)
    else:
        _squash(connection, repository_id, number, before, after)


def _is_version(repository_id: str, number: int) -> Any:
    return and_(_versions.repository_id == repository_id, _versions.number == number)


def _record_listings(
    connection: Connection, repository_id: str, of_removed: ColumnElement[bool], committing: str | None
) -> None:
    """Records in full the listings of running syncs that are a difference to a version that is about to be removed."""
    is_other = sync_runs.c.id != committing if committing is not None else true()
    record_each(connection, sync_runs.c.repository_id == repository_id, of_removed, is_other)


def _forget_before(connection: Connection, repository_id: str, oldest: int, committing: str | None = None) -> None:
    """Removes versions before ``oldest``.

    Intervals that ended before it are deleted; those that end with it stay, because they are its removals.
    """
    _record_listings(connection, repository_id, sync_runs.c.base_number < oldest, committing)
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
    record_leftovers(connection, repository_id)


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
