"""Where blobs and manifests came from and who holds them, as it is shown."""

from __future__ import annotations

from pydantic import BaseModel

from registry_sync.api.fields import Moment
from registry_sync.domain.hrefs import repository_href
from registry_sync.domain.provenance import BlobProvenance, Holder, ManifestProvenance


class HolderDocument(BaseModel):
    """A repository that holds the content: since which of its versions, and whether the latest still does."""

    repository: str
    name: str
    first_version: int
    is_in_latest: bool

    @classmethod
    def of(cls, holder: Holder) -> HolderDocument:
        """A holder, shown."""
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
    pulp_created: Moment
    holders: list[HolderDocument]

    @classmethod
    def of(cls, found: ManifestProvenance) -> ManifestProvenanceDocument:
        """A provenance, shown."""
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
    pulp_created: Moment
    source: str | None
    stored_at: Moment | None
    verified_at: Moment | None
    fault: str | None
    fault_at: Moment | None
    holders: list[HolderDocument]

    @classmethod
    def of(cls, found: BlobProvenance) -> BlobProvenanceDocument:
        """A provenance, shown."""
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
