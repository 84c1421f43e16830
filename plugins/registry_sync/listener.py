"""The listener for DAG runs: ends the sync with its run, and writes the run's note, which the grid shows.

Airflow calls it in the scheduler, or in the API server when a user ends a run. It reads XComs of two keys and writes
one note, in the session of the DAG run. If these XComs show that the run had a sync, and only then, it also writes to
the metadata database of registry-sync, with a short timeout, since the scheduler waits. Syncs that cannot be ended now
are found later by ``end_lost_runs``. When a run starts, its note names the repository that the parameters name.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from registry_sync.domain.runs import DagRunEnd
from registry_sync.errors import StagesUnfinished
from registry_sync.hooks.dag_runs import CANCELED_NOTES, NO_VERSION_NOTE, NOTE_AUTHOR, is_own_note
from registry_sync.operators.run_notes import RUN_NOTE_KEY, RunNote, about_sync, compose, failed_summary
from registry_sync.operators.task_values import SYNC_RUN_KEY

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
#: The operators that start a sync, as Airflow records them.
_LISTING = ("ListTagsOperator", "ListMirrorTagsOperator")


class RunNotes:
    """Ends syncs with their runs, and writes the notes of runs.

    A run in which a stage reports that no commit will follow has failed, which Airflow does not detect if its last
    task, the commit, was skipped before.
    """

    def __init__(self) -> None:
        self._not_before = 0.0

    @hookimpl
    def on_dag_run_running(self, dag_run: DagRun) -> None:
        """Called when a run starts, also when it was cleared."""
        try:
            about = _requested_repository(dag_run)
            if about is not None:
                with _session_of(dag_run) as (_, row):
                    _write_note(row, f"{about}: the sync is running")
        except Exception:  # an error here must not stop the scheduler
            log.exception("the start of the run %s of %s could not be noted", dag_run.run_id, dag_run.dag_id)

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
                notes = list(map(RunNote.of_xcom, pushed.get(RUN_NOTE_KEY, [])))
                if end is DagRunEnd.SUCCESS and any((run.error or "").startswith(_CUT_OFF) for run, _ in ended):
                    row.set_state(DagRunState.FAILED)
                _write_note(row, _text(row, end, ended, notes))
        except Exception:  # an error here must not stop the scheduler
            log.exception("the end of the run %s of %s could not be recorded", dag_run.run_id, dag_run.dag_id)

    def _end_syncs(self, row: DagRun, end: DagRunEnd) -> list[tuple[SyncRun, str]]:
        """Ends the syncs of a run, and returns those that had not settled, each with what it was about."""
        from registry_sync.db.database import Database
        from registry_sync.errors import RegistrySyncError
        from registry_sync.hooks.settings import load_settings

        if time.monotonic() < self._not_before:
            return []
        if row.note in CANCELED_NOTES:
            end = DagRunEnd.CANCELED
        try:
            with Database.connect(load_settings().sql_alchemy_conn, patience_seconds=PATIENCE_SECONDS) as database:
                database.check()
                ended = database.run_ends.end(row.dag_id, row.run_id, end.state, end.reason, started_at=row.start_date)
                name_of: Callable[[str], str] = lambda found: database.repositories.get(found).name  # noqa: E731
                return [(run, about_sync(name_of(run.repository_id), run.key.scope)) for run in ended]
        except RegistrySyncError as problem:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            log.warning("the sync of run %s of %s will be ended later: %s", row.run_id, row.dag_id, problem)
            return []


def _text(row: DagRun, end: DagRunEnd, ended: list[tuple[SyncRun, str]], notes: list[RunNote]) -> str:
    """The note of an ended run, empty for one that had nothing to do with a sync."""
    if end is DagRunEnd.SUCCESS:
        versionless = [f"{NO_VERSION_NOTE} for {about}: {run.error}" for run, about in ended]
        return "\n\n".join([*versionless, *filter(None, [compose(notes)])])
    known = {note.about for note in notes if note.summary is not None}
    lost = [RunNote(about, failed_summary(run.error or end.reason)) for run, about in ended if about not in known]
    requested = _requested_repository(row)
    if not notes and not lost and requested is not None:
        reason = "no task reported an error: a worker was lost, or the run was ended in Airflow"
        lost = [RunNote(requested, failed_summary(reason))]
    return compose([*lost, *notes])


def _requested_repository(dag_run: DagRun) -> str | None:
    """The repository of the run's only sync, by the DAG's code or the run's ``conf``; None if these name none."""
    dag, conf = getattr(dag_run, "dag", None), dag_run.conf or {}
    listing = [] if dag is None else [task for task in dag.tasks if task.task_type in _LISTING]
    if len(listing) != 1:
        return None
    written = getattr(listing[0], "repository", None)
    given = written if isinstance(written, str) and "{" not in written else conf.get("repository")
    return given.strip() or None if isinstance(given, str) else None


def _write_note(row: DagRun, text: str) -> None:
    """Sets our note, or removes it for an empty text; notes of users are not changed."""
    note = row.dag_run_note
    if note is not None and not is_own_note(note):
        return
    if not text:
        row.dag_run_note = None
    elif note is None:
        row.note = (text[:_LENGTH], NOTE_AUTHOR)
    else:
        note.content, note.user_id = text[:_LENGTH], NOTE_AUTHOR


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


def _xcoms(session: Any, dag_run: DagRun) -> dict[str, list[Any]]:
    """The XComs of the run's tasks for the listener, by key, in the order in which they were pushed."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    statement = (
        select(XComModel.key, XComModel.value)
        .where(XComModel.dag_run_id == dag_run.id, XComModel.key.in_((RUN_NOTE_KEY, SYNC_RUN_KEY)))
        .order_by(XComModel.timestamp, XComModel.task_id, XComModel.map_index)
    )
    found: dict[str, list[Any]] = {}
    for key, value in session.execute(statement):
        found.setdefault(key, []).append(_decoded(value))
    return found


def _decoded(value: Any) -> Any:
    """The value of an XCom, which is stored as JSON in JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
