"""The note of a DAG run: what a sync wants people to see in the grid, written when the run has ended.

Airflow calls this in the scheduler, or in the API server when a person ends a run. It reads one XCom and writes one
note, in the session that the run belongs to, and opens nothing of ours.
"""

from __future__ import annotations

import json
import logging
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
        if dag_run.note and not dag_run.note.startswith(PREFIX):
            return
        told = _told(dag_run)
        if told:
            dag_run.note = f"{PREFIX}{'; '.join(told)}"[:_LENGTH]
        elif dag_run.note:
            dag_run.note = None
    except Exception:  # the scheduler goes on whatever becomes of a note
        log.exception("the note of the run %s of %s could not be written", dag_run.run_id, dag_run.dag_id)


def _told(dag_run: DagRun) -> list[str]:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return []
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
