"""Repositories and syncs at a glance: a page of either takes the same few statements, whatever it has on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, select, tuple_

from registry_sync.db.engine import Transactions
from registry_sync.db.fleet_tables import mirror_results
from registry_sync.db.queries import fetch_page
from registry_sync.db.repositories import read_repository
from registry_sync.db.runs.fleet_results import read_result
from registry_sync.db.runs.run_rows import read_run
from registry_sync.db.tables import (
    blobs,
    repositories,
    repository_blobs,
    repository_tags,
    repository_versions,
    sync_runs,
    version_holds,
)
from registry_sync.domain.mirror_results import MirrorResult
from registry_sync.domain.overviews import LatestVersion, Outcome, RepositoryOverview, SyncOverview
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.runs import RunState
from registry_sync.errors import RecordNotFound

#: Of a repository with more blobs the bytes are added up on its own page alone.
MAX_ADDED_BLOBS = 5000
#: The sync that settled last of a repository.
_SETTLED = sync_runs.alias("settled")
_NEWEST_FIRST = PageRequest(ordering="-started_at")


class OverviewStore:
    """Reads only; each method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def repositories(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name_contains: str = "",
        outcomes: Sequence[Outcome] | None = None,
        max_added_blobs: int = MAX_ADDED_BLOBS,
    ) -> Page[RepositoryOverview]:
        """Repositories ordered by ``name`` or ``synced_at``, at most one batch; those never synced are the oldest.

        ``name_contains`` in any case, empty for all names; ``outcomes`` of the last sync, None for all. The bytes of
        repositories with more blobs than ``max_added_blobs`` are not added up.
        """
        last_run_id = _last_run_of(repositories.c.id)
        statement = _with_sync(last_run_id)
        if name_contains:
            statement = statement.where(repositories.c.name.icontains(name_contains, autoescape=True))
        if outcomes is not None:
            is_wanted = _outcome().in_([outcome.value for outcome in outcomes])
            statement = statement.where(
                exists().where(sync_runs.c.id == last_run_id, is_wanted).correlate(repositories)
            )
        # Nulls have no order in common in databases.
        orderings: dict[str, ColumnElement[Any]] = {
            "name": repositories.c.name,
            "synced_at": func.coalesce(_SETTLED.c.finished_at, datetime.min.replace(tzinfo=timezone.utc)),
        }
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, orderings, repositories.c.name)
            return Page(tuple(_overviews(connection, rows, max_added_blobs)), total)

    def repository(self, repository_id: str) -> RepositoryOverview:
        """One of them, with its bytes however many blobs it has. Raises :class:`RecordNotFound`."""
        statement = _with_sync(_last_run_of(repositories.c.id)).where(repositories.c.id == repository_id)
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
            (overview,) = _overviews(connection, [row], None)
            return overview

    def a_tag(self, repository_id: str) -> str | None:
        """A tag of the latest version, ``latest`` if it has that, for an example; None without tags."""
        rows = repository_tags.c
        of_latest = select(rows.name).where(rows.repository_id == repository_id, rows.version_removed.is_(None))
        with self._transactions.reading() as connection:
            found = connection.execute(of_latest.order_by(rows.name != "latest", rows.name).limit(1))
            return found.scalar_one_or_none()

    def syncs(
        self,
        request: PageRequest = _NEWEST_FIRST,
        *,
        repository_id: str | None = None,
        name_contains: str = "",
        outcomes: Sequence[Outcome] | None = None,
    ) -> Page[SyncOverview]:
        """Syncs, the newest first by default, of one repository or of those whose name contains a text in any case."""
        versions = repository_versions.c
        made = and_(versions.repository_id == sync_runs.c.repository_id, versions.number == sync_runs.c.version_number)
        joined = sync_runs.join(repositories, repositories.c.id == sync_runs.c.repository_id)
        statement = select(
            sync_runs, repositories.c.name.label("present_name"), versions.tags_added, versions.tags_removed
        ).select_from(joined.outerjoin(repository_versions, made))
        if repository_id is not None:
            statement = statement.where(sync_runs.c.repository_id == repository_id)
        if name_contains:
            statement = statement.where(repositories.c.name.icontains(name_contains, autoescape=True))
        if outcomes is not None:
            statement = statement.where(_outcome().in_([outcome.value for outcome in outcomes]))
        orderings = {"started_at": sync_runs.c.started_at}
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, orderings, sync_runs.c.id)
        found = [SyncOverview(read_run(row), row.present_name, row.tags_added, row.tags_removed) for row in rows]
        return Page(tuple(found), total)


def _with_sync(last_run_id: Any) -> Select[Any]:
    """Repositories, when each was synced, and the id of its last sync."""
    joined = repositories.outerjoin(_SETTLED, _SETTLED.c.id == repositories.c.settled_run_id)
    columns = (repositories, _SETTLED.c.finished_at.label("synced_at"), last_run_id.label("last_run_id"))
    return select(*columns).select_from(joined)


def _outcome() -> ColumnElement[str]:
    """The value of :meth:`Outcome.of` of a sync."""
    rows = sync_runs.c
    is_waiting = and_(
        rows.state == RunState.RUNNING.value, rows.refused_removals.is_not(None), rows.removals_approved_by.is_(None)
    )
    return case((is_waiting, Outcome.WAITING.value), else_=rows.state)


def _last_run_of(repository_id: ColumnElement[str]) -> Any:
    """The id of the sync of a repository that started last, as a scalar; found in the index of both."""
    later = sync_runs.alias("later")
    newest = select(later.c.id).where(later.c.repository_id == repository_id)
    return (
        newest.order_by(later.c.started_at.desc(), later.c.id.desc()).limit(1).correlate(repositories).scalar_subquery()
    )


def _overviews(
    connection: Connection, rows: Sequence[Row[Any]], max_added_blobs: int | None
) -> list[RepositoryOverview]:
    """The overviews of rows of repositories with ``synced_at`` and ``last_run_id``, in five statements."""
    if not rows:
        return []
    versions = _versions(connection, rows, max_added_blobs)
    run_ids = [row.last_run_id for row in rows if row.last_run_id is not None]
    runs = {row.id: read_run(row) for row in connection.execute(select(sync_runs).where(sync_runs.c.id.in_(run_ids)))}
    mirrors = _mirrors(connection, [row.name for row in rows])
    return [
        RepositoryOverview(
            repository=read_repository(row),
            version=versions.get(row.id),
            synced_at=row.synced_at,
            last_run=runs.get(row.last_run_id),
            mirror=mirrors.get(row.name),
        )
        for row in rows
    ]


def _versions(
    connection: Connection, rows: Sequence[Row[Any]], max_added_blobs: int | None
) -> Mapping[str, LatestVersion]:
    """The latest version of each repository that has one, by the repository's id."""
    latest = [(row.id, row.latest_number) for row in rows if row.latest_number is not None]
    versions, holds = repository_versions.c, version_holds.c
    of_latest = select(repository_versions).where(tuple_(versions.repository_id, versions.number).in_(latest))
    found = connection.execute(of_latest).all()
    held = (
        select(holds.repository_id, func.count().label("held_count"))
        .where(tuple_(holds.repository_id, holds.number).in_(latest))
        .group_by(holds.repository_id)
    )
    held_counts = {row.repository_id: row.held_count for row in connection.execute(held)}
    added_up = [row.repository_id for row in found if max_added_blobs is None or row.blobs_present <= max_added_blobs]
    sizes = {row.repository_id: int(row.size_bytes) for row in connection.execute(_present_bytes(added_up))}
    return {
        row.repository_id: LatestVersion(
            number=row.number,
            created_at=row.created_at,
            tag_count=row.tags_present,
            held_count=held_counts.get(row.repository_id, 0),
            blob_count=row.blobs_present,
            size_bytes=sizes.get(row.repository_id, 0) if row.repository_id in added_up else None,
        )
        for row in found
    }


def _present_bytes(repository_ids: Sequence[str]) -> Select[Any]:
    """The bytes of the blobs of the latest version of each repository, whether they are stored or not."""
    rows = repository_blobs.c
    return (
        select(rows.repository_id, func.sum(blobs.c.size_bytes).label("size_bytes"))
        .join(blobs, blobs.c.id == rows.blob_id)
        .where(rows.repository_id.in_(repository_ids), rows.version_removed.is_(None))
        .group_by(rows.repository_id)
    )


def _mirrors(connection: Connection, names: Sequence[str]) -> Mapping[str, MirrorResult]:
    """The last result of each mirror of these names that has one."""
    rows = mirror_results.c
    newest = (
        select(rows.repository, func.max(rows.finished_at)).where(rows.repository.in_(names)).group_by(rows.repository)
    )
    found = select(mirror_results).where(tuple_(rows.repository, rows.finished_at).in_(newest)).order_by(rows.run_id)
    return {row.repository: read_result(row) for row in connection.execute(found)}
