"""What a run needs of the content: the blobs below its tags, asked in a few queries whatever their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, not_, or_, select

from registry_sync.db.content.closures import (
    LinkRows,
    came_for_first_pull,
    closure_of,
    is_in_latest,
    is_present,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.queries import ids_by_digest
from registry_sync.db.tables import blobs, manifest_blobs, repository_tags, run_blobs, run_tags, tags
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import SyncMode
from registry_sync.domain.runs import NeededBlob, TagState
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import RecordNotFound, StagesUnfinished

#: Tags in these states stay in a mirror as they are in its latest version.
_KEPT = (TagState.UNCHANGED.value, TagState.HELD.value, TagState.FILTERED.value)


def needed_blobs(connection: Connection, run: Row[Any]) -> list[NeededBlob]:
    """Every blob below changed tags, and those below tags that stay as they are that are not stored; by digest."""
    return [
        NeededBlob(
            Digest(row.digest),
            row.size_bytes,
            row.media_type,
            is_foreign=bool(row.is_foreign),
            is_stored=bool(row.is_stored),
            is_broken=row.fault == FindingKind.BROKEN.value,
        )
        for row in _needed_rows(connection, run)
    ]


def plan_rows(connection: Connection, run_id: str, shards: Mapping[int, Sequence[NeededBlob]]) -> list[dict[str, Any]]:
    """Rows of ``run_blobs`` for a plan, in one order. Raises :class:`RecordNotFound` for an unknown blob."""
    planned = {blob.digest: (shard, blob) for shard, of_shard in shards.items() for blob in of_shard}
    ids = ids_by_digest(connection, blobs, planned)
    unknown = next((digest for digest in planned if digest not in ids), None)
    if unknown is not None:
        raise RecordNotFound(f"the sync run does not need blob {unknown}")
    return [
        {
            "sync_run_id": run_id,
            "blob_id": ids[digest],
            "shard": shard,
            "size_bytes": blob.size_bytes,
            "media_type": blob.media_type,
            "is_foreign": blob.is_foreign,
        }
        for digest, (shard, blob) in sorted(planned.items())
    ]


def _needed_rows(connection: Connection, run: Row[Any]) -> list[Any]:
    resolved = _blobs_below(tagged_in_run(run.id, [TagState.RESOLVED]), LinkRows.of_run(run.id))
    rows = {row.digest: row for row in connection.execute(resolved)}
    # The latest version's membership tells cheaply, and nearly always, that the unchanged tags lack nothing.
    is_member = is_in_latest("blobs", blobs.c.id, run.repository_id)
    lacking = select(blobs.c.id).where(blobs.c.stored_at.is_(None), is_member)
    if connection.execute(lacking.limit(1)).first() is not None:
        kept = _blobs_below(_kept_roots(run), LinkRows.of_latest(run.repository_id)).where(blobs.c.stored_at.is_(None))
        for row in connection.execute(kept):
            rows.setdefault(row.digest, row)
    return [rows[digest] for digest in sorted(rows)]


def _kept_roots(run: Row[Any]) -> Select[Any]:
    """Ids of the manifests of the latest version's tags that the run does not bring anew and does not remove.

    What an additive run does not list, and what came for the first pull to fetch, is left to that.
    """
    noted = and_(run_tags.c.sync_run_id == run.id, run_tags.c.name == tags.c.name)
    if run.mode == SyncMode.MIRROR.value:
        stays = not_(there_is_none(noted, run_tags.c.state.in_(_KEPT)))
    else:
        is_listed = not_(there_is_none(noted, run_tags.c.state.in_(_KEPT)))
        is_brought = not_(there_is_none(noted, run_tags.c.state == TagState.RESOLVED.value))
        stays = or_(is_listed, and_(not_(is_brought), not_(came_for_first_pull())))
    return (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, run.repository_id), stays)
    )


def _blobs_below(roots: Select[Any], links: LinkRows) -> Select[Any]:
    """Each blob once. Where manifests differ about one, a description as distributable content wins."""
    below = closure_of(roots, links)
    is_foreign = func.min(case((manifest_blobs.c.is_foreign, 1), else_=0)) == 1
    return (
        select(
            blobs.c.id,
            blobs.c.digest,
            func.min(manifest_blobs.c.size_bytes).label("size_bytes"),
            func.min(manifest_blobs.c.media_type).label("media_type"),
            is_foreign.label("is_foreign"),
            blobs.c.stored_at.is_not(None).label("is_stored"),
            blobs.c.fault,
        )
        .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
        .join(below, below.c.manifest_id == manifest_blobs.c.manifest_id)
        .group_by(blobs.c.id, blobs.c.digest, blobs.c.stored_at, blobs.c.fault)
    )


def refuse_unfinished(connection: Connection, run_id: str) -> None:
    """Raises :class:`StagesUnfinished` when a tag was listed, or a blob planned, and no task came to it.

    A stage that has run leaves neither: it fetches, holds with a reason, or fails. One that was skipped, marked by hand
    or stopped leaves them.
    """
    tags = select(run_tags.c.name).where(run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.PENDING.value)
    planned = (
        select(blobs.c.digest)
        .join(run_blobs, run_blobs.c.blob_id == blobs.c.id)
        .where(run_blobs.c.sync_run_id == run_id, run_blobs.c.reason.is_(None), blobs.c.stored_at.is_(None))
    )
    for noun, stage, statement in (("tag", "fetch_manifests", tags), ("blob", "fetch_blobs", planned)):
        if connection.execute(statement.limit(1)).first() is None:
            continue
        count = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
        raise StagesUnfinished(
            f"{format_count(count, noun)} of this sync {'was' if count == 1 else 'were'} not fetched, "
            f"because a task of the stage {stage} was skipped, marked by hand or stopped; no version was made. Clear "
            "that task with all that come after it, and the run goes on; or start a new one"
        )
