"""``/tasks/``: list, read and cancel tasks; and ``sync/`` of a remote and of a repository, which start them.

Each requested sync starts a run of the sync DAG, and its task is the response.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BeforeValidator, Field

from registry_sync.api import sync_dag
from registry_sync.api.access import CHANGE_RUN, DELETE_RUN, READ_TASKS, SYNC, SignedIn, may_change_repositories
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Flag, GivenDocument, GivenHref, PathUuid, invalid, parsed
from registry_sync.api.form_routes import record_task
from registry_sync.api.list_filters import OF_ORDER, FilterField, filtered, read_time, read_uuid
from registry_sync.api.problems import CONFLICT, NOT_FOUND, InvalidField
from registry_sync.api.resources import (
    PageQuery,
    SentFields,
    listed_states,
    ordered_by,
    page_document,
    sent,
    sent_page,
    wanted_states,
)
from registry_sync.db.database import Database
from registry_sync.db.runs.dag_run_stores import TaskReads
from registry_sync.domain.filters import NOTHING, Filter, Operator
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest, Repository, SyncMode
from registry_sync.domain.remote import Remote
from registry_sync.domain.runs import DagRunEnd, RequestedSync, RunKey, SyncRun, is_fed_by
from registry_sync.errors import RecordNotFound, RegistrySyncError, SyncError
from registry_sync.hooks.dag_runs import continue_run, plan_of_run
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import (
    read_distribution_href,
    read_remote_href,
    read_repository_href,
    read_task_href,
    read_version_href,
    task_href,
    tasks_href,
)
from registry_sync.pulp.path_forms import PathForm, current_form, in_form
from registry_sync.pulp.plan_documents import SyncPlanDocument
from registry_sync.pulp.resource_names import TASK, read_prn
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


class SoughtState(str, Enum):
    """The states that tasks are looked for in: those of :class:`TaskState`, and two of Pulp that no task has here."""

    WAITING = "waiting"
    SKIPPED = "skipped"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELING = "canceling"


_TaskOrder: Any = ordered_by("pulp_created", "started_at", "finished_at")
_States: Any = listed_states(SoughtState)


class _OrderedTasks(PageQuery):
    state: SoughtState | None = None
    state__in: Annotated[_States | None, Field(description="States separated by commas")] = None
    ordering: _TaskOrder = None


def _read_resource(href: str) -> str:
    """The id of a repository or remote, by its path."""
    return read_remote_href(href) if "/remotes/" in href else read_repository_href(href)


def _read_created(href: str) -> tuple[str, int | None]:
    """What a task may have made: a repository and the number of its version, or the id of a distribution and None."""
    return (read_distribution_href(href), None) if "/distributions/" in href else read_version_href(href)


_OF_RESOURCES = (Operator.EQUAL, Operator.IN)


TaskQuery: Any = filtered(
    _OrderedTasks,
    "TaskQuery",
    "The filters and order of tasks; the newest first by default.",
    FilterField("name", how=(Operator.EQUAL, Operator.IN, Operator.CONTAINS)),
    FilterField("logging_cid", "id", read=read_uuid),
    FilterField("logging_cid", "cid", (Operator.CONTAINS,)),
    FilterField("pulp_href", "id", (Operator.IN,), read_task_href),
    FilterField("prn", "id", (Operator.IN,), partial(read_prn, model=TASK)),
    FilterField("reserved_resources", "reserved", _OF_RESOURCES, _read_resource),
    FilterField("exclusive_resources", "reserved", _OF_RESOURCES, _read_resource, "As reserved_resources"),
    FilterField("shared_resources", NOTHING, _OF_RESOURCES, _read_resource, "Nothing: no task here shares them"),
    FilterField("created_resources", "created", _OF_RESOURCES, _read_created),
    FilterField("worker", NOTHING, _OF_RESOURCES, about="Nothing: tasks of a run may have several workers"),
    FilterField("parent_task", NOTHING, about="Nothing: no task here starts others"),
    FilterField("task_group", NOTHING, about="Nothing: no task here starts others"),
    FilterField("pulp_created", "created_at", OF_ORDER, read_time),
    FilterField("started_at", how=OF_ORDER, read=read_time),
    FilterField("finished_at", how=OF_ORDER, read=read_time),
)
#: The most tasks of each kind that one request deletes.
_MOST_PURGED = 1000


def _text_of_time(value: Any) -> Any:
    """Refuses numbers, which pydantic reads as seconds or milliseconds."""
    if not isinstance(value, str):
        raise invalid("Send a time such as 2026-03-01T00:00:00Z.")
    return value


class TasksToPurge(GivenDocument):
    """Which tasks are deleted."""

    finished_before: Annotated[
        Annotated[AwareDatetime, BeforeValidator(_text_of_time)] | None,
        Field(description="Those that ended before; by default 30 days ago"),
    ] = None
    states: Annotated[
        list[Literal["completed", "failed", "canceled", "skipped"]] | None, Field(description="By default completed")
    ] = None


class ChangedTask(GivenDocument):
    """The change of a task: it can only be canceled."""

    state: Literal["canceled"]


router = Router(prefix="/tasks", tags=["tasks"])


@router.get("/", dependencies=READ_TASKS)
def list_tasks(database: UsedDatabase, query: Annotated[TaskQuery, Query()]) -> PageDocument[TaskDocument]:
    """Tasks: syncs and changes that were requested over REST, the newest first unless ordered otherwise."""
    sought = wanted_states(SoughtState, query.state, query.state__in)
    states = None if sought is None else [state for state in TaskState if SoughtState(state.value) in sought]
    page = _page(database, query.page_request(), states, query.wanted())
    return sent_page(query, page_document(tasks_href(), query, page, _shown))


def _page(
    database: Database, request: PageRequest, states: Sequence[TaskState] | None, where: Filter
) -> Page[RequestedTask | RecordedTask]:
    """A page of the runs of the sync DAG, in Airflow's database, and of the recorded tasks, in ours, as one list."""
    end, ordering = request.offset + request.limit, request.ordering or "-created_at"
    first, dag_id = PageRequest(0, end, request.ordering), load_settings().sync_dag_id
    related = sync_dag.Related(database.requests.about, partial(TaskReads(database).run_ids_that_made, dag_id))
    runs = sync_dag.page(dag_id, first, states, where=where, related=related)
    wanted = [state is TaskState.FAILED for state in (ENDED if states is None else states) if state in ENDED]
    recorded, count = database.finished_tasks.first(end, ordering=ordering, is_failed=wanted, where=where)
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


@router.post("/purge/", status_code=202, dependencies=DELETE_RUN)
def purge_tasks(database: UsedDatabase, given: TasksToPurge, user: SignedIn) -> TaskStarted:
    """Deletes tasks that have ended, with their runs in Airflow: the oldest, at most 1,000 of each kind at a time."""
    started_at = utc_now()
    before = given.finished_before or started_at - timedelta(days=30)
    states = [TaskState(state) for state in given.states or ("completed",) if state != "skipped"]  # none is
    kinds = [state is TaskState.FAILED for state in states if state in ENDED]
    count = database.finished_tasks.purge(before, is_failed=kinds, limit=_MOST_PURGED)
    count += sync_dag.purge(load_settings().sync_dag_id, before, states, _MOST_PURGED)
    return record_task(database, "registry_sync.purge", user, started_at, result={"deleted": count})


@router.get("/{task_id}/", dependencies=READ_TASKS, responses=NOT_FOUND)
def read_task(
    database: UsedDatabase, task_id: PathUuid, query: Annotated[SentFields, Query()], request: Request
) -> TaskDocument:
    """A task: its state, its progress, the reason of a failure, and what it made."""
    try:
        return sent(request, query, _shown(RecordedTask(database.finished_tasks.get(task_id))))
    except RecordNotFound:
        return sent(request, query, _document(database, sync_dag.find(load_settings().sync_dag_id, task_id)))


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
def cancel_task(database: UsedDatabase, task_id: PathUuid, given: ChangedTask, user: SignedIn) -> TaskDocument:
    """Cancels the task: its running tasks are stopped, and downloaded content is kept for the next sync."""
    del given  # it has only one possible value
    _refuse_recorded(database, task_id)
    dag_id = load_settings().sync_dag_id
    canceled = sync_dag.cancel(dag_id, task_id, user.get_name())
    end = DagRunEnd.CANCELED  # recorded by the listener already, unless the database did not respond in time
    database.run_ends.end(dag_id, canceled.run_id, end.state, end.reason, started_at=canceled.started_at)
    return _document(database, canceled)


@router.delete("/{task_id}/", status_code=204, dependencies=DELETE_RUN, responses={**NOT_FOUND, **CONFLICT})
def delete_task(database: UsedDatabase, task_id: PathUuid) -> None:
    """Deletes a task that has ended, with its run in Airflow; what it made, and the record of its sync, stay."""
    try:
        database.finished_tasks.delete(task_id)
    except RecordNotFound:
        sync_dag.delete(load_settings().sync_dag_id, task_id)


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
    return RequestedTask(dag_run, run, refusal, path_form=PathForm(request.path_form), request=request)
