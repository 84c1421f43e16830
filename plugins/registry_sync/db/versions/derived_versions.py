"""Versions made from versions: a rollback restores an older version, a copy adds tags of another repository.

Blobs of the older version may have been reclaimed since. That does not prevent a rollback: a version is a set of
digests, independent of the bytes in the blob store. The missing blobs are counted, the tags that lack them are held
with that reason, and the next immediate sync of those tags fetches them. Refusing the rollback would keep bad tags in
place when they must be removed at once.

A copied tag includes what the links of the source version lead to below its manifest, whatever a registry or another
version says. Nothing is fetched: content is stored once, and blobs that are missing at the source are missing here, so
that the tags that lack them are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Insert, Row, Update, insert, select, tuple_, type_coerce, update

from registry_sync.db.content.closures import (
    LinkRows,
    is_in_version,
    is_present,
    lost_bytes_of_derived,
    reached,
    read_children,
    there_is_none,
)
from registry_sync.db.queries import built_once, in_batches
from registry_sync.db.runs.listings import record_rollback
from registry_sync.db.tables import (
    manifest_blobs,
    manifests,
    repository_links,
    repository_manifests,
    repository_tags,
    tags,
)
from registry_sync.db.versions.commit import add_version, lock_repository, next_number
from registry_sync.db.versions.membership import Difference
from registry_sync.db.versions.version_rows import (
    BLOBS,
    INTERVALS,
    LINKS,
    MANIFESTS,
    TAGS,
    UNITS,
    Intervals,
    count_changes,
    covers,
    record_leftovers,
    require_row,
    resolve_number,
)
from registry_sync.domain.records import Hold, SyncMode, VersionOrigin, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import CopyRequest, ManifestCopy
from registry_sync.errors import InvalidReference, RecordNotFound


def roll_back(
    connection: Connection, repository: Row[Any], number: int, *, by: str | None, description: str | None
) -> int | None:
    """The number of the new version, None when the latest holds the same; the caller has locked ``repository``.

    The cost is proportional to the difference. The older version's holds are not restored. Raises
    :class:`RecordNotFound`.
    """
    require_row(connection, repository.id, number)
    new_number = next_number(repository)
    for intervals in INTERVALS:
        connection.execute(*_close_absent(repository.id, number, new_number, intervals=intervals))
        connection.execute(*_open_missing(repository.id, number, new_number, intervals=intervals))
    difference = made_difference(connection, repository.id, new_number)
    if difference.is_empty:
        return None
    record_leftovers(connection, repository.id)
    record_rollback(connection, repository.id)
    origin = VersionOrigin(VersionOriginKind.ROLLBACK, repository.id, number, by)
    holds = lost_bytes_of_derived(connection, repository.id, repository.id, number)
    return add_version(connection, repository, difference, origin=origin, holds=holds, description=description)


def made_difference(connection: Connection, repository_id: str, number: int) -> Difference:
    """The units that version ``number``, the latest, adds and removes according to the intervals."""
    changes = {unit.kind: count_changes(connection, unit, repository_id, number) for unit in UNITS}
    return Difference(
        added={kind: added for kind, (added, _) in changes.items()},
        removed={kind: removed for kind, (_, removed) in changes.items()},
        has_other_links=any(count_changes(connection, LINKS, repository_id, number)),
    )


@built_once
def _close_absent(repository_id: str, number: int, new_number: int, *, intervals: Intervals) -> Update:
    """Ends the intervals of units that are present now and were not present in version ``number``."""
    table, then = intervals.table, intervals.table.alias("at_that_time")
    was_absent = there_is_none(intervals.is_same(then, table), covers(then, number))
    is_newer = (table.c.version_added > number) & was_absent
    return update(table).where(is_present(table, repository_id), is_newer).values(version_removed=new_number)


@built_once
def _open_missing(repository_id: str, number: int, new_number: int, *, intervals: Intervals) -> Insert:
    """Starts intervals for units that were present in version ``number`` and are not now."""
    then, now = intervals.table.alias("at_that_time"), intervals.table.alias("now")
    is_absent = there_is_none(intervals.is_same_unit(now, then), now.c.version_removed.is_(None))
    names = [*intervals.unit, *intervals.said]
    added = type_coerce(new_number, then.c.version_added.type)
    rows = select(then.c.repository_id, added, *(then.c[name] for name in names)).where(
        then.c.repository_id == repository_id,
        then.c.version_added <= number,
        then.c.version_removed > number,
        is_absent,
    )
    return insert(intervals.table).from_select(["repository_id", "version_added", *names], rows, include_defaults=False)


_SHOWN_NAMES = 5
#: A unit of any kind by its key, with its other columns: a link's child and kind, a tag's name.
_Units = dict[tuple[Any, ...], tuple[Any, ...]]


@dataclass
class _Selection:
    """The units to copy by the kind of their intervals, and the names of the tags."""

    names: set[TagName]
    units: dict[str, _Units] = field(default_factory=dict)


def copy_tags(
    connection: Connection, repository_id: str, request: CopyRequest, *, by: str | None, description: str | None
) -> int | None:
    """The number of the new version, None when nothing differs. For errors see :meth:`VersionStore.copy`."""
    source, number, target = _locked(connection, repository_id, request)
    selection = _select(connection, source, number, request)
    new_number = _merge(connection, target, selection, request.mode)
    if new_number is None:
        return None
    holds = _lacking(connection, source, number, target, selection)
    origin = VersionOrigin(VersionOriginKind.COPY, source.id, number, by)
    return _added(connection, target, new_number, origin=origin, holds=holds, description=description)


def copy_manifests(connection: Connection, repository_id: str, request: ManifestCopy, *, by: str | None) -> int | None:
    """The number of the new version with manifests of another repository, None when nothing differs.

    For errors see :meth:`VersionStore.copy_manifests`.
    """
    source, number, target = _locked(connection, repository_id, request)
    selection = _with_below(connection, source, number, _selected_manifests(connection, source, number, request))
    new_number = _merge(connection, target, selection, SyncMode.ADDITIVE)
    if new_number is None:
        return None
    holds = _lacking(connection, source, number, target, selection)
    origin = VersionOrigin(VersionOriginKind.COPY, source.id, number, by)
    return _added(connection, target, new_number, origin=origin, holds=holds)


def _locked(
    connection: Connection, repository_id: str, request: CopyRequest | ManifestCopy
) -> tuple[Row[Any], int, Row[Any]]:
    """The source, the number of its version, and the target; both are locked."""
    if repository_id == request.repository_id:
        raise InvalidReference(
            "a repository is not copied into itself; to have an older version again, roll back to it"
        )
    locked = {each: lock_repository(connection, each) for each in sorted((repository_id, request.repository_id))}
    source, target = locked[request.repository_id], locked[repository_id]
    number = resolve_number(connection, source.id, request.number)
    if number is None:
        raise RecordNotFound(f"repository {source.name!r} has no version yet")
    if request.number is not None:
        require_row(connection, source.id, number)
    return source, number, target


def _merge(connection: Connection, target: Row[Any], selection: _Selection, mode: SyncMode) -> int | None:
    """Changes the intervals of the target; the number of the version to add, None when nothing differs."""
    new_number = next_number(target)
    for intervals in INTERVALS:
        present = _present(connection, intervals, target.id)
        wanted = selection.units[intervals.kind]
        to_remove = _to_remove(intervals, present, selection, mode)
        _close(connection, intervals, target.id, to_remove, new_number)
        to_add = {key: said for key, said in wanted.items() if key not in present or key in to_remove}
        _open(connection, intervals, target.id, to_add, new_number)
    return None if made_difference(connection, target.id, new_number).is_empty else new_number


def _added(
    connection: Connection,
    target: Row[Any],
    number: int,
    *,
    origin: VersionOrigin,
    holds: list[Hold],
    description: str | None = None,
) -> int:
    difference = made_difference(connection, target.id, number)
    record_leftovers(connection, target.id)
    return add_version(connection, target, difference, origin=origin, holds=holds, description=description)


def _selected_manifests(connection: Connection, source: Row[Any], number: int, request: ManifestCopy) -> list[int]:
    statement = (
        select(manifests.c.id, manifests.c.digest)
        .join(repository_manifests, repository_manifests.c.manifest_id == manifests.c.id)
        .where(is_in_version(repository_manifests, source.id, number))
    )
    if request.media_types is not None:
        statement = statement.where(manifests.c.media_type.in_(request.media_types))
    if request.digests is not None:
        statement = statement.where(manifests.c.digest.in_(request.digests))
    rows = connection.execute(statement).all()
    missing = sorted(set(request.digests or ()) - {row.digest for row in rows})
    if missing or not rows:
        what = f"manifest {missing[0]}" if missing else "such manifest"
        raise RecordNotFound(f"version {number} of repository {source.name!r} has no {what}")
    return [row.id for row in rows]


def _select(connection: Connection, source: Row[Any], number: int, request: CopyRequest) -> _Selection:
    rows = connection.execute(
        select(tags.c.id, tags.c.name, tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_in_version(repository_tags, source.id, number))
    ).all()
    names = set(_selected_names(source.name, number, request, [TagName(row.name) for row in rows]))
    selected = [row for row in rows if row.name in names]
    below = _with_below(connection, source, number, [row.manifest_id for row in selected])
    return _Selection(names, {**below.units, TAGS.kind: {(row.id,): (row.name,) for row in selected}})


def _with_below(connection: Connection, source: Row[Any], number: int, roots: Iterable[int]) -> _Selection:
    """Manifests with all that the version includes below them, and no tag."""
    links = LinkRows.of_version(source.id, number)
    manifest_ids = reached(roots, read_children(connection, links))
    return _Selection(
        set(),
        {
            TAGS.kind: {},
            MANIFESTS.kind: {(manifest_id,): () for manifest_id in manifest_ids},
            BLOBS.kind: _blobs_of(connection, manifest_ids),
            LINKS.kind: _links_of(connection, manifest_ids, links),
        },
    )


def _lacking(
    connection: Connection, source: Row[Any], number: int, target: Row[Any], selection: _Selection
) -> list[Hold]:
    """Holds for tags of the new version whose bytes are missing, where their origin is one that keeps bytes."""
    copied = lost_bytes_of_derived(connection, target.id, source.id, number)
    holds = [hold for hold in copied if hold.tag in selection.names]
    if target.latest_number is not None:
        kept = lost_bytes_of_derived(connection, target.id, target.id, target.latest_number)
        holds += [hold for hold in kept if hold.tag not in selection.names]
    return holds


def _selected_names(repository: str, number: int, request: CopyRequest, names: Sequence[TagName]) -> list[TagName]:
    where = f"version {number} of repository {repository!r}"
    missing = sorted(set(request.tags.exact_names) - set(names))
    if missing:
        more = f" and {len(missing) - _SHOWN_NAMES} more" if len(missing) > _SHOWN_NAMES else ""
        raise RecordNotFound(f"{where} has no tag {', '.join(map(repr, missing[:_SHOWN_NAMES]))}{more}")
    selected = request.tags.select(names)
    if not selected:
        raise RecordNotFound(f"no tag of {where} is selected")
    return selected


def _blobs_of(connection: Connection, manifest_ids: Iterable[int]) -> _Units:
    found: _Units = {}
    for batch in in_batches(sorted(manifest_ids)):
        statement = select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id.in_(batch)).distinct()
        found.update({(blob_id,): () for blob_id in connection.execute(statement).scalars()})
    return found


def _links_of(connection: Connection, manifest_ids: Set[int], links: LinkRows) -> _Units:
    columns = [repository_links.c[name] for name in (*LINKS.unit, *LINKS.said)]
    rows = connection.execute(select(*columns).where(links.condition))
    return _units(LINKS, (row for row in rows if row.parent_id in manifest_ids))


def _present(connection: Connection, intervals: Intervals, repository_id: str) -> _Units:
    columns = [intervals.table.c[name] for name in (*intervals.unit, *intervals.said)]
    return _units(intervals, connection.execute(select(*columns).where(is_present(intervals.table, repository_id))))


def _units(intervals: Intervals, rows: Iterable[Row[Any]]) -> _Units:
    size = len(intervals.unit)
    return {tuple(row[:size]): tuple(row[size:]) for row in rows}


def _to_remove(intervals: Intervals, present: _Units, selection: _Selection, mode: SyncMode) -> set[tuple[Any, ...]]:
    """Keys to remove from the target: for a mirror all that are not selected, else those that the selection moves."""
    wanted = selection.units[intervals.kind]
    if mode is SyncMode.MIRROR:
        return {key for key, said in present.items() if wanted.get(key) != said}
    if intervals is TAGS:
        return {key for key, (name,) in present.items() if key not in wanted and name in selection.names}
    # A gap is filled from the selection; content of the target is not replaced by a gap.
    return {key for key, said in present.items() if None in said and key in wanted and wanted[key] != said}


def _close(
    connection: Connection, intervals: Intervals, repository_id: str, keys: Iterable[tuple[Any, ...]], number: int
) -> None:
    table = intervals.table
    columns = [table.c[name] for name in intervals.unit]
    for batch in in_batches(sorted(keys)):
        # A single column is compared directly, which is planned better than a tuple of one.
        is_one = tuple_(*columns).in_(batch) if len(columns) > 1 else columns[0].in_([key[0] for key in batch])
        statement = update(table).where(is_present(table, repository_id), is_one)
        connection.execute(statement.values(version_removed=number))


def _open(connection: Connection, intervals: Intervals, repository_id: str, units: _Units, number: int) -> None:
    names = (*intervals.unit, *intervals.said)
    rows = (
        {"repository_id": repository_id, "version_added": number, **dict(zip(names, (*key, *said), strict=True))}
        for key, said in sorted(units.items(), key=lambda item: item[0])
    )
    for batch in in_batches(rows):
        connection.execute(insert(intervals.table), batch)
