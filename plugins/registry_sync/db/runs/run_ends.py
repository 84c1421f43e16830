"""Sync runs that end with their DAG run, and that resume when it is cleared.

A task records its own failure with its run (``SyncRunStore.finish``); but a DAG run is also marked as failed, times
out, loses its worker or is deleted. The listener reports the end of a DAG run here. From then on the record is closed:
tasks that are still running change nothing more, and only a task of a DAG run that was started again reopens it. The
records of an ended run protect its content from garbage collection for the grace period of
``OrphanStore.release_runs``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, literal, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.runs.run_rows import is_of_ended_attempt, read_run, refuse_over, require_run, settle
from registry_sync.db.tables import UtcDateTime, deleted_runs, repositories, sync_runs
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import RunState, SyncRun

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
            rows = connection.execute(select(sync_runs).where(is_open).with_for_update(key_share=True)).all()
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
        statement = select(sync_runs).where(sync_runs.c.state == RunState.RUNNING.value)
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
        refuse_over(row)
    return True
