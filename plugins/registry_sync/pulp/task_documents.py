"""The documents of tasks, each the outcome of a requested sync by its DAG run and its record, and of the status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

from pydantic import AliasPath, Field

from registry_sync.domain.runs import DagRunEnd, FinishedTask, RequestedSync, RunCounts, SyncRun
from registry_sync.pulp.documents import Document, Timestamp, made
from registry_sync.pulp.hrefs import remote_href, repository_href, task_href, version_href
from registry_sync.pulp.path_forms import PathForm
from registry_sync.pulp.resource_names import task_prn
from registry_sync.pulp.sync_documents import remote_href_of


class TaskState(str, Enum):
    """The state of a task; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


#: The states of recorded tasks.
ENDED = (TaskState.COMPLETED, TaskState.FAILED)
#: The DAGs for maintenance, and what tasks that are runs of them do.
COLLECT_DAG_ID, SCRUB_DAG_ID = "registry_sync_collect", "registry_sync_scrub"
MAINTENANCE = {COLLECT_DAG_ID: "registry_sync.orphan_cleanup", SCRUB_DAG_ID: "registry_sync.repair"}
SYNC, DRY_RUN = "registry_sync.sync", "registry_sync.dry_run"
#: The final state of progress reports that had not ended before their task did.
_ENDS = {TaskState.COMPLETED: "completed", TaskState.FAILED: "failed", TaskState.CANCELED: "canceled"}


@dataclass(frozen=True)
class SyncDagRun:
    """A run of the sync DAG; timestamps are aware UTC, None while in the future.

    ``note`` is what its tasks noted of their failure, None for nothing.
    """

    task_id: str
    run_id: str
    state: TaskState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failed_tasks: tuple[str, ...] = ()
    triggered_by: str | None = None
    note: str | None = None
    dag_id: str = ""
    is_dry_run: bool = False

    @property
    def reason(self) -> str:
        """Why it failed, where no record of a sync says so: what a task noted with the run, or how the run ended."""
        if self.note:
            return self.note
        which = ", ".join(self.failed_tasks)
        if not which:
            return "The run was marked as failed in Airflow, or timed out, before any of its tasks had failed."
        return (
            f"{which} ended without reporting an error: its worker was lost or killed, or it was marked as failed in "
            "Airflow."
        )


@dataclass(frozen=True)
class RequestedTask:
    """The source of a task document: a run of the sync DAG, and the record of its sync, None before it has started.

    ``refusal`` says why the sync could not start, None when it could. ``path_form`` is that of its paths.

    A sync that had settled when it was canceled, or that was run again since, is completed. One that has neither made
    a version nor found that nothing changed has failed, even if its run succeeded.
    """

    dag_run: SyncDagRun
    run: SyncRun | None
    refusal: str | None = None
    path_form: PathForm = PathForm.DOCKER
    request: RequestedSync | None = None

    @property
    def name(self) -> str:
        """What the task does."""
        if self.dag_run.dag_id in MAINTENANCE:
            return MAINTENANCE[self.dag_run.dag_id]
        return DRY_RUN if self.dag_run.is_dry_run else SYNC

    @property
    def _is_settled(self) -> bool:
        return self.run is not None and self.run.state.is_settled

    @property
    def _has_made_nothing(self) -> bool:
        return self.dag_run.state is TaskState.COMPLETED and self.run is not None and not self._is_settled

    @property
    def state(self) -> TaskState:
        """The state by run and record together."""
        if self._has_made_nothing:
            return TaskState.FAILED
        if self.dag_run.state is TaskState.CANCELED and self._is_settled:
            return TaskState.COMPLETED
        return self.dag_run.state

    @property
    def error(self) -> TaskError | None:
        """The reason of the failure, None unless the task has failed."""
        if self.state is not TaskState.FAILED:
            return None
        recorded = None if self.run is None else self.run.error
        if self._has_made_nothing:
            return TaskError(description=recorded or DagRunEnd.SUCCESS.reason)
        return TaskError(description=self.refusal or recorded or self.dag_run.reason)

    result = None

    @property
    def updated_at(self) -> datetime:
        """When its state changed last."""
        run = self.dag_run
        return run.finished_at or run.started_at or run.created_at

    @property
    def progress_reports(self) -> list[ProgressReport]:
        """The progress of each part, empty before the sync has started."""
        return [] if self.run is None else _reports(self.state, self.run)

    @property
    def created_resources(self) -> list[str]:
        """The paths of the versions that were made, oldest first; a task that was run again keeps earlier ones."""
        run = self.run
        if run is None:
            return []
        own = () if run.version_number is None else ((run.repository_id, run.version_number),)
        return [version_href(repository_id, number) for repository_id, number in (*run.made_before, *own)]

    @property
    def reserved_resources(self) -> list[str]:
        """The paths of the repository and of the remote, without a remote that was deleted since."""
        if self.run is None and self.request is not None:
            return [repository_href(self.request.repository_id), remote_href(self.request.remote_id)]
        if self.run is None:
            return []
        remote = remote_href_of(self.run)
        return [repository_href(self.run.repository_id), *([] if remote is None else [remote])]

    @property
    def removals_approved_by(self) -> str | None:
        """Who approved the removal of more tags than the remote allows, None without an approval."""
        return None if self.run is None else self.run.removals_approved_by


@dataclass(frozen=True)
class RecordedTask:
    """The source of a task document: a task that had ended when its request was responded to."""

    task: FinishedTask

    @property
    def name(self) -> str:
        """What it did."""
        return self.task.name

    @property
    def path_form(self) -> PathForm:
        """The form of the paths in it."""
        return PathForm(self.task.path_form)

    @property
    def state(self) -> TaskState:
        """Completed, or failed."""
        return TaskState.COMPLETED if self.task.error is None else TaskState.FAILED

    @property
    def dag_run(self) -> SyncDagRun:
        """Its times, and for whom it was done; there was no run."""
        task = self.task
        times = (task.created_at, task.started_at, task.finished_at)
        return SyncDagRun(task.task_id, "", self.state, *times, triggered_by=task.triggered_by)

    @property
    def error(self) -> TaskError | None:
        """Why it failed."""
        return None if self.task.error is None else TaskError(description=self.task.error)

    progress_reports = ()
    removals_approved_by = None

    @property
    def updated_at(self) -> datetime:
        """When it ended."""
        return self.task.finished_at

    @property
    def result(self) -> Any:
        """What it gave, None for nothing."""
        return self.task.result

    @property
    def created_resources(self) -> tuple[str, ...]:
        """The paths of what it made."""
        return self.task.created_resources

    @property
    def reserved_resources(self) -> tuple[str, ...]:
        """The paths of what it was about."""
        return self.task.reserved_resources


class TaskError(Document):
    """Why a task failed, as text."""

    description: str


def _or_null(text: str) -> str | None:
    return text or None


def _plain(task_id: str) -> str:
    return task_id.replace("-", "")


class ProgressReport(Document):
    """The progress of one part of a task: ``done`` of ``total``, which is null before it is known."""

    message: str
    code: str
    state: str
    total: int | None
    done: int
    suffix: str | None = None


class TaskDocument(Document):
    """A task. ``created_resources`` has the path of the version that it made, if any; of several when it ran again.

    ``dag_run_id`` is the run of the sync DAG in Airflow, null for what was done at once; ``triggered_by`` who started
    it; ``removals_approved_by`` who approved the removal of more tags than its remote allows, null without an approval.
    """

    pulp_created: Annotated[Timestamp, Field(validation_alias=AliasPath("dag_run", "created_at"))]
    pulp_href: Annotated[str, made(task_href), Field(validation_alias=AliasPath("dag_run", "task_id"))]
    state: TaskState
    name: str
    started_at: Annotated[Timestamp | None, Field(validation_alias=AliasPath("dag_run", "started_at"))]
    finished_at: Annotated[Timestamp | None, Field(validation_alias=AliasPath("dag_run", "finished_at"))]
    error: TaskError | None
    progress_reports: list[ProgressReport]
    created_resources: list[str]
    reserved_resources_record: Annotated[list[str], Field(validation_alias="reserved_resources")]
    dag_run_id: Annotated[str | None, made(_or_null), Field(validation_alias=AliasPath("dag_run", "run_id"))]
    triggered_by: Annotated[str | None, Field(validation_alias=AliasPath("dag_run", "triggered_by"))]
    removals_approved_by: str | None
    prn: Annotated[str, made(task_prn), Field(validation_alias=AliasPath("dag_run", "task_id"))]
    pulp_last_updated: Annotated[Timestamp, Field(validation_alias="updated_at")]
    logging_cid: Annotated[str, made(_plain), Field(validation_alias=AliasPath("dag_run", "task_id"))]
    unblocked_at: Annotated[Timestamp | None, Field(validation_alias=AliasPath("dag_run", "started_at"))]
    result: Any
    created_by: None = None
    worker: None = None
    parent_task: None = None
    child_tasks: list[str] = Field(default_factory=list)
    task_group: None = None


class TaskStarted(Document):
    """The task that was started."""

    task: str


def _reports(state: TaskState, run: SyncRun) -> list[ProgressReport]:
    counts = run.counts
    is_listed = run.listed_at is not None or state in _ENDS
    fetched = counts.tag_count - counts.pending_tag_count
    return [
        _report("Downloading tag list", "sync.downloading.tag_list", state, int(is_listed), 1),
        _report(
            "Processing manifests",
            "sync.processing.manifests",
            state,
            fetched,
            counts.tag_count if is_listed else None,
        ),
        _report(
            "Downloading blobs", "sync.downloading.blobs", state, counts.stored_blob_count, _planned(counts, state)
        ),
        *_held(counts),
    ]


def _planned(counts: RunCounts, state: TaskState) -> int | None:
    """The number of blobs to download, None while the manifests that reference them are being fetched."""
    is_known = counts.blob_count or state in _ENDS or (counts.tag_count and not counts.pending_tag_count)
    return counts.blob_count if is_known else None


def _held(counts: RunCounts) -> list[ProgressReport]:
    if not counts.held_tag_count:
        return []
    count = counts.held_tag_count
    return [
        ProgressReport(
            message="Holding tags back", code="sync.holding.tags", state="completed", total=count, done=count
        )
    ]


def _report(message: str, code: str, state: TaskState, done: int, total: int | None) -> ProgressReport:
    shown = "completed" if total is not None and done >= total else _ENDS.get(state, "running")
    if done == 0 and shown == "running":
        shown = "waiting"
    return ProgressReport(message=message, code=code, state=shown, total=total, done=done)
