"""What a pull asks of the database: which version a name stands for, and what that version holds. Reads only.

Each question costs a fixed number of look-ups through an index, whatever a version holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_

from registry_sync.db.content.closures import is_in_version
from registry_sync.db.engine import Transactions
from registry_sync.db.serving_tables import distributions
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repositories,
    repository_blobs,
    repository_manifests,
    repository_tags,
    repository_versions,
    tags,
)
from registry_sync.domain.content_units import StoredManifest
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole
from registry_sync.domain.references import TagName
from registry_sync.domain.serving import PublishedVersion, version_of_name


@dataclass(frozen=True)
class PublishedTag:
    """A tag of a version, with the digest and the media type of its manifest."""

    name: str
    digest: Digest
    media_type: str


@dataclass(frozen=True)
class PublishedBlob:
    """A blob that a version holds, as its manifests describe it. Whether its bytes are here, the blob store knows."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True)
class Referrer:
    """A manifest that refers to another one, as a list of referrers describes it (distribution specification 1.1)."""

    digest: Digest
    media_type: str
    size_bytes: int
    artifact_type: str | None
    annotations: dict[str, str] = field(default_factory=dict)


class PullStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def published(self, names: Iterable[str]) -> dict[str, PublishedVersion]:
        """What each of ``names`` stands for now; those under which nothing is distributed are absent.

        A name is a base path, or one with ``/versions/<number>`` behind it.
        """
        wanted = {name: version_of_name(name) for name in set(names)}
        paths = {*wanted, *(found[0] for found in wanted.values() if found)}
        with self._transactions.reading() as connection:
            rows = {
                row.base_path: row for row in connection.execute(_SERVED.where(distributions.c.base_path.in_(paths)))
            }
            pairs = {
                (row.repository_id, number)
                for name, found in wanted.items()
                for row, number in [_requested(rows, name, found)]
                if row is not None and number is not None
            }
            existing = _existing(connection, pairs)
        published = {}
        for name, found in wanted.items():
            row, number = _requested(rows, name, found)
            if row is None or (number is not None and (row.repository_id, number) not in existing):
                continue
            published[name] = PublishedVersion(
                name=row.base_path,
                repository_id=row.repository_id,
                number=row.latest_number if number is None else number,
                is_fixed=number is not None,
                is_private=row.is_private,
                oldest=row.oldest or 0,
                state=(row.latest_number or 0, row.version_count),
            )
        return published

    def tag(self, version: PublishedVersion, name: TagName) -> Digest | None:
        """The digest that a tag stands for in the version; None when the version has no such tag."""
        number = version.number or 0
        members = repository_tags.c
        # Intervals of one name do not overlap, so that the last to begin is the only one that can hold the version.
        last = (
            select(members.tag_id, members.version_removed)
            .where(members.repository_id == version.repository_id, members.name == name)
            .where(members.version_added <= number)
            .order_by(members.version_added.desc())
            .limit(1)
            .subquery("last")
        )
        statement = (
            select(manifests.c.digest, last.c.version_removed)
            .select_from(last)
            .join(tags, tags.c.id == last.c.tag_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
        )
        with self._transactions.reading() as connection:
            found = connection.execute(statement).one_or_none()
        if found is None or (found.version_removed is not None and found.version_removed <= number):
            return None
        return Digest(found.digest)

    def tags(self, version: PublishedVersion, after: str | None, limit: int) -> list[PublishedTag]:
        """Up to ``limit`` of the version's tags in order, those after ``after``; it need not be one of them."""
        statement = (
            select(repository_tags.c.name, manifests.c.digest, manifests.c.media_type)
            .join(tags, tags.c.id == repository_tags.c.tag_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
            .where(_is_held(repository_tags, version, only_in_version=True))
            .order_by(repository_tags.c.name)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(repository_tags.c.name > after)
        with self._transactions.reading() as connection:
            found = connection.execute(statement)
            return [PublishedTag(row.name, Digest(row.digest), row.media_type) for row in found]

    def manifest(self, version: PublishedVersion, digest: Digest) -> StoredManifest | None:
        """A manifest that the version holds, or another one of the repository that clients may still be pulling.

        None when none of them does. See :attr:`PublishedVersion.is_fixed`.
        """
        statement = (
            select(manifests.c.media_type, manifests.c.data)
            .where(manifests.c.digest == digest)
            .where(_holds(repository_manifests, repository_manifests.c.manifest_id == manifests.c.id, version))
        )
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else StoredManifest(digest, row.media_type, bytes(row.data))

    def blob(self, version: PublishedVersion, digest: Digest) -> PublishedBlob | None:
        """As :meth:`manifest`, of a blob."""
        statement = (
            select(blobs.c.size_bytes)
            .where(blobs.c.digest == digest)
            .where(_holds(repository_blobs, repository_blobs.c.blob_id == blobs.c.id, version))
        )
        with self._transactions.reading() as connection:
            size = connection.execute(statement).scalar_one_or_none()
        return None if size is None else PublishedBlob(digest, size)

    def referrers(
        self, version: PublishedVersion, subject: Digest, *, artifact_type: str | None, after: str | None, limit: int
    ) -> list[Referrer]:
        """Up to ``limit`` manifests of the version that refer to ``subject``, ordered by digest, those after ``after``.

        The type of an image manifest that states none is that of its config (distribution specification 1.1, "Listing
        Referrers"). ``artifact_type`` None lists all.
        """
        config_type = (
            select(manifest_blobs.c.media_type)
            .where(manifest_blobs.c.manifest_id == manifests.c.id, manifest_blobs.c.role == BlobRole.CONFIG.value)
            .limit(1)
            .scalar_subquery()
        )
        stated = func.coalesce(func.nullif(manifests.c.artifact_type, ""), config_type)
        statement = (
            select(
                manifests.c.digest,
                manifests.c.media_type,
                manifests.c.size_bytes,
                manifests.c.annotations,
                stated.label("artifact_type"),
            )
            .join(repository_manifests, repository_manifests.c.manifest_id == manifests.c.id)
            .where(manifests.c.subject_digest == subject)
            .where(_is_held(repository_manifests, version, only_in_version=True))
            .order_by(manifests.c.digest)
            .limit(limit)
        )
        if artifact_type is not None:
            statement = statement.where(stated == artifact_type)
        if after is not None:
            statement = statement.where(manifests.c.digest > after)
        with self._transactions.reading() as connection:
            return [
                Referrer(Digest(row.digest), row.media_type, row.size_bytes, row.artifact_type, row.annotations)
                for row in connection.execute(statement)
            ]

    def base_paths(self, after: str | None, limit: int) -> list[tuple[str, bool]]:
        """Up to ``limit`` base paths under which something is served, in order, and whether each is private."""
        statement = (
            select(distributions.c.base_path, distributions.c.is_private)
            .where(distributions.c.repository_id.is_not(None))
            .order_by(distributions.c.base_path)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(distributions.c.base_path > after)
        with self._transactions.reading() as connection:
            return [(row.base_path, row.is_private) for row in connection.execute(statement)]


def _of_versions(value: ColumnElement[Any]) -> ColumnElement[Any]:
    is_own = repository_versions.c.repository_id == repositories.c.id
    return select(value).select_from(repository_versions).where(is_own).correlate(repositories).scalar_subquery()


_SERVED = select(
    distributions.c.base_path,
    distributions.c.repository_id,
    distributions.c.version_number,
    distributions.c.is_private,
    repositories.c.latest_number,
    _of_versions(func.count()).label("version_count"),
    _of_versions(func.min(repository_versions.c.number)).label("oldest"),
).join(repositories, repositories.c.id == distributions.c.repository_id)


def _requested(rows: dict[str, Any], name: str, of_version: tuple[str, int] | None) -> tuple[Any, int | None]:
    """The row of the distribution that ``name`` is about, and the number that it fixes; the name as it is goes first.

    Of a distribution of one version no other version can be asked for.
    """
    if name in rows:
        return rows[name], rows[name].version_number
    if of_version is None or (row := rows.get(of_version[0])) is None:
        return None, None
    if row.version_number not in (None, of_version[1]):
        return None, None
    return row, of_version[1]


def _existing(connection: Connection, pairs: set[tuple[str, int]]) -> set[tuple[str, int]]:
    if not pairs:
        return set()
    key = tuple_(repository_versions.c.repository_id, repository_versions.c.number)
    statement = select(repository_versions.c.repository_id, repository_versions.c.number).where(key.in_(pairs))
    return {(row.repository_id, row.number) for row in connection.execute(statement)}


def _is_held(membership: Any, version: PublishedVersion, *, only_in_version: bool) -> ColumnElement[bool]:
    if only_in_version or version.is_fixed:
        return is_in_version(membership, version.repository_id, version.number or 0)
    # Whoever asked for a tag just before a sync pulls what is below it just after: older versions count, too.
    # What ended with the oldest of them is in none.
    condition: ColumnElement[bool] = (membership.c.repository_id == version.repository_id) & (
        membership.c.version_removed.is_(None) | (membership.c.version_removed > version.oldest)
    )
    return condition


def _holds(membership: Any, is_unit: ColumnElement[bool], version: PublishedVersion) -> ColumnElement[bool]:
    rows: Select[Any] = select(membership.c.repository_id).where(
        is_unit, _is_held(membership, version, only_in_version=False)
    )
    return rows.exists()
