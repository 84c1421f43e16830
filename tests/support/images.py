"""Content for registries, built the same way every time, that says of itself what is true.

:class:`ContentBuilder` makes manifests of every kind; :class:`RepositoryContent` is what it made: tags, the exact
bytes of manifests, blobs. Named shapes are in ``support.shapes``. Filling a registry is in ``support.filling``.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName

#: The config of an artifact that has none (image specification, manifest.md, "Guidance for an Empty Descriptor").
EMPTY_CONFIG = b"{}"
IN_TOTO = "application/vnd.in-toto+json"
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """A blob: its bytes, or the seed that they are made from again each time they are requested."""

    digest: Digest
    size_bytes: int
    seed: int | None = None
    known_data: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Blob:
        return cls(Digest.of(data, algorithm), len(data), known_data=data)

    @classmethod
    def random(cls, seed: int, size_bytes: int) -> Blob:
        """Random bytes that ``seed`` determines; those over 1 MiB are not held in memory."""
        if size_bytes <= _PIECE:
            return cls.of(b"".join(_pieces(seed, size_bytes)))
        hasher = hashlib.sha256()
        for piece in _pieces(seed, size_bytes):
            hasher.update(piece)
        return cls(Digest(f"sha256:{hasher.hexdigest()}"), size_bytes, seed)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes in pieces of at most 1 MiB; none for an empty blob."""
        if self.known_data is not None:
            return iter((self.known_data,) if self.known_data else ())
        return _pieces(self.seed or 0, self.size_bytes)

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return b"".join(self.pieces())


def _pieces(seed: int, size_bytes: int) -> Iterator[bytes]:
    """One random mebibyte over and over, each time behind another counter, so that no two pieces are alike."""
    piece = random.Random(seed).randbytes(min(size_bytes, _PIECE))
    for number, start in enumerate(range(0, size_bytes, _PIECE)):
        length = min(_PIECE, size_bytes - start)
        yield (number.to_bytes(8, "big") + piece[8:] if number else piece)[:length]


@dataclass(frozen=True)
class BuiltManifest:
    """A manifest as it was pushed. ``children`` and ``blobs`` are in the document's order, the config first."""

    digest: Digest
    media_type: str
    data: bytes = field(repr=False)
    children: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()


@dataclass(frozen=True)
class RepositoryContent:
    """What a repository holds: the truth that a sync is compared with. Manifests come children first."""

    tags: Mapping[str, Digest]
    manifests: Mapping[Digest, BuiltManifest]
    blobs: Mapping[Digest, Blob]

    @property
    def blob_bytes(self) -> int:
        """Size of all blobs together, in bytes."""
        return sum(blob.size_bytes for blob in self.blobs.values())

    def closure(self, tags: Iterable[str]) -> RepositoryContent:
        """The part that these tags reach, what a sync of only them brings."""
        kept = {name: digest for name, digest in self.tags.items() if name in set(tags)}
        return self.part(kept, kept.values())

    def part(self, tags: Mapping[str, Digest], roots: Iterable[Digest]) -> RepositoryContent:
        """These tags, and the manifests that ``roots`` reach with their blobs."""
        reached = self.below(roots)
        manifests = {digest: manifest for digest, manifest in self.manifests.items() if digest in reached}
        blobs = {digest: self.blobs[digest] for manifest in manifests.values() for digest in manifest.blobs}
        return RepositoryContent(tags, manifests, blobs)

    def below(self, roots: Iterable[Digest]) -> set[Digest]:
        """The manifests that ``roots`` reach, they themselves among them."""
        reached: set[Digest] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest not in reached:
                reached.add(digest)
                waiting.extend(self.manifests[digest].children)
        return reached

    def merged(self, newer: RepositoryContent) -> RepositoryContent:
        """Both together, as after pushing ``newer`` on top: its tags win."""
        return RepositoryContent(
            {**self.tags, **newer.tags}, {**self.manifests, **newer.manifests}, {**self.blobs, **newer.blobs}
        )


class ContentBuilder:
    """Collects the content of one repository. The same ``seed`` and calls give the same bytes."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._blob_count = 0
        self._tags: dict[str, Digest] = {}
        self._manifests: dict[Digest, BuiltManifest] = {}
        self._blobs: dict[Digest, Blob] = {}

    def content(self) -> RepositoryContent:
        """What was built so far; later calls do not change it."""
        return RepositoryContent(dict(self._tags), dict(self._manifests), dict(self._blobs))

    def tag(self, name: str, digest: Digest) -> None:
        """Names a manifest that was built; a name used before moves."""
        assert digest in self._manifests, f"{digest} was not built here"
        self._tags[TagName(name)] = digest

    def untag(self, name: str) -> None:
        """Takes a tag away; its manifest stays."""
        del self._tags[TagName(name)]

    # -- blobs ---------------------------------------------------------------------------------------------------

    def blob(self, size_bytes: int) -> Digest:
        """A new random blob; no two calls give the same, but for sizes of a few bytes."""
        self._blob_count += 1
        return self._add_blob(Blob.random((self._seed << 32) + self._blob_count, size_bytes))

    def blob_of(self, data: bytes, algorithm: str = "sha256") -> Digest:
        """A blob of exactly these bytes."""
        return self._add_blob(Blob.of(data, algorithm))

    def _add_blob(self, blob: Blob) -> Digest:
        self._blobs[blob.digest] = blob
        return blob.digest

    def descriptor(self, digest: Digest, media_type: str | None = None, **more: Any) -> dict[str, Any]:
        """A descriptor of a blob or manifest that was built; ``more`` adds platform, annotations, urls, …"""
        if digest in self._blobs:
            size, own_type = self._blobs[digest].size_bytes, media_types.OCI_LAYER_GZIP
        else:
            size, own_type = len(self._manifests[digest].data), self._manifests[digest].media_type
        return {"mediaType": media_type or own_type, "digest": str(digest), "size": size, **more}

    # -- manifests -----------------------------------------------------------------------------------------------

    def image(
        self,
        layers: Iterable[Digest] = (),
        *,
        architecture: str = "amd64",
        docker: bool = False,
        config_padding_bytes: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> Digest:
        """An image with a config of its own, of OCI's type or of Docker's. No layers is a valid image.

        ``extra`` is laid over the document: annotations, subject, artifactType, or what no registry should send; None
        leaves a field out.
        """
        layers = list(layers)
        self._blob_count += 1
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": {"serial": f"{self._seed}.{self._blob_count}", "padding": "x" * config_padding_bytes}},
            "rootfs": {"type": "layers", "diff_ids": [str(layer) for layer in layers]},
        }
        config_digest = self.blob_of(_json(config))
        media_type = media_types.DOCKER_MANIFEST if docker else media_types.OCI_MANIFEST
        config_type = media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG
        layer_type = media_types.DOCKER_LAYER_GZIP if docker else media_types.OCI_LAYER_GZIP
        document = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.descriptor(config_digest, config_type),
            "layers": [self.descriptor(layer, layer_type) for layer in layers],
            **(extra or {}),
        }
        document = {name: value for name, value in document.items() if value is not None}
        return self.manifest(document, media_type, blobs=(config_digest, *layers))

    def index(
        self,
        children: Iterable[Digest],
        *,
        docker: bool = False,
        descriptors: Mapping[Digest, Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Digest:
        """An image index, or Docker's manifest list. Children may be indexes.

        ``descriptors`` adds to the entry of a child, such as platform or annotations; an image without any gets
        a platform of its own.
        """
        children = list(children)
        entries = []
        for number, child in enumerate(children):
            more = dict((descriptors or {}).get(child, {}))
            if not more and self._manifests[child].media_type in media_types.IMAGE_TYPES:
                more = {"platform": _PLATFORMS[number % len(_PLATFORMS)]}
            entries.append(self.descriptor(child, **more))
        media_type = media_types.DOCKER_LIST if docker else media_types.OCI_INDEX
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **(extra or {})}
        return self.manifest(document, media_type, children=children)

    def attestation(self, of: Digest, size_bytes: int = 400) -> Digest:
        """An attestation manifest as build tools attach it beside an image, to be listed in the same index."""
        self._blob_count += 1
        statement = self.blob_of(
            _json({"_type": IN_TOTO, "subject": str(of), "serial": self._blob_count, "padding": "x" * size_bytes})
        )
        config = self.blob_of(_json({"architecture": "unknown", "os": "unknown", "serial": self._blob_count}))
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": self.descriptor(config, media_types.OCI_CONFIG),
            "layers": [self.descriptor(statement, IN_TOTO)],
        }
        return self.manifest(document, media_types.OCI_MANIFEST, blobs=(config, statement))

    @staticmethod
    def attestation_entry(of: Digest) -> dict[str, Any]:
        """What an index says of an attestation: a platform that matches nothing, and what it attests."""
        return {
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {
                "vnd.docker.reference.digest": str(of),
                "vnd.docker.reference.type": "attestation-manifest",
            },
        }

    def artifact(self, blobs: Iterable[Digest], *, artifact_type: str = "application/vnd.example.chart") -> Digest:
        """An artifact as an image manifest with the empty config (image specification 1.1)."""
        blobs = list(blobs)
        config = self.blob_of(EMPTY_CONFIG)
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": self.descriptor(config, media_types.OCI_EMPTY),
            "layers": [self.descriptor(blob, artifact_type) for blob in blobs],
        }
        return self.manifest(document, media_types.OCI_MANIFEST, blobs=(config, *blobs))

    def artifact_manifest(self, blobs: Iterable[Digest], *, subject: Digest | None = None) -> Digest:
        """The artifact manifest type that the image specification had for a while; Debian's registry refuses it."""
        blobs = list(blobs)
        document: dict[str, Any] = {
            "mediaType": media_types.OCI_ARTIFACT,
            "artifactType": "application/vnd.example.signature",
            "blobs": [self.descriptor(blob, "application/octet-stream") for blob in blobs],
        }
        if subject is not None:
            document["subject"] = self.descriptor(subject)
        return self.manifest(document, media_types.OCI_ARTIFACT, blobs=blobs)

    def manifest(
        self,
        document: Mapping[str, Any] | bytes,
        media_type: str,
        *,
        children: Iterable[Digest] = (),
        blobs: Iterable[Digest] = (),
    ) -> Digest:
        """Any document, or any bytes, as a manifest."""
        data = document if isinstance(document, bytes) else _json(document)
        digest = Digest.of(data)
        self._manifests[digest] = BuiltManifest(digest, media_type, data, tuple(children), tuple(blobs))
        return digest


_PLATFORMS = (
    {"architecture": "amd64", "os": "linux"},
    {"architecture": "arm64", "os": "linux", "variant": "v8"},
    {"architecture": "arm", "os": "linux", "variant": "v7"},
    {"architecture": "arm", "os": "linux", "variant": "v5"},
    {"architecture": "386", "os": "linux"},
    {"architecture": "mips64le", "os": "linux"},
    {"architecture": "ppc64le", "os": "linux"},
    {"architecture": "riscv64", "os": "linux"},
    {"architecture": "s390x", "os": "linux"},
    {"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.2402"},
    {"architecture": "amd64", "os": "windows", "os.version": "10.0.17763.5696"},
)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()
