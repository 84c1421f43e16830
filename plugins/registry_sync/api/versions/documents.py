"""Repository versions as they are shown, what may be said of them, and what a copy of tags is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from registry_sync.api.fields import (
    Flag,
    FreeText,
    GivenDocument,
    GivenHref,
    Labels,
    PageQuery,
    Timestamp,
    invalid,
    parsed,
)
from registry_sync.domain.records import Gap, Hold, RepositoryVersion, SyncMode, VersionOrigin, VersionOriginKind
from registry_sync.domain.tag_filter import TagFilter
from registry_sync.domain.version_history import CopyRequest, DerivedVersion
from registry_sync.pulp.documents import summary_document
from registry_sync.pulp.hrefs import base_href_of, href_of, read_repository_href, read_version_href, version_href

ORDERING_FIELDS = {"number": "number", "pulp_created": "created_at"}
#: Held tags and missing manifests that a version shows itself; all of them are lists of their own.
SHOWN = 20


class UnitCount(BaseModel):
    """How many units of one type, and the path of their list."""

    count: int
    href: str


class SummaryDocument(BaseModel):
    """Units by content type; a type without units is left out."""

    added: dict[str, UnitCount]
    present: dict[str, UnitCount]
    removed: dict[str, UnitCount]


class HeldTagDocument(BaseModel):
    """A tag that could not be brought up to date: the digest it keeps, null when it is left out, and why."""

    name: str
    digest: str | None
    reason: str

    @classmethod
    def of(cls, hold: Hold) -> HeldTagDocument:
        """The document of a hold."""
        return cls(name=hold.tag, digest=hold.digest, reason=hold.reason)


class MissingManifestDocument(BaseModel):
    """An entry of ``index`` that its registry did not have, where the remote allowed that."""

    digest: str
    index: str

    @classmethod
    def of(cls, gap: Gap) -> MissingManifestDocument:
        """The document of a gap."""
        return cls(digest=gap.digest, index=gap.parent)


class OriginDocument(BaseModel):
    """How a version came about. ``version`` is the one that a rollback or a copy took its content from.

    It is null for a sync, and the version that it names may be gone. ``created_by`` is who or what asked for it.
    """

    kind: VersionOriginKind
    version: str | None
    created_by: str | None

    @classmethod
    def of(cls, origin: VersionOrigin) -> OriginDocument:
        """The document of an origin."""
        is_named = origin.repository_id is not None and origin.number is not None
        href = version_href(str(origin.repository_id), int(origin.number or 0)) if is_named else None
        return cls(kind=origin.kind, version=href, created_by=origin.created_by)


class VersionDocument(BaseModel):
    """A repository version; complete when no tag is held, no manifest is missing and referrers were looked up.

    ``referrers_problem`` is why these could not be looked up, and only there when they could not. ``held_tags`` and
    ``missing_manifests`` are only there when there are some, and have the first of them.
    """

    pulp_created: Timestamp
    pulp_href: str
    base_version: str | None
    content_summary: SummaryDocument
    number: int
    is_complete: bool
    held_tag_count: int
    missing_manifest_count: int
    description: str | None
    pulp_labels: dict[str, str]
    origin: OriginDocument
    held_tags: list[HeldTagDocument] = []
    missing_manifests: list[MissingManifestDocument] = []
    referrers_problem: str | None = None

    @classmethod
    def of(cls, version: RepositoryVersion) -> VersionDocument:
        """The document of a stored version."""
        return cls(**_shown(version))

    @model_serializer(mode="wrap")
    def _without_empty_lists(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = serialize(self)
        for name in ("held_tags", "missing_manifests", "referrers_problem"):
            if not shown.get(name):
                shown.pop(name, None)
        return shown


class DerivedVersionDocument(VersionDocument):
    """A version that a rollback or a copy made, or the latest when it is so already.

    ``missing_blob_*`` tell of blobs that it holds and whose bytes are not here; the next immediate sync fetches them.
    """

    missing_blob_count: int
    missing_blob_bytes: int

    @classmethod
    def of_derived(cls, derived: DerivedVersion, latest: RepositoryVersion) -> DerivedVersionDocument:
        """What a rollback or a copy came to; ``latest`` is the version that the repository has now."""
        return cls(
            **_shown(derived.version or latest),
            missing_blob_count=derived.missing_blob_count,
            missing_blob_bytes=derived.missing_blob_bytes,
        )


def _shown(version: RepositoryVersion) -> Mapping[str, Any]:
    return {
        "pulp_created": version.created_at,
        "pulp_href": href_of(version),
        "base_version": base_href_of(version),
        "content_summary": SummaryDocument.model_validate(summary_document(version.summary, href_of(version))),
        "number": version.number,
        "is_complete": version.is_complete,
        "held_tag_count": len(version.holds),
        "missing_manifest_count": len(version.gaps),
        "description": version.description,
        "pulp_labels": dict(version.labels),
        "origin": OriginDocument.of(version.origin),
        "held_tags": [HeldTagDocument.of(hold) for hold in version.holds[:SHOWN]],
        "missing_manifests": [MissingManifestDocument.of(gap) for gap in version.gaps[:SHOWN]],
        "referrers_problem": version.referrers_problem,
    }


class ChangedVersion(GivenDocument):
    """What to say of a version from now on; what is left out stays. What it holds never changes."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset(VersionDocument.model_fields) - {
        "description",
        "pulp_labels",
    }

    description: FreeText | None = None
    pulp_labels: Labels


class NewRollback(GivenDocument):
    """What to say of the version that a rollback makes."""

    description: FreeText | None = None


class VersionQuery(PageQuery):
    """In which order; the newest first unless said otherwise."""

    ordering: Literal["number", "-number", "pulp_created", "-pulp_created"] | None = None


MAX_NAMES = 1000


def _read_pattern(text: str) -> object:
    return TagFilter.parse([text], ())


Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), parsed(_read_pattern)]


class NewCopy(GivenDocument):
    """Which tags, of which repository or version. Exactly one of the two paths is given."""

    source_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of a repository, whose latest version is taken"),
    ] = None
    source_repository_version: Annotated[
        Annotated[GivenHref, parsed(read_version_href)] | None, Field(description="Path of a repository version")
    ] = None
    names: Annotated[
        list[Pattern] | None,
        Field(min_length=1, max_length=MAX_NAMES, description="Names and globs of tags; null for all"),
    ] = None
    mirror: Annotated[
        Flag,
        Field(description="Whether what else the repository holds is removed from the new version; false keeps it"),
    ] = False
    description: FreeText | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> NewCopy:
        if (self.source_repository is None) == (self.source_repository_version is None):
            raise invalid("Give either source_repository or source_repository_version.")
        return self

    def request(self) -> CopyRequest:
        """As a store takes it."""
        if self.source_repository_version is not None:
            repository_id, number = read_version_href(self.source_repository_version)
        else:
            repository_id, number = read_repository_href(str(self.source_repository)), None
        return CopyRequest(
            repository_id,
            number,
            TagFilter.parse(self.names, ()),
            SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE,
        )
