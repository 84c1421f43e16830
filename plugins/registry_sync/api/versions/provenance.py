"""Where a version came from, as it is shown."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from registry_sync.api.fields import Moment
from registry_sync.api.versions.schemas import OriginDocument
from registry_sync.domain.hrefs import remote_href, task_href
from registry_sync.domain.provenance import VersionProvenance
from registry_sync.domain.records import Policy, SyncMode
from registry_sync.domain.runs import SyncRun, request_id_of


class RemoteThen(BaseModel):
    """A remote as a sync used it. ``remote`` is its path, null when it was deleted since. It holds no secret."""

    remote: str | None
    name: str
    url: str
    upstream_name: str
    policy: Policy
    include_tags: list[str] | None
    exclude_tags: list[str]
    platforms: list[str] | None
    conn_id: str | None


class RequestCounts(BaseModel):
    """What a sync asked of its registry."""

    heads: int
    manifests: int
    blobs: int
    tag_pages: int
    retries: int
    received_bytes: int


class SyncThen(BaseModel):
    """The sync that made a version. ``task`` is its path when it was begun over REST, else null.

    ``triggered_by`` is the user who began it, or what did: ``schedule``, an asset, a backfill. ``removals_approved_by``
    let it remove more tags than its remote allows; null where nobody had to.
    """

    task: str | None
    dag_id: str
    dag_run_id: str
    mode: SyncMode
    triggered_by: str | None
    removals_approved_by: str | None
    remote: RemoteThen
    listed_at: Moment | None
    started_at: Moment
    finished_at: Moment | None
    requests: RequestCounts


class ProvenanceDocument(BaseModel):
    """How a version came about. ``sync`` is null for a rollback, a copy, and when the run is not kept any more.

    ``origin_repository`` is the name of the repository that a rollback or a copy took from, null when it is gone.
    """

    version: str
    pulp_created: Moment
    origin: OriginDocument
    origin_repository: str | None
    sync: SyncThen | None

    @classmethod
    def of(cls, provenance: VersionProvenance, sync_dag_id: str) -> ProvenanceDocument:
        """A provenance, shown; ``sync_dag_id`` is the DAG whose runs are tasks."""
        run = provenance.run
        return cls(
            version=provenance.version.href,
            pulp_created=provenance.version.created_at,
            origin=OriginDocument.of(provenance.version.origin),
            origin_repository=provenance.origin_repository_name,
            sync=None if run is None else SyncThen.model_validate(_sync(run, sync_dag_id)),
        )


def _sync(run: SyncRun, sync_dag_id: str) -> dict[str, Any]:
    remote, usage = run.remote, run.usage
    task_id = request_id_of(run.key.run_id) if run.key.dag_id == sync_dag_id else None
    return {
        "task": None if task_id is None else task_href(task_id),
        "dag_id": run.key.dag_id,
        "dag_run_id": run.key.run_id,
        "mode": run.mode,
        "triggered_by": run.triggered_by,
        "removals_approved_by": run.removals_approved_by,
        "remote": {
            "remote": None if run.remote_id is None else remote_href(run.remote_id),
            "name": remote.name,
            "url": remote.url,
            "upstream_name": remote.upstream_name,
            "policy": remote.policy,
            "include_tags": None if remote.include_tags is None else list(remote.include_tags),
            "exclude_tags": list(remote.exclude_tags),
            "platforms": None if remote.platforms is None else list(remote.platforms),
            "conn_id": remote.conn_id,
        },
        "listed_at": run.listed_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "requests": {
            "heads": usage.head_count,
            "manifests": usage.manifest_get_count,
            "blobs": usage.blob_get_count,
            "tag_pages": usage.tag_page_count,
            "retries": usage.retry_count,
            "received_bytes": usage.received_bytes,
        },
    }
