"""The document of a dry run: what a sync would do. Of bounded size, whatever the repository: counts, and first changes.

It is the XCom of the listing task, the response of ``tasks/<id>/plan/``, and what the command prints.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasPath, Field

from registry_sync.domain.remote import Policy
from registry_sync.domain.sync_plans import PlanOutcome, SyncPlan
from registry_sync.pulp.documents import WHOLE, Document, WrittenUrl, made
from registry_sync.pulp.sync_documents import RequestCounts
from registry_sync.pulp.version_documents import AmountsDocument, ChangedTagDocument, HeldTagDocument


def plan_document(plan: SyncPlan) -> dict[str, Any]:
    """A plan in the form of XComs and REST."""
    return SyncPlanDocument.model_validate(plan).model_dump(mode="json")


def _counts(plan: SyncPlan) -> dict[str, Any]:
    return {"docker.blob": plan.blobs, "docker.manifest": plan.manifests}


class RefusalDocument(Document):
    """Why the sync would stop: the name of the error, and its message."""

    error: str
    message: str


class PlannedTagsDocument(Document):
    """Numbers of tags: ``listed`` by the upstream, ``selected`` of these, and how the repository's would change.

    ``present`` are those of the new version, ``held`` those that could not be updated.
    """

    listed: int
    selected: int
    added: int
    moved: int
    removed: int
    held: int
    present: int


class PlannedDownloadsDocument(Document):
    """What would be downloaded. Of ``needed_blobs`` the blob store has all but ``blobs``.

    ``requests`` counts those of the whole sync, if none has to be repeated; those of the dry run are all but its blobs.
    """

    manifests: int
    blobs: int
    blob_bytes: int
    needed_blobs: int
    request_count: int
    requests: RequestCounts


class SyncPlanDocument(Document):
    """What a sync would do.

    ``outcome`` is ``version``, ``unchanged`` or ``refused``; ``number`` that of the version that would be made, else
    null, and ``base_number`` the latest version's, null before the first. ``refusals`` has every reason to stop; the
    counts are then those without it, as far as they are known. ``tag_changes`` and ``holds`` have the first ones by
    name, ``notes`` the warnings.
    """

    repository: str
    outcome: PlanOutcome
    number: int | None
    base_number: int | None
    refusals: list[RefusalDocument]
    tags: PlannedTagsDocument
    counts: Annotated[dict[str, AmountsDocument], made(_counts), WHOLE]
    downloads: PlannedDownloadsDocument
    creates: list[str]
    remote_changes: str | None
    remote: Annotated[str, Field(validation_alias=AliasPath("remote", "name"))]
    url: Annotated[WrittenUrl, Field(validation_alias=AliasPath("remote", "url"))]
    upstream_name: Annotated[str, Field(validation_alias=AliasPath("remote", "upstream_name"))]
    policy: Annotated[Policy, Field(validation_alias=AliasPath("remote", "policy"))]
    mode: str
    tag_changes: list[ChangedTagDocument]
    holds: list[HeldTagDocument]
    notes: list[str]
