"""The listener for DAG runs: ends the sync with its run, and writes the run's note, which the grid shows.

Airflow calls it in the scheduler, or in the API server when a user ends a run. It reads XComs of two keys and writes
one note, in the session of the DAG run. If these XComs show that the run had a sync, and only then, it also writes to
the metadata database of registry-sync, with a short timeout, since the scheduler waits. Syncs that cannot be ended now
are found later by ``end_lost_runs``. When a run starts, its note names the repository that the parameters name. While
it waits for an approval, which the API server notes, it says what is to be approved.

An approval among Airflow's required actions is recorded by the API server as well, besides by the task that it resumes:
Airflow may lose that one, and its next try would ask again. If it resumes before the scheduler has seen the process end
that asked, it counts as killed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from registry_sync.domain.quantities import shortened
from registry_sync.domain.runs import DagRunEnd
from registry_sync.errors import StagesUnfinished
from registry_sync.hooks.dag_runs import (
    COMMIT_OPERATORS,
    NO_VERSION_NOTE,
    NOTE_AUTHOR,
    NOTE_LENGTH,
    conf_repository,
    is_own_note,
    own_note,
    says_canceled,
)
from registry_sync.operators.approvals import ApprovalResponse
from registry_sync.operators.run_notes import RUN_NOTE_KEY, RunNote, about_sync, compose, failed_summary
from registry_sync.operators.task_values import SYNC_RUN_KEY

if TYPE_CHECKING:
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote

    from registry_sync.db.database import Database
    from registry_sync.domain.runs import SyncRun

log = logging.getLogger(__name__)
#: The end of the note of a run that has not ended.
_RUNNING = "the sync is running"
#: The start, after the name of the repository, of the note of a run that waits for a person.
_WAITING = "waits for an approval: "
#: The error of a stage after which the commit stays skipped, so that Airflow considers the run successful.
_CUT_OFF = StagesUnfinished.__name__
#: How long the scheduler waits for our database, and the pause after it did not respond.
PATIENCE_SECONDS = 1.0
PAUSE_SECONDS = 60.0
#: The operators that start a sync, as Airflow records them.
_LISTING = ("ListTagsOperator", "ListMirrorTagsOperator")
#: When Airflow's API server has recorded a question or its response.
QUESTION_EVENTS = ("after_insert", "after_update")


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
                with _session_of(dag_run) as (session, row):
                    _write_note(session, row, f"{shortened(about)}: {_RUNNING}")
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
                notes = [_named(row, RunNote.of_xcom(value)) for value in pushed.get(RUN_NOTE_KEY, [])]
                if end is DagRunEnd.SUCCESS and any((run.error or "").startswith(_CUT_OFF) for run, _ in ended):
                    row.set_state(DagRunState.FAILED)
                _write_note(session, row, _text(row, end, ended, notes))
        except Exception:  # an error here must not stop the scheduler
            log.exception("the end of the run %s of %s could not be recorded", dag_run.run_id, dag_run.dag_id)

    def _end_syncs(self, row: DagRun, end: DagRunEnd) -> list[tuple[SyncRun, str]]:
        """Ends the syncs of a run, and returns those that had not settled, each with what it was about."""
        from registry_sync.errors import RegistrySyncError

        if time.monotonic() < self._not_before:
            return []
        if says_canceled(row.note):
            end = DagRunEnd.CANCELED
        try:
            with _own_database() as database:
                ended = database.run_ends.end(row.dag_id, row.run_id, end.state, end.reason, started_at=row.start_date)
                name_of: Callable[[str], str] = lambda found: database.repositories.get(found).name  # noqa: E731
                return [(run, about_sync(name_of(run.repository_id), run.key.scope)) for run in ended]
        except RegistrySyncError as problem:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            log.warning("the sync of run %s of %s will be ended later: %s", row.run_id, row.dag_id, problem)
            return []


@contextmanager
def _own_database() -> Iterator[Database]:
    """The metadata database of registry-sync, which is not waited for long. Raises :class:`DatabaseError`."""
    from registry_sync.db.database import Database
    from registry_sync.hooks.settings import load_settings

    with Database.connect(load_settings().sql_alchemy_conn, patience_seconds=PATIENCE_SECONDS) as database:
        database.check()
        yield database


def follow_questions() -> None:
    """From now on, this process notes with a run that it waits for an approval, and records approvals; safe to repeat.

    For the API server, which alone records the questions of tasks: Airflow calls no listener for that.
    """
    from airflow.models.hitl import HITLDetail
    from sqlalchemy import event

    for change in QUESTION_EVENTS:
        if not event.contains(HITLDetail, change, follow_question):
            event.listen(HITLDetail, change, follow_question)


def follow_question(_mapper: Any, connection: Any, question: Any) -> None:
    """Writes the note for a question of ours that was asked, asked again or answered; in its transaction.

    An approval is recorded once that is committed.
    """
    try:
        with connection.begin_nested():  # what fails here must not fail the question
            _write_waiting(connection, question)
            _follow_approval(connection, question)
    except Exception:
        log.exception("the question of the task instance %s could not be noted with its run", question.ti_id)


def _follow_approval(connection: Any, question: Any) -> None:
    """Has an approval recorded at the end of the transaction; no rejection, nor a task that does not wait."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.serde import deserialize
    from sqlalchemy import event, select
    from sqlalchemy.orm import object_session

    session, response = object_session(question), ApprovalResponse.of_event(question.as_resume_event_payload())
    if session is None or question.responded_at is None or not response.is_approved:
        return
    of_task = (TaskInstance.id == question.ti_id) & TaskInstance.operator.in_(COMMIT_OPERATORS)
    kwargs: Any = deserialize(connection.execute(select(TaskInstance.next_kwargs).where(of_task)).scalar() or {})
    if "sync_run" in kwargs:
        record = partial(_record_approval, kwargs["sync_run"], kwargs.get("seen"), response.by or "")
        event.listen(session, "after_commit", record, once=True)


def _record_approval(sync_run: str, seen: str | None, approved_by: str, _session: Any) -> None:
    """Records what the task does as well; that it cannot be recorded changes nothing for the task."""
    from registry_sync.errors import NothingToApprove, RunEnded

    try:
        with _own_database() as database, suppress(NothingToApprove, RunEnded):
            database.runs.approve_removals(sync_run, approved_by, seen=seen)
    except Exception as problem:  # noqa: BLE001  Airflow has the approval, and its request must not fail
        log.warning("the approval of the sync %s is left to its task to record: %s", sync_run, problem)


def _write_waiting(connection: Any, question: Any) -> None:
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import insert, select, update

    of_task = (TaskInstance.id == question.ti_id) & TaskInstance.operator.in_(COMMIT_OPERATORS)
    same = (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id)
    run_id = connection.execute(select(DagRun.id).join(TaskInstance, same).where(of_task)).scalar()
    if run_id is None:
        return
    is_answered = question.responded_at is not None
    of_run = DagRunNote.dag_run_id == run_id
    row = connection.execute(select(DagRunNote.content, DagRunNote.user_id).where(of_run)).one_or_none()
    if row is None:
        if not is_answered:
            text = f"{_WAITING}{question.subject}"[:NOTE_LENGTH]
            connection.execute(insert(DagRunNote).values(dag_run_id=run_id, content=text, user_id=NOTE_AUTHOR))
        return
    content = row.content or ""
    if row.user_id != NOTE_AUTHOR or not (content.endswith(_RUNNING) or _WAITING in content):
        return
    about = content.partition(_WAITING)[0].removesuffix(_RUNNING)
    text = f"{about}{_RUNNING}" if is_answered else f"{about}{_WAITING}{question.subject}"
    connection.execute(update(DagRunNote).where(of_run).values(content=text[:NOTE_LENGTH]))


def _text(row: DagRun, end: DagRunEnd, ended: list[tuple[SyncRun, str]], notes: list[RunNote]) -> str:
    """The note of an ended run, empty where nothing is known of how it ended, as of one without a sync.

    A failed run that somebody marks as successful has no more to say than before.
    """
    if end is DagRunEnd.SUCCESS:
        versionless = [f"{NO_VERSION_NOTE} for {about}: {run.error}" for run, about in ended]
        if not versionless and all(note.summary is None for note in notes) and _is_of_ended(row.dag_run_note):
            return ""
        return "\n\n".join([*versionless, *filter(None, [compose(notes)])])
    known = {note.about for note in notes if note.summary is not None and not note.is_aftermath}
    lost = [RunNote(about, failed_summary(run.error or end.reason)) for run, about in ended if about not in known]
    requested = _requested_repository(row)
    if all(note.summary is None for note in notes) and not lost and requested is not None:
        reason = "no task reported an error: a worker was lost, or the run was ended in Airflow"
        lost = [RunNote(requested, failed_summary(reason))]
    return compose([*lost, *notes])


def _requested_repository(dag_run: DagRun) -> str | None:
    """The repository of the run's only sync, by the DAG's code or the run's ``conf``; None if these name none."""
    dag = getattr(dag_run, "dag", None)
    listing = [] if dag is None else [task for task in dag.tasks if task.task_type in _LISTING]
    if len(listing) != 1:
        return None
    written = getattr(listing[0], "repository", None)
    if isinstance(written, str) and "{" not in written:
        return written.strip() or None
    return conf_repository(dag_run.conf)


def _named(row: DagRun, note: RunNote) -> RunNote:
    """``note`` with the repository that the run's parameters name, if its task knew none."""
    if note.about:
        return note
    # Where Airflow ends a run at a user's request, its DAG is not loaded.
    is_loaded = getattr(row, "dag", None) is not None
    return replace(note, about=(_requested_repository(row) if is_loaded else conf_repository(row.conf)) or "")


def _is_of_ended(note: DagRunNote | None) -> bool:
    """Whether a note is ours and says how a run ended."""
    text = own_note(note)
    return text is not None and not (text.endswith(_RUNNING) or _WAITING in text)


def _write_note(session: Any, row: DagRun, text: str) -> None:
    """Sets our note; notes of users are not changed. With an empty text, removes what was only true before the end."""
    note = row.dag_run_note
    if (note is None or is_own_note(note)) and (text or not _is_of_ended(note)):
        _replace_note(session, row, text, over=note)


def _replace_note(session: Any, run: DagRun, text: str, *, over: DagRunNote | None) -> None:
    """Writes our note of a run at once, in place of ``over``, which it has; without a text, removes that one.

    What somebody else writes at the same time stays, and ``run`` has it then. The session does not fail by it: it may
    be the scheduler's, which would end.
    """
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy import delete, update
    from sqlalchemy.orm.attributes import set_committed_value

    values = {"content": text[:NOTE_LENGTH], "user_id": NOTE_AUTHOR}
    if over is not None:
        is_same = (DagRunNote.dag_run_id == run.id) & DagRunNote.content.is_not_distinct_from(over.content)
        change = update(DagRunNote).where(is_same).values(values) if text else delete(DagRunNote).where(is_same)
        session.execute(change, execution_options={"synchronize_session": False})
        session.expunge(over)
    elif text:
        session.execute(_inserted_if_absent(session, {**values, "dag_run_id": run.id}))
    set_committed_value(run, "dag_run_note", session.get(DagRunNote, run.id, populate_existing=True))


def _inserted_if_absent(session: Any, values: Mapping[str, Any]) -> Any:
    from airflow.models.dagrun import DagRunNote
    from sqlalchemy.dialects import mysql

    from registry_sync.db.queries import insert_or_keep_on

    name, table = session.get_bind().dialect.name, DagRunNote.__table__
    if name == "mysql":  # which Airflow may have, and we do not
        return mysql.insert(table).prefix_with("IGNORE").values(values)
    return insert_or_keep_on(name, table).values(values)


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
    """The XComs of the run's tasks for the listener, by key, in the order in which they were pushed.

    Without the notes of tasks that ran before the run was cleared, and were not reached since.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import false, select

    was_not_reached = TaskInstance.state.in_((TaskInstanceState.SKIPPED, TaskInstanceState.UPSTREAM_FAILED))
    is_earlier = false() if dag_run.start_date is None else XComModel.timestamp < dag_run.start_date
    of_task = (
        (TaskInstance.dag_id == XComModel.dag_id)
        & (TaskInstance.run_id == XComModel.run_id)
        & (TaskInstance.task_id == XComModel.task_id)
        & (TaskInstance.map_index == XComModel.map_index)
    )
    is_left = (
        (XComModel.key == RUN_NOTE_KEY) & is_earlier & select(TaskInstance).where(of_task, was_not_reached).exists()
    )
    statement = (
        select(XComModel.key, XComModel.value)
        .where(~is_left)
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
