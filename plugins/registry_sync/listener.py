"""The listener for DAG runs: ends the sync with its run, and writes the run's note, which the grid shows.

Airflow calls it in the scheduler, or in the API server when a user ends a run. It reads XComs of two keys and writes
one note, in the session of the DAG run. If these XComs show that the run had a sync, and only then, it also writes to
the metadata database of registry-sync, with a short timeout, since the scheduler waits. Syncs that cannot be ended now
are found later by ``end_lost_runs``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from registry_sync.domain.runs import DagRunEnd
from registry_sync.errors import StagesUnfinished
from registry_sync.hooks.dag_runs import CANCELED_NOTE, NO_VERSION_NOTE, NOTE_PREFIX
from registry_sync.operators.task_values import RUN_NOTE_KEY, SYNC_RUN_KEY

if TYPE_CHECKING:
    from airflow.models import DagRun

    from registry_sync.domain.runs import SyncRun

log = logging.getLogger(__name__)
#: The length of Airflow's column for notes.
_LENGTH = 1000
#: The error of a stage after which the commit stays skipped, so that Airflow considers the run successful.
_CUT_OFF = StagesUnfinished.__name__
#: How long the scheduler waits for our database, and the pause after it did not respond.
PATIENCE_SECONDS = 1.0
PAUSE_SECONDS = 60.0


class RunNotes:
    """Ends syncs with their runs, and writes the notes of runs.

    A run in which a stage reports that no commit will follow has failed, which Airflow does not detect if its last
    task, the commit, was skipped before. A run that was repeated and has nothing to report loses its earlier note.
    """

    def __init__(self) -> None:
        self._not_before = 0.0

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun) -> None:
        """Called when a run has succeeded."""
        self._end(dag_run, DagRunEnd.SUCCESS)

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun) -> None:
        """Called when a run has failed, or was marked as failed."""
        self._end(dag_run, DagRunEnd.FAILED)

    def _end(self, dag_run: DagRun, end: DagRunEnd) -> None:
        from airflow.utils.state import DagRunState

        try:
            with _session_of(dag_run) as (session, row):
                pushed = _xcoms(session, row)
                ended = self._end_syncs(row, end) if SYNC_RUN_KEY in pushed else []
                messages = pushed.get(RUN_NOTE_KEY, [])
                versionless = ended if end is DagRunEnd.SUCCESS else []
                if any((run.error or "").startswith(_CUT_OFF) for run in versionless):
                    row.set_state(DagRunState.FAILED)
                _write_note(row, [*map(_no_version, versionless), *messages])
        except Exception:  # an error here must not stop the scheduler
            log.exception("the end of the run %s of %s could not be recorded", dag_run.run_id, dag_run.dag_id)

    def _end_syncs(self, row: DagRun, end: DagRunEnd) -> list[SyncRun]:
        """Ends the syncs of a run, and returns those that had not settled."""
        from registry_sync.db.database import Database
        from registry_sync.errors import RegistrySyncError
        from registry_sync.hooks.settings import load_settings

        if time.monotonic() < self._not_before:
            return []
        if row.note == CANCELED_NOTE:
            end = DagRunEnd.CANCELED
        try:
            with Database.connect(load_settings().sql_alchemy_conn, patience_seconds=PATIENCE_SECONDS) as database:
                database.check()
                return database.run_ends.end(row.dag_id, row.run_id, end.state, end.reason, started_at=row.start_date)
        except RegistrySyncError as problem:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            log.warning("the sync of run %s of %s will be ended later: %s", row.run_id, row.dag_id, problem)
            return []


def _no_version(run: SyncRun) -> str:
    which = f" for {run.key.scope}" if run.key.scope else ""
    return f"{NO_VERSION_NOTE}{which}: {run.error}"


def _write_note(row: DagRun, lines: list[str]) -> None:
    if row.note and not row.note.startswith(NOTE_PREFIX):
        return
    if lines:
        row.note = f"{NOTE_PREFIX}{'; '.join(line.removeprefix(NOTE_PREFIX) for line in lines)}"[:_LENGTH]
    elif row.note:
        row.note = None


@contextmanager
def _session_of(dag_run: DagRun) -> Iterator[tuple[Any, DagRun]]:
    """The session of the run, which Airflow commits; a session of our own if the run has none."""
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is not None:
        yield session, dag_run
        return
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session(scoped=False) as own:
        row = own.get(DagRun, dag_run.id)
        if row is None:
            raise LookupError("the run is gone")
        yield own, row


def _xcoms(session: Any, dag_run: DagRun) -> dict[str, list[str]]:
    """The XComs of the run's tasks for the listener, by key."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    statement = (
        select(XComModel.key, XComModel.value)
        .where(XComModel.dag_run_id == dag_run.id, XComModel.key.in_((RUN_NOTE_KEY, SYNC_RUN_KEY)))
        .order_by(XComModel.task_id, XComModel.map_index)
    )
    found: dict[str, list[str]] = {}
    for key, value in session.execute(statement):
        found.setdefault(key, []).append(_text(value))
    return found


def _text(value: Any) -> str:
    """The text of an XCom, which is stored as JSON in JSON."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        decoded = value
    return str(decoded)
