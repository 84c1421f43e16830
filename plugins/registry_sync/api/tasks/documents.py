"""Tasks as they are shown: what became of a sync that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field

from registry_sync.api.fields import GivenDocument, PageQuery, Sought, Timestamp, invalid, split_list
from registry_sync.api.tasks.sync_dag import SyncDagRun, TaskState
from registry_sync.domain.runs import DagRunEnd, RunCounts, SyncRun
from registry_sync.pulp.hrefs import remote_href, repository_href, task_href, version_href

TASK_NAME = "registry_sync.sync"
ORDERING_FIELDS = {"pulp_created": "created_at", "started_at": "started_at", "finished_at": "finished_at"}
#: Of reports that have not ended, what the task's own end means for them.
_ENDS = {TaskState.COMPLETED: "completed", TaskState.FAILED: "failed", TaskState.CANCELED: "canceled"}


class TaskError(BaseModel):
    """Why a task failed, for people."""

    description: str


class ProgressReport(BaseModel):
    """How far one part of a task is: ``done`` of ``total``; ``total`` is null before it is known."""

    message: str
    code: str
    state: str
    total: int | None
    done: int
    suffix: str | None = None


class TaskDocument(BaseModel):
    """A task. ``created_resources`` holds the path of the version that it made, if any; of more when it ran again.

    ``dag_run_id`` is the run of the sync DAG in Airflow; ``triggered_by`` who began it; ``removals_approved_by`` who
    let it remove more tags than its remote allows, null where nobody had to.
    """

    pulp_created: Timestamp
    pulp_href: str
    state: TaskState
    name: str
    started_at: Timestamp | None
    finished_at: Timestamp | None
    error: TaskError | None
    progress_reports: list[ProgressReport]
    created_resources: list[str]
    reserved_resources_record: list[str]
    dag_run_id: str
    triggered_by: str | None
    removals_approved_by: str | None

    @classmethod
    def of(cls, dag_run: SyncDagRun, run: SyncRun | None, refusal: str | None = None) -> TaskDocument:
        """A run of the DAG, with what is recorded of the sync, None before it has begun.

        ``refusal`` says why it could not begin, None when it could.

        A sync that had settled when it was canceled, or that was run again since, is completed. One that has made no
        version, and has not found that there is none to make, has failed, though its run ended well.
        """
        if dag_run.state is TaskState.CANCELED and run is not None and run.state.is_settled:
            dag_run = replace(dag_run, state=TaskState.COMPLETED)
        error = _error(dag_run, run, refusal)
        if dag_run.state is TaskState.COMPLETED and run is not None and not run.state.is_settled:
            dag_run = replace(dag_run, state=TaskState.FAILED)
            error = TaskError(description=run.error or DagRunEnd.SUCCESS.reason)
        return cls(
            pulp_created=dag_run.created_at,
            pulp_href=task_href(dag_run.task_id),
            state=dag_run.state,
            name=TASK_NAME,
            started_at=dag_run.started_at,
            finished_at=dag_run.finished_at,
            error=error,
            progress_reports=[] if run is None else _reports(dag_run.state, run),
            created_resources=_created(run),
            reserved_resources_record=_reserved(run),
            dag_run_id=dag_run.run_id,
            triggered_by=dag_run.triggered_by,
            removals_approved_by=None if run is None else run.removals_approved_by,
        )


def _error(dag_run: SyncDagRun, run: SyncRun | None, refusal: str | None) -> TaskError | None:
    if dag_run.state is not TaskState.FAILED:
        return None
    if refusal is not None:
        return TaskError(description=refusal)
    if run is not None and run.error:
        return TaskError(description=run.error)
    where = ", ".join(dag_run.failed_tasks) or "its tasks"
    return TaskError(description=f"The run failed; the log of {where} says why.")


def _created(run: SyncRun | None) -> list[str]:
    """The versions that were made, the first first: a task that was run again keeps what it had made."""
    if run is None:
        return []
    own = () if run.version_number is None else ((run.repository_id, run.version_number),)
    return [version_href(repository_id, number) for repository_id, number in (*run.made_before, *own)]


def _reserved(run: SyncRun | None) -> list[str]:
    if run is None:
        return []
    remote = [] if run.remote_id is None else [remote_href(run.remote_id)]
    return [repository_href(run.repository_id), *remote]


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
    """Blobs to download: unknown while manifests are being fetched, which are what names them."""
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


def _known_states(text: str) -> str:
    known = {state.value for state in TaskState}
    unknown = [name for name in split_list(text) or () if name not in known]
    if unknown or not split_list(text):
        raise invalid(f"Give states separated by commas: {', '.join(sorted(known))}.")
    return text


class TaskQuery(PageQuery):
    """Which tasks; the newest first unless ordered otherwise."""

    state: TaskState | None = None
    state__in: Annotated[
        Annotated[Sought, AfterValidator(_known_states)] | None, Field(description="States separated by commas")
    ] = None
    ordering: (
        Literal["pulp_created", "-pulp_created", "started_at", "-started_at", "finished_at", "-finished_at"] | None
    ) = None

    def states(self) -> list[TaskState] | None:
        """The states asked for; None for all."""
        several = split_list(self.state__in)
        if several is None:
            return None if self.state is None else [self.state]
        return [state for state in TaskState if state.value in several and self.state in (None, state)]


class ChangedTask(GivenDocument):
    """What may be changed of a task: it may be canceled."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset()

    state: Literal["canceled"]
