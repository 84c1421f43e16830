"""The blobs that a run needs, the plan of their downloads, and whether its stages have come to everything.

All blobs below the tags of a run are queried in a few statements, however many there are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, not_, or_, select, union, update

from registry_sync.db.content.closures import (
    LinkRows,
    came_for_first_pull,
    closure_by_start,
    closure_of,
    is_listed,
    is_present,
    lacks_blob,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.queries import built_once, ids_by_digest, in_batches, insert_absent
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repository_tags,
    run_blobs,
    run_tags,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import BLOB_OVERHEAD_BYTES, RequiredBlob, TagState
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import LimitExceeded, RecordNotFound, StagesUnfinished

if TYPE_CHECKING:
    from registry_sync.domain.packed_blobs import PackedBlobs

#: Tags in these states stay in a mirror as they are in its latest version.
_KEPT = (TagState.UNCHANGED.value, TagState.HELD.value, TagState.FILTERED.value)


#: How many images are named where a sync would store too much.
_SHOWN_IMAGES = 5


#: Rows that are read, or written, at once.
_ROWS_AT_ONCE = 2000


def required_blobs(connection: Connection, run: Row[Any]) -> PackedBlobs:
    """Every blob below changed tags, and those below tags that stay as they are that are not stored; by digest."""
    from registry_sync.domain.packed_blobs import PackedBlobs

    return PackedBlobs(
        RequiredBlob(
            Digest(row.digest),
            row.size_bytes,
            row.media_type,
            is_foreign=bool(row.is_foreign),
            is_stored=bool(row.is_stored),
            is_broken=row.fault == FindingKind.BROKEN.value,
            is_config=bool(row.is_config),
        )
        for row in _required_rows(connection, run)
    )


def add_plan(connection: Connection, run: Row[Any], planned: Iterable[tuple[int, RequiredBlob]]) -> None:
    """Writes rows of ``run_blobs`` for a plan, by shard and blob, in its order.

    Raises :class:`RecordNotFound` for an unknown blob, :class:`LimitExceeded` for more bytes than the remote allows;
    the caller then takes back what was written.
    """
    total_bytes = 0
    for batch in in_batches(planned, _ROWS_AT_ONCE):
        ids = ids_by_digest(connection, blobs, [blob.digest for _, blob in batch])
        unknown = next((blob.digest for _, blob in batch if blob.digest not in ids), None)
        if unknown is not None:
            raise RecordNotFound(f"the sync run does not need blob {unknown}")
        rows = [
            {
                "sync_run_id": run.id,
                "blob_id": ids[blob.digest],
                "shard": shard,
                "size_bytes": blob.size_bytes,
                "media_type": blob.media_type,
                "is_foreign": blob.is_foreign,
            }
            for shard, blob in batch
        ]
        insert_absent(connection, run_blobs, rows)
        total_bytes += sum(blob.size_bytes for _, blob in batch)
    _refuse_too_large(connection, run, total_bytes)


def _refuse_too_large(connection: Connection, run: Row[Any], total_bytes: int) -> None:
    """Raises :class:`LimitExceeded` when the blobs of the plan are together more than the run may store."""
    remote = RemoteSpec.of_document(run.remote_spec)
    limit = remote.max_total_bytes
    if limit is None or total_bytes <= limit:
        return
    images = _images_by_size(connection, run)
    shown = [f"{_shown_names(names)} {_bytes(size)}" for names, size in images[:_SHOWN_IMAGES]]
    more = f" and {len(images) - _SHOWN_IMAGES:,} more" if len(images) > _SHOWN_IMAGES else ""
    raise LimitExceeded(
        f"this sync would store {_bytes(total_bytes)} that the blob store lacks, and max_total_bytes of remote "
        f"{remote.name!r} allows {_bytes(limit)}. Nothing was downloaded. The largest images, each with what it shares "
        f"with others: {', '.join(shown)}{more}. Exclude tags, select fewer platforms, or raise max_total_bytes",
        limit="max_total_bytes",
    )


def _images_by_size(connection: Connection, run: Row[Any]) -> list[tuple[list[TagName], int]]:
    """The tags of each image of a run that has some of its planned blobs, and the bytes of these; the largest first."""
    resolved = (
        select(run_tags.c.name, manifests.c.id.label("manifest_id"))
        .join(manifests, manifests.c.digest == run_tags.c.digest)
        .where(run_tags.c.sync_run_id == run.id, run_tags.c.state == TagState.RESOLVED.value)
    )
    roots = _kept_roots(run).distinct().subquery()
    kept = (
        select(tags.c.name, tags.c.manifest_id)
        .join(roots, roots.c.manifest_id == tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, run.repository_id))
    )
    names: dict[int, set[TagName]] = {}
    below = []
    for number, (named, links) in enumerate(
        ((resolved, LinkRows.of_run(run.id)), (kept, LinkRows.of_latest(run.repository_id)))
    ):
        for row in connection.execute(named):
            names.setdefault(row.manifest_id, set()).add(TagName(row.name))
        found = closure_by_start(select(named.subquery().c.manifest_id), links, name=f"by_start_{number}")
        below.append(
            select(found.c.start_id, manifest_blobs.c.blob_id).join(
                manifest_blobs, manifest_blobs.c.manifest_id == found.c.manifest_id
            )
        )
    each_once = union(*below).subquery()
    sizes = (
        select(each_once.c.start_id, func.sum(run_blobs.c.size_bytes).label("size_bytes"))
        .join(run_blobs, run_blobs.c.blob_id == each_once.c.blob_id)
        .where(run_blobs.c.sync_run_id == run.id)
        .group_by(each_once.c.start_id)
    )
    images = [(sorted(names[row.start_id]), int(row.size_bytes)) for row in connection.execute(sizes)]
    return sorted(images, key=lambda image: (-image[1], image[0]))


def _shown_names(names: Sequence[TagName]) -> str:
    """``latest``, or ``3.19 (and 2 more tags)``."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {format_count(len(names) - 1, 'more tag')})"


def _bytes(count: int) -> str:
    """``1.5 KiB (1,536 bytes)``."""
    return f"{format_bytes(count)} ({format_count(count, 'byte')})"


def _required_rows(connection: Connection, run: Row[Any]) -> Iterator[Any]:
    found = [_read_on(connection, *_blobs_of_changed(run.id))]
    # The latest version's membership shows cheaply, and nearly always, that the unchanged tags lack nothing.
    if lacks_blob(connection, run.repository_id):
        kept = _blobs_below(_kept_roots(run), LinkRows.of_latest(run.repository_id)).where(blobs.c.stored_at.is_(None))
        found.append(_read_on(connection, kept, {}))
    last = ""
    # Of two rows about a blob the one below a changed tag comes first.
    for row in merge(*found, key=attrgetter("digest")):
        if row.digest != last:
            yield row
        last = row.digest


def _read_on(connection: Connection, statement: Select[Any], parameters: Mapping[str, Any]) -> Iterable[Any]:
    """Rows that are read from the database as they are used, on PostgreSQL through a cursor of its server."""
    if connection.dialect.name == "postgresql":
        # All rows are read: a plan that finds the first ones soon may find all of them late.
        connection.exec_driver_sql("SET LOCAL cursor_tuple_fraction = 1")
    return connection.execute(statement, parameters, execution_options={"yield_per": _ROWS_AT_ONCE})


@built_once
def _blobs_of_changed(run_id: str) -> Select[Any]:
    return _blobs_below(tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id))


def _kept_roots(run: Row[Any]) -> Select[Any]:
    """Ids of the manifests of the latest version's tags that the run neither resolved nor removes.

    Tags that an additive run does not list, and tags synced on demand, are left to their first pull.
    """
    stays = is_listed(run.id, tags.c.name, _KEPT)
    if run.mode != SyncMode.MIRROR.value:
        is_brought = is_listed(run.id, tags.c.name, (TagState.RESOLVED.value,))
        stays = or_(stays, and_(not_(is_brought), not_(came_for_first_pull())))
    return (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, run.repository_id), stays)
    )


def _blobs_below(roots: Select[Any], links: LinkRows) -> Select[Any]:
    """Each blob once, by digest. Where manifests differ about one, a description as distributable content wins."""
    below = closure_of(roots, links)
    is_foreign = func.min(case((manifest_blobs.c.is_foreign, 1), else_=0)) == 1
    is_config = func.max(case((manifest_blobs.c.role == BlobRole.CONFIG.value, 1), else_=0)) == 1
    return (
        select(
            blobs.c.id,
            blobs.c.digest,
            func.min(manifest_blobs.c.size_bytes).label("size_bytes"),
            func.min(manifest_blobs.c.media_type).label("media_type"),
            is_foreign.label("is_foreign"),
            is_config.label("is_config"),
            blobs.c.stored_at.is_not(None).label("is_stored"),
            blobs.c.fault,
        )
        .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
        .join(below, below.c.manifest_id == manifest_blobs.c.manifest_id)
        .group_by(blobs.c.id, blobs.c.digest, blobs.c.stored_at, blobs.c.fault)
        .order_by(blobs.c.digest)
    )


@dataclass(frozen=True)
class TakenBlobs:
    """Blobs that a mapped task has started, the largest first; ``shard`` is the one that they were planned for."""

    shard: int
    blobs: PackedBlobs


#: At least so much work is started at once: each time is a transaction, and waits for the last of the time before.
TAKEN_BYTES = 64 * 1024 * 1024


def give_back(connection: Connection, run_id: str, shard: int) -> bool:
    """Blobs that the task of ``shard`` has started, and not stored or given up, can be taken again by any task.

    Whether there were any.
    """
    is_open = not_(there_is_none(blobs.c.id == run_blobs.c.blob_id, blobs.c.stored_at.is_(None)))
    started = (run_blobs.c.sync_run_id == run_id, run_blobs.c.shard == _started_by(shard), run_blobs.c.reason.is_(None))
    given_back = connection.execute(update(run_blobs).where(*started, is_open).values(shard=shard))
    return given_back.rowcount > 0


def take(connection: Connection, run_id: str, shard: int, *, may_take_over: bool) -> TakenBlobs | None:
    """Starts blobs for the task of ``shard``, in a transaction that writes: see :meth:`SyncRunStore.take_blobs`."""
    own = (shard, _started_by(shard))
    others = select(run_blobs.c.shard).where(run_blobs.c.sync_run_id == run_id, run_blobs.c.shard.not_in(own))
    is_alone = connection.execute(others.limit(1)).first() is None
    # The other shards, which are most of a large plan, are added up when there is nothing left of its own.
    for of_shards in (run_blobs.c.shard == shard, (run_blobs.c.shard >= 0) & (run_blobs.c.shard != shard)):
        by_shard = _left_by_shard(connection, run_id, of_shards)
        for source in sorted(by_shard, key=lambda one: -by_shard[one]):
            work_bytes = by_shard[source] if is_alone else max(TAKEN_BYTES, by_shard[source] // 2)
            ids, taken = _some_of(connection, run_id, source, work_bytes)
            # Another task may have taken them between the two statements.
            if ids:
                for batch in in_batches(ids):
                    started = (run_blobs.c.sync_run_id == run_id, run_blobs.c.blob_id.in_(batch))
                    connection.execute(update(run_blobs).where(*started).values(shard=_started_by(shard)))
                return TakenBlobs(source, taken)
        if not may_take_over:
            return None
    return None


def _left_by_shard(connection: Connection, run_id: str, of_shards: ColumnElement[bool]) -> dict[int, int]:
    """The work of the blobs of these shards that nobody has started, in bytes by shard."""
    is_left = (run_blobs.c.sync_run_id == run_id, run_blobs.c.reason.is_(None))
    left = (
        select(run_blobs.c.shard, func.sum(run_blobs.c.size_bytes + BLOB_OVERHEAD_BYTES).label("work"))
        .join(blobs, blobs.c.id == run_blobs.c.blob_id)
        .where(*is_left, of_shards, blobs.c.stored_at.is_(None))
        .group_by(run_blobs.c.shard)
    )
    return {row.shard: int(row.work) for row in connection.execute(left)}


def _started_by(shard: int) -> int:
    """What stands in the place of the shard once its task, or that of another shard, has started a blob."""
    return -1 - shard


def _some_of(connection: Connection, run_id: str, shard: int, work_bytes: int) -> tuple[Sequence[int], PackedBlobs]:
    """The largest blobs of a shard that nobody has started, of so much work or a little more, with their ids.

    Locked where there are locks, so that two tasks take one after the other. A task that is alone takes all of a large
    repository: they are packed as they are read.
    """
    from registry_sync.domain.packed_blobs import PackedBlobs

    described = (run_blobs.c.size_bytes, run_blobs.c.media_type, run_blobs.c.is_foreign)
    statement = (
        select(run_blobs.c.blob_id, blobs.c.digest, blobs.c.fault, *described)
        .join(blobs, blobs.c.id == run_blobs.c.blob_id)
        .where(run_blobs.c.sync_run_id == run_id, run_blobs.c.shard == shard)
        .where(blobs.c.stored_at.is_(None), run_blobs.c.reason.is_(None))
        .order_by(run_blobs.c.size_bytes.desc(), blobs.c.digest)
        .with_for_update(of=run_blobs)
    )
    ids = array("q")

    def some() -> Iterator[RequiredBlob]:
        left_bytes = work_bytes
        for row in rows:
            if left_bytes <= 0:
                break
            ids.append(row.blob_id)
            left_bytes -= row.size_bytes + BLOB_OVERHEAD_BYTES
            yield _planned_blob(row)

    with connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE}) as rows:
        return ids, PackedBlobs(some())


def _planned_blob(row: Any) -> RequiredBlob:
    return RequiredBlob(
        Digest(row.digest),
        row.size_bytes,
        row.media_type,
        is_foreign=row.is_foreign,
        is_broken=row.fault == FindingKind.BROKEN.value,
    )


def refuse_unfinished(connection: Connection, run_id: str) -> None:
    """Raises :class:`StagesUnfinished` when a tag was listed, or a blob planned, and no task came to it.

    A stage that has run leaves neither: it fetches, holds with a reason, or fails. One that was skipped, marked by
    a user or stopped leaves them.
    """
    for noun, stage, unfinished in (("tag", "fetch_manifests", _pending), ("blob", "fetch_blobs", _planned)):
        if connection.execute(*unfinished(run_id, is_counted=False)).first() is None:
            continue
        count = connection.execute(*unfinished(run_id, is_counted=True)).scalar_one()
        raise StagesUnfinished(
            f"{format_count(count, noun)} of this sync {'was' if count == 1 else 'were'} not fetched, "
            f"because a task of the stage {stage} was skipped, marked by a user or stopped; no version was made. Clear "
            "that task with all that come after it, and the run goes on; or start a new one"
        )


@built_once
def _pending(run_id: str, *, is_counted: bool) -> Select[Any]:
    """Tags that were listed and not fetched: the first, or their count."""
    is_pending = run_tags.c.state == TagState.PENDING.value
    return _first_or_count(
        select(run_tags.c.name).where(run_tags.c.sync_run_id == run_id, is_pending), is_counted=is_counted
    )


@built_once
def _planned(run_id: str, *, is_counted: bool) -> Select[Any]:
    """Blobs that were planned and neither fetched nor given up: the first, or their count."""
    is_open = (run_blobs.c.reason.is_(None), blobs.c.stored_at.is_(None))
    of_run = select(blobs.c.digest).join(run_blobs, run_blobs.c.blob_id == blobs.c.id)
    return _first_or_count(of_run.where(run_blobs.c.sync_run_id == run_id, *is_open), is_counted=is_counted)


def _first_or_count(statement: Select[Any], *, is_counted: bool) -> Select[Any]:
    return select(func.count()).select_from(statement.subquery()) if is_counted else statement.limit(1)
