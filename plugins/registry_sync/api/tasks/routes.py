"""``/tasks/``: list and read tasks, and cancel one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from registry_sync.api.access import CHANGE_RUN, READ_TASKS, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PageDocument, PathUuid, page_document
from registry_sync.api.problems import CONFLICT, NOT_FOUND
from registry_sync.api.tasks import sync_dag
from registry_sync.api.tasks.documents import ORDERING_FIELDS, ChangedTask, TaskDocument, TaskQuery
from registry_sync.db.database import Database
from registry_sync.db.runs.sync_runs import TaskReads
from registry_sync.domain.runs import DagRunEnd, RunKey
from registry_sync.errors import RecordNotFound, SyncError
from registry_sync.hooks.dag_runs import continue_run
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.hrefs import tasks_href

router = Router(prefix="/tasks", tags=["tasks"])


@router.get("/", dependencies=READ_TASKS)
def list_tasks(database: UsedDatabase, query: Annotated[TaskQuery, Query()]) -> PageDocument[TaskDocument]:
    """Syncs that were begun over REST, the newest first unless ordered otherwise."""
    dag_id = load_settings().sync_dag_id
    page = sync_dag.page(dag_id, query.part(ORDERING_FIELDS, query.ordering), query.states())
    runs = TaskReads(database).by_run_ids(dag_id, [dag_run.run_id for dag_run in page.items])
    errors = _refusals(database, page.items)
    return page_document(
        tasks_href(),
        query,
        page,
        lambda task: TaskDocument.of(task, runs.get(task.run_id), errors.get(task.task_id)),
    )


@router.get("/{task_id}/", dependencies=READ_TASKS, responses=NOT_FOUND)
def read_task(database: UsedDatabase, task_id: PathUuid) -> TaskDocument:
    """A task: its state, how far it is, why it failed, and what it made."""
    return _document(database, sync_dag.find(load_settings().sync_dag_id, task_id))


@router.patch("/{task_id}/", dependencies=CHANGE_RUN, responses={**NOT_FOUND, **CONFLICT})
def cancel_task(database: UsedDatabase, task_id: PathUuid, given: ChangedTask) -> TaskDocument:
    """The task, canceled: what runs of it is stopped, and what it has downloaded stays for the next sync."""
    del given  # there is only one thing it can say
    dag_id = load_settings().sync_dag_id
    canceled = sync_dag.cancel(dag_id, task_id)
    end = DagRunEnd.CANCELED  # noted by the listener already, unless the database did not answer in time
    database.run_ends.end(dag_id, canceled.run_id, end.state, end.reason, started_at=canceled.started_at)
    return _document(database, canceled)


@router.post("/{task_id}/approve_removals/", dependencies=CHANGE_RUN, responses={**NOT_FOUND, **CONFLICT})
def approve_removals(database: UsedDatabase, task_id: PathUuid, user: SignedIn) -> TaskDocument:
    """The task, which may remove more tags than its remote allows; one that stopped at that limit goes on."""
    dag_id = load_settings().sync_dag_id
    dag_run = sync_dag.find(dag_id, task_id)
    if dag_run.state is sync_dag.TaskState.CANCELED:
        raise SyncError("the task was canceled; begin another sync")
    try:
        run = database.runs.by_key(RunKey(dag_id, dag_run.run_id))
    except RecordNotFound:
        raise SyncError("nothing of the task has run, so it has nothing to remove") from None
    database.runs.approve_removals(run.id, user.get_name())
    continue_run(dag_id, dag_run.run_id)
    return _document(database, sync_dag.find(dag_id, task_id))


def _document(database: Database, dag_run: sync_dag.SyncDagRun) -> TaskDocument:
    runs = TaskReads(database).by_run_ids(load_settings().sync_dag_id, [dag_run.run_id])
    errors = _refusals(database, [dag_run])
    return TaskDocument.of(dag_run, runs.get(dag_run.run_id), errors.get(dag_run.task_id))


def _refusals(database: Database, tasks: Sequence[sync_dag.SyncDagRun]) -> dict[str, str]:
    """Why tasks could not begin, by their ids."""
    failed = [task.task_id for task in tasks if task.state is sync_dag.TaskState.FAILED]
    return database.requests.errors(failed) if failed else {}
