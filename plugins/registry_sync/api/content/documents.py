"""Content units as they are shown, where they came from, and what their lists can be asked for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from registry_sync.api.fields import GivenHref, PageQuery, Sought, Timestamp, split_list
from registry_sync.api.problems import InvalidField
from registry_sync.domain.content_units import BlobUnit, ChildReference, ManifestUnit, Relation, TagUnit, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import ManifestKind
from registry_sync.domain.version_history import BlobProvenance, Holder, ManifestProvenance
from registry_sync.errors import InvalidReference
from registry_sync.pulp.hrefs import read_version_href, repository_href, unit_href

_RELATIONS = {
    "repository_version": Relation.PRESENT,
    "repository_version_added": Relation.ADDED,
    "repository_version_removed": Relation.REMOVED,
}


class BlobDocument(BaseModel):
    """A blob. ``is_stored`` says whether its bytes are here; ``is_foreign`` that they are kept elsewhere."""

    pulp_created: Timestamp
    pulp_href: str
    digest: str
    media_type: str
    size: int
    is_foreign: bool
    is_stored: bool

    @classmethod
    def of(cls, blob: BlobUnit) -> BlobDocument:
        """The document of a stored blob."""
        return cls(
            pulp_created=blob.created_at,
            pulp_href=unit_href("docker.blob", blob.id),
            digest=blob.digest,
            media_type=blob.media_type,
            size=blob.size_bytes,
            is_foreign=blob.is_foreign,
            is_stored=blob.is_stored,
        )


class ListedManifestDocument(BaseModel):
    """An entry of an index. ``manifest`` is its path, null while that manifest is not stored."""

    digest: str
    media_type: str
    size: int
    platform: dict[str, Any] | None
    manifest: str | None

    @classmethod
    def of(cls, child: ChildReference) -> ListedManifestDocument:
        """The document of an entry."""
        return cls(
            digest=child.digest,
            media_type=child.media_type,
            size=child.size_bytes,
            platform=None if child.platform is None else dict(child.platform),
            manifest=None if child.id is None else unit_href("docker.manifest", child.id),
        )


class ManifestDocument(BaseModel):
    """A manifest with its relations, in the order of the document; ``size`` is that of the document itself."""

    pulp_created: Timestamp
    pulp_href: str
    digest: str
    media_type: str
    size: int
    kind: ManifestKind
    artifact_type: str | None
    subject: str | None
    annotations: dict[str, str]
    config_blob: str | None
    blobs: list[str]
    listed_manifests: list[ListedManifestDocument]

    @classmethod
    def of(cls, manifest: ManifestUnit) -> ManifestDocument:
        """The document of a stored manifest."""
        config = manifest.config
        return cls(
            pulp_created=manifest.created_at,
            pulp_href=unit_href("docker.manifest", manifest.id),
            digest=manifest.digest,
            media_type=manifest.media_type,
            size=manifest.size_bytes,
            kind=manifest.kind,
            artifact_type=manifest.artifact_type,
            subject=manifest.subject,
            annotations=dict(manifest.annotations),
            config_blob=None if config is None else unit_href("docker.blob", config.id),
            blobs=[unit_href("docker.blob", layer.id) for layer in manifest.layers],
            listed_manifests=[ListedManifestDocument.of(child) for child in manifest.children],
        )


class TagDocument(BaseModel):
    """A tag: ``digest`` and ``media_type`` are those of the manifest that it names."""

    pulp_created: Timestamp
    pulp_href: str
    name: str
    digest: str
    media_type: str
    tagged_manifest: str

    @classmethod
    def of(cls, tag: TagUnit) -> TagDocument:
        """The document of a stored tag."""
        return cls(
            pulp_created=tag.created_at,
            pulp_href=unit_href("docker.tag", tag.id),
            name=tag.name,
            digest=tag.digest,
            media_type=tag.media_type,
            tagged_manifest=unit_href("docker.manifest", tag.manifest_id),
        )


class ContentQuery(PageQuery):
    """Which units: of one version, or of all that is stored. At most one of the three relations may be given."""

    ordering_fields: ClassVar[dict[str, str]] = {
        "digest": "digest",
        "media_type": "media_type",
        "size": "size_bytes",
        "pulp_created": "created_at",
    }

    repository_version: Annotated[GivenHref | None, Field(description="Path of a version that has them")] = None
    repository_version_added: Annotated[GivenHref | None, Field(description="Path of a version that added them")] = None
    repository_version_removed: Annotated[
        GivenHref | None, Field(description="Path of a version that removed them")
    ] = None
    digest: Sought | None = None
    digest__in: Annotated[Sought | None, Field(description="Digests separated by commas")] = None
    media_type: Sought | None = None
    media_type__in: Annotated[Sought | None, Field(description="Media types separated by commas")] = None

    def unit_query(self) -> UnitQuery:
        """For the store. Raises :class:`InvalidField`."""
        field = self.version_field()
        repository_id, number = self._version(field) if field else (None, None)
        return UnitQuery(
            repository_id=repository_id,
            number=number,
            relation=_RELATIONS.get(field, Relation.PRESENT),
            digests=self._digests(),
            media_types=_either(self.media_type, split_list(self.media_type__in)),
        )

    def version_field(self) -> str:
        """The parameter that names a version; empty when none does. Raises :class:`InvalidField` for two."""
        given = [field for field in _RELATIONS if getattr(self, field) is not None]
        if len(given) > 1:
            raise InvalidField(given[1], f"Give this or {given[0]}, not both.")
        return given[0] if given else ""

    def _version(self, field: str) -> tuple[str, int]:
        try:
            return read_version_href(getattr(self, field))
        except InvalidReference as problem:
            raise InvalidField(field, str(problem)) from None

    def _digests(self) -> tuple[Digest, ...] | None:
        wanted: dict[str, tuple[Digest, ...]] = {}
        for field, texts in (("digest", split_list(self.digest)), ("digest__in", split_list(self.digest__in))):
            if texts is not None:
                try:
                    wanted[field] = tuple(Digest(text) for text in texts)
                except InvalidReference as problem:
                    raise InvalidField(field, str(problem)) from None
        if len(wanted) == 2:
            return tuple(digest for digest in wanted["digest"] if digest in wanted["digest__in"])
        return next(iter(wanted.values()), None)


class DigestQuery(ContentQuery):
    """Which blobs or manifests, and in which order."""

    ordering: (
        Literal[
            "digest",
            "-digest",
            "media_type",
            "-media_type",
            "size",
            "-size",
            "pulp_created",
            "-pulp_created",
        ]
        | None
    ) = None


class TagQuery(ContentQuery):
    """Which tags, and in which order. ``digest`` and ``media_type`` are those of the manifest."""

    ordering_fields: ClassVar[dict[str, str]] = {"name": "name", "digest": "digest", "pulp_created": "created_at"}

    name: Sought | None = None
    name__in: Annotated[Sought | None, Field(description="Names separated by commas")] = None
    name__icontains: Annotated[Sought | None, Field(description="Part of the name, in any case")] = None
    ordering: Literal["name", "-name", "digest", "-digest", "pulp_created", "-pulp_created"] | None = None

    def unit_query(self) -> UnitQuery:
        """As for other units, with the tag's name."""
        query = super().unit_query()
        return UnitQuery(
            **{
                **vars(query),
                "names": _either(self.name, split_list(self.name__in)),
                "name_contains": self.name__icontains,
            }
        )


def _either(one: str | None, several: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What fits both; None when neither is given."""
    if one is None:
        return several
    return (one,) if several is None or one in several else ()


class HolderDocument(BaseModel):
    """A repository that holds the content: since which of its versions, and whether the latest still does."""

    repository: str
    name: str
    first_version: int
    is_in_latest: bool

    @classmethod
    def of(cls, holder: Holder) -> HolderDocument:
        """The document of a holder."""
        return cls(
            repository=repository_href(holder.repository_id),
            name=holder.repository_name,
            first_version=holder.first_number,
            is_in_latest=holder.is_in_latest,
        )


class ManifestProvenanceDocument(BaseModel):
    """Since when a manifest is stored, and who holds it, by name."""

    digest: str
    size: int
    pulp_created: Timestamp
    holders: list[HolderDocument]

    @classmethod
    def of(cls, found: ManifestProvenance) -> ManifestProvenanceDocument:
        """The document of a provenance."""
        return cls(
            digest=found.digest,
            size=found.size_bytes,
            pulp_created=found.created_at,
            holders=[HolderDocument.of(holder) for holder in found.holders],
        )


class BlobProvenanceDocument(BaseModel):
    """Where a blob came from, and who holds it, by name.

    ``source`` is the host and repository that its bytes came from, null when nobody noted it; ``stored_at`` is null
    while they are not in the blob store, ``verified_at`` when they were never read again. ``fault`` is ``broken`` or
    ``missing`` when a verification found that at ``fault_at`` and nobody mended it since, else null.
    """

    digest: str
    size: int
    pulp_created: Timestamp
    source: str | None
    stored_at: Timestamp | None
    verified_at: Timestamp | None
    fault: str | None
    fault_at: Timestamp | None
    holders: list[HolderDocument]

    @classmethod
    def of(cls, found: BlobProvenance) -> BlobProvenanceDocument:
        """The document of a provenance."""
        return cls(
            digest=found.digest,
            size=found.size_bytes,
            pulp_created=found.created_at,
            source=found.source,
            stored_at=found.stored_at,
            verified_at=found.verified_at,
            fault=found.fault,
            fault_at=found.fault_at,
            holders=[HolderDocument.of(holder) for holder in found.holders],
        )
