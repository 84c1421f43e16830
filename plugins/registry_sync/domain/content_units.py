"""Content units as they are stored: tags, manifests and blobs with their relations.

``id`` is a database id, stable for the life of the unit; elsewhere content is identified by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.filters import EVERYTHING, Filter
from registry_sync.domain.manifest_documents import BlobRole, Manifest, ManifestKind
from registry_sync.domain.references import TagName


@dataclass(frozen=True)
class StoredManifest:
    """A manifest to be served: ``data`` is its exact bytes."""

    digest: Digest
    media_type: str
    data: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Length of the document."""
        return len(self.data)


@dataclass(frozen=True)
class KnownManifest:
    """A stored manifest: its subject, and for an index the index itself; None for other kinds."""

    digest: Digest
    subject: Digest | None = None
    index: Manifest | None = None


@dataclass(frozen=True)
class BlobUnit:
    """A blob. ``stored_at`` is when its bytes were stored, None while the blob store does not have them."""

    id: int
    digest: Digest
    size_bytes: int
    media_type: str
    is_foreign: bool
    created_at: datetime
    stored_at: datetime | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the blob store has its bytes."""
        return self.stored_at is not None


@dataclass(frozen=True)
class BlobReference:
    """A blob as one manifest names it."""

    id: int
    digest: Digest
    role: BlobRole
    media_type: str
    size_bytes: int
    is_foreign: bool = False


@dataclass(frozen=True)
class ChildReference:
    """An entry of an index. ``id`` is None while the manifest it names is not stored."""

    id: int | None
    digest: Digest
    media_type: str
    size_bytes: int
    platform: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ManifestUnit:
    """A manifest with its relations in the document's order; ``config`` is None for indexes and artifacts."""

    id: int
    digest: Digest
    media_type: str
    kind: ManifestKind
    size_bytes: int
    created_at: datetime
    artifact_type: str | None = None
    subject: Digest | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    config: BlobReference | None = None
    layers: tuple[BlobReference, ...] = ()
    children: tuple[ChildReference, ...] = ()


@dataclass(frozen=True)
class TagUnit:
    """A tag: a name that refers to one manifest. A moved tag is another unit."""

    id: int
    name: TagName
    digest: Digest
    manifest_id: int
    media_type: str
    created_at: datetime


class Relation(str, Enum):
    """How units relate to a repository version."""

    PRESENT = "present"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True)
class UnitQuery:
    """A query for all units, or for those of one version of a repository; None fields do not filter.

    ``number`` None means the latest version. ``name``, ``names`` and ``name_contains`` apply to tags; ``media_types``
    of a tag are those of its manifest. ``where`` applies besides these.
    """

    repository_id: str | None = None
    number: int | None = None
    relation: Relation = Relation.PRESENT
    digests: tuple[Digest, ...] | None = None
    media_types: tuple[str, ...] | None = None
    name: str | None = None
    names: tuple[str, ...] | None = None
    name_contains: str | None = None
    where: Filter = EVERYTHING


#: All stored units of all repositories.
ALL_UNITS = UnitQuery()
