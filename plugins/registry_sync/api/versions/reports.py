"""How two versions differ, and where a version came from, as it is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from registry_sync.api.fields import GivenHref, PageQuery, Timestamp, parsed
from registry_sync.api.versions.documents import OriginDocument
from registry_sync.domain.records import Policy, SyncMode
from registry_sync.domain.runs import SyncRun, request_id_of
from registry_sync.domain.version_history import (
    Change,
    TagChange,
    UnitChange,
    UnitDifference,
    VersionDifference,
    VersionProvenance,
)
from registry_sync.pulp.hrefs import (
    MAX_NUMBER,
    href_of,
    read_repository_href,
    remote_href,
    repository_href,
    task_href,
    version_href,
)


class DifferenceQuery(PageQuery):
    """Which version to compare with, and which part of each of the three lists."""

    base: Annotated[
        int | None,
        Field(ge=0, le=MAX_NUMBER, description="Number of the other version; 0 is the empty one before the first"),
    ] = None
    base_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of the repository that the other version is of; the same unless given"),
    ] = None


class AmountsDocument(BaseModel):
    """Units: in the version alone, in both, in the base alone; ``moved`` tags are in none of the other numbers."""

    added: int
    shared: int
    removed: int
    moved: int | None = None


class ChangedTagDocument(BaseModel):
    """A tag that differs: ``before`` is its digest in the base, ``after`` that in the version; null where it is not."""

    change: Change
    name: str
    before: str | None
    after: str | None

    @classmethod
    def of(cls, changed: TagChange) -> ChangedTagDocument:
        """The document of a change."""
        return cls(change=changed.change, name=changed.name, before=changed.before, after=changed.after)


class ChangedUnitDocument(BaseModel):
    """A manifest or blob that only one of the two versions holds."""

    change: Literal[Change.ADDED, Change.REMOVED]
    digest: str
    media_type: str
    size: int

    @classmethod
    def of(cls, changed: UnitChange) -> ChangedUnitDocument:
        """The document of a change."""
        return cls.model_validate(
            {
                "change": changed.change,
                "digest": changed.digest,
                "media_type": changed.media_type,
                "size": changed.size_bytes,
            }
        )


class DifferenceDocument(BaseModel):
    """How a version differs from its base. Counts and sizes are of all; the lists are the part that was asked for.

    ``base_version`` is null for the empty version. ``next`` is the path of the next part while a list goes on.
    """

    version: str
    base_version: str | None
    is_empty: bool
    counts: dict[str, AmountsDocument]
    sizes: dict[str, AmountsDocument]
    tags: list[ChangedTagDocument]
    manifests: list[ChangedUnitDocument]
    blobs: list[ChangedUnitDocument]
    next: str | None

    @classmethod
    def of(cls, difference: VersionDifference, query: DifferenceQuery) -> DifferenceDocument:
        """The document of a difference; ``query`` is what was asked."""
        tags, units = difference.tags, {"docker.blob": difference.blobs, "docker.manifest": difference.manifests}
        of_tags = AmountsDocument(
            added=tags.added_count, shared=tags.shared_count, removed=tags.removed_count, moved=tags.moved_count
        )
        return cls(
            version=version_href(difference.repository_id, difference.number),
            base_version=_base_href(difference),
            is_empty=difference.is_empty,
            counts={**{kind: _counts(found) for kind, found in units.items()}, "docker.tag": of_tags},
            sizes={kind: _sizes(found) for kind, found in units.items()},
            tags=[ChangedTagDocument.of(changed) for changed in tags.page.items],
            manifests=[ChangedUnitDocument.of(changed) for changed in difference.manifests.page.items],
            blobs=[ChangedUnitDocument.of(changed) for changed in difference.blobs.page.items],
            next=_next(difference, query),
        )


def _base_href(difference: VersionDifference) -> str | None:
    if difference.base_number == 0:
        return None
    return version_href(difference.base_repository_id, difference.base_number)


def _counts(found: UnitDifference) -> AmountsDocument:
    return AmountsDocument(added=found.count.added, shared=found.count.shared, removed=found.count.removed)


def _sizes(found: UnitDifference) -> AmountsDocument:
    size = found.size_bytes
    return AmountsDocument(added=size.added, shared=size.shared, removed=size.removed)


def _next(difference: VersionDifference, query: DifferenceQuery) -> str | None:
    end = query.offset + query.limit
    longest = max(part.page.total_count for part in (difference.tags, difference.manifests, difference.blobs))
    if end >= longest:
        return None
    given: dict[str, int | str] = {"base": difference.base_number, "limit": query.limit, "offset": end}
    if difference.base_repository_id != difference.repository_id:
        given["base_repository"] = repository_href(difference.base_repository_id)
    href = version_href(difference.repository_id, difference.number)
    return f"{href}diff/?{urlencode(given, safe='/')}"


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
    listed_at: Timestamp | None
    started_at: Timestamp
    finished_at: Timestamp | None
    requests: RequestCounts


class ProvenanceDocument(BaseModel):
    """How a version came about. ``sync`` is null for a rollback, a copy, and when the run is not kept any more.

    ``origin_repository`` is the name of the repository that a rollback or a copy took from, null when it is gone.
    """

    version: str
    pulp_created: Timestamp
    origin: OriginDocument
    origin_repository: str | None
    sync: SyncThen | None

    @classmethod
    def of(cls, provenance: VersionProvenance, sync_dag_id: str) -> ProvenanceDocument:
        """The document of a provenance; ``sync_dag_id`` is the DAG whose runs are tasks."""
        run = provenance.run
        return cls(
            version=href_of(provenance.version),
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
