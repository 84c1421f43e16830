"""``/tasks/``: list, read and cancel tasks; and ``sync/`` of a remote and of a repository, which start them.

Each requested sync starts a run of the sync DAG, and its task is the response.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import HTTPException, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from registry_sync.api import sync_dag
from registry_sync.api.access import CHANGE_RUN, READ_TASKS, SYNC, SignedIn, may_change_repositories
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Flag, GivenDocument, GivenHref, PathUuid, parsed
from registry_sync.api.problems import CONFLICT, NOT_FOUND, InvalidField
from registry_sync.api.resources import PageQuery, listed_states, ordered_by, page_document, wanted_states
from registry_sync.db.database import Database
from registry_sync.db.runs.dag_run_stores import TaskReads
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest, Repository, SyncMode
from registry_sync.domain.remote import Remote
from registry_sync.domain.runs import DagRunEnd, RequestedSync, RunKey, SyncRun, is_fed_by
from registry_sync.errors import RecordNotFound, RegistrySyncError, SyncError
from registry_sync.hooks.dag_runs import continue_run, plan_of_run
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import read_remote_href, read_repository_href, task_href, tasks_href
from registry_sync.pulp.path_forms import PathForm, current_form, in_form
from registry_sync.pulp.plan_documents import SyncPlanDocument
from registry_sync.pulp.task_documents import (
    ENDED,
    RecordedTask,
    RequestedTask,
    SyncDagRun,
    TaskDocument,
    TaskStarted,
    TaskState,
)

_Mirror = Annotated[
    Flag, Field(description="Whether what was deleted upstream is removed from the new version; false keeps it")
]


class NewSync(GivenDocument):
    """The options of a sync."""

    mirror: _Mirror = False
    dry_run: Annotated[Flag, Field(description="Whether only to find out what the sync would do")] = False

    @property
    def mode(self) -> SyncMode:
        """The mode in the domain."""
        return SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE


class SyncIntoRepository(NewSync):
    """A sync of a remote into a repository."""

    repository: Annotated[GivenHref, parsed(read_repository_href), Field(description="Path of a repository")]


class SyncFromRemote(NewSync):
    """A sync of a repository from a remote."""

    remote: Annotated[GivenHref, parsed(read_remote_href), Field(description="Path of a remote")]


started_router = Router(tags=["sync"])


@started_router.post(
    "/remotes/docker/docker/{remote_id}/sync/", status_code=202, dependencies=SYNC, responses=NOT_FOUND
)
def sync_remote(database: UsedDatabase, remote_id: PathUuid, given: SyncIntoRepository, user: SignedIn) -> TaskStarted:
    """Syncs the remote's content into a repository."""
    remote = database.remotes.get(remote_id)
    try:
        repository = database.repositories.get(read_repository_href(given.repository))
    except RecordNotFound as problem:
        raise InvalidField("repository", str(problem)) from None
    return _start(database, repository, remote, given, user)


@started_router.post(
    "/repositories/docker/docker/{repository_id}/sync/", status_code=202, dependencies=SYNC, responses=NOT_FOUND
)
def sync_repository(
    database: UsedDatabase, repository_id: PathUuid, given: SyncFromRemote, user: SignedIn
) -> TaskStarted:
    """Syncs a remote's content into the repository."""
    repository = database.repositories.get(repository_id)
    named: str | None = given.remote  # None in the container form, for the repository's own
    remote_id = repository.remote_id if named is None else read_remote_href(named)
    if remote_id is None:
        raise InvalidField("remote", f"Repository {repository.name!r} has no remote of its own; send one.")
    try:
        remote = database.remotes.get(remote_id)
    except RecordNotFound as problem:
        raise InvalidField("remote", str(problem)) from None
    return _start(database, repository, remote, given, user)


def _start(database: Database, repository: Repository, remote: Remote, given: NewSync, user: SignedIn) -> TaskStarted:
    """Stores the request, by ids, and starts a run for it; the run's parameters are for people only.

    Where another remote would replace a repository's content, it requires the right to change repositories.
    """
    is_other = not is_fed_by(repository, remote, database.runs.latest_settled(repository.id))
    if is_other and not may_change_repositories(user):
        raise HTTPException(
            403,
            f"The content of repository {repository.name!r} did not come from remote {remote.spec.name!r}. To replace "
            "it by this remote's requires the right to change repositories.",
        )
    requested = RequestedSync(
        id=str(uuid.uuid4()),
        dag_id=load_settings().sync_dag_id,
        repository_id=repository.id,
        remote_id=remote.id,
        mode=given.mode,
        requested_by=user.get_name(),
        may_replace_upstream=is_other,
        requested_at=utc_now(),
        path_form=current_form().value,
    )
    conf: dict[str, Any] = {"repository": repository.name, "remote": remote.spec.name, "mode": given.mode.value}
    if given.dry_run:
        conf["dry_run"] = True
    database.requests.add(requested)
    try:
        sync_dag.trigger(requested.dag_id, requested.id, conf, user.get_name())
    except BaseException:
        with suppress(RegistrySyncError):
            database.requests.withdraw(requested.id)
        raise
    return TaskStarted(task=task_href(requested.id))


_TaskOrder: Any = ordered_by("pulp_created", "started_at", "finished_at")
_States: Any = listed_states(TaskState)


class TaskQuery(PageQuery):
    """The filters and order of tasks; the newest first by default."""

    state: TaskState | None = None
    state__in: Annotated[_States | None, Field(description="States separated by commas")] = None
    ordering: _TaskOrder = None


class ChangedTask(GivenDocument):
    """The change of a task: it can only be canceled."""

    state: Literal["canceled"]


router = Router(prefix="/tasks", tags=["tasks"])


@router.get("/", dependencies=READ_TASKS)
def list_tasks(database: UsedDatabase, query: Annotated[TaskQuery, Query()]) -> PageDocument[TaskDocument]:
    """Tasks: syncs and changes that were requested over REST, the newest first unless ordered otherwise."""
    page = _page(database, query.page_request(), wanted_states(TaskState, query.state, query.state__in))
    return page_document(tasks_href(), query, page, _shown)


def _page(
    database: Database, request: PageRequest, states: Sequence[TaskState] | None
) -> Page[RequestedTask | RecordedTask]:
    """A page of the runs of the sync DAG, in Airflow's database, and of the recorded tasks, in ours, as one list."""
    end, ordering = request.offset + request.limit, request.ordering or "-created_at"
    runs = sync_dag.page(load_settings().sync_dag_id, PageRequest(0, end, request.ordering), states)
    wanted = [state is TaskState.FAILED for state in (ENDED if states is None else states) if state in ENDED]
    recorded, count = database.finished_tasks.first(end, ordering=ordering, is_failed=wanted)
    is_descending = ordering.startswith("-")

    def place(task: Any) -> datetime:
        run = task.dag_run if isinstance(task, RecordedTask) else task
        return getattr(run, ordering.removeprefix("-")) or datetime.max.replace(tzinfo=timezone.utc)

    sources: list[Iterable[SyncDagRun | RecordedTask]] = [runs.items, map(RecordedTask, recorded)]
    found = heapq.merge(*sources, key=place, reverse=is_descending)
    shown = list(islice(found, request.offset, end))
    tasks = iter(_tasks(database, [task for task in shown if isinstance(task, SyncDagRun)]))
    items = tuple(task if isinstance(task, RecordedTask) else next(tasks) for task in shown)
    return Page(items, runs.total_count + count)


@router.get("/{task_id}/", dependencies=READ_TASKS, responses=NOT_FOUND)
def read_task(database: UsedDatabase, task_id: PathUuid) -> TaskDocument:
    """A task: its state, its progress, the reason of a failure, and what it made."""
    try:
        return _shown(RecordedTask(database.finished_tasks.get(task_id)))
    except RecordNotFound:
        return _document(database, sync_dag.find(load_settings().sync_dag_id, task_id))


@router.get("/{task_id}/plan/", dependencies=READ_TASKS, responses=NOT_FOUND, response_model=SyncPlanDocument)
def read_plan(task_id: PathUuid) -> JSONResponse:
    """What the sync of a dry run would do; not found before it has ended, and for other tasks."""
    dag_id = load_settings().sync_dag_id
    dag_run = sync_dag.find(dag_id, task_id)
    plan = plan_of_run(dag_id, dag_run.run_id) if dag_run.is_dry_run else None
    if plan is None:
        why = f"its dry run is {dag_run.state.value}" if dag_run.is_dry_run else "it is no dry run"
        raise RecordNotFound(f"the task {task_id!r} has no plan: {why}")
    return JSONResponse(plan)


@router.patch("/{task_id}/", dependencies=CHANGE_RUN, responses={**NOT_FOUND, **CONFLICT})
def cancel_task(database: UsedDatabase, task_id: PathUuid, given: ChangedTask) -> TaskDocument:
    """Cancels the task: its running tasks are stopped, and downloaded content is kept for the next sync."""
    del given  # it has only one possible value
    _refuse_recorded(database, task_id)
    dag_id = load_settings().sync_dag_id
    canceled = sync_dag.cancel(dag_id, task_id)
    end = DagRunEnd.CANCELED  # recorded by the listener already, unless the database did not respond in time
    database.run_ends.end(dag_id, canceled.run_id, end.state, end.reason, started_at=canceled.started_at)
    return _document(database, canceled)


@router.post("/{task_id}/approve_removals/", dependencies=CHANGE_RUN, responses={**NOT_FOUND, **CONFLICT})
def approve_removals(database: UsedDatabase, task_id: PathUuid, user: SignedIn) -> TaskDocument:
    """Approves the removals of the task, which may then remove more tags than its remote allows, and continues it."""
    _refuse_recorded(database, task_id)
    dag_id = load_settings().sync_dag_id
    dag_run = sync_dag.find(dag_id, task_id)
    if dag_run.state is TaskState.CANCELED:
        raise SyncError("the task was canceled; start another sync")
    runs = database.runs.of_dag_run(RunKey(dag_id, dag_run.run_id))
    if not runs:
        raise SyncError("nothing of the task has run, so it has nothing to remove")
    # Of several syncs in a run of the DAG, those that were stopped.
    stopped = [run for run in runs if run.refused_removals is not None and not run.state.is_settled]
    approved = stopped or runs[:1]
    for run in approved:
        database.runs.approve_removals(run.id, user.get_name())
    continue_run(dag_id, dag_run.run_id, approved=[run.id for run in approved], approved_by=user.get_name())
    return _document(database, sync_dag.find(dag_id, task_id))


def _refuse_recorded(database: Database, task_id: str) -> None:
    """Raises :class:`SyncError` for a task that had ended when its request was responded to."""
    with suppress(RecordNotFound):
        state = RecordedTask(database.finished_tasks.get(task_id)).state
        raise SyncError(f"the task has ended: it is {state.value}")


def _document(database: Database, dag_run: SyncDagRun) -> TaskDocument:
    return _shown(*_tasks(database, [dag_run]))


def _shown(task: RequestedTask | RecordedTask) -> TaskDocument:
    """The task with paths in the form of those that it was requested with."""
    with in_form(task.path_form):
        return TaskDocument.model_validate(task)


def _tasks(database: Database, dag_runs: Sequence[SyncDagRun]) -> tuple[RequestedTask, ...]:
    """The runs with the records of their syncs, and with their requests, unless these are too old to be kept."""
    run_ids = [dag_run.run_id for dag_run in dag_runs]
    runs = TaskReads(database).by_run_ids(load_settings().sync_dag_id, run_ids)
    requests = database.requests.by_ids([dag_run.task_id for dag_run in dag_runs])
    return tuple(_task(dag_run, runs.get(dag_run.run_id), requests.get(dag_run.task_id)) for dag_run in dag_runs)


def _task(dag_run: SyncDagRun, run: SyncRun | None, request: RequestedSync | None) -> RequestedTask:
    if request is None:
        return RequestedTask(dag_run, run)
    refusal = request.error if dag_run.state is TaskState.FAILED else None
    return RequestedTask(dag_run, run, refusal, path_form=PathForm(request.path_form))
