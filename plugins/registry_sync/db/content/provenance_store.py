"""Where versions and content came from, and which repositories hold it. Reads only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, func, select

from registry_sync.db.engine import Transactions
from registry_sync.db.runs.run_rows import read_run
from registry_sync.db.tables import blobs, manifests, repositories, repository_versions, sync_runs
from registry_sync.db.versions.intervals import BLOBS, MANIFESTS, Intervals
from registry_sync.db.versions.version_rows import read_versions, require_row
from registry_sync.domain.digests import Digest
from registry_sync.domain.version_history import BlobProvenance, Holder, ManifestProvenance, VersionProvenance
from registry_sync.errors import RecordNotFound


class ProvenanceStore:
    """Each method is a short transaction of its own. What is not there raises :class:`RecordNotFound`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def version(self, repository_id: str, number: int) -> VersionProvenance:
        """The version with the sync that made it, as far as that is still known."""
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
        """Where the bytes of a blob came from, when they were stored and verified, and who holds it."""
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
        """Since when a manifest is stored, and who holds it."""
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
        # What ended with the oldest version that is kept is in none.
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
