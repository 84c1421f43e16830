"""Disk usage of content: in total, for each repository, and without deduplication.

Sizes are those of the records; ``verify`` compares them with the blob store. Foreign blobs that are not stored do not
count as missing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select

from registry_sync.db.engine import Transactions
from registry_sync.db.tables import (
    blobs,
    manifests,
    orphaned_blobs,
    orphaned_manifests,
    repositories,
    repository_blobs,
    repository_manifests,
    repository_versions,
)
from registry_sync.domain.storage_reports import Amount, DiskUsage, RepositoryUsage
from registry_sync.errors import RecordNotFound

_IS_STORED = blobs.c.stored_at.is_not(None)
_IS_LACKING = blobs.c.stored_at.is_(None) & ~blobs.c.is_foreign
_IS_FAULTY = blobs.c.fault.is_not(None)


class DiskUsageStore:
    """Reads only; each report is computed from the content of all repositories, or of one."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def report(self) -> DiskUsage:
        """The usage of all content, and of each repository by name."""
        with self._transactions.reading() as connection:
            is_held = exists().where(repository_blobs.c.blob_id == blobs.c.id)
            orphans = blobs.join(orphaned_blobs, orphaned_blobs.c.blob_id == blobs.c.id)
            orphaned = manifests.join(orphaned_manifests, orphaned_manifests.c.manifest_id == manifests.c.id)
            return DiskUsage(
                repositories=tuple(_repositories(connection)),
                manifests=_amount(connection, manifests, manifests),
                stored=_amount(connection, blobs, blobs, _IS_STORED),
                held=_amount(connection, blobs, blobs, _IS_STORED, is_held),
                orphaned_manifests=_amount(connection, manifests, orphaned),
                orphaned_blobs=_amount(connection, blobs, orphans, _IS_STORED),
                missing=_amount(connection, blobs, blobs, _IS_LACKING, is_held),
                broken=_amount(connection, blobs, blobs, _IS_FAULTY),
            )

    def repository(self, repository_id: str) -> RepositoryUsage:
        """The usage of one repository. Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            found = _repositories(connection, repository_id)
        if not found:
            raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
        return found[0]


def _repositories(connection: Connection, repository_id: str | None = None) -> list[RepositoryUsage]:
    """The usage of all repositories by name, or of the one with that id."""
    held_manifests = _by_repository(
        connection, _distinct(repository_manifests, manifests, "manifest_id", *_of(repository_manifests, repository_id))
    )
    those = _of(repository_blobs, repository_id)
    held = _by_repository(connection, _distinct(repository_blobs, blobs, "blob_id", _IS_STORED, *those))
    missing = _by_repository(connection, _distinct(repository_blobs, blobs, "blob_id", _IS_LACKING, *those))
    broken = _by_repository(connection, _distinct(repository_blobs, blobs, "blob_id", _IS_FAULTY, *those))
    other = repository_blobs.alias("other")
    is_shared = exists().where(other.c.blob_id == blobs.c.id, other.c.repository_id != repository_blobs.c.repository_id)
    own = _by_repository(connection, _distinct(repository_blobs, blobs, "blob_id", _IS_STORED, ~is_shared, *those))
    numbers = _version_numbers(connection, repository_id)
    by_versions = _by_versions(connection, numbers, repository_id)
    wanted = [] if repository_id is None else [repositories.c.id == repository_id]
    rows = connection.execute(
        select(repositories.c.id, repositories.c.name).where(*wanted).order_by(repositories.c.name)
    )
    return [
        RepositoryUsage(
            repository_id=row.id,
            name=row.name,
            version_count=len(numbers[row.id]),
            manifests=held_manifests[row.id],
            blobs=held[row.id],
            own_blobs=own[row.id],
            missing=missing[row.id],
            broken=broken[row.id],
            by_versions=by_versions[row.id],
        )
        for row in rows
    ]


def _of(membership: Any, repository_id: str | None) -> list[ColumnElement[bool]]:
    """The condition that a row belongs to that repository; none for all repositories."""
    return [] if repository_id is None else [membership.c.repository_id == repository_id]


def _distinct(membership: Any, units: Any, unit: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Repository and size of each unit that it holds in any version, once per unit."""
    return (
        select(membership.c.repository_id, units.c.id, units.c.size_bytes)
        .join(units, units.c.id == membership.c[unit])
        .where(*conditions)
        .distinct()
    )


def _by_repository(connection: Connection, units: Select[Any]) -> dict[str, Amount]:
    each = units.subquery("each")
    statement = select(each.c.repository_id, func.count(), func.sum(each.c.size_bytes)).group_by(each.c.repository_id)
    amounts: dict[str, Amount] = defaultdict(Amount)
    amounts.update((row[0], Amount(row[1], int(row[2]))) for row in connection.execute(statement))
    return amounts


def _version_numbers(connection: Connection, repository_id: str | None) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    versions = repository_versions.c
    statement = select(versions.repository_id, versions.number).where(*_of(repository_versions, repository_id))
    for row in connection.execute(statement.order_by(versions.number)):
        numbers[row.repository_id].append(row.number)
    return numbers


def _by_versions(connection: Connection, numbers: dict[str, list[int]], repository_id: str | None) -> dict[str, Amount]:
    """Stored blobs, counted once per version that holds them: computed from the few distinct intervals."""
    rows = repository_blobs.c
    statement = (
        select(rows.repository_id, rows.version_added, rows.version_removed, func.count(), func.sum(blobs.c.size_bytes))
        .join(blobs, blobs.c.id == rows.blob_id)
        .where(_IS_STORED, *_of(repository_blobs, repository_id))
        .group_by(rows.repository_id, rows.version_added, rows.version_removed)
    )
    amounts: dict[str, Amount] = defaultdict(Amount)
    for holder, added, removed, count, size_bytes in connection.execute(statement):
        existing = numbers[holder]
        end = len(existing) if removed is None else bisect_left(existing, removed)
        versions = max(0, end - bisect_left(existing, added))
        amounts[holder] += Amount(versions * count, versions * int(size_bytes))
    return amounts


def _amount(connection: Connection, units: Any, tables: Any, *conditions: ColumnElement[bool]) -> Amount:
    size = func.coalesce(func.sum(units.c.size_bytes), 0)
    row = connection.execute(select(func.count(), size).select_from(tables).where(*conditions)).one()
    return Amount(row[0], int(row[1]))
