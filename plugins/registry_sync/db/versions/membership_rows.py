"""The statements by which a run is applied to the intervals of a repository, each built once per process.

:mod:`registry_sync.db.versions.membership` says in which order, and why the steps are what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Insert,
    Select,
    Subquery,
    Table,
    Update,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    true,
    type_coerce,
    update,
)

from registry_sync.db.content.closures import (
    LinkRows,
    closure_of,
    is_in_latest,
    is_present,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.queries import built_once, insert_or_keep_on
from registry_sync.db.tables import (
    manifest_blobs,
    manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_links,
    run_manifests,
    run_tags,
    tags,
)
from registry_sync.domain.runs import TagState

_WANTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value)

# -- tags ---------------------------------------------------------------------------------------------------------


@built_once
def names_of_gone_tags(repository_id: str, run_id: str, *, is_difference: bool) -> Select[Any]:
    """Names of present tags that a mirror no longer finds upstream, in order."""
    if is_difference:
        row = _row_of_present(repository_id, run_id)
        is_gone = row.c.state.not_in([*_WANTED, TagState.HELD.value])
        return select(row.c.name).where(is_gone, row.c.tag_id.is_not(None)).order_by(row.c.name)
    listed = (run_tags.c.sync_run_id == run_id) & (run_tags.c.name == tags.c.name)
    return (
        select(tags.c.name)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(
            is_present(repository_tags, repository_id),
            there_is_none(listed, run_tags.c.state.in_([*_WANTED, TagState.HELD.value])),
        )
        .order_by(tags.c.name)
    )


def _changed_tags(repository_id: str, run_id: str) -> Select[Any]:
    """Tags that the run read and that are new or moved: ``name``, ``digest``, ``manifest_id``."""
    is_absent = there_is_none(
        tags.c.name == run_tags.c.name,
        tags.c.manifest_id == manifests.c.id,
        is_in_latest("tags", tags.c.id, repository_id),
    )
    return (
        select(run_tags.c.name, run_tags.c.digest, manifests.c.id.label("manifest_id"))
        .join(manifests, manifests.c.digest == run_tags.c.digest)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.RESOLVED.value, is_absent)
    )


@built_once
def names_of_changed_tags(repository_id: str, run_id: str) -> Select[Any]:
    """Names of tags that the run read and that are new or moved."""
    return select(_changed_tags(repository_id, run_id).subquery("changed").c.name)


def _row_of_present(repository_id: str, run_id: str) -> Subquery:
    """The rows of the run's tags, each with the ``tag_id`` of the present tag of that name, looked up for each."""
    present = repository_tags.c
    tag_id = select(present.tag_id).where(is_present(repository_tags, repository_id), present.name == run_tags.c.name)
    columns = (run_tags.c.name, run_tags.c.state, run_tags.c.digest)
    rows = select(*columns, tag_id.limit(1).scalar_subquery().label("tag_id"))
    return rows.where(run_tags.c.sync_run_id == run_id).subquery("row_of_present")


def _removed_tags(repository_id: str, run_id: str, *, is_mirror: bool, is_difference: bool) -> Select[Any]:
    """Present tags that moved, and those that a mirror no longer finds upstream: ``tag_id``, ``manifest_id``."""
    if is_difference:
        row = _row_of_present(repository_id, run_id)
        is_removed = row.c.state.in_(_WANTED) & row.c.digest.is_distinct_from(manifests.c.digest)
        if is_mirror:
            is_removed |= row.c.state.not_in([*_WANTED, TagState.HELD.value])
        return (
            select(row.c.tag_id, tags.c.manifest_id)
            .join(tags, tags.c.id == row.c.tag_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
            .where(is_removed)
        )
    listed = (run_tags.c.sync_run_id == run_id) & (run_tags.c.name == tags.c.name)
    is_wanted, is_same = run_tags.c.state.in_(_WANTED), run_tags.c.digest == manifests.c.digest
    if is_mirror:
        is_held = run_tags.c.state == TagState.HELD.value
        condition = there_is_none(listed, or_(is_held, and_(is_wanted, is_same)))
    else:
        condition = not_(there_is_none(listed, is_wanted, ~is_same))
    return (
        select(repository_tags.c.tag_id, tags.c.manifest_id)
        .join(tags, tags.c.id == repository_tags.c.tag_id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(is_present(repository_tags, repository_id), condition)
    )


#: As :func:`_removed_tags`.
tags_to_remove = built_once(_removed_tags)


@built_once
def names_of_tags_to_remove(repository_id: str, run_id: str, *, is_mirror: bool, is_difference: bool) -> Select[Any]:
    """Names of the tags of :func:`tags_to_remove`."""
    removed = _removed_tags(repository_id, run_id, is_mirror=is_mirror, is_difference=is_difference)
    to_remove = removed.subquery("to_remove")
    return select(tags.c.name).join(to_remove, to_remove.c.tag_id == tags.c.id)


@built_once
def insert_units(repository_id: str, run_id: str, now: datetime, *, dialect: str) -> Insert:
    """The units of changed tags, which other repositories may have already."""
    changed = _changed_tags(repository_id, run_id).subquery("changed")
    rows = select(changed.c.name, changed.c.manifest_id, type_coerce(now, tags.c.created_at.type))
    names = ["name", "manifest_id", "created_at"]
    return insert_or_keep_on(dialect, tags).from_select(names, rows.order_by(changed.c.name, changed.c.digest))


@built_once
def insert_tags(repository_id: str, run_id: str, number: int, *, dialect: str) -> Insert:
    """Opens the intervals of changed tags."""
    changed = _changed_tags(repository_id, run_id).subquery("changed")
    units = select(tags.c.id, tags.c.name).join(
        changed, and_(changed.c.name == tags.c.name, changed.c.manifest_id == tags.c.manifest_id)
    )
    return _opening(repository_tags, units, repository_id, number, dialect)


# -- links --------------------------------------------------------------------------------------------------------


@built_once
def outdated_links(repository_id: str, run_id: str, *, is_mirror: bool) -> Select[Any]:
    """Links that manifests read by the run no longer have; for an additive run only gaps that are filled now."""
    included, present = _included(run_id), repository_links.c
    is_same = and_(
        run_links.c.sync_run_id == run_id,
        run_links.c.parent_id == present.parent_id,
        run_links.c.child_digest == present.child_digest,
    )
    is_gap, has_gap = present.child_id.is_(None), run_links.c.child_id.is_(None)
    if is_mirror:
        condition = there_is_none(is_same, is_gap == has_gap)
    else:
        condition = is_gap & not_(there_is_none(is_same, ~has_gap))
    return (
        select(present.parent_id, present.child_digest, present.child_id)
        .join(included, included.c.manifest_id == present.parent_id)
        .join(run_manifests, run_manifests.c.manifest_id == present.parent_id)
        .where(_is_found_present(repository_links, repository_id))
        .where(run_manifests.c.sync_run_id == run_id, condition)
    )


@built_once
def close_link(repository_id: str, number: int) -> Update:
    """Ends the link from ``parent`` to ``child`` with the previous version."""
    return (
        update(repository_links)
        .where(
            is_present(repository_links, repository_id),
            repository_links.c.parent_id == bindparam("parent"),
            repository_links.c.child_digest == bindparam("child"),
        )
        .values(version_removed=number)
    )


@built_once
def insert_links(repository_id: str, run_id: str, number: int, *, dialect: str) -> Insert:
    """Starts the links of the run."""
    included = _included(run_id)
    columns = ("parent_id", "child_digest", "child_id", "kind")
    rows = (
        select(*_opened(repository_links, repository_id, number), *(run_links.c[name] for name in columns))
        .join(included, included.c.manifest_id == run_links.c.parent_id)
        .where(run_links.c.sync_run_id == run_id)
    )
    names = ["repository_id", "version_added", *columns]
    return insert_or_keep_on(dialect, repository_links).from_select(names, rows)


def _included(run_id: str) -> CTE:
    """Ids of the manifests that the run includes in the version."""
    return closure_of(tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id), name="included")


# -- manifests and blobs ------------------------------------------------------------------------------------------


@built_once
def insert_manifests(repository_id: str, number: int, *, dialect: str) -> Insert:
    """All below the tags and links that are new in the version."""
    tagged = (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(*_is_added(repository_tags, repository_id, number))
    )
    linked = select(repository_links.c.child_id).where(
        *_is_of_version(repository_links, "version_added", repository_id, number),
        repository_links.c.child_id.is_not(None),
    )
    below = closure_of(select(tagged.union(linked).subquery("starts").c[0]), LinkRows.of_latest(repository_id))
    return _opening(repository_manifests, select(below.c.manifest_id), repository_id, number, dialect)


@built_once
def insert_blobs(repository_id: str, number: int, *, dialect: str) -> Insert:
    """The blobs of manifests that are new in the version."""
    below = (
        select(manifest_blobs.c.blob_id)
        .join(repository_manifests, repository_manifests.c.manifest_id == manifest_blobs.c.manifest_id)
        .where(*_is_added(repository_manifests, repository_id, number))
        .distinct()
    )
    return _opening(repository_blobs, below, repository_id, number, dialect)


@built_once
def present_manifests(repository_id: str) -> Select[Any]:
    """Ids of all manifests of the latest version."""
    return select(repository_manifests.c.manifest_id).where(is_present(repository_manifests, repository_id))


@built_once
def all_below(repository_id: str, ids: Sequence[int]) -> Select[Any]:
    """These manifests, and all that links of the latest version lead to from them."""
    roots = select(manifests.c.id).where(manifests.c.id.in_(ids))
    return select(closure_of(roots, LinkRows.of_latest(repository_id)).c.manifest_id)


@built_once
def with_present_tag(repository_id: str, ids: Sequence[int]) -> Select[Any]:
    """Those of the manifests that a tag of the latest version refers to."""
    return select(tags.c.manifest_id).where(tags.c.manifest_id.in_(ids), is_in_latest("tags", tags.c.id, repository_id))


@built_once
def with_present_parent(repository_id: str, ids: Sequence[int]) -> Select[Any]:
    """The links of the latest version that lead to one of the manifests."""
    return select(repository_links.c.parent_id, repository_links.c.child_id).where(
        repository_links.c.child_id.in_(ids),
        _is_found_present(repository_links, repository_id),
        is_in_latest("manifests", repository_links.c.parent_id, repository_id),
    )


@built_once
def blobs_of_removed(repository_id: str, number: int) -> Select[Any]:
    """Ids of the blobs of manifests that the version no longer has."""
    return (
        select(manifest_blobs.c.blob_id)
        .join(repository_manifests, repository_manifests.c.manifest_id == manifest_blobs.c.manifest_id)
        .where(*_is_of_version(repository_manifests, "version_removed", repository_id, number))
    )


@built_once
def close_unnamed_blobs(repository_id: str, number: int, ids: Sequence[int]) -> Update:
    """Closes the intervals of those of the blobs that no manifest of the latest version names."""
    is_unnamed = there_is_none(
        manifest_blobs.c.blob_id == repository_blobs.c.blob_id,
        is_in_latest("manifests", manifest_blobs.c.manifest_id, repository_id),
    )
    closing = _closing(repository_blobs, "blob_id", repository_id, number, ids)
    return closing.where(is_unnamed)


# -- intervals of any units ---------------------------------------------------------------------------------------


def _opened(table: Table, repository_id: str, number: int) -> tuple[ColumnElement[Any], ...]:
    """The first columns of rows whose intervals start with version ``number``."""
    columns = table.c
    return type_coerce(repository_id, columns.repository_id.type), type_coerce(number, columns.version_added.type)


def _opening(table: Table, units: Select[Any], repository_id: str, number: int, dialect: str) -> Insert:
    """Opens intervals for those of ``units`` that have none open, by the unique index."""
    unit = next(column.name for column in table.c if column.name.endswith("_id") and column.name != "repository_id")
    unit_id, *described = units.subquery("wanted").c
    rows = select(*_opened(table, repository_id, number), unit_id, *described)
    names = ["repository_id", "version_added", unit, *(column.name for column in described)]
    # WHERE true: without it SQLite reads ON CONFLICT as the condition of a join.
    return insert_or_keep_on(dialect, table).from_select(names, rows.where(true()))


def _closing(table: Table, unit: str, repository_id: str, number: int, ids: Sequence[int]) -> Update:
    of_units = update(table).where(is_present(table, repository_id), table.c[unit].in_(ids))
    return of_units.values(version_removed=number)


@built_once
def close_units(repository_id: str, number: int, ids: Sequence[int], *, table: Table, unit: str) -> Update:
    """Closes the open intervals of units, given by the values of the column ``unit``."""
    return _closing(table, unit, repository_id, number, ids)


def _is_of_version(table: Table, bound: str, repository_id: str, number: int) -> tuple[ColumnElement[bool], ...]:
    """Whether a row's interval has that version as its ``version_added`` or ``version_removed``."""
    return table.c.repository_id == repository_id, table.c[bound] == number


def _is_added(table: Table, repository_id: str, number: int) -> tuple[ColumnElement[bool], ...]:
    """Whether a row's interval starts with version ``number``, the one that is being made.

    It has no end yet. Were that not asked, SQLite would find all that it needs in the primary key, and read that of the
    whole repository.
    """
    return *_is_of_version(table, "version_added", repository_id, number), _has_no_end(table)


def _is_found_present(table: Table, repository_id: str) -> ColumnElement[bool]:
    """As :func:`is_present`, of rows that another condition finds by an index of its own.

    Of the columns themselves SQLite, which keeps no statistics, would use an index, and read the whole repository.
    """
    return and_(func.coalesce(table.c.repository_id, "") == repository_id, _has_no_end(table))


def _has_no_end(table: Table) -> ColumnElement[bool]:
    return func.coalesce(table.c.version_removed, 0) == 0


@built_once
def count_of(repository_id: str, number: int, *, table: Table, bound: str) -> Select[Any]:
    """How many intervals have that version as their ``version_added`` or ``version_removed``."""
    is_of_version = _is_of_version(table, bound, repository_id, number)
    return select(func.count()).select_from(table).where(*is_of_version)
