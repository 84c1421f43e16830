"""Manifests, parsed from the exact bytes of a registry (OCI image specification, manifest.md and image-index.md).

Parsing never changes a manifest: the bytes are kept, and the fields are those that a sync requires. Documents that two
parsers could understand differently are refused (CVE-2021-41190), as are duplicate names, text that is not UTF-8, and
values outside the image specification's types. Unknown fields are ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from registry_sync.domain import media_types, schema1
from registry_sync.domain.digests import Digest
from registry_sync.domain.strict_json import parse_strict_json
from registry_sync.errors import (
    AmbiguousManifest,
    DigestMismatch,
    InvalidManifest,
    InvalidReference,
    LimitExceeded,
    MediaTypeMismatch,
    UnsupportedManifest,
)


@dataclass(frozen=True)
class ManifestLimits:
    """Limits on manifests. Sizes in bytes, the others are counts; ``depth`` counts indexes inside indexes."""

    manifest_bytes: int = 4 * 1024 * 1024
    layers: int = 1000
    entries: int = 1000
    manifests_per_reference: int = 5000
    depth: int = 4
    blob_bytes: int = 1 << 40
    inline_bytes: int = 1024 * 1024


DEFAULT_LIMITS = ManifestLimits()


class ManifestKind(str, Enum):
    """The kinds of manifest."""

    INDEX = "index"
    IMAGE = "image"
    ARTIFACT = "artifact"


class BlobRole(str, Enum):
    """The role of a blob in the manifest that names it."""

    CONFIG = "config"
    LAYER = "layer"


#: The empty JSON object that artifacts use as config (image specification, "Guidance for an Empty Descriptor").
_EMPTY_JSON = b"{}"
_EMPTY_JSON_DIGEST = Digest.of(_EMPTY_JSON)


@dataclass(frozen=True)
class Descriptor:
    """A descriptor of content (image specification, descriptor.md): media type, digest, and size in bytes.

    ``urls`` is empty for most; ``inline`` holds the verified bytes of ``data`` or None; ``platform`` is the
    platform object of an index entry or None.
    """

    media_type: str
    digest: Digest
    size_bytes: int
    urls: tuple[str, ...] = ()
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] | None = None
    inline: bytes | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the bytes are hosted elsewhere and by default not stored."""
        return bool(self.urls) or media_types.is_foreign_layer(self.media_type)

    @property
    def known_bytes(self) -> bytes | None:
        """The bytes where no request is needed for them: ``data``, or the empty JSON document; else None."""
        known = _EMPTY_JSON if self.digest == _EMPTY_JSON_DIGEST else self.inline
        return known if known is not None and len(known) == self.size_bytes else None


@dataclass(frozen=True)
class Manifest:
    """A manifest as received: ``data`` is its exact bytes, ``digest`` theirs, or that of schema 1's signed payload.

    ``config`` is None for indexes, artifact manifests and schema 1; ``layers`` holds layers, or the blobs of an
    artifact manifest; ``children`` the entries of an index; ``subject`` the manifest that it refers to, or None.
    """

    digest: Digest
    media_type: str
    kind: ManifestKind
    data: bytes = field(repr=False)
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Length of the document."""
        return len(self.data)

    def blobs(self) -> Iterator[tuple[BlobRole, Descriptor]]:
        """Every blob it names with its role, the config first, in the document's order, repeats included."""
        if self.config is not None:
            yield BlobRole.CONFIG, self.config
        for layer in self.layers:
            yield BlobRole.LAYER, layer

    def refers_to(self, subject: Digest) -> bool:
        """Whether its own ``subject`` says so; a registry's list of referrers of ``subject`` is no proof."""
        return self.subject is not None and self.subject.digest == subject


def read_manifest(
    data: bytes,
    *,
    content_type: str | None = None,
    expected: Descriptor | None = None,
    digest: Digest | None = None,
    limits: ManifestLimits = DEFAULT_LIMITS,
    schema1_size_of: Callable[[Digest], int] | None = None,
) -> Manifest:
    """The manifest in ``data``.

    ``content_type`` is the response's header; ``expected`` the referring descriptor, whose media type decides if its
    digest matches; ``digest`` the requested digest, None for a request by tag. With ``schema1_size_of``, Docker's
    schema 1 is accepted too: it returns the size in bytes of a layer, which such a manifest lacks. Raises
    :class:`DigestMismatch`, :class:`LimitExceeded`, :class:`InvalidManifest`, :class:`MediaTypeMismatch`,
    :class:`AmbiguousManifest` or :class:`UnsupportedManifest`.
    """
    wanted = digest or (expected.digest if expected else None)
    actual = _digest_like(wanted, data)
    header = media_types.normalise(content_type)
    if not schema1.may_be_signed(data, header):
        _check_digest(wanted, actual)
    if len(data) > limits.manifest_bytes:
        raise LimitExceeded(
            f"manifest {actual} is larger than {limits.manifest_bytes} bytes", digest=actual, limit="manifest_bytes"
        )
    document = parse_strict_json(data, actual)
    media_type = _decide_type(document, header, expected, actual)
    if media_type in media_types.SCHEMA1_TYPES:
        return _read_schema1(document, data, wanted, header, limits=limits, size_of=schema1_size_of)
    _check_digest(wanted, actual)
    return _read_document(document, data, actual, media_type, limits)


def _digest_like(wanted: Digest | None, data: bytes) -> Digest:
    """The digest of ``data`` with the algorithm of ``wanted``, or with sha256 if that is not verifiable."""
    return Digest.of(data, wanted.algorithm if wanted is not None and wanted.is_verifiable else "sha256")


def _check_digest(wanted: Digest | None, actual: Digest) -> None:
    if wanted is not None and actual != wanted:
        wanted.hasher()
        raise DigestMismatch(
            f"the registry responded with other content for {wanted}: it hashes to {actual}", digest=wanted, got=actual
        )


def _decide_type(document: dict[str, Any], header: str, expected: Descriptor | None, digest: Digest) -> str:
    body = document.get("mediaType")
    if body is not None and not isinstance(body, str):
        raise InvalidManifest(f"manifest {digest}: mediaType is not text", digest=digest)
    body_type = media_types.normalise(body)
    if body_type and header not in media_types.GENERIC_TYPES and header != body_type:
        raise MediaTypeMismatch(
            f"manifest {digest} calls itself {body_type[:80]} and was sent as {header[:80]}; a registry must send the "
            "manifest's own type",
            digest=digest,
        )
    if (
        expected is not None
        and body_type
        and expected.media_type in media_types.MANIFEST_TYPES
        and expected.media_type != body_type
    ):
        raise MediaTypeMismatch(
            f"manifest {digest} calls itself {body_type[:80]} and its index calls it {expected.media_type}",
            digest=digest,
        )
    for candidate in (body_type, expected.media_type if expected else "", header):
        if candidate in media_types.MANIFEST_TYPES:
            return candidate
    return _type_by_shape(document, digest)


def _type_by_shape(document: dict[str, Any], digest: Digest) -> str:
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        return media_types.DOCKER_SCHEMA1
    if "manifests" in document:
        return media_types.OCI_INDEX
    if "config" in document:
        return media_types.OCI_MANIFEST
    raise InvalidManifest(f"manifest {digest} is of no known kind: neither manifests nor config", digest=digest)


#: Names that must not appear in a document of a kind; case-insensitive, because some parsers match so.
_FORBIDDEN = {
    ManifestKind.INDEX: frozenset({"config", "layers", "fslayers", "history"}),
    ManifestKind.IMAGE: frozenset({"manifests", "fslayers", "history"}),
    ManifestKind.ARTIFACT: frozenset({"manifests", "config", "layers", "fslayers", "history"}),
}
_READ = frozenset(
    {"schemaversion", "mediatype", "config", "layers", "manifests", "blobs", "subject", "artifacttype", "annotations"}
)


def _refuse_ambiguous(document: dict[str, Any], kind: ManifestKind, digest: Digest) -> None:
    seen: set[str] = set()
    for name in document:
        folded = name.lower()
        if folded in _FORBIDDEN[kind]:
            raise AmbiguousManifest(f"manifest {digest} is an {kind.value} and has {name[:40]!r} too", digest=digest)
        if folded in _READ and folded in seen:
            raise AmbiguousManifest(f"manifest {digest} has {name[:40]!r} in two spellings", digest=digest)
        seen.add(folded)


def _read_document(
    document: dict[str, Any], data: bytes, digest: Digest, media_type: str, limits: ManifestLimits
) -> Manifest:
    if document.get("schemaVersion", 2) != 2:
        raise InvalidManifest(f"manifest {digest}: schemaVersion is not 2", digest=digest)
    if media_type in media_types.INDEX_TYPES:
        kind = ManifestKind.INDEX
    elif media_type == media_types.OCI_ARTIFACT:
        kind = ManifestKind.ARTIFACT
    else:
        kind = ManifestKind.IMAGE
    _refuse_ambiguous(document, kind, digest)
    if kind is ManifestKind.INDEX and "manifests" not in document:
        # Some tools write null for an empty list; an index without the field is something else.
        raise InvalidManifest(f"manifest {digest} is called an index and has no manifests", digest=digest)
    reader = _DescriptorReader(digest, limits)
    layers_field = "blobs" if kind is ManifestKind.ARTIFACT else "layers"
    subject = document.get("subject")
    return Manifest(
        digest=digest,
        media_type=media_type,
        kind=kind,
        data=data,
        config=reader.descriptor(document.get("config"), "config") if kind is ManifestKind.IMAGE else None,
        layers=()
        if kind is ManifestKind.INDEX
        else reader.descriptors(document.get(layers_field), layers_field, limits.layers),
        children=reader.descriptors(document.get("manifests"), "manifests", limits.entries)
        if kind is ManifestKind.INDEX
        else (),
        subject=reader.descriptor(subject, "subject") if subject is not None else None,
        artifact_type=reader.text(document.get("artifactType"), "artifactType"),
        annotations=reader.annotations(document.get("annotations"), "annotations"),
    )


def _read_schema1(
    document: dict[str, Any],
    data: bytes,
    wanted: Digest | None,
    header: str,
    *,
    limits: ManifestLimits,
    size_of: Callable[[Digest], int] | None,
) -> Manifest:
    label = wanted or Digest.of(data)
    if size_of is None:
        raise UnsupportedManifest(
            f"manifest {label} is of Docker schema 1, which carries no sizes and is no longer pulled by current "
            "clients; push the image again with a current client, or set allow_schema1 on the remote",
            digest=label,
        )
    is_signed = "signatures" in document
    if header == media_types.DOCKER_SCHEMA1_SIGNED and not is_signed:
        raise InvalidManifest(f"manifest {label} was sent as signed and has no signatures", digest=label)
    payload = schema1.payload_of(data, document, label)
    actual = _digest_like(wanted, payload)
    _check_digest(wanted, actual)
    layers = schema1.layers_of(document, actual, limits.layers)
    sizes = {layer: size_of(layer) for layer in dict.fromkeys(layers)}
    return Manifest(
        digest=actual,
        media_type=media_types.DOCKER_SCHEMA1_SIGNED if is_signed else media_types.DOCKER_SCHEMA1,
        kind=ManifestKind.IMAGE,
        data=data,
        layers=tuple(Descriptor(media_types.DOCKER_LAYER_GZIP, layer, sizes[layer]) for layer in layers),
    )


class _DescriptorReader:
    """Reads the descriptors of one document; every error names the document and the field."""

    def __init__(self, digest: Digest, limits: ManifestLimits) -> None:
        self._digest = digest
        self._limits = limits

    def _invalid(self, where: str, problem: str) -> InvalidManifest:
        return InvalidManifest(f"manifest {self._digest}: {where} {problem}", digest=self._digest)

    def text(self, value: object, where: str) -> str | None:
        if value is not None and not isinstance(value, str):
            raise self._invalid(where, "is not text")
        return value or None

    def annotations(self, value: object, where: str) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self._invalid(where, "is not a map of text to text")
        return value

    def descriptors(self, value: object, where: str, limit: int) -> tuple[Descriptor, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._invalid(where, "is not a list")
        if len(value) > limit:
            raise LimitExceeded(
                f"manifest {self._digest}: {where} has {len(value)} entries, more than {limit}",
                digest=self._digest,
                limit=where,
            )
        return tuple(self.descriptor(entry, f"{where}[{position}]") for position, entry in enumerate(value))

    def descriptor(self, value: object, where: str) -> Descriptor:
        if not isinstance(value, dict):
            raise self._invalid(where, "is missing or not a descriptor")
        media_type, size = value.get("mediaType"), value.get("size")
        if not isinstance(media_type, str) or not media_type:
            raise self._invalid(where, "has no mediaType")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= self._limits.blob_bytes:
            raise self._invalid(where, f"has no usable size: {str(size)[:40]}")
        try:
            digest = Digest(value.get("digest"))
        except InvalidReference as problem:
            raise self._invalid(where, f"has no usable digest: {problem}") from None
        urls = value.get("urls") or []
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise self._invalid(where, "has urls that are not a list of text")
        platform = value.get("platform")
        if platform is not None and not isinstance(platform, dict):
            raise self._invalid(where, "has a platform that is not an object")
        return Descriptor(
            media_type=media_type,
            digest=digest,
            size_bytes=size,
            urls=tuple(urls),
            artifact_type=self.text(value.get("artifactType"), f"{where}.artifactType"),
            annotations=self.annotations(value.get("annotations"), f"{where}.annotations"),
            platform=platform,
            inline=self._inline(value.get("data"), digest, size, where),
        )

    def _inline(self, value: object, digest: Digest, size: int, where: str) -> bytes | None:
        if value is None or not digest.is_verifiable:
            return None
        if not isinstance(value, str) or size > self._limits.inline_bytes or len(value) > 2 * self._limits.inline_bytes:
            raise self._invalid(where, "has data that is not text, or too much of it")
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise self._invalid(where, "has data that is not base64") from None
        if len(data) != size or not digest.matches(data):
            raise DigestMismatch(f"manifest {self._digest}: {where} has data that is not {digest}", digest=digest)
        return data
