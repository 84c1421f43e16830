"""A listing is recorded as its difference to the latest version: unchanged tags have no row, only a number of them.

``sync_runs.base_number`` is that version, and ``base_tag_count`` counts the tags without a row. A tag of the base
version without a row is unchanged; one that the listing lacks has a row that says so. What a run is asked of thus costs
its difference, not the size of the repository.

The rows are written after all when they are needed: before the base version is removed, when another version is the
latest at the commit, and when the records of a failed run are released. From then on the run is like one whose listing
was recorded in full.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, literal, select, update

from registry_sync.db.content.closures import BASE_TAGS, in_run, is_in_base, there_is_none
from registry_sync.db.queries import in_batches, insert_absent, insert_or_keep
from registry_sync.db.runs.run_rows import RECORDED_IN_FULL
from registry_sync.db.tables import manifests, run_tags, sync_runs, tags
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import LatestTags, ListedTag, TagState


def insert_tags(
    connection: Connection, run_id: str, listed: Collection[ListedTag], base: LatestTags | None
) -> dict[str, int | None]:
    """Inserts the rows of a listing, as a difference to ``base``, the latest version, unless it is None.

    Returns the columns of the run that say so. The run has no rows yet.
    """
    recorded, unchanged_count = (listed, 0) if base is None else _difference(base, listed)
    rows = (
        {
            "sync_run_id": run_id,
            "name": tag.name,
            "shard": tag.shard,
            "state": tag.state.value,
            "digest": tag.digest,
        }
        for tag in recorded
    )
    insert_absent(connection, run_tags, rows)
    if base is None or not unchanged_count:
        return RECORDED_IN_FULL
    return {"base_number": base.number, "base_tag_count": unchanged_count}


def _difference(base: LatestTags, listed: Collection[ListedTag]) -> tuple[Iterable[ListedTag], int]:
    """What of ``listed`` has to be recorded beside the version ``base``, and how many unchanged tags that leaves out.

    All of it and 0 where the difference is the larger part, as for an additive sync of few of many tags.
    """
    if not base.digests:
        return listed, 0

    def is_left_out(tag: ListedTag) -> bool:
        return tag.state is TagState.UNCHANGED and base.digests.get(tag.name) == tag.digest

    names = sorted(tag.name for tag in listed)  # a set of all takes more than the tags do
    unlisted = [tag for tag in sorted(base.digests) if not _is_in(names, tag)]
    unchanged_count = sum(map(is_left_out, listed))
    if len(unlisted) >= unchanged_count:
        return listed, 0
    recorded = (tag for tag in listed if not is_left_out(tag))
    missing = (ListedTag(tag, unfetched=TagState.UNLISTED) for tag in unlisted)
    return chain(recorded, missing), unchanged_count


def _is_in(names: Sequence[TagName], name: TagName) -> bool:
    """Whether ``name`` is one of ``names``, which are in order."""
    at = bisect_left(names, name)
    return at < len(names) and names[at] == name


def record_each(connection: Connection, *conditions: ColumnElement[bool]) -> None:
    """Writes the rows of all unchanged tags of the unsettled runs that match ``conditions``; the runs are locked."""
    is_wanted = (sync_runs.c.base_number.is_not(None), *conditions)
    wanted = select(sync_runs.c.id).where(*is_wanted).order_by(sync_runs.c.id).with_for_update(key_share=True)
    for run_id in connection.execute(wanted).scalars().all():
        _insert(connection, run_id)
        connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(**RECORDED_IN_FULL))


def record_some(connection: Connection, run_id: str, names: Iterable[str]) -> None:
    """Writes the rows of those of ``names`` that the run found unchanged and that have none."""
    for batch in in_batches(sorted(names)):
        if not (found := names_without_row(connection, run_id, batch)):
            continue
        _insert(connection, run_id, BASE_TAGS.c.name.in_(sorted(found)))
        fewer = sync_runs.c.base_tag_count - len(found)
        connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(base_tag_count=fewer))


def names_without_row(connection: Connection, run_id: str, names: Sequence[str]) -> set[str]:
    """Those of ``names`` that the run found unchanged and that have no row; at most one batch of names."""
    found = tags_without_row(run_id).with_only_columns(tags.c.name).where(BASE_TAGS.c.name.in_(names))
    return set(connection.execute(found).scalars())


def first_without_row(run_id: str, limit: int) -> Select[Any]:
    """The digests of the first tags by name that the run found unchanged and that have no row."""
    return tags_without_row(run_id).with_only_columns(manifests.c.digest).order_by(BASE_TAGS.c.name).limit(limit)


def tags_without_row(run_id: str) -> Select[Any]:
    """The tags that the run found unchanged and that have no row: ``name``, ``digest``, ``media_type``."""
    return (
        select(tags.c.name, manifests.c.digest, manifests.c.media_type)
        .select_from(sync_runs)
        .join(BASE_TAGS, is_in_base())
        .join(tags, tags.c.id == BASE_TAGS.c.tag_id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(sync_runs.c.id == run_id, there_is_none(in_run(run_id, BASE_TAGS.c.name)))
    )


def _insert(connection: Connection, run_id: str, *conditions: ColumnElement[bool]) -> None:
    values = (literal(run_id), tags.c.name, literal(TagState.UNCHANGED.value), manifests.c.digest)
    rows = tags_without_row(run_id).with_only_columns(*values).where(*conditions)
    columns = ["sync_run_id", "name", "state", "digest"]
    connection.execute(insert_or_keep(connection, run_tags).from_select(columns, rows))
