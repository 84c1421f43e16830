"""Repositories as they are sent and shown."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from registry_sync.api.fields import FreeText, GivenDocument, Labels, Name, PageQuery, Sought, Timestamp, whole_number
from registry_sync.domain.records import Repository, RepositorySpec
from registry_sync.domain.storage_reports import Amount, RepositoryUsage
from registry_sync.pulp.hrefs import MAX_NUMBER, latest_href_of, repository_href, versions_href

_SPEC_FIELDS = {
    "name": "name",
    "description": "description",
    "retain_repo_versions": "retain_versions",
    "pulp_labels": "labels",
}
VersionCount: Any = whole_number(1, MAX_NUMBER)
ORDERING_FIELDS = {"name": "name", "pulp_created": "created_at", "pulp_last_updated": "updated_at"}


class RepositoryDocument(BaseModel):
    """A repository. ``latest_version_href`` is null before the first version."""

    pulp_created: Timestamp
    pulp_href: str
    latest_version_href: str | None
    versions_href: str
    description: str | None
    name: str
    retain_repo_versions: int | None
    pulp_labels: dict[str, str]
    pulp_last_updated: Timestamp

    @classmethod
    def of(cls, repository: Repository) -> RepositoryDocument:
        """The document of a stored repository."""
        return cls(
            pulp_created=repository.created_at,
            pulp_href=repository_href(repository.id),
            latest_version_href=latest_href_of(repository),
            versions_href=versions_href(repository.id),
            description=repository.description,
            name=repository.name,
            retain_repo_versions=repository.retain_versions,
            pulp_labels=dict(repository.labels),
            pulp_last_updated=repository.updated_at,
        )


class AmountDocument(BaseModel):
    """A number of units and the bytes they take."""

    count: int
    size: int

    @classmethod
    def of(cls, amount: Amount) -> AmountDocument:
        """The document of an amount."""
        return cls(count=amount.count, size=amount.size_bytes)


class UsageDocument(BaseModel):
    """What a repository takes in all of its versions, each unit once.

    ``blobs`` are those in the blob store, ``own_blobs`` those of them that no other repository holds: what could go
    with it. ``missing_blobs`` are not in the store, ``broken_blobs`` were lost there and are not mended.
    ``by_versions`` counts a blob once for each version that holds it.
    """

    version_count: int
    manifests: AmountDocument
    blobs: AmountDocument
    own_blobs: AmountDocument
    missing_blobs: AmountDocument
    broken_blobs: AmountDocument
    by_versions: AmountDocument

    @classmethod
    def of(cls, usage: RepositoryUsage) -> UsageDocument:
        """The document of a usage."""
        return cls(
            version_count=usage.version_count,
            manifests=AmountDocument.of(usage.manifests),
            blobs=AmountDocument.of(usage.blobs),
            own_blobs=AmountDocument.of(usage.own_blobs),
            missing_blobs=AmountDocument.of(usage.missing),
            broken_blobs=AmountDocument.of(usage.broken),
            by_versions=AmountDocument.of(usage.by_versions),
        )


class _GivenRepository(GivenDocument):
    only_in_responses: ClassVar[frozenset[str]] = frozenset(
        {"pulp_created", "pulp_href", "pulp_last_updated", "latest_version_href", "versions_href"}
    )

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a :class:`RepositorySpec`, all of them or those that were sent."""
        sent = self.model_dump(exclude_unset=only_given)
        return {_SPEC_FIELDS[name]: value for name, value in sent.items()}


class NewRepository(_GivenRepository):
    """A repository to be made, or put in place of another's description."""

    name: Annotated[Name, Field(description="As a registry could serve it, such as library/hello-world")]
    description: FreeText | None = None
    retain_repo_versions: Annotated[
        VersionCount | None,
        Field(description="How many of the newest versions to keep; null for all"),
    ] = None
    pulp_labels: Labels

    def spec(self) -> RepositorySpec:
        """As a store takes it."""
        return RepositorySpec(**self.spec_values(only_given=False))


class ChangedRepository(_GivenRepository):
    """What to change of a repository; what is left out stays."""

    name: Annotated[Name, Field(default_factory=str)]
    description: FreeText | None = None
    retain_repo_versions: VersionCount | None = None
    pulp_labels: Labels


class RepositoryQuery(PageQuery):
    """Which repositories, and in which order."""

    name: Sought | None = None
    name__in: Annotated[Sought | None, Field(description="Names separated by commas")] = None
    name__icontains: Annotated[Sought | None, Field(description="Part of the name, in any case")] = None
    ordering: (
        Literal["name", "-name", "pulp_created", "-pulp_created", "pulp_last_updated", "-pulp_last_updated"] | None
    ) = None
