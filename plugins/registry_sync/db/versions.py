"""Repository versions: numbered, immutable sets of content, and the commit that makes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, tuple_

from registry_sync.db.batches import in_batches
from registry_sync.db.closures import is_in_latest, is_in_version
from registry_sync.db.commit import commit_run, run_differs
from registry_sync.db.paging import fetch_page
from registry_sync.db.tables import (
    blobs,
    manifests,
    repositories,
    repository_tags,
    repository_versions,
    tags,
    version_holds,
)
from registry_sync.db.transactions import Transactions
from registry_sync.domain.content_summary import ContentSummary
from registry_sync.domain.digests import Digest
from registry_sync.domain.pages import Page, PageRequest
from registry_sync.domain.records import Hold, RepositoryVersion
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import CommitResult
from registry_sync.errors import RecordNotFound

_ORDERINGS = {"number": repository_versions.c.number, "created_at": repository_versions.c.created_at}
_NEWEST_FIRST = PageRequest(ordering="-number")


class VersionStore:
    """Each method is a transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def latest(self, repository_id: str) -> RepositoryVersion | None:
        """The latest version, None before the first."""
        with self._transactions.reading() as connection:
            number = latest_number(connection, repository_id)
            return None if number is None else _require(connection, repository_id, number)

    def get(self, repository_id: str, number: int) -> RepositoryVersion:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _require(connection, repository_id, number)

    def page(self, repository_id: str, request: PageRequest = _NEWEST_FIRST) -> Page[RepositoryVersion]:
        """A repository's versions, the newest first unless ordered otherwise by ``number`` or ``created_at``."""
        statement = select(repository_versions).where(repository_versions.c.repository_id == repository_id)
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, _ORDERINGS, repository_versions.c.number)
            return Page(tuple(_versions(connection, rows)), total)

    def tags(self, repository_id: str, number: int | None = None) -> dict[TagName, Digest]:
        """The tags of a version, the latest by default, by name; empty before the first version.

        Raises :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            wanted = resolve_number(connection, repository_id, number)
            if wanted is None:
                return {}
            rows = connection.execute(
                select(tags.c.name, manifests.c.digest)
                .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
                .join(manifests, manifests.c.id == tags.c.manifest_id)
                .where(is_in_version(repository_tags, repository_id, wanted))
                .order_by(tags.c.name)
            )
            return {TagName(row.name): Digest(row.digest) for row in rows}

    def missing_blob_count(self, repository_id: str) -> int:
        """How many blobs of the latest version, foreign ones apart, are not in the blob store."""
        # From the few blobs that are missing anywhere to the membership, not from the many members.
        is_member = is_in_latest("blobs", blobs.c.id, repository_id)
        statement = (
            select(func.count()).select_from(blobs).where(blobs.c.stored_at.is_(None), ~blobs.c.is_foreign, is_member)
        )
        with self._transactions.reading() as connection:
            return connection.execute(statement).scalar_one()

    def differs(self, run_id: str) -> bool:
        """Whether a commit of the run, as far as it is, would make a version; tags not fetched yet count as changed."""
        with self._transactions.reading() as connection:
            return run_differs(connection, run_id)

    def commit(self, run_id: str) -> CommitResult:
        """The version that the run makes, or no version when nothing differs; a repeat gives the same.

        One transaction under a lock on the repository. Tags that were not fetched, and changed ones that lack a blob
        under the immediate policy, are held. Raises :class:`NothingSynced` when all there is to say is held,
        :class:`RecordNotFound` for an unknown run.
        """
        with self._transactions.writing() as connection:
            repository_id, number = commit_run(connection, run_id)
            if number is None:
                return CommitResult(None)
            version = _require(connection, repository_id, number)
        return CommitResult(version, version.holds, version.summary.counts())


def latest_number(connection: Connection, repository_id: str) -> int | None:
    """The number of the latest version, None before the first. Raises :class:`RecordNotFound`."""
    row = connection.execute(
        select(repositories.c.latest_number).where(repositories.c.id == repository_id)
    ).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
    number: int | None = row.latest_number
    return number


def resolve_number(connection: Connection, repository_id: str, number: int | None) -> int | None:
    """``number``, which exists, or for None the latest; None before the first. Raises :class:`RecordNotFound`."""
    if number is None:
        return latest_number(connection, repository_id)
    if connection.execute(_select_version(repository_id, number)).first() is None:
        raise RecordNotFound(f"there is no version {number} of repository {repository_id[:255]!r}")
    return number


def _select_version(repository_id: str, number: int) -> Select[Any]:
    is_wanted = (repository_versions.c.repository_id == repository_id) & (repository_versions.c.number == number)
    return select(repository_versions).where(is_wanted)


def _require(connection: Connection, repository_id: str, number: int) -> RepositoryVersion:
    rows = connection.execute(_select_version(repository_id, number)).all()
    if not rows:
        raise RecordNotFound(f"there is no version {number} of repository {repository_id[:255]!r}")
    return _versions(connection, rows)[0]


def _versions(connection: Connection, rows: Sequence[Row[Any]]) -> list[RepositoryVersion]:
    """Rows of versions as values, with the holds of all of them."""
    holds: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    identity = tuple_(version_holds.c.repository_id, version_holds.c.number)
    for batch in in_batches([(row.repository_id, row.number) for row in rows]):
        statement = select(version_holds).where(identity.in_(batch)).order_by(version_holds.c.tag)
        for hold in connection.execute(statement):
            kept = None if hold.digest is None else Digest(hold.digest)
            holds[hold.repository_id, hold.number].append(Hold(TagName(hold.tag), kept, hold.reason))
    return [
        RepositoryVersion(
            repository_id=row.repository_id,
            number=row.number,
            created_at=row.created_at,
            summary=_summary(row),
            base_number=row.base_number,
            holds=tuple(holds[row.repository_id, row.number]),
        )
        for row in rows
    ]


def _summary(row: Row[Any]) -> ContentSummary:
    kinds = {"docker.blob": "blobs", "docker.manifest": "manifests", "docker.tag": "tags"}
    parts = {
        part: {name: getattr(row, f"{kind}_{part}") for name, kind in kinds.items()}
        for part in ("added", "present", "removed")
    }
    return ContentSummary(**parts)
