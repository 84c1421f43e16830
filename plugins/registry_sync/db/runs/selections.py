"""The manifests that a run includes below its tags, those of the latest version, and the blobs that a run needs.

A run reads manifests and records links: from an index to its selected entries, from a subject to its referrers. The
commit follows these links and no others; until then they are working records, like the run's tags. The blobs below them
are queried in a few statements, however many there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, not_, or_, select, update

from registry_sync.db.content.closures import (
    Direction,
    LinkRows,
    came_for_first_pull,
    closure_by_start,
    closure_of,
    first_missing_blob,
    is_in_latest,
    is_present,
    reached,
    read_children,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, ids_by_digest, in_batches, insert_absent, is_one_of, storable
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repositories,
    repository_links,
    repository_manifests,
    repository_tags,
    run_blobs,
    run_links,
    run_manifests,
    run_tags,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole
from registry_sync.domain.media_types import INDEX_TYPES
from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import LinkKind, ManifestLink, RequiredBlob, TagState
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import LimitExceeded, RecordNotFound, StagesUnfinished

#: How long the finding of an earlier run that a registry has no referrers API is used.
API_REMEMBERED = timedelta(days=7)


class SelectionStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, run_id: str, read: Iterable[Digest], links: Iterable[ManifestLink]) -> None:
        """Records manifests that were read, and the links from them; all of these manifests are stored.

        Only a missing child may be unknown. Raises :class:`RecordNotFound` for any other manifest that is not stored.
        """
        parents, ordered = sorted(set(read)), sorted(set(links), key=lambda link: (link.parent, link.child))
        with self._transactions.writing() as connection:
            ids = ids_by_digest(connection, manifests, {*parents, *(link.child for link in ordered)})
            unknown = next((digest for digest in parents if digest not in ids), None) or next(
                (link.child for link in ordered if not link.is_missing and link.child not in ids), None
            )
            if unknown is not None:
                raise RecordNotFound(f"manifest {unknown} is not stored")
            rows = [{"sync_run_id": run_id, "manifest_id": ids[digest]} for digest in parents]
            insert_absent(connection, run_manifests, rows)
            insert_absent(
                connection,
                run_links,
                [
                    {
                        "sync_run_id": run_id,
                        "parent_id": ids[link.parent],
                        "child_digest": link.child,
                        "child_id": None if link.is_missing else ids[link.child],
                        "kind": link.kind.value,
                    }
                    for link in ordered
                ],
            )

    def candidates(self, run_id: str) -> set[TagName]:
        """Tags that the run listed and that its tag filter does not select."""
        statement = select(run_tags.c.name).where(
            run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.CANDIDATE.value
        )
        with self._transactions.reading() as connection:
            return {TagName(name) for name in connection.execute(statement).scalars()}

    def take(self, run_id: str, names: Iterable[TagName], shard: int) -> None:
        """Adds tags to the selected ones, to be fetched by ``shard``; tags that are selected already stay."""
        ordered = sorted(set(names))
        if not ordered:
            return
        pending = {"state": TagState.PENDING.value, "shard": shard}
        with self._transactions.writing() as connection:
            insert_absent(connection, run_tags, [{"sync_run_id": run_id, "name": name, **pending} for name in ordered])
            for batch in in_batches(ordered):
                connection.execute(
                    update(run_tags)
                    .where(run_tags.c.sync_run_id == run_id, run_tags.c.name.in_(batch))
                    .where(run_tags.c.state == TagState.CANDIDATE.value)
                    .values(**pending)
                )

    def selecting_remote(self, repository_id: str, mode: SyncMode) -> RemoteSpec | None:
        """The remote whose options selected the content of the latest version; None when no sync selected it.

        That is so before the first version, after a version made from another one, and after the latest was deleted.
        For a mirror also after an additive sync, which keeps what earlier selections included.
        """
        last = (
            select(sync_runs.c.remote_spec, sync_runs.c.mode)
            .join(repositories, repositories.c.settled_run_id == sync_runs.c.id)
            .where(repositories.c.id == repository_id, repositories.c.settled_version == repositories.c.latest_number)
        )
        with self._transactions.reading() as connection:
            run = connection.execute(last).one_or_none()
        if run is None or (mode is SyncMode.MIRROR and run.mode != mode.value):
            return None
        return RemoteSpec.of_document(run.remote_spec)

    def held_tags(self, repository_id: str) -> set[TagName]:
        """Tags that the latest version holds back: its sync did not select the content below them."""
        statement = (
            select(version_holds.c.tag)
            .join(repositories, repositories.c.id == version_holds.c.repository_id)
            .where(repositories.c.id == repository_id, version_holds.c.number == repositories.c.latest_number)
        )
        with self._transactions.reading() as connection:
            return {TagName(name) for name in connection.execute(statement).scalars()}

    def has_index(self, repository_id: str) -> bool:
        """Whether a tag of the latest version refers to an index; tags named after a digest do not count."""
        is_index = manifests.c.media_type.in_(sorted(INDEX_TYPES)) & tags.c.name.not_like("sha256-%")
        statement = (
            select(tags.c.id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
            .where(is_index, is_in_latest("tags", tags.c.id, repository_id))
            .limit(1)
        )
        with self._transactions.reading() as connection:
            return connection.execute(statement).first() is not None

    def referrers(self, repository_id: str) -> dict[Digest, frozenset[Digest]]:
        """Every manifest of the latest version, with the manifests that are included as its referrers."""
        members = (
            select(manifests.c.id, manifests.c.digest)
            .join(repository_manifests, repository_manifests.c.manifest_id == manifests.c.id)
            .where(is_present(repository_manifests, repository_id))
        )
        linked = select(repository_links.c.parent_id, repository_links.c.child_digest).where(
            is_present(repository_links, repository_id), repository_links.c.kind == LinkKind.REFERRER.value
        )
        with self._transactions.reading() as connection:
            digests = {row.id: row.digest for row in connection.execute(members)}
            found: dict[int, set[Digest]] = defaultdict(set)
            for row in connection.execute(linked):
                found[row.parent_id].add(Digest(row.child_digest))
        return {Digest(digest): frozenset(found[unit]) for unit, digest in digests.items()}

    def kept_referrers(self, repository_id: str) -> dict[Digest, frozenset[Digest]]:
        """As :meth:`referrers`, for the manifests that have referrers only."""
        statement = (
            select(manifests.c.digest, repository_links.c.child_digest)
            .join(repository_links, repository_links.c.parent_id == manifests.c.id)
            .where(is_present(repository_links, repository_id), repository_links.c.kind == LinkKind.REFERRER.value)
        )
        found: dict[Digest, set[Digest]] = defaultdict(set)
        with self._transactions.reading() as connection:
            for row in connection.execute(statement):
                found[Digest(row.digest)].add(Digest(row.child_digest))
        return {subject: frozenset(referrers) for subject, referrers in found.items()}

    def below(self, repository_id: str, names: Iterable[TagName]) -> set[Digest]:
        """Manifests of the latest version that these of its tags refer to, and all that links lead to from there."""
        roots: set[int] = set()
        found: set[Digest] = set()
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(set(names))):
                present = select(tags.c.manifest_id).where(
                    tags.c.name.in_(batch), is_in_latest("tags", tags.c.id, repository_id)
                )
                roots.update(connection.execute(present).scalars())
            below = reached(roots, read_children(connection, LinkRows.of_latest(repository_id)))
            for ids in in_batches(sorted(below)):
                digests = select(manifests.c.digest).where(manifests.c.id.in_(ids))
                found.update(map(Digest, connection.execute(digests).scalars()))
        return found

    def tags_above(self, repository_id: str, digests: Iterable[Digest]) -> set[TagName]:
        """Tags of the latest version that refer to one of these manifests, directly or through links."""
        names: set[TagName] = set()
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(set(digests))):
                starts = select(manifests.c.id).where(is_one_of(connection, manifests.c.digest, batch))
                names.update(_tags_of(connection, repository_id, starts))
        return names

    def tags_above_gaps(self, repository_id: str) -> set[TagName]:
        """Tags of the latest version below which an entry is missing because the registry did not have it."""
        gaps = select(repository_links.c.parent_id).where(
            is_present(repository_links, repository_id), repository_links.c.child_id.is_(None)
        )
        with self._transactions.reading() as connection:
            if connection.execute(gaps.limit(1)).first() is None:
                return set()
            return set(_tags_of(connection, repository_id, gaps))

    def record_referrers_api(self, run_id: str, *, exists: bool) -> None:
        """Records whether the run's registry has the referrers API; a positive finding of any task stays."""
        has_it = sync_runs.c.has_referrers_api
        value = True if exists else case((has_it.is_(True), True), else_=False)
        with self._transactions.writing() as connection:
            connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(has_referrers_api=value))

    def lacks_referrers_api(self, run_id: str) -> bool:
        """Whether this run or recent runs of the same remote found that the repository has no referrers API.

        False when one of them found it: a proxy that hides it temporarily must not hide later referrers. Findings from
        when the remote had another registry or repository do not count.
        """
        return self._referrers_api_findings(run_id) == {False}

    def knows_referrers_api(self, run_id: str) -> bool:
        """Whether this run or recent runs of the same remote found the API; see :meth:`lacks_referrers_api`."""
        return True in self._referrers_api_findings(run_id)

    def _referrers_api_findings(self, run_id: str) -> set[bool]:
        this = select(sync_runs.c.remote_id, sync_runs.c.remote_spec).where(sync_runs.c.id == run_id)
        statement = (
            select(sync_runs.c.has_referrers_api, sync_runs.c.remote_spec)
            .where(sync_runs.c.has_referrers_api.is_not(None))
            .where(sync_runs.c.started_at > utc_now() - API_REMEMBERED)
        )
        with self._transactions.reading() as connection:
            run = connection.execute(this).one_or_none()
            if run is None or run.remote_id is None:
                return set()
            source = RemoteSpec.of_document(run.remote_spec).source
            found = connection.execute(statement.where(sync_runs.c.remote_id == run.remote_id))
            return {row.has_referrers_api for row in found if RemoteSpec.of_document(row.remote_spec).source == source}

    def record_referrers_problem(self, run_id: str, problem: str) -> None:
        """Records why referrers could not be looked up; the version that the run makes says so."""
        with self._transactions.writing() as connection:
            connection.execute(
                update(sync_runs).where(sync_runs.c.id == run_id).values(referrers_problem=storable(problem))
            )


def _tags_of(connection: Connection, repository_id: str, starts: Select[Any]) -> Sequence[TagName]:
    above = closure_of(starts, LinkRows.of_latest(repository_id), Direction.UP)
    statement = (
        select(tags.c.name)
        .join(above, above.c.manifest_id == tags.c.manifest_id)
        .where(is_in_latest("tags", tags.c.id, repository_id))
    )
    return [TagName(name) for name in connection.execute(statement).scalars()]


#: Tags in these states stay in a mirror as they are in its latest version.
_KEPT = (TagState.UNCHANGED.value, TagState.HELD.value, TagState.FILTERED.value)


#: How many images are named where a sync would store too much.
_SHOWN_IMAGES = 5


def required_blobs(connection: Connection, run: Row[Any]) -> list[RequiredBlob]:
    """Every blob below changed tags, and those below tags that stay as they are that are not stored; by digest."""
    return [
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
    ]


def plan_rows(
    connection: Connection, run: Row[Any], shards: Mapping[int, Sequence[RequiredBlob]]
) -> list[dict[str, Any]]:
    """Rows of ``run_blobs`` for a plan, in one order.

    Raises :class:`RecordNotFound` for an unknown blob, :class:`LimitExceeded` for more bytes than the remote allows.
    """
    planned = {blob.digest: (shard, blob) for shard, of_shard in shards.items() for blob in of_shard}
    _refuse_too_large(connection, run, {digest: blob.size_bytes for digest, (_, blob) in planned.items()})
    ids = ids_by_digest(connection, blobs, planned)
    unknown = next((digest for digest in planned if digest not in ids), None)
    if unknown is not None:
        raise RecordNotFound(f"the sync run does not need blob {unknown}")
    return [
        {
            "sync_run_id": run.id,
            "blob_id": ids[digest],
            "shard": shard,
            "size_bytes": blob.size_bytes,
            "media_type": blob.media_type,
            "is_foreign": blob.is_foreign,
        }
        for digest, (shard, blob) in sorted(planned.items())
    ]


def _refuse_too_large(connection: Connection, run: Row[Any], sizes: Mapping[Digest, int]) -> None:
    """Raises :class:`LimitExceeded` when blobs of these ``sizes`` are together more than the run may store."""
    remote, total = RemoteSpec.of_document(run.remote_spec), sum(sizes.values())
    limit = remote.max_total_bytes
    if limit is None or total <= limit:
        return
    images = _images_by_size(connection, run, sizes)
    shown = [f"{_named(names)} {_bytes(size)}" for names, size in images[:_SHOWN_IMAGES]]
    more = f" and {len(images) - _SHOWN_IMAGES:,} more" if len(images) > _SHOWN_IMAGES else ""
    raise LimitExceeded(
        f"this sync would store {_bytes(total)} that the blob store lacks, and max_total_bytes of remote "
        f"{remote.name!r} allows {_bytes(limit)}. Nothing was downloaded. The largest images, each with what it shares "
        f"with others: {', '.join(shown)}{more}. Exclude tags, select fewer platforms, or raise max_total_bytes",
        limit="max_total_bytes",
    )


def _images_by_size(
    connection: Connection, run: Row[Any], sizes: Mapping[Digest, int]
) -> list[tuple[list[TagName], int]]:
    """The tags of each image of a run that has some of the blobs, and the bytes of these; the largest first."""
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
    found: dict[int, tuple[set[TagName], set[Digest]]] = {}
    for named, links in ((resolved, LinkRows.of_run(run.id)), (kept, LinkRows.of_latest(run.repository_id))):
        below = closure_by_start(select(named.subquery().c.manifest_id), links)
        blobs_below = (
            select(below.c.start_id, blobs.c.digest)
            .join(manifest_blobs, manifest_blobs.c.manifest_id == below.c.manifest_id)
            .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
            .distinct()
        )
        for row in connection.execute(named):
            found.setdefault(row.manifest_id, (set(), set()))[0].add(TagName(row.name))
        for row in connection.execute(blobs_below):
            if row.digest in sizes:
                found[row.start_id][1].add(row.digest)
    images = [(sorted(names), sum(sizes[digest] for digest in below)) for names, below in found.values() if below]
    return sorted(images, key=lambda image: (-image[1], image[0]))


def _named(names: Sequence[TagName]) -> str:
    """``latest``, or ``3.19 (and 2 more tags)``."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {format_count(len(names) - 1, 'more tag')})"


def _bytes(count: int) -> str:
    """``1.5 KiB (1,536 bytes)``."""
    return f"{format_bytes(count)} ({format_count(count, 'byte')})"


def _required_rows(connection: Connection, run: Row[Any]) -> list[Any]:
    rows = {row.digest: row for row in connection.execute(*_blobs_of_changed(run.id))}
    # The latest version's membership shows cheaply, and nearly always, that the unchanged tags lack nothing.
    if connection.execute(*first_missing_blob(run.repository_id)).first() is not None:
        kept = _blobs_below(_kept_roots(run), LinkRows.of_latest(run.repository_id)).where(blobs.c.stored_at.is_(None))
        for row in connection.execute(kept):
            rows.setdefault(row.digest, row)
    return [rows[digest] for digest in sorted(rows)]


@built_once
def _blobs_of_changed(run_id: str) -> Select[Any]:
    return _blobs_below(tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id))


def _kept_roots(run: Row[Any]) -> Select[Any]:
    """Ids of the manifests of the latest version's tags that the run neither resolved nor removes.

    Tags that an additive run does not list, and tags synced on demand, are left to their first pull.
    """
    is_tag_of_run = and_(run_tags.c.sync_run_id == run.id, run_tags.c.name == tags.c.name)
    if run.mode == SyncMode.MIRROR.value:
        stays = not_(there_is_none(is_tag_of_run, run_tags.c.state.in_(_KEPT)))
    else:
        is_listed = not_(there_is_none(is_tag_of_run, run_tags.c.state.in_(_KEPT)))
        is_brought = not_(there_is_none(is_tag_of_run, run_tags.c.state == TagState.RESOLVED.value))
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
