"""The records behind verification: which blobs are stored, when each was last verified, and which remotes had them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches, is_one_of
from registry_sync.db.remotes import last_synced_by, read_remote
from registry_sync.db.tables import (
    blobs,
    remotes,
    repositories,
    repository_blobs,
    repository_versions,
    sync_runs,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import RunState
from registry_sync.domain.storage_reports import BlobRecord, FindingKind

_ENDED_WELL = (RunState.COMPLETED.value, RunState.UNCHANGED.value)
#: The most recent runs of a repository whose remotes are tried for its blobs.
_RECENT_RUNS = 20
_COLUMNS = tuple(
    blobs.c[name] for name in ("digest", "size_bytes", "media_type", "stored_at", "is_foreign", "fault", "fault_at")
)


class BlobCheckStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def records(self, digests: Iterable[Digest]) -> dict[Digest, BlobRecord]:
        """The records of ``digests``; unknown blobs are omitted."""
        found: dict[Digest, BlobRecord] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(set(digests))):
                rows = connection.execute(select(*_COLUMNS).where(is_one_of(connection, blobs.c.digest, batch)))
                found.update((Digest(row.digest), _record(row)) for row in rows)
        return found

    def stored_after(self, after: str, limit: int) -> list[BlobRecord]:
        """The next blobs recorded as stored, by digest; ``after`` is the last digest of the page before, or empty."""
        return self._after(after, limit, blobs.c.stored_at.is_not(None))

    def faulty_after(self, after: str, limit: int) -> list[BlobRecord]:
        """The next blobs that were found broken or missing and not repaired since, by digest; ``after`` as above."""
        return self._after(after, limit, blobs.c.fault.is_not(None))

    def _after(self, after: str, limit: int, condition: ColumnElement[bool]) -> list[BlobRecord]:
        statement = select(*_COLUMNS).where(condition, blobs.c.digest > after)
        with self._transactions.reading() as connection:
            return list(map(_record, connection.execute(statement.order_by(blobs.c.digest).limit(limit))))

    def stored_count(self) -> int:
        """How many blobs are recorded as stored."""
        with self._transactions.reading() as connection:
            return connection.execute(
                select(func.count()).select_from(blobs).where(blobs.c.stored_at.is_not(None))
            ).scalar_one()

    def due(self, verified_before: datetime, limit: int, *, without: Iterable[Digest] = ()) -> list[BlobRecord]:
        """Stored blobs not verified since ``verified_before``: never verified ones first, then by time."""
        is_due = or_(blobs.c.verified_at.is_(None), blobs.c.verified_at < verified_before)
        statement = (
            select(*_COLUMNS)
            .where(blobs.c.stored_at.is_not(None), is_due, blobs.c.digest.not_in(list(without)))
            .order_by(blobs.c.verified_at.is_not(None), blobs.c.verified_at, blobs.c.id)
            .limit(limit)
        )
        with self._transactions.reading() as connection:
            return list(map(_record, connection.execute(statement)))

    def mark_verified(self, digests: Iterable[Digest], at: datetime) -> None:
        """Records that the bytes of these blobs were read and are intact."""
        with self._transactions.writing() as connection:
            for batch in in_batches(sorted(set(digests))):
                # Locked in one order, as in ContentStore.mark_stored.
                is_listed = is_one_of(connection, blobs.c.digest, batch)
                wanted = select(blobs.c.id).where(is_listed).order_by(blobs.c.digest)
                ids = connection.execute(wanted.with_for_update(key_share=True, of=blobs)).scalars().all()
                connection.execute(update(blobs).where(blobs.c.id.in_(ids)).values(verified_at=at))

    def lacking(self) -> list[Digest]:
        """Missing blobs, foreign ones excepted, of repositories whose last sync stored blobs (policy ``immediate``).

        Repositories whose blobs are fetched on pull miss nothing.
        """
        with self._transactions.reading() as connection:
            keeping = [row.id for row in connection.execute(select(repositories.c.id)) if _keeps(connection, row.id)]
            found: set[str] = set()
            for batch in in_batches(keeping):
                is_held = exists().where(
                    repository_blobs.c.blob_id == blobs.c.id, repository_blobs.c.repository_id.in_(batch)
                )
                missing = select(blobs.c.digest).where(blobs.c.stored_at.is_(None), ~blobs.c.is_foreign, is_held)
                found.update(connection.execute(missing).scalars())
        return [Digest(digest) for digest in sorted(found)]

    def sources(self, digests: Iterable[Digest]) -> dict[Digest, tuple[RemoteSpec, ...]]:
        """The remotes from which repositories that hold these blobs were synced, the likeliest first.

        A remote that has been changed since is returned in its current form if it still has the same URL and upstream
        name. For a copy, the remotes of the repositories that it was copied from.
        """
        with self._transactions.reading() as connection:
            sources, holders = _holders(connection, digests)
            origins = _origins(connection, {repository for found in holders.values() for repository in found})
            remotes_of = {repository: _remotes(connection, repository) for repository in set().union(*origins.values())}
        return {
            digest: _distinct(
                [spec for repository in found for origin in origins[repository] for spec in remotes_of[origin]],
                sources[digest],
            )
            for digest, found in holders.items()
        }

    def sources_for(self, repository_id: str, digest: Digest) -> tuple[RemoteSpec, ...]:
        """As :meth:`sources` of one blob that the repository holds; the remotes of that one first, the latest leading.

        The policy of the first one applies to pulls from the repository.
        """
        with self._transactions.reading() as connection:
            _, holders = _holders(connection, [digest])
            found = holders.get(digest, [])
            if repository_id not in found:
                return ()
            own = [repository_id, *sorted(_origins(connection, {repository_id})[repository_id] - {repository_id})]
            others = _origins(connection, set(found) - {repository_id})
            ordered = dict.fromkeys([*own, *(origin for origins in others.values() for origin in sorted(origins))])
            specs = [spec for repository in ordered for spec in _remotes(connection, repository)]
        return _distinct(specs, None)


def _record(row: Any) -> BlobRecord:
    return BlobRecord(
        digest=Digest(row.digest),
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        is_stored=row.stored_at is not None,
        is_foreign=row.is_foreign,
        fault=None if row.fault is None else FindingKind(row.fault),
        fault_at=row.fault_at,
    )


def _recent_runs(connection: Connection, repository_id: str, limit: int) -> Sequence[Any]:
    return connection.execute(
        select(sync_runs.c.remote_id, sync_runs.c.remote_spec)
        .where(sync_runs.c.repository_id == repository_id, sync_runs.c.state.in_(_ENDED_WELL))
        .order_by(sync_runs.c.started_at.desc())
        .limit(limit)
    ).all()


def _keeps(connection: Connection, repository_id: str) -> bool:
    last = last_synced_by(connection, repository_id)
    return last is not None and last.policy is Policy.IMMEDIATE


def _holders(
    connection: Connection, digests: Iterable[Digest]
) -> tuple[dict[Digest, str | None], dict[Digest, list[str]]]:
    """The source of each blob's bytes, and the repositories that hold it."""
    sources: dict[Digest, str | None] = {}
    holders: dict[Digest, list[str]] = {}
    for batch in in_batches(sorted(set(digests))):
        statement = (
            select(blobs.c.digest, blobs.c.source, repository_blobs.c.repository_id)
            .join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
            .where(is_one_of(connection, blobs.c.digest, batch))
            .distinct()
            .order_by(blobs.c.digest, repository_blobs.c.repository_id)
        )
        for row in connection.execute(statement):
            sources[Digest(row.digest)] = row.source
            holders.setdefault(Digest(row.digest), []).append(row.repository_id)
    return sources, holders


def _origins(connection: Connection, repository_ids: set[str]) -> dict[str, set[str]]:
    """Each repository with those that it was copied from, directly or through others."""
    copied: dict[str, set[str]] = defaultdict(set)
    versions = repository_versions.c
    found = select(versions.repository_id, versions.origin_repository_id).where(
        versions.origin_repository_id.is_not(None), versions.origin_repository_id != versions.repository_id
    )
    for row in connection.execute(found.distinct()):
        copied[row.repository_id].add(row.origin_repository_id)
    origins: dict[str, set[str]] = {}
    for repository in repository_ids:
        reached, waiting = {repository}, [repository]
        while waiting:
            new = copied[waiting.pop()] - reached
            reached |= new
            waiting += new
        origins[repository] = reached
    return origins


def _remotes(connection: Connection, repository_id: str) -> list[RemoteSpec]:
    specs: list[RemoteSpec] = []
    for row in _recent_runs(connection, repository_id, _RECENT_RUNS):
        spec = RemoteSpec.of_document(row.remote_spec)
        now = connection.execute(select(remotes).where(remotes.c.id == row.remote_id)).one_or_none()
        current = None if now is None else read_remote(now).spec
        is_same_place = current is not None and (current.url, current.upstream) == (spec.url, spec.upstream)
        specs.append(current if current is not None and is_same_place else spec)
    return specs


def _distinct(specs: Iterable[RemoteSpec], source: str | None) -> tuple[RemoteSpec, ...]:
    """Each upstream and connection once, that of ``source`` first."""
    found: dict[tuple[str, str, str | None], RemoteSpec] = {}
    for spec in specs:
        found.setdefault((str(spec.url), spec.upstream, spec.conn_id), spec)
    return tuple(sorted(found.values(), key=lambda spec: spec.source != source))
