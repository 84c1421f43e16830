"""Repository versions: numbered, immutable sets of content; how they are made and compared, and where they came from.

No method changes the content of a version. Its description and labels (:meth:`VersionStore.annotate`) are not content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Select, and_, case, false, func, or_, select, update

from registry_sync.db.content.closures import has_unit, is_in_latest, is_in_version, lacks_blob
from registry_sync.db.engine import Transactions
from registry_sync.db.filtering import Searched, condition
from registry_sync.db.queries import built_once, fetch_page, storable
from registry_sync.db.runs.run_rows import read_run, require_run
from registry_sync.db.tables import (
    blobs,
    manifests,
    repositories,
    repository_tags,
    repository_versions,
    sync_runs,
    tags,
)
from registry_sync.db.versions.commit import commit_run, lock_repository, record_refusal
from registry_sync.db.versions.derived_versions import copy_manifests, copy_tags, roll_back
from registry_sync.db.versions.removal_guard import tags_without_platform
from registry_sync.db.versions.tag_changes import remove_tag, set_tag
from registry_sync.db.versions.version_differences import tag_difference, version_difference
from registry_sync.db.versions.version_rows import (
    BLOBS,
    MANIFESTS,
    Intervals,
    delete_version,
    derived_version,
    latest_number,
    read_versions,
    require_row,
    require_version,
    resolve_number,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.filters import EVERYTHING, Filter, Match
from registry_sync.domain.records import (
    FIRST_PAGE,
    Annotation,
    Page,
    PageRequest,
    RepositoryVersion,
    version_number,
)
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import CommitResult, LatestTags
from registry_sync.domain.version_history import (
    BlobProvenance,
    CopyRequest,
    DerivedVersion,
    Holder,
    ManifestCopy,
    ManifestProvenance,
    TagDifference,
    VersionDifference,
    VersionProvenance,
)
from registry_sync.errors import ApprovalRequired, RecordNotFound


class ProvenanceStore:
    """Each method is a short transaction of its own. Missing records raise :class:`RecordNotFound`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def version(self, repository_id: str, number: int) -> VersionProvenance:
        """The version with the sync that made it, if that is still recorded."""
        with self._transactions.reading() as connection:
            row = require_row(connection, repository_id, number)
            run = connection.execute(select(sync_runs).where(sync_runs.c.id == row.sync_run_id)).one_or_none()
            source = select(repositories.c.name).where(repositories.c.id == row.origin_repository_id)
            return VersionProvenance(
                version=read_versions(connection, [row])[0],
                run=None if run is None else read_run(run),
                origin_repository_name=connection.execute(source).scalar_one_or_none(),
            )

    def blob(self, digest: Digest) -> BlobProvenance:
        """Where the bytes of a blob came from, when they were stored and verified, and which repositories hold it."""
        with self._transactions.reading() as connection:
            row = _require(connection, blobs, "blob", digest)
            return BlobProvenance(
                digest=digest,
                size_bytes=row.size_bytes,
                source=row.source,
                created_at=row.created_at,
                stored_at=row.stored_at,
                verified_at=row.verified_at,
                fault=row.fault,
                fault_at=row.fault_at,
                holders=_holders(connection, BLOBS, row.id),
            )

    def manifest(self, digest: Digest) -> ManifestProvenance:
        """When a manifest was stored, and which repositories hold it."""
        with self._transactions.reading() as connection:
            row = _require(connection, manifests, "manifest", digest)
            return ManifestProvenance(digest, row.size_bytes, row.created_at, _holders(connection, MANIFESTS, row.id))


def _require(connection: Connection, content: Any, kind: str, digest: Digest) -> Any:
    columns = [column for column in content.c if column.name != "data"]
    row = connection.execute(select(*columns).where(content.c.digest == digest)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no {kind} {digest}")
    return row


def _holders(connection: Connection, intervals: Intervals, unit_id: int) -> tuple[Holder, ...]:
    rows, versions = intervals.table, repository_versions.c
    oldest = select(func.min(versions.number)).where(versions.repository_id == repositories.c.id).scalar_subquery()
    statement = (
        select(
            repositories.c.id,
            repositories.c.name,
            func.min(rows.c.version_added).label("first"),
            oldest.label("oldest"),
            func.count(case((rows.c.version_removed.is_(None), 1))).label("open"),
        )
        .join(rows, rows.c.repository_id == repositories.c.id)
        # Intervals that ended with the oldest kept version are in no version.
        .where(
            rows.c[intervals.unit[0]] == unit_id, rows.c.version_removed.is_(None) | (rows.c.version_removed > oldest)
        )
        .group_by(repositories.c.id, repositories.c.name)
        .order_by(repositories.c.name)
    )
    return tuple(
        Holder(row.id, row.name, max(row.first, row.oldest), is_in_latest=row.open > 0)
        for row in connection.execute(statement)
    )


_ORDERINGS = {"number": repository_versions.c.number, "created_at": repository_versions.c.created_at}


def _is_one_of(match: Match) -> ColumnElement[bool]:
    """Whether it is one of these versions: pairs of a repository's id and a number."""
    versions = repository_versions.c
    return or_(false(), *(and_(versions.repository_id == of, versions.number == number) for of, number in match.values))


def _named_like(connection: Connection, match: Match) -> ColumnElement[bool]:
    """Whether it is a version of one of these UUIDs, of :func:`version_uuid`."""
    named = []
    for wanted in match.values:
        alike = repositories.c.id.between(f"{wanted[:-8]}00000000", f"{wanted[:-8]}ffffffff")
        ids = connection.execute(select(repositories.c.id).where(alike)).scalars()
        named += [(found, version_number(found, wanted)) for found in ids]
    return _is_one_of(Match(match.field, tuple(named)))


def _has_one_of(match: Match) -> ColumnElement[bool]:
    """Whether it has one of these units: pairs of a kind and an id."""
    return or_(false(), *(has_unit(kind, unit_id) for kind, unit_id in match.values))


_SEARCHED: dict[str, Searched] = {**_ORDERINGS, "id": _is_one_of, "content": _has_one_of}
_NEWEST_FIRST = PageRequest(ordering="-number")


@built_once
def _first_names(repository_id: str, number: int, most: int) -> Select[Any]:
    names = select(tags.c.name).join(repository_tags, repository_tags.c.tag_id == tags.c.id)
    return names.where(is_in_version(repository_tags, repository_id, number)).order_by(tags.c.name).limit(most)


@built_once
def _tags_of(repository_id: str, number: int) -> Select[Any]:
    return (
        select(tags.c.name, manifests.c.digest)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(is_in_version(repository_tags, repository_id, number))
        .order_by(tags.c.name)
    )


@built_once
def _missing_blobs(repository_id: str, *, with_foreign: bool) -> Select[Any]:
    """How many there are where :func:`lacks_blob` says that there are some."""
    is_member = is_in_latest("blobs", blobs.c.id, repository_id)
    statement = select(func.count()).select_from(blobs).where(blobs.c.stored_at.is_(None), is_member)
    return statement if with_foreign else statement.where(~blobs.c.is_foreign)


#: Rows that are read at once.
_ROWS_AT_ONCE = 2000


class VersionStore:
    """Each method is a transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def latest_number(self, repository_id: str) -> int | None:
        """The number of the latest version, None before the first. Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return latest_number(connection, repository_id)

    def latest(self, repository_id: str) -> RepositoryVersion | None:
        """The latest version, None before the first."""
        with self._transactions.reading() as connection:
            number = latest_number(connection, repository_id)
            return None if number is None else require_version(connection, repository_id, number)

    def get(self, repository_id: str, number: int) -> RepositoryVersion:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return require_version(connection, repository_id, number)

    def page(
        self, repository_id: str | None, request: PageRequest = _NEWEST_FIRST, *, where: Filter = EVERYTHING
    ) -> Page[RepositoryVersion]:
        """A repository's versions, or those of all for None; the newest first by default.

        They are ordered by ``number`` or ``created_at``.
        """
        versions = repository_versions.c
        statement = select(repository_versions)
        if repository_id is not None:
            statement = statement.where(versions.repository_id == repository_id)
        with self._transactions.reading() as connection:
            searched = {**_SEARCHED, "prn": partial(_named_like, connection)}
            found = statement.where(condition(where, searched))
            tie_breaker = versions.number if repository_id is not None else versions.repository_id
            rows, total = fetch_page(connection, found, request, _ORDERINGS, tie_breaker)
            return Page(tuple(read_versions(connection, rows)), total)

    def tags(self, repository_id: str, number: int | None = None) -> dict[TagName, Digest]:
        """The tags of a version, the latest by default, by name; empty before the first version.

        Raises :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            wanted = resolve_number(connection, repository_id, number)
            if wanted is None:
                return {}
            rows = connection.execute(*_tags_of(repository_id, wanted))
            return {TagName(row.name): Digest(row.digest) for row in rows}

    def latest_tags(self, repository_id: str, known: Sequence[TagName] = ()) -> LatestTags:
        """The number and the tags of the latest version. Raises :class:`RecordNotFound`.

        Names that are among ``known``, which are in order, are shared with them, to take less memory.
        """
        from registry_sync.domain.packed_tags import PackedTags

        with self._transactions.reading() as connection:
            number = latest_number(connection, repository_id)
            if number is None:
                return LatestTags(None, {})
            rows = connection.execute(*_tags_of(repository_id, number), execution_options={"yield_per": _ROWS_AT_ONCE})
            found = PackedTags.of(((TagName(row.name), Digest(row.digest)) for row in rows), known)
            return LatestTags(number, cast("Mapping[TagName, Digest]", found))  # none is unknown

    def first_names(self, repository_id: str, most: int) -> list[TagName]:
        """At most ``most`` names of the latest version's tags, in order; none without a version.

        Raises :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            number = latest_number(connection, repository_id)
            if number is None:
                return []
            return [TagName(name) for name in connection.execute(*_first_names(repository_id, number, most)).scalars()]

    def missing_blob_count(self, repository_id: str, *, with_foreign: bool = False) -> int:
        """How many blobs of the latest version the blob store lacks; foreign ones are counted ``with_foreign``."""
        with self._transactions.reading() as connection:
            if not lacks_blob(connection, repository_id):
                return 0
            found = connection.execute(*_missing_blobs(repository_id, with_foreign=with_foreign))
            return int(found.scalar_one())

    def commit(self, run_id: str) -> CommitResult:
        """The version that the run makes, or no version when nothing differs; a repeat returns the same.

        One transaction under a lock on the repository. Under the immediate policy, changed tags that lack a blob are
        held. Raises :class:`NothingSynced` when everything that differs is held, :class:`StagesUnfinished` when
        something was not fetched at all, :class:`RunEnded` when the DAG run has ended, :class:`RecordNotFound` for an
        unknown run; :class:`ApprovalRequired` for removals without an approval, which are recorded with the run and may
        then be approved.
        """
        try:
            with self._transactions.writing() as connection:
                filtered = tags_without_platform(connection, run_id)
                repository_id, number = commit_run(connection, run_id)
                if number is None:
                    return CommitResult(None, filtered_tags=tuple(filtered))
                version = require_version(connection, repository_id, number)
                approved_by = require_run(connection, run_id).removals_approved_by
        except ApprovalRequired as refused:
            with self._transactions.writing() as connection:
                record_refusal(connection, run_id, refused)
            raise
        held = {hold.tag for hold in version.holds}
        excluded = tuple(tag for tag in filtered if tag not in held)
        return CommitResult(version, version.holds, version.summary.counts(), approved_by, excluded)

    def difference(
        self,
        repository_id: str,
        number: int,
        base_number: int,
        *,
        base_repository_id: str | None = None,
        request: PageRequest = FIRST_PAGE,
    ) -> VersionDifference:
        """The difference from any other version, also of another repository; base 0 is the empty version.

        ``request`` selects the page of each of the three lists; its ordering is not used. Raises
        :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            base = (base_repository_id or repository_id, base_number)
            return version_difference(connection, (repository_id, number), base, request)

    def tag_difference(self, version: RepositoryVersion, *, limit: int) -> TagDifference:
        """The tags that differ from the base of ``version``: at most ``limit``, moved ones first, then added ones.

        Everything is added in a version without a base. Raises :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            return tag_difference(connection, version.repository_id, version.number, version.base_number or 0, limit)

    def roll_back(
        self, repository_id: str, number: int, *, by: str | None = None, description: str | None = None
    ) -> DerivedVersion:
        """A new version with the content of version ``number``; none when the latest has it, so a repeat makes none.

        One transaction under a lock on the repository. Blobs whose bytes are no longer stored do not prevent it, and
        are counted. Raises :class:`RecordNotFound`.
        """
        with self._transactions.writing() as connection:
            repository = lock_repository(connection, repository_id)
            made = roll_back(connection, repository, number, by=by, description=description)
            return derived_version(connection, repository_id, made)

    def copy(
        self,
        repository_id: str,
        request: CopyRequest,
        *,
        by: str | None = None,
        description: str | None = None,
    ) -> DerivedVersion:
        """A new version of ``repository_id`` with tags of a version of another repository; a repeat makes none.

        The tags come with everything that the other version includes below them. One transaction under locks on both
        repositories. Raises :class:`RecordNotFound` for an unknown repository, version or tag, and when no tag is
        selected; :class:`InvalidReference` for a copy of a repository into itself.
        """
        with self._transactions.writing() as connection:
            made = copy_tags(connection, repository_id, request, by=by, description=description)
            return derived_version(connection, repository_id, made)

    def copy_manifests(self, repository_id: str, request: ManifestCopy, *, by: str | None = None) -> DerivedVersion:
        """A new version of ``repository_id`` with manifests of a version of another repository; a repeat makes none.

        They come with everything that the other version includes below them, and without tags. Raises as :meth:`copy`
        does; :class:`RecordNotFound` also for a manifest that the version does not have.
        """
        with self._transactions.writing() as connection:
            made = copy_manifests(connection, repository_id, request, by=by)
            return derived_version(connection, repository_id, made)

    def set_tag(self, repository_id: str, name: TagName, digest: Digest, *, by: str | None = None) -> DerivedVersion:
        """A new version whose tag ``name`` is at a manifest that the latest has; none when it is there already.

        Raises :class:`RecordNotFound`.
        """
        with self._transactions.writing() as connection:
            made = set_tag(connection, lock_repository(connection, repository_id), name, digest, by=by)
            return derived_version(connection, repository_id, made)

    def remove_tag(self, repository_id: str, name: TagName, *, by: str | None = None) -> DerivedVersion:
        """A new version without that tag. Raises :class:`RecordNotFound`, also where the latest lacks it."""
        with self._transactions.writing() as connection:
            made = remove_tag(connection, lock_repository(connection, repository_id), name, by=by)
            return derived_version(connection, repository_id, made)

    def delete(
        self, repository_id: str, number: int, only_if: Callable[[RepositoryVersion], None] | None = None
    ) -> None:
        """Removes a version. The content of the others stays, and the number is not reused.

        ``only_if`` may refuse that by an error, for the version as it is. Its additions and removals become those of
        the next version. Raises :class:`RecordNotFound`, and :class:`OnlyVersion` for the last that remains.
        """
        with self._transactions.writing() as connection:
            repository = lock_repository(connection, repository_id)
            if only_if is not None:
                only_if(require_version(connection, repository_id, number))
            delete_version(connection, repository, number)

    def annotate(
        self,
        repository_id: str,
        number: int,
        change: Callable[[Annotation], Annotation],
        only_if: Callable[[RepositoryVersion], None] | None = None,
    ) -> RepositoryVersion:
        """The version with its annotation changed by ``change``, atomically. Raises :class:`RecordNotFound`.

        ``only_if`` may refuse that by an error, for the version as it is.
        """
        versions = repository_versions.c
        with self._transactions.writing() as connection:
            lock_repository(connection, repository_id)
            row = require_row(connection, repository_id, number)
            if only_if is not None:
                only_if(require_version(connection, repository_id, number))
            said = change(Annotation(row.description, row.labels))
            description = None if said.description is None else storable(said.description)
            is_wanted = (versions.repository_id == repository_id) & (versions.number == number)
            values = {"description": description, "labels": dict(said.labels)}
            connection.execute(update(repository_versions).where(is_wanted).values(**values))
            return require_version(connection, repository_id, number)
