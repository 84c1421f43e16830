"""Copying: tags of a version of one repository become part of a new version of another one.

A tag comes with what its manifest takes along by the links of the source version, not by what a registry or another
version says. Nothing is fetched: content is stored once, and bytes that are missing at the source are missing here,
which holds the tags that lack them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select, tuple_, update

from registry_sync.db.batches import in_batches
from registry_sync.db.closures import Links, is_in_version, is_present
from registry_sync.db.intervals import BLOBS, INTERVALS, LINKS, MANIFESTS, TAGS, Intervals
from registry_sync.db.lacking_blobs import lost_bytes_of_derived
from registry_sync.db.leftovers import note_leftovers
from registry_sync.db.link_graph import reached, read_children
from registry_sync.db.new_version import add_version, lock_repository, next_number
from registry_sync.db.rollback import made_difference
from registry_sync.db.tables import manifest_blobs, repository_links, repository_tags, tags
from registry_sync.db.version_records import resolve_number
from registry_sync.domain.history import CopyRequest
from registry_sync.domain.origins import Origin, OriginKind
from registry_sync.domain.records import Hold, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.errors import InvalidReference, RecordNotFound

_SHOWN_NAMES = 5
#: A unit of any kind by its key, with what is said of it besides: a link's child and kind, nothing for others.
_Units = dict[tuple[Any, ...], tuple[Any, ...]]


@dataclass
class _Selection:
    """What is to be copied: units by the word of their table of intervals; the names of its tags."""

    names: set[TagName]
    units: dict[str, _Units] = field(default_factory=dict)


def copy_tags(
    connection: Connection, repository_id: str, request: CopyRequest, *, by: str | None, description: str | None
) -> int | None:
    """The number of the version made, None when the latest is so already. For errors see :meth:`VersionStore.copy`."""
    if repository_id == request.repository_id:
        raise InvalidReference(
            "a repository is not copied into itself; to have an older version again, roll back to it"
        )
    locked = {each: lock_repository(connection, each) for each in sorted((repository_id, request.repository_id))}
    source, target = locked[request.repository_id], locked[repository_id]
    number = resolve_number(connection, source.id, request.number)
    if number is None:
        raise RecordNotFound(f"repository {source.name!r} has no version yet")
    selection = _select(connection, source, number, request)
    new_number = next_number(target)
    for intervals in INTERVALS:
        present = _present(connection, intervals, target.id)
        wanted = selection.units[intervals.kind]
        going = _going(connection, intervals, present, selection, request.mode)
        _close(connection, intervals, target.id, going, new_number)
        coming = {key: said for key, said in wanted.items() if key not in present or key in going}
        _open(connection, intervals, target.id, coming, new_number)
    difference = made_difference(connection, target.id, new_number)
    if difference.is_empty:
        return None
    note_leftovers(connection, target.id)
    origin = Origin(OriginKind.COPY, source.id, number, by)
    holds = _lacking(connection, source, number, target, selection)
    return add_version(connection, target, difference, origin=origin, holds=holds, description=description)


def _select(connection: Connection, source: Row[Any], number: int, request: CopyRequest) -> _Selection:
    rows = connection.execute(
        select(tags.c.id, tags.c.name, tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_in_version(repository_tags, source.id, number))
    ).all()
    names = set(_selected_names(source.name, number, request, [TagName(row.name) for row in rows]))
    chosen = [row for row in rows if row.name in names]
    links = Links.of_version(source.id, number)
    manifest_ids = reached((row.manifest_id for row in chosen), read_children(connection, links))
    return _Selection(
        names,
        {
            TAGS.kind: {(row.id,): () for row in chosen},
            MANIFESTS.kind: {(manifest_id,): () for manifest_id in manifest_ids},
            BLOBS.kind: _blobs_of(connection, manifest_ids),
            LINKS.kind: _links_of(connection, manifest_ids, links),
        },
    )


def _lacking(
    connection: Connection, source: Row[Any], number: int, target: Row[Any], selection: _Selection
) -> list[Hold]:
    """Tags of the version that is being made whose bytes are not stored, as far as where they come from keeps bytes."""
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


def _links_of(connection: Connection, manifest_ids: Set[int], links: Links) -> _Units:
    columns = [repository_links.c[name] for name in (*LINKS.unit, *LINKS.said)]
    rows = connection.execute(select(*columns).where(links.condition))
    return _units(LINKS, (row for row in rows if row.parent_id in manifest_ids))


def _present(connection: Connection, intervals: Intervals, repository_id: str) -> _Units:
    columns = [intervals.table.c[name] for name in (*intervals.unit, *intervals.said)]
    return _units(intervals, connection.execute(select(*columns).where(is_present(intervals.table, repository_id))))


def _units(intervals: Intervals, rows: Iterable[Row[Any]]) -> _Units:
    size = len(intervals.unit)
    return {tuple(row[:size]): tuple(row[size:]) for row in rows}


def _going(
    connection: Connection, intervals: Intervals, present: _Units, selection: _Selection, mode: SyncMode
) -> set[tuple[Any, ...]]:
    """Keys of what leaves the target: for a mirror all that is not selected, else what the selection stands for."""
    wanted = selection.units[intervals.kind]
    if mode is SyncMode.MIRROR:
        return {key for key, said in present.items() if wanted.get(key) != said}
    if intervals is TAGS:
        return _moving(connection, present, selection)
    # A gap is filled by what the selection has; what the target has is not given up for a gap.
    return {key for key, said in present.items() if None in said and key in wanted and wanted[key] != said}


def _moving(
    connection: Connection, present: Mapping[tuple[Any, ...], Any], selection: _Selection
) -> set[tuple[Any, ...]]:
    """Tags of the target that have the name of a selected one and stand for another manifest."""
    wanted = selection.units[TAGS.kind]
    going: set[tuple[Any, ...]] = set()
    for batch in in_batches(sorted(key[0] for key in present if key not in wanted)):
        for row in connection.execute(select(tags.c.id, tags.c.name).where(tags.c.id.in_(batch))):
            if row.name in selection.names:
                going.add((row.id,))
    return going


def _close(
    connection: Connection, intervals: Intervals, repository_id: str, keys: Iterable[tuple[Any, ...]], number: int
) -> None:
    table = intervals.table
    columns = [table.c[name] for name in intervals.unit]
    for batch in in_batches(sorted(keys)):
        # One column is compared as such, which is planned better than a tuple of one.
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
