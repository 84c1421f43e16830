"""Syncs as runs of DAGs: requested over REST, read by the ids of DAG runs, and ended with them.

Requests are written by the API server after its access checks and read by the task of the run. The parameters of a DAG
run are controlled by whoever triggers it. Only a process with write access to this database can write a request here,
so a run acts on that and not on its parameters.

A task records its own failure with its run (``SyncRunStore.finish``); but a DAG run is also marked as failed, times
out, loses its worker or is deleted. The listener reports the end of a DAG run here. From then on the record is closed:
tasks that are still running change nothing more, and only a task of a DAG run that was started again reopens it. The
records of an ended run protect its content from garbage collection for the grace period of
``OrphanStore.release_runs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, literal, select, update

from registry_sync.db.columns import UtcDateTime
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches, storable
from registry_sync.db.runs.run_rows import count_runs, is_of_ended_attempt, read_run, refuse_ended, require_run, settle
from registry_sync.db.tables import (
    deleted_runs,
    is_running,
    repositories,
    sync_requests,
    sync_runs,
)
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.runs import RequestedSync, RunState, SyncRun
from registry_sync.errors import RecordNotFound

_OPEN = (RunState.RUNNING.value, RunState.FAILED.value, RunState.CANCELED.value)


class RunEndStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def end(
        self, dag_id: str, run_id: str, state: RunState, error: str | None, *, started_at: datetime | None = None
    ) -> list[SyncRun]:
        """Ends every sync of a DAG run that has not settled, and returns them.

        A sync whose task has recorded a failure keeps it, unless it is canceled. ``started_at`` is when the DAG run
        started, by which its remaining tasks are recognized; None when it is unknown.
        """
        is_open = and_(
            sync_runs.c.dag_id == dag_id,
            sync_runs.c.run_id == run_id,
            sync_runs.c.state.in_(_OPEN),
            sync_runs.c.is_dag_run_over.is_(False),
        )
        with self._transactions.reading() as connection:
            if connection.execute(select(sync_runs.c.id).where(is_open).limit(1)).first() is None:
                return []
        with self._transactions.writing() as connection:
            found = select(sync_runs).where(is_open).order_by(sync_runs.c.id)
            rows = connection.execute(found.with_for_update(key_share=True)).all()
            for row in rows:
                if row.state == RunState.RUNNING.value or state is RunState.CANCELED:
                    settle(connection, row.id, state, error=error)
                ended = {"is_dag_run_over": True, "dag_run_started_at": started_at}
                connection.execute(update(sync_runs).where(sync_runs.c.id == row.id).values(**ended))
            return [read_run(require_run(connection, row.id)) for row in rows]

    def resume(self, sync_run_id: str, started_at: datetime | None) -> SyncRun:
        """The run for a task of the DAG run that started at ``started_at``; an ended run resumes for a new start time.

        Raises :class:`RunEnded` for a task of the DAG run that has ended, and when the repository was deleted;
        :class:`RecordNotFound`.
        """
        with self._transactions.reading() as connection:
            row = require_run(connection, sync_run_id)
            if not _must_reopen(row, started_at):
                return read_run(row)
        with self._transactions.writing() as connection:
            again = {"state": RunState.RUNNING.value, "finished_at": None, "error": None, "is_dag_run_over": False}
            connection.execute(
                update(sync_runs)
                .where(sync_runs.c.id == sync_run_id, sync_runs.c.is_dag_run_over)
                .where(sync_runs.c.state.in_(_OPEN))
                .values(dag_run_started_at=started_at, **again)
            )
            return read_run(require_run(connection, sync_run_id))

    def unended(self, *, repository_id: str | None = None) -> list[SyncRun]:
        """Syncs that are recorded as running, the oldest first; of one repository, or of all for None."""
        statement = select(sync_runs).where(is_running)
        if repository_id is not None:
            statement = statement.where(sync_runs.c.repository_id == repository_id)
        with self._transactions.reading() as connection:
            return [read_run(row) for row in connection.execute(statement.order_by(sync_runs.c.started_at))]


def keep_keys_of_deleted(connection: Connection, repository_id: str) -> None:
    """Records the runs of a repository that is about to be deleted, so that none of them creates it again."""
    name = select(repositories.c.name).where(repositories.c.id == repository_id).scalar_subquery()
    rows = select(
        sync_runs.c.dag_id,
        sync_runs.c.run_id,
        sync_runs.c.scope,
        name,
        sync_runs.c.id,
        literal(utc_now(), UtcDateTime()),
    ).where(sync_runs.c.repository_id == repository_id)
    columns = ["dag_id", "run_id", "scope", "repository_name", "sync_run_id", "deleted_at"]
    connection.execute(insert(deleted_runs).from_select(columns, rows))


def _must_reopen(row: Row[Any], started_at: datetime | None) -> bool:
    if RunState(row.state).is_settled or not row.is_dag_run_over:
        return False
    if is_of_ended_attempt(row, started_at):
        refuse_ended(row)
    return True


#: How long a request is kept, so that its run can be cleared and repeated.
KEPT = timedelta(days=90)
_ERROR_LENGTH = 2000


class SyncRequestStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, request: RequestedSync) -> None:
        """Records a request before its DAG run is triggered; requests too old to be repeated are deleted."""
        with self._transactions.writing() as connection:
            connection.execute(delete(sync_requests).where(sync_requests.c.requested_at < request.requested_at - KEPT))
            connection.execute(insert(sync_requests), {**vars(request), "mode": request.mode.value})

    def get(self, dag_id: str, request_id: str) -> RequestedSync:
        """The request of that id for that DAG. Raises :class:`RecordNotFound`."""
        statement = select(sync_requests).where(sync_requests.c.id == request_id, sync_requests.c.dag_id == dag_id)
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise RecordNotFound(f"the sync {request_id[:255]!r} of the DAG {dag_id!r} was not requested over REST")
        return _request(row)

    def by_ids(self, request_ids: Sequence[str]) -> dict[str, RequestedSync]:
        """Requests by their ids; those that are no longer kept are omitted."""
        found: dict[str, RequestedSync] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(request_ids):
                statement = select(sync_requests).where(sync_requests.c.id.in_(batch))
                found.update({row.id: _request(row) for row in connection.execute(statement)})
        return found

    def about(self, resource_ids: Sequence[str]) -> list[str]:
        """The ids of requests about one of these repositories or remotes."""
        found: list[str] = []
        with self._transactions.reading() as connection:
            for batch in in_batches(resource_ids):
                is_one = sync_requests.c.repository_id.in_(batch) | sync_requests.c.remote_id.in_(batch)
                found += connection.execute(select(sync_requests.c.id).where(is_one)).scalars()
        return found

    def record_error(self, request_id: str, error: str | None) -> None:
        """Records why a request cannot start, None once it did; ignores an unknown one."""
        values = {"error": None if error is None else storable(error, _ERROR_LENGTH)}
        with self._transactions.writing() as connection:
            connection.execute(update(sync_requests).where(sync_requests.c.id == request_id).values(**values))

    def withdraw(self, request_id: str) -> None:
        """Deletes a request whose run was not triggered; safe to repeat."""
        with self._transactions.writing() as connection:
            connection.execute(delete(sync_requests).where(sync_requests.c.id == request_id))


def _request(row: Row[Any]) -> RequestedSync:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for a row as a map
    return RequestedSync(**{**values, "mode": SyncMode(row.mode)})


class TaskReads:
    """Reads only."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def by_run_ids(self, dag_id: str, run_ids: Sequence[str]) -> dict[str, SyncRun]:
        """The sync runs of these runs of a DAG, by run id; those that have not started are omitted.

        For a run that was started again after it had settled, the last one, with the versions that were made before.
        For a DAG run with several syncs, the first by scope.
        """
        found: dict[str, SyncRun] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(run_ids):
                of_batch = select(sync_runs).where(sync_runs.c.dag_id == dag_id, sync_runs.c.run_id.in_(batch))
                # The last row of each run id is the one returned.
                rows = connection.execute(of_batch.order_by(sync_runs.c.scope.desc(), sync_runs.c.attempt))
                for run in map(read_run, rows):
                    found[run.key.run_id] = replace(run, made_before=_made(found.get(run.key.run_id)))
                running = [run for run in found.values() if run.state is RunState.RUNNING]
                counts = count_runs(connection, [run.id for run in running])
                found |= {run.key.run_id: replace(run, counts=counts.get(run.id, run.counts)) for run in running}
        return found

    def run_ids_that_made(self, dag_id: str, versions: Sequence[tuple[str, int | None]]) -> list[str]:
        """The run ids of that DAG whose syncs made one of these versions: repository id and number."""
        found: list[str] = []
        with self._transactions.reading() as connection:
            for repository_id, number in versions:
                is_one = (sync_runs.c.repository_id == repository_id) & (sync_runs.c.version_number == number)
                statement = select(sync_runs.c.run_id).where(sync_runs.c.dag_id == dag_id, is_one)
                found += connection.execute(statement).scalars()
        return found


def _made(run: SyncRun | None) -> tuple[tuple[str, int], ...]:
    """The versions that a run and its predecessors made: repository id and number."""
    if run is None:
        return ()
    own = () if run.version_number is None else ((run.repository_id, run.version_number),)
    return (*run.made_before, *own)
