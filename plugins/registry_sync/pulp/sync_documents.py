"""The documents of syncs, however they were started, and of what became of each mirror of a fleet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field, ValidationInfo

from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.records import SyncMode
from registry_sync.domain.runs import RunKey, RunState, SyncRun, request_id_of
from registry_sync.pulp.documents import WHOLE, Document, Timestamp, made
from registry_sync.pulp.hrefs import remote_href, repository_href, sync_href, task_href, version_href


def tasks_of(sync_dag_id: str, run_ids: Collection[str]) -> dict[str, Any]:
    """The validation context of sync documents: these runs of the DAG ``sync_dag_id`` are tasks that exist."""
    return {"sync_dag_id": sync_dag_id, "run_ids": run_ids}


def remote_href_of(run: SyncRun) -> str | None:
    """The path of a sync's remote, None when that was deleted since."""
    return None if run.remote_id is None else remote_href(run.remote_id)


def _task_href(key: RunKey, info: ValidationInfo) -> str | None:
    context = info.context or {}
    is_task = key.dag_id == context.get("sync_dag_id") and key.run_id in context["run_ids"]
    request_id = request_id_of(key.run_id) if is_task else None
    return None if request_id is None else task_href(request_id)


def _version_href(run: SyncRun) -> str | None:
    return None if run.version_number is None else version_href(run.repository_id, run.version_number)


#: The path of a sync's task, null when it was not started over REST, and once the task is deleted.
TaskHref = Annotated[str | None, BeforeValidator(_task_href), Field(validation_alias="key")]


class RequestCounts(Document):
    """The number of a sync's requests to its registry, and the bytes received."""

    heads: Annotated[int, Field(validation_alias="head_count")]
    manifests: Annotated[int, Field(validation_alias="manifest_get_count")]
    blobs: Annotated[int, Field(validation_alias="blob_get_count")]
    tag_pages: Annotated[int, Field(validation_alias="tag_page_count")]
    digest_pages: Annotated[int, Field(validation_alias="digest_page_count")]
    retries: Annotated[int, Field(validation_alias="retry_count")]
    received_bytes: int


class SyncDocument(Document):
    """A sync. ``repository_version`` is the version that it made, null while it has made none.

    ``task`` is its path when it was started over REST and the task is not deleted, else null. ``triggered_by`` is the
    user who started it, or ``schedule``, an asset, a backfill. ``held_tag_count`` is the number of tags that it could
    not update, counted at its end.
    """

    pulp_href: Annotated[str, made(sync_href), Field(validation_alias="id")]
    state: RunState
    mode: SyncMode
    repository: Annotated[str, made(repository_href), Field(validation_alias="repository_id")]
    remote: Annotated[str | None, made(remote_href_of), WHOLE]
    repository_version: Annotated[str | None, made(_version_href), WHOLE]
    task: TaskHref
    dag_id: Annotated[str, Field(validation_alias=AliasPath("key", "dag_id"))]
    dag_run_id: Annotated[str, Field(validation_alias=AliasPath("key", "run_id"))]
    triggered_by: str | None
    removals_approved_by: str | None
    started_at: Timestamp
    listed_at: Timestamp | None
    finished_at: Timestamp | None
    error: str | None
    held_tag_count: Annotated[int, Field(validation_alias=AliasPath("counts", "held_tag_count"))]
    requests: Annotated[RequestCounts, Field(validation_alias="usage")]


class MirrorResultDocument(Document):
    """The result of a mirror in one DAG run.

    ``repository`` is the name that it is synced into. ``version_number`` is the version that was made, or the latest
    when nothing changed; null for none. ``held_count`` is the number of tags that could not be updated. ``try_count``
    is how often it was tried; ``seconds``, ``request_count`` and ``received_bytes`` are of the last try. ``error`` says
    what happened and what to do, and ``is_temporary`` whether the same may succeed later. ``handed_over_to`` is the run
    id of the DAG run that syncs a large one.
    """

    repository: str
    outcome: MirrorOutcome
    version_number: int | None
    held_count: int
    error: str | None
    is_temporary: bool
    priority: int
    try_count: int
    seconds: float
    request_count: int
    received_bytes: int
    started_at: Timestamp
    finished_at: Timestamp
    dag_id: str
    run_id: str
    task_id: str
    handed_over_to: str | None
