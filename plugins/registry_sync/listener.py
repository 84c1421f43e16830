"""The note of a DAG run: what a sync wants people to see in the grid, written when the run has ended.

Airflow calls this in the scheduler, or in the API server when a person ends a run. It reads XComs of one key and writes
one note, in the session that the run belongs to, and opens nothing of ours.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from registry_sync.operators.run_note import RUN_NOTE_KEY

if TYPE_CHECKING:
    from airflow.models import DagRun

log = logging.getLogger(__name__)
#: What our notes begin with; notes of people are left alone.
PREFIX = "registry-sync: "
#: The length of Airflow's column.
_LENGTH = 1000


class RunNotes:
    """Keeps the notes of runs. One that went on and has nothing to say any more loses the note of the time before."""

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun) -> None:
        """Called when a run has ended well."""
        _write_note(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun) -> None:
        """Called when a run has failed."""
        _write_note(dag_run)


def _write_note(dag_run: DagRun) -> None:
    try:
        with _session_of(dag_run) as (session, row):
            if row.note and not row.note.startswith(PREFIX):
                return
            told = _told(session, row)
            if told:
                row.note = f"{PREFIX}{'; '.join(told)}"[:_LENGTH]
            elif row.note:
                row.note = None
    except Exception:  # the scheduler goes on whatever becomes of a note
        log.exception("the note of the run %s of %s could not be written", dag_run.run_id, dag_run.dag_id)


@contextmanager
def _session_of(dag_run: DagRun) -> Iterator[tuple[Any, DagRun]]:
    """The session that the run belongs to, which commits when it likes; one of our own where it belongs to none."""
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


def _told(session: Any, dag_run: DagRun) -> list[str]:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    statement = (
        select(XComModel.value)
        .where(XComModel.dag_run_id == dag_run.id, XComModel.key == RUN_NOTE_KEY)
        .order_by(XComModel.task_id, XComModel.map_index)
    )
    return [_text(value) for value in session.scalars(statement)]


def _text(value: Any) -> str:
    """The text of an XCom, which is kept as JSON in JSON."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        decoded = value
    return str(decoded)
