"""The documents of ``container/container/``: the fields that Pulp's clients of today read, besides ours.

A field of Pulp that has no meaning here is null, or what it is where it is not used. :func:`shown` reads a document in
the form of the request; the documented form keeps its documents unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AliasPath, BaseModel, Field

from registry_sync.domain.content_units import BlobUnit, ChildReference, ManifestUnit
from registry_sync.domain.records import RepositoryVersion
from registry_sync.pulp.content_documents import BlobDocument, ManifestDocument, TagDocument, manifest_href
from registry_sync.pulp.documents import WHOLE, Document, Timestamp, made
from registry_sync.pulp.hrefs import artifact_href, remote_href, repository_href
from registry_sync.pulp.path_forms import PathForm, current_form
from registry_sync.pulp.repository_documents import (
    Certificates,
    DistributionDocument,
    Hidden,
    RemoteDocument,
    RepositoryDocument,
)
from registry_sync.pulp.resource_names import (
    blob_prn,
    distribution_prn,
    manifest_prn,
    remote_prn,
    repository_prn,
    tag_prn,
    version_prn,
)
from registry_sync.pulp.version_documents import DerivedVersionDocument, VersionDocument

D = TypeVar("D", bound=Document)


def _optional_remote_href(remote_id: str | None) -> str | None:
    return None if remote_id is None else remote_href(remote_id)


def _listed_or_null(tags: Sequence[str] | None) -> list[str] | None:
    return list(map(str, tags)) if tags else None


def _listed(tags: Sequence[str] | None) -> list[str] | None:
    return None if tags is None else list(map(str, tags))


Created = Annotated[Timestamp, Field(validation_alias="created_at")]


class ContainerRepositoryDocument(RepositoryDocument):
    """A repository. ``remote`` is what it is synced with unless a sync names another one."""

    prn: Annotated[str, made(repository_prn), Field(validation_alias="id")]
    remote: Annotated[str | None, made(_optional_remote_href), Field(validation_alias="remote_id")]
    retain_checkpoints: None = None
    manifest_signing_service: None = None


_INCLUDED = Annotated[list[str] | None, made(_listed), Field(validation_alias=AliasPath("spec", "include_tags"))]
_EXCLUDED = Annotated[
    list[str] | None, made(_listed_or_null), Field(validation_alias=AliasPath("spec", "exclude_tags"))
]


@dataclass(frozen=True)
class StoredSecrets:
    """Which credentials are stored for a remote, by their names in the documented form."""

    stored_secrets: frozenset[str] = frozenset()


class HiddenFieldDocument(Document):
    """A field that is stored and never returned, and whether it is set."""

    name: str
    is_set: bool


#: Names of hidden fields, each with its name in the documented form; those of proxies are never set.
_HIDDEN = {
    "client_key": "ssl_client_key",
    "proxy_username": "",
    "proxy_password": "",
    "username": "username",
    "password": "password",
}


def _hidden(stored: Collection[str]) -> list[HiddenFieldDocument]:
    return [HiddenFieldDocument(name=name, is_set=field in stored) for name, field in _HIDDEN.items()]


class ContainerRemoteDocument(RemoteDocument):
    """A remote. Credentials are never returned; ``hidden_fields`` says which of them are in its own connection.

    ``includes``, ``include_tags`` and ``whitelist_tags`` are the same, and so are ``excludes`` and ``exclude_tags``.
    Limits of requests and timeouts are those of the connection and of the settings, and null here.
    """

    prn: Annotated[str, made(remote_prn), Field(validation_alias="id")]
    ssl_validation: Annotated[bool, Field(serialization_alias="tls_validation")]
    ssl_ca_certificate: Annotated[Certificates, Field(serialization_alias="ca_cert")]
    ssl_client_certificate: Annotated[Certificates, Field(serialization_alias="client_cert")]
    ssl_client_key: Annotated[Hidden, Field(exclude=True)]
    username: Annotated[Hidden, Field(exclude=True)]
    password: Annotated[Hidden, Field(exclude=True)]
    whitelist_tags: _INCLUDED  # type: ignore[assignment]  # a list in this form
    include_tags: _INCLUDED
    includes: _INCLUDED
    exclude_tags: _EXCLUDED  # type: ignore[assignment]  # a list in this form
    excludes: _EXCLUDED
    hidden_fields: Annotated[
        list[HiddenFieldDocument], made(_hidden), Field(validation_alias="stored_secrets", validate_default=True)
    ] = []  # noqa: RUF012  read by pydantic, which makes a list for each
    max_retries: None = None
    total_timeout: None = None
    connect_timeout: None = None
    sock_connect_timeout: None = None
    sock_read_timeout: None = None
    headers: None = None
    rate_limit: None = None
    sigstore: None = None


class ContainerDistributionDocument(DistributionDocument):
    """A distribution. There are no content guards: ``private`` says whether a login is required."""

    prn: Annotated[str, made(distribution_prn), Field(validation_alias="id")]
    content_guard: None = None
    content_guard_prn: None = None
    hidden: bool = False
    no_content_change_since: None = None
    remote: None = None
    namespace: None = None
    description: None = None


def _blob_artifact(blob: BlobUnit) -> str | None:
    return artifact_href(blob.digest) if blob.is_stored else None


class ContainerBlobDocument(BlobDocument):
    """A blob. ``artifact`` is the path of its stored bytes, null while they are not stored."""

    prn: Annotated[str, made(blob_prn), Field(validation_alias="id")]
    pulp_last_updated: Created
    pulp_labels: dict[str, str] = Field(default_factory=dict)
    artifact: Annotated[str | None, made(_blob_artifact), WHOLE]


def _listed_hrefs(children: Sequence[ChildReference]) -> list[str]:
    return [href for child in children if (href := manifest_href(child.id)) is not None]


def _schema_version(manifest: ManifestUnit) -> int:
    return 1 if manifest.media_type.startswith("application/vnd.docker.distribution.manifest.v1+") else 2


def _layer_bytes(manifest: ManifestUnit) -> int | None:
    return sum(layer.size_bytes for layer in manifest.layers) if manifest.layers else None


class ContainerManifestDocument(ManifestDocument):
    """A manifest. ``listed_manifests`` has the paths of the entries of an index that are stored.

    ``artifact`` is the path of its bytes, ``compressed_image_size`` that of its layers together, null without layers.
    """

    prn: Annotated[str, made(manifest_prn), Field(validation_alias="id")]
    pulp_last_updated: Created
    pulp_labels: dict[str, str] = Field(default_factory=dict)
    schema_version: Annotated[int, made(_schema_version), WHOLE]
    listed_manifests: Annotated[  # type: ignore[assignment]  # paths in this form
        list[str], made(_listed_hrefs), Field(validation_alias="children")
    ]
    compressed_image_size: Annotated[int | None, made(_layer_bytes), WHOLE]
    artifact: Annotated[str | None, made(artifact_href), Field(validation_alias="digest")]


class ContainerTagDocument(TagDocument):
    """A tag. ``artifact`` is that of its manifest."""

    prn: Annotated[str, made(tag_prn), Field(validation_alias="id")]
    pulp_last_updated: Created
    pulp_labels: dict[str, str] = Field(default_factory=dict)
    artifact: Annotated[str | None, made(artifact_href), Field(validation_alias="digest")]


def _repository_of(version: RepositoryVersion) -> str:
    return repository_href(version.repository_id)


class ContainerVersionDocument(VersionDocument):
    """A repository version."""

    prn: Annotated[str, made(version_prn), WHOLE]
    repository: Annotated[str, made(_repository_of), WHOLE]
    pulp_last_updated: Created


class ContainerDerivedVersionDocument(DerivedVersionDocument):
    """A version that a rollback made, or the latest when that has the same content already."""

    prn: Annotated[str, made(version_prn), WHOLE]
    repository: Annotated[str, made(_repository_of), WHOLE]
    pulp_last_updated: Created


#: What is shown in the container form in place of a document of the documented form.
CONTAINER_DOCUMENTS: Mapping[type[BaseModel], type[BaseModel]] = {
    RepositoryDocument: ContainerRepositoryDocument,
    RemoteDocument: ContainerRemoteDocument,
    DistributionDocument: ContainerDistributionDocument,
    BlobDocument: ContainerBlobDocument,
    ManifestDocument: ContainerManifestDocument,
    TagDocument: ContainerTagDocument,
    VersionDocument: ContainerVersionDocument,
    DerivedVersionDocument: ContainerDerivedVersionDocument,
}


def shown(document: type[D], value: Any, *, context: Any = None) -> D:
    """The document of an object in the current form."""
    kind: Any = document if current_form() is PathForm.DOCKER else CONTAINER_DOCUMENTS.get(document, document)
    made_document: D = kind.model_validate(value, context=context)
    return made_document
