"""The manifests that a run includes below its tags, and those of the latest version.

A run reads manifests and records links: from an index to its selected entries, from a subject to its referrers. The
commit follows these links and no others; until then they are working records, like the run's tags.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, Update, case, select, update

from registry_sync.db.content.closures import (
    Direction,
    LinkRows,
    closure_of,
    is_in_latest,
    is_present,
    reached,
    read_children,
)
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, ids_by_digest, in_batches, insert_absent, is_one_of, storable
from registry_sync.db.runs.unchanged_tags import names_without_row
from registry_sync.db.tables import (
    manifests,
    repositories,
    repository_links,
    repository_manifests,
    run_links,
    run_manifests,
    run_tags,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.media_types import INDEX_TYPES
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import LinkKind, ManifestLink, TagState
from registry_sync.errors import RecordNotFound

#: How long the finding of an earlier run that a registry has no referrers API is used.
API_REMEMBERED = timedelta(days=7)


@built_once
def _selecting_run(repository_id: str) -> Select[Any]:
    return (
        select(sync_runs.c.remote_spec, sync_runs.c.mode)
        .join(repositories, repositories.c.settled_run_id == sync_runs.c.id)
        .where(repositories.c.id == repository_id, repositories.c.settled_version == repositories.c.latest_number)
    )


@built_once
def _held_tags(repository_id: str) -> Select[Any]:
    return (
        select(version_holds.c.tag)
        .join(repositories, repositories.c.id == version_holds.c.repository_id)
        .where(repositories.c.id == repository_id, version_holds.c.number == repositories.c.latest_number)
    )


def _gaps(repository_id: str) -> Select[Any]:
    """The manifests of the latest version below which an entry is missing."""
    return select(repository_links.c.parent_id).where(
        is_present(repository_links, repository_id), repository_links.c.child_id.is_(None)
    )


@built_once
def _first_gap(repository_id: str) -> Select[Any]:
    return _gaps(repository_id).limit(1)


@built_once
def _remote_of(run_id: str) -> Select[Any]:
    run = sync_runs.c
    return select(run.repository_id, run.remote_id, run.remote_spec).where(run.id == run_id)


@built_once
def _api_findings(repository_id: str, remote_id: str, since: datetime) -> Select[Any]:
    """By the repository, which has an index: a fleet makes a run for each of its mirrors, each time."""
    run = sync_runs.c
    return (
        select(run.has_referrers_api, run.remote_spec)
        .where(run.repository_id == repository_id, run.started_at > since)
        .where(run.has_referrers_api.is_not(None), run.remote_id == remote_id)
    )


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
            unchanged = {name for batch in in_batches(ordered) for name in names_without_row(connection, run_id, batch)}
            ordered = [name for name in ordered if name not in unchanged]
            insert_absent(connection, run_tags, [{"sync_run_id": run_id, "name": name, **pending} for name in ordered])
            for batch in in_batches(ordered):
                connection.execute(
                    update(run_tags)
                    .where(run_tags.c.sync_run_id == run_id, run_tags.c.name.in_(batch))
                    .where(run_tags.c.state.in_([TagState.CANDIDATE.value, TagState.UNLISTED.value]))
                    .values(**pending)
                )

    def selecting_remote(self, repository_id: str, mode: SyncMode) -> RemoteSpec | None:
        """The remote whose options selected the content of the latest version; None when no sync selected it.

        That is so before the first version, after a version made from another one, and after the latest was deleted.
        For a mirror also after an additive sync, which keeps what earlier selections included.
        """
        with self._transactions.reading() as connection:
            run = connection.execute(*_selecting_run(repository_id)).one_or_none()
        if run is None or (mode is SyncMode.MIRROR and run.mode != mode.value):
            return None
        return RemoteSpec.of_document(run.remote_spec)

    def held_tags(self, repository_id: str) -> set[TagName]:
        """Tags that the latest version holds back: its sync did not select the content below them."""
        with self._transactions.reading() as connection:
            return {TagName(name) for name in connection.execute(*_held_tags(repository_id)).scalars()}

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
        found: dict[Digest, set[Digest]] = defaultdict(set)
        with self._transactions.reading() as connection:
            for row in connection.execute(*_referrers_of(repository_id)):
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
        with self._transactions.reading() as connection:
            if connection.execute(*_first_gap(repository_id)).first() is None:
                return set()
            return set(_tags_of(connection, repository_id, _gaps(repository_id)))

    def record_referrers_api(self, run_id: str, *, exists: bool) -> None:
        """Records whether the run's registry has the referrers API; a positive finding of any task stays."""
        with self._transactions.writing() as connection:
            connection.execute(*_found_api(run_id, exists=exists))

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
        with self._transactions.reading() as connection:
            run = connection.execute(*_remote_of(run_id)).one_or_none()
            if run is None or run.remote_id is None:
                return set()
            source = RemoteSpec.of_document(run.remote_spec).source
            found = connection.execute(*_api_findings(run.repository_id, run.remote_id, utc_now() - API_REMEMBERED))
            return {row.has_referrers_api for row in found if RemoteSpec.of_document(row.remote_spec).source == source}

    def record_referrers_problem(self, run_id: str, problem: str) -> None:
        """Records why referrers could not be looked up; the version that the run makes says so."""
        with self._transactions.writing() as connection:
            connection.execute(
                update(sync_runs).where(sync_runs.c.id == run_id).values(referrers_problem=storable(problem))
            )


@built_once
def _referrers_of(repository_id: str) -> Select[Any]:
    return (
        select(manifests.c.digest, repository_links.c.child_digest)
        .join(repository_links, repository_links.c.parent_id == manifests.c.id)
        .where(is_present(repository_links, repository_id), repository_links.c.kind == LinkKind.REFERRER.value)
    )


@built_once
def _found_api(run_id: str, *, exists: bool) -> Update:
    value = True if exists else case((sync_runs.c.has_referrers_api.is_(True), True), else_=False)
    return update(sync_runs).where(sync_runs.c.id == run_id).values(has_referrers_api=value)


def _tags_of(connection: Connection, repository_id: str, starts: Select[Any]) -> Sequence[TagName]:
    above = closure_of(starts, LinkRows.of_latest(repository_id), Direction.UP)
    statement = (
        select(tags.c.name)
        .join(above, above.c.manifest_id == tags.c.manifest_id)
        .where(is_in_latest("tags", tags.c.id, repository_id))
    )
    return [TagName(name) for name in connection.execute(statement).scalars()]
