"""The documents of content units: blobs, manifests and tags, and their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from registry_sync.domain.content_units import BlobReference
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import ManifestKind
from registry_sync.pulp.documents import Document, Timestamp, made
from registry_sync.pulp.hrefs import artifact_href, repository_href, unit_href
from registry_sync.pulp.resource_names import artifact_prn


def _blob_href(blob_id: int) -> str:
    return unit_href("docker.blob", blob_id)


def manifest_href(manifest_id: int | None) -> str | None:
    """The path of a manifest, None for one that is not stored."""
    return None if manifest_id is None else unit_href("docker.manifest", manifest_id)


def _config_href(config: BlobReference | None) -> str | None:
    return None if config is None else _blob_href(config.id)


def _blob_hrefs(layers: Sequence[BlobReference]) -> list[str]:
    return [_blob_href(layer.id) for layer in layers]


def _tag_href(tag_id: int) -> str:
    return unit_href("docker.tag", tag_id)


class BlobDocument(Document):
    """A blob. ``is_stored`` says whether its bytes are stored; ``is_foreign`` that they are kept elsewhere."""

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(_blob_href), Field(validation_alias="id")]
    digest: str
    media_type: str
    size: int
    is_foreign: bool
    is_stored: bool


class ListedManifestDocument(Document):
    """An entry of an index. ``manifest`` is its path, null while that manifest is not stored."""

    digest: str
    media_type: str
    size: int
    platform: dict[str, Any] | None
    manifest: Annotated[str | None, made(manifest_href), Field(validation_alias="id")]


class ManifestDocument(Document):
    """A manifest with its relations, in the order of the document; ``size`` is that of the document itself."""

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(manifest_href), Field(validation_alias="id")]
    digest: str
    media_type: str
    size: int
    kind: ManifestKind
    artifact_type: str | None
    subject: str | None
    annotations: dict[str, str]
    config_blob: Annotated[str | None, made(_config_href), Field(validation_alias="config")]
    blobs: Annotated[list[str], made(_blob_hrefs), Field(validation_alias="layers")]
    listed_manifests: Annotated[list[ListedManifestDocument], Field(validation_alias="children")]


class TagDocument(Document):
    """A tag; ``digest`` and ``media_type`` are those of its manifest."""

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(_tag_href), Field(validation_alias="id")]
    name: str
    digest: str
    media_type: str
    tagged_manifest: Annotated[str, made(manifest_href), Field(validation_alias="manifest_id")]


def _encoded(digest: Digest) -> str:
    return digest.encoded


def _file_of(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


class ArtifactDocument(Document):
    """The stored bytes of a blob or a manifest: their size, and their SHA-256; others are not computed.

    ``file`` is the name of a blob in the blob store. Manifests have one of the same form, and are kept in the database.
    """

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(artifact_href), Field(validation_alias="digest")]
    pulp_last_updated: Annotated[Timestamp, Field(validation_alias="created_at")]
    size: int
    sha256: Annotated[str, made(_encoded), Field(validation_alias="digest")]
    prn: Annotated[str, made(artifact_prn), Field(validation_alias="digest")]
    file: Annotated[str, made(_file_of), Field(validation_alias="digest")]
    md5: None = None
    sha1: None = None
    sha224: None = None
    sha384: None = None
    sha512: None = None


class HolderDocument(Document):
    """A repository with the content: its first version with it, and whether the latest version has it."""

    repository: Annotated[str, made(repository_href), Field(validation_alias="repository_id")]
    name: Annotated[str, Field(validation_alias="repository_name")]
    first_version: Annotated[int, Field(validation_alias="first_number")]
    is_in_latest: bool


class ManifestProvenanceDocument(Document):
    """Since when a manifest is stored, and the repositories that have it, by name."""

    digest: str
    size: int
    pulp_created: Timestamp
    holders: list[HolderDocument]


class BlobProvenanceDocument(Document):
    """Where a blob came from, and the repositories that have it, by name.

    ``source`` is the host and repository that its bytes came from, null when not recorded; ``stored_at`` is null while
    they are not in the blob store, ``verified_at`` when they were never verified again. ``fault`` is ``broken`` or
    ``missing`` when a verification found that at ``fault_at`` and it has not been repaired since, else null.
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
