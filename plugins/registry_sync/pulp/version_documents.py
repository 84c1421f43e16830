"""The documents of repository versions: their content, the difference of two versions, and their provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import core_schema

from registry_sync.domain.records import ContentSummary, RepositoryVersion, SyncMode, VersionOrigin, VersionOriginKind
from registry_sync.domain.remote import Policy
from registry_sync.domain.version_history import Change, VersionDifference
from registry_sync.pulp.documents import WHOLE, Document, Timestamp, WrittenPlatforms, WrittenUrl, made
from registry_sync.pulp.hrefs import CONTENT_PATHS, base_href_of, href_of, units_href, version_href
from registry_sync.pulp.path_forms import current_form
from registry_sync.pulp.sync_documents import RequestCounts, TaskHref, remote_href_of

T = TypeVar("T")
#: The most held tags and missing manifests in a version's document; their lists have all of them.
SHOWN = 20
_PARAMETERS = {
    "added": "repository_version_added",
    "present": "repository_version",
    "removed": "repository_version_removed",
}


def summary_document(summary: ContentSummary, href: str) -> dict[str, Any]:
    """The documented ``content_summary``; ``href`` is the version's own path, which the content links contain.

    Types without units are omitted from each part, so that an empty part is ``{}``.
    """
    return {
        part: {
            current_form().content_type(kind): {
                "count": counts[kind],
                "href": f"{units_href(kind)}?{_PARAMETERS[part]}={href}",
            }
            for kind in CONTENT_PATHS
            if counts.get(kind)
        }
        for part, counts in (("added", summary.added), ("present", summary.present), ("removed", summary.removed))
    }


def version_document(version: RepositoryVersion) -> dict[str, Any]:
    """A version in the documented form of the "Synchronize a Repository" workflow, for XComs."""
    return DocumentedVersion.model_validate(version).model_dump(mode="json")


def _summary(version: RepositoryVersion) -> dict[str, Any]:
    return summary_document(version.summary, href_of(version))


def _first(entries: Sequence[T]) -> Sequence[T]:
    return entries[:SHOWN]


def _origin_href(origin: VersionOrigin) -> str | None:
    if origin.repository_id is None or origin.number is None:
        return None
    return version_href(origin.repository_id, origin.number)


class UnitCount(Document):
    """The number of units of one type, and the path of their list."""

    count: int
    href: str


class SummaryDocument(Document):
    """Units by content type; types without units are omitted."""

    added: dict[str, UnitCount]
    present: dict[str, UnitCount]
    removed: dict[str, UnitCount]


class HeldTagDocument(Document):
    """A tag that could not be updated: the digest it keeps, null when it is omitted, and the reason."""

    name: Annotated[str, Field(validation_alias="tag")]
    digest: str | None
    reason: str


class MissingManifestDocument(Document):
    """An entry of ``index`` that its registry did not have, where the remote allowed that."""

    digest: str
    index: Annotated[str, Field(validation_alias="parent")]


class OriginDocument(Document):
    """The origin of a version. ``version`` is the source of a rollback or a copy.

    It is null for a sync, and may have been deleted since. ``created_by`` is the user, or what requested the version.
    """

    kind: VersionOriginKind
    version: Annotated[str | None, made(_origin_href), WHOLE]
    created_by: str | None


class DocumentedVersion(Document):
    """A version with the documented fields and no others."""

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(href_of), WHOLE]
    base_version: Annotated[str | None, made(base_href_of), WHOLE]
    content_summary: Annotated[SummaryDocument, made(_summary), WHOLE]
    number: int


class VersionDocument(DocumentedVersion):
    """A repository version; complete when no tag is held, no manifest is missing and referrers were listed.

    ``referrers_problem`` is present only when referrers could not be listed, and says why. ``held_tags`` and
    ``missing_manifests`` are present only when they are not empty, and have the first entries.
    """

    is_complete: bool
    held_tag_count: Annotated[int, made(len), Field(validation_alias="holds")]
    missing_manifest_count: Annotated[int, made(len), Field(validation_alias="gaps")]
    description: str | None
    pulp_labels: dict[str, str]
    origin: OriginDocument
    held_tags: Annotated[list[HeldTagDocument], made(_first)] = Field(default=[], validation_alias="holds")
    missing_manifests: Annotated[list[MissingManifestDocument], made(_first)] = Field(
        default=[], validation_alias="gaps"
    )
    referrers_problem: str | None = None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the fields; pydantic's own is that of the dictionary that the serializer below returns."""
        fields: Any = {name: value for name, value in schema.items() if name != "serialization"}
        return handler(fields)

    @model_serializer(mode="wrap")
    def _without_empty_lists(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = serialize(self)
        for name in ("held_tags", "missing_manifests", "referrers_problem"):
            if not shown.get(name):
                shown.pop(name, None)
        return shown


class DerivedVersionDocument(VersionDocument):
    """A version that a rollback or a copy made, or the latest when that has the same content already.

    ``missing_blob_*`` count its blobs whose bytes are not stored; the next immediate sync fetches them.
    """

    missing_blob_count: int
    missing_blob_bytes: int


# -- differences -------------------------------------------------------------------------------------------------


def _compared_href(difference: VersionDifference) -> str:
    return version_href(difference.repository_id, difference.number)


def _compared_base_href(difference: VersionDifference) -> str | None:
    if difference.base_number == 0:
        return None
    return version_href(difference.base_repository_id, difference.base_number)


def _counts(difference: VersionDifference) -> Mapping[str, Any]:
    blobs, manifests = difference.blobs.count, difference.manifests.count
    counts = {"docker.blob": blobs, "docker.manifest": manifests, "docker.tag": difference.tags}
    return {current_form().content_type(kind): count for kind, count in counts.items()}


def _sizes(difference: VersionDifference) -> Mapping[str, Any]:
    sizes = {"docker.blob": difference.blobs.size_bytes, "docker.manifest": difference.manifests.size_bytes}
    return {current_form().content_type(kind): size for kind, size in sizes.items()}


class AmountsDocument(Document):
    """Numbers of units in the version alone, in both, in the base alone; ``moved`` tags are counted separately."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, f"{name}_count"))
    )

    added: int
    shared: int
    removed: int
    moved: int | None = None


class ChangedTagDocument(Document):
    """A tag that differs: ``before`` is its digest in the base, ``after`` that in the version; null where absent."""

    change: Change
    name: str
    before: str | None
    after: str | None


class ChangedUnitDocument(Document):
    """A manifest or blob that only one of the two versions has."""

    change: Literal[Change.ADDED, Change.REMOVED]
    digest: str
    media_type: str
    size: int


@dataclass(frozen=True)
class NextPart:
    """The path of the next page of a difference, None at the end of its lists; an additional source of its document."""

    next: str | None


class DifferenceDocument(Document):
    """The difference of a version from its base. Counts and sizes are of all units; the lists are the requested page.

    ``base_version`` is null for the empty version. ``next`` is the path of the next page while a list has more.
    """

    version: Annotated[str, made(_compared_href), WHOLE]
    base_version: Annotated[str | None, made(_compared_base_href), WHOLE]
    is_empty: bool
    counts: Annotated[dict[str, AmountsDocument], made(_counts), WHOLE]
    sizes: Annotated[dict[str, AmountsDocument], made(_sizes), WHOLE]
    tags: Annotated[list[ChangedTagDocument], Field(validation_alias=AliasPath("tags", "page", "items"))]
    manifests: Annotated[list[ChangedUnitDocument], Field(validation_alias=AliasPath("manifests", "page", "items"))]
    blobs: Annotated[list[ChangedUnitDocument], Field(validation_alias=AliasPath("blobs", "page", "items"))]
    next: str | None


# -- provenance --------------------------------------------------------------------------------------------------


class RemoteThen(Document):
    """A remote as a sync used it, without secrets. ``remote`` is its path, null when it was deleted since."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=lambda name: AliasPath("remote", name)))

    remote: Annotated[str | None, made(remote_href_of), WHOLE]
    name: str
    url: WrittenUrl
    upstream_name: str
    policy: Policy
    include_tags: list[str] | None
    exclude_tags: list[str]
    platforms: WrittenPlatforms
    conn_id: str | None


class SyncThen(Document):
    """The sync that made a version. ``task`` is its path when it was started over REST and the task is not deleted.

    ``triggered_by`` is the user who started it, or ``schedule``, an asset, a backfill. ``removals_approved_by``
    approved the removal of more tags than its remote allows; null without an approval.
    """

    task: TaskHref
    dag_id: Annotated[str, Field(validation_alias=AliasPath("key", "dag_id"))]
    dag_run_id: Annotated[str, Field(validation_alias=AliasPath("key", "run_id"))]
    mode: SyncMode
    triggered_by: str | None
    removals_approved_by: str | None
    remote: Annotated[RemoteThen, WHOLE]
    listed_at: Timestamp | None
    started_at: Timestamp
    finished_at: Timestamp | None
    requests: Annotated[RequestCounts, Field(validation_alias="usage")]


class ProvenanceDocument(Document):
    """The provenance of a version. ``sync`` is null for a rollback, a copy, and when the run is no longer kept.

    ``origin_repository`` is the name of the source repository of a rollback or a copy, null when it was deleted.
    """

    version: Annotated[str, made(href_of)]
    pulp_created: Annotated[Timestamp, Field(validation_alias=AliasPath("version", "created_at"))]
    origin: Annotated[OriginDocument, Field(validation_alias=AliasPath("version", "origin"))]
    origin_repository: Annotated[str | None, Field(validation_alias="origin_repository_name")]
    sync: Annotated[SyncThen | None, Field(validation_alias="run")]
