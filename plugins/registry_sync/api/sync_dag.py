"""Runs of the sync DAG: started, found, listed and canceled by Airflow's own functions in the API server's process.

A task is a run of the sync DAG with a UUID in its run id: ``registry_sync__<uuid>``. So a task exists as soon as it is
requested, before the run has started. A task whose run waits for the approval of removals has failed for whoever
requested it, with the reason, and is completed once it is approved.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry_sync.db.filtering import Searched, compared, condition, without_dashes
from registry_sync.domain.filters import EVERYTHING, Filter, text_matches
from registry_sync.domain.records import Page, PageRequest
from registry_sync.domain.runs import REQUESTED_RUN_PREFIX, RunKey, request_id_of
from registry_sync.errors import RecordNotFound, SyncError
from registry_sync.hooks.dag_runs import (
    cancel_run,
    has_canceled_note,
    has_no_version,
    is_waiting_for_approval,
    own_note,
    says_canceled,
    says_no_version,
    trigger_run,
    triggered_by,
)
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.sync_documents import tasks_of
from registry_sync.pulp.task_documents import MAINTENANCE, SYNC, SyncDagRun, TaskState

if TYPE_CHECKING:
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote


def trigger(dag_id: str, task_id: str, conf: dict[str, Any], user_name: str) -> None:
    """Starts a run. Raises :class:`ConfigurationError` when the DAG cannot run in its current state."""
    trigger_run(dag_id, conf, user_name, run_id=f"{REQUESTED_RUN_PREFIX}{task_id}", by="rest_api")


def find(dag_id: str, task_id: str) -> SyncDagRun:
    """The run of a task. Raises :class:`RecordNotFound`."""
    from airflow.utils.session import create_session

    with create_session() as session:
        run = _require(session, dag_id, task_id)
        return _shown(run, run.id in _waiting(session, [run]), _notes(session, [run]).get(run.id), session)


def existing_tasks(keys: Sequence[RunKey]) -> dict[str, Any]:
    """The validation context of documents that name tasks by the keys of their runs: which of them Airflow has."""
    dag_id = load_settings().sync_dag_id
    run_ids = {key.run_id for key in keys if key.dag_id == dag_id and request_id_of(key.run_id) is not None}
    if not run_ids:
        return tasks_of(dag_id, ())
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(DagRun.run_id).filter(DagRun.dag_id == dag_id, DagRun.run_id.in_(sorted(run_ids)))
        return tasks_of(dag_id, {run_id for (run_id,) in found})


@dataclass(frozen=True)
class Related:
    """What our records know of runs, for filters by it.

    ``requests_about`` gives the ids of the requests about some repositories and remotes, ``runs_that_made`` the ids of
    the runs that made some versions: repository id and number.
    """

    requests_about: Callable[[Sequence[str]], Sequence[str]] = lambda _: ()
    runs_that_made: Callable[[Sequence[tuple[str, int | None]]], Sequence[str]] = lambda _: ()


def page(
    dag_id: str,
    request: PageRequest,
    states: Sequence[TaskState] | None = None,
    *,
    where: Filter = EVERYTHING,
    related: Related | None = None,
) -> Page[SyncDagRun]:
    """Runs of tasks, the newest first unless ordered otherwise by ``started_at`` or ``finished_at``."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    orderings = {"started_at": DagRun.start_date, "finished_at": DagRun.end_date}
    key = orderings.get(request.ordering.removeprefix("-"), DagRun.id)
    is_descending = request.ordering.startswith("-") or not request.ordering
    keys = [key.desc(), DagRun.id.desc()] if is_descending else [key, DagRun.id]
    with create_session() as session:
        query = _tasks_of(session, dag_id).filter(condition(where, _searched(dag_id, related or Related())))
        if states is not None:
            query = query.filter(_in_states(states))
        total_count = query.count()
        runs = query.order_by(*keys).offset(request.offset).limit(request.limit).all()
        waiting, notes = _waiting(session, runs), _notes(session, runs)
        return Page(tuple(_shown(run, run.id in waiting, notes.get(run.id)) for run in runs), total_count)


def _tasks_of(session: Any, dag_id: str) -> Any:
    from airflow.models import DagRun

    return session.query(DagRun).filter(
        DagRun.dag_id.in_((dag_id, *MAINTENANCE)), DagRun.run_id.startswith(REQUESTED_RUN_PREFIX, autoescape=True)
    )


def _searched(dag_id: str, related: Related) -> dict[str, Searched]:
    """What runs are found by. A dry run has the name of a sync here, which is in no column."""
    from airflow.models import DagRun

    names = {dag_id: SYNC, **MAINTENANCE}

    def has_id(ids: Sequence[str]) -> Any:
        return DagRun.run_id.in_([f"{REQUESTED_RUN_PREFIX}{task_id}" for task_id in ids])

    return {
        "id": lambda match: has_id(match.values),
        "cid": lambda match: compared(without_dashes(DagRun.run_id, after=len(REQUESTED_RUN_PREFIX)), match),
        "reserved": lambda match: has_id(related.requests_about(match.values)),
        "created": lambda match: DagRun.run_id.in_(related.runs_that_made(match.values)),
        "name": lambda match: DagRun.dag_id.in_([dag for dag, name in names.items() if text_matches(name, match)]),
        "created_at": _column(DagRun.run_after),
        "started_at": _column(DagRun.start_date),
        "finished_at": _column(DagRun.end_date),
    }


def _column(attribute: Any) -> Searched:
    return lambda match: compared(attribute, match)


def purge(dag_id: str, before: datetime, states: Sequence[TaskState], limit: int) -> int:
    """Deletes at most ``limit`` runs of tasks that ended before, the oldest first; returns their number."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        ended = _tasks_of(session, dag_id).filter(DagRun.state.in_(["success", "failed"]), DagRun.end_date < before)
        runs = ended.filter(_in_states(states)).order_by(DagRun.id).limit(limit).all()
        for run in runs:
            session.delete(run)
        return len(runs)


def cancel(dag_id: str, task_id: str, by: str) -> SyncDagRun:
    """Ends the run as Airflow does for one marked as failed, and notes the user's name ``by``.

    Raises :class:`SyncError` when it has ended already.
    """
    task = find(dag_id, task_id)
    if task.state not in (TaskState.WAITING, TaskState.RUNNING) and task.finished_at is not None:
        raise SyncError(f"the task has ended: it is {task.state.value}")
    cancel_run(task.dag_id, task.run_id, by=by)
    return find(dag_id, task_id)


def delete(dag_id: str, task_id: str) -> None:
    """Deletes the run, as Airflow does with its task instances and their XComs. Raises :class:`RecordNotFound`.

    Raises :class:`SyncError` for a task that has not ended.
    """
    from airflow.utils.session import create_session

    with create_session() as session:
        run = _require(session, dag_id, task_id)
        if str(run.state) not in ("success", "failed"):
            raise SyncError(f"the task has not ended: it is {_state(run, run.dag_run_note).value}; cancel it first")
        session.delete(run)


def _require(session: Any, dag_id: str, task_id: str) -> DagRun:
    from airflow.models import DagRun

    run: DagRun | None = (
        session.query(DagRun)
        .filter(DagRun.dag_id.in_((dag_id, *MAINTENANCE)), DagRun.run_id == f"{REQUESTED_RUN_PREFIX}{task_id}")
        .one_or_none()
    )
    if run is None:
        raise RecordNotFound(f"there is no task {task_id!r}")
    return run


def _in_states(states: Sequence[TaskState]) -> Any:
    """The condition that a run is in one of ``states``; always false for no states."""
    from airflow.models import DagRun

    is_canceled = has_canceled_note()
    is_stopped, is_versionless = is_waiting_for_approval(), has_no_version()
    conditions = {
        TaskState.WAITING: DagRun.state == "queued",
        TaskState.RUNNING: (DagRun.state == "running") & ~is_stopped,
        TaskState.COMPLETED: (DagRun.state == "success") & ~is_canceled & ~is_versionless,
        TaskState.FAILED: ((DagRun.state == "failed") & ~is_canceled)
        | ((DagRun.state == "success") & is_versionless)
        | ((DagRun.state == "running") & is_stopped),
        TaskState.CANCELED: DagRun.state.in_(["failed", "success"]) & is_canceled,
    }
    return functools.reduce(operator.or_, (conditions[state] for state in states), DagRun.id.is_(None))


def _waiting(session: Any, runs: Sequence[DagRun]) -> frozenset[int]:
    """The ids of those runs that wait for the approval of removals."""
    from airflow.models import DagRun

    is_one = DagRun.id.in_([run.id for run in runs])
    return frozenset(id_ for (id_,) in session.query(DagRun.id).filter(is_one, is_waiting_for_approval()))


def _notes(session: Any, runs: Sequence[DagRun]) -> dict[int, DagRunNote]:
    """The notes of those runs that have one, by the run's id, read at once."""
    from airflow.models.dagrun import DagRunNote

    found = session.query(DagRunNote).filter(DagRunNote.dag_run_id.in_([run.id for run in runs]))
    return {note.dag_run_id: note for note in found}


def _shown(run: DagRun, is_waiting: bool, note: DagRunNote | None, session: Any = None) -> SyncDagRun:
    """The run as a domain object; with a session, its failed tasks are included."""
    from airflow.utils.state import TaskInstanceState

    state = TaskState.FAILED if is_waiting and str(run.state) == "running" else _state(run, note)
    failed: tuple[str, ...] = ()
    if session is not None and state is TaskState.FAILED:
        failed = tuple(
            sorted({task.task_id for task in run.get_task_instances(state=[TaskInstanceState.FAILED], session=session)})
        )
    return SyncDagRun(
        task_id=run.run_id.removeprefix(REQUESTED_RUN_PREFIX),
        run_id=run.run_id,
        state=state,
        created_at=run.run_after,
        started_at=run.start_date,
        finished_at=run.end_date if str(run.state) in ("success", "failed") else None,
        failed_tasks=failed,
        triggered_by=triggered_by(run),
        note=own_note(note),
        dag_id=run.dag_id,
        is_dry_run=bool((run.conf or {}).get("dry_run")),
    )


def _state(run: DagRun, note: DagRunNote | None) -> TaskState:
    """The state of a task. A canceled run ends as failed; or as success, when the scheduler just found all skipped."""
    names = {"queued": TaskState.WAITING, "success": TaskState.COMPLETED, "failed": TaskState.FAILED}
    state = names.get(str(run.state), TaskState.RUNNING)
    if state is TaskState.COMPLETED and says_no_version(note):
        return TaskState.FAILED
    is_final = state in (TaskState.COMPLETED, TaskState.FAILED)
    return TaskState.CANCELED if is_final and note is not None and says_canceled(note.content) else state
