"""Manifests by tag and by digest: bytes as they are, hints as they are told, and what is missing or lies."""

from __future__ import annotations

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName, TagName
from support.filling import push
from support.images import Blob, BuiltManifest, ContentBuilder, RepositoryContent
from support.memory_registry import HELD, Held, document, refusal
from support.registry_sources import Source, error_of
from support.schema1 import document as schema1_document
from support.schema1 import payload_of, signed
from support.shapes import every_kind, nested

GHOST = Digest.of(b"nobody has this")


def one_image() -> tuple[RepositoryContent, Digest]:
    build = ContentBuilder(seed=2)
    image = build.image([build.blob(50)])
    build.tag("v1", image)
    return build.content(), image


@pytest.mark.parametrize("content", [every_kind(), nested()], ids=["every kind", "nested"])
def test_a_head_has_digest_type_and_size_of_every_kind(
    source: Source, name: RepositoryName, content: RepositoryContent
) -> None:
    push(source.registry, name, content)
    reader = source.reader()
    for tag, digest in content.tags.items():
        manifest = content.manifests[digest]
        for reference in (TagName(tag), digest):
            head = reader.head_manifest(name, reference)
            assert (head.digest, head.media_type, head.size_bytes) == (
                digest,
                manifest.media_type,
                len(manifest.data),
            )
    counts = reader.usage.counts()
    assert (counts.head_count, counts.manifest_get_count, counts.received_bytes) == (2 * len(content.tags), 0, 0)


@pytest.mark.parametrize("content", [every_kind(), nested()], ids=["every kind", "nested"])
def test_a_get_gives_the_exact_bytes_of_every_kind_and_counts_them(
    source: Source, name: RepositoryName, content: RepositoryContent
) -> None:
    push(source.registry, name, content)
    reader = source.reader()
    for digest, built in content.manifests.items():
        manifest = reader.get_manifest(name, digest)
        assert (manifest.digest, manifest.data, manifest.media_type) == (digest, built.data, built.media_type)
        assert {child.digest for child in manifest.children} == set(built.children)
    for tag, digest in content.tags.items():
        assert reader.get_manifest(name, TagName(tag)).digest == digest
    counts = reader.usage.counts()
    assert counts.manifest_get_count == len(content.manifests) + len(content.tags)
    assert counts.received_bytes == sum(len(built.data) for built in content.manifests.values()) + sum(
        len(content.manifests[digest].data) for digest in content.tags.values()
    )


def test_a_manifest_that_is_not_there_is_named(source: Source, name: RepositoryName) -> None:
    push(source.registry, name, one_image()[0])
    reader = source.reader()
    missing = {"type": "NotFound", "kind": "manifest", "status": 404, "repository": name, "is_temporary": False}
    for reference in (TagName("nothing"), GHOST):
        assert error_of(lambda reference=reference: reader.head_manifest(name, reference)) == missing
        told = missing | {"codes": ("MANIFEST_UNKNOWN",)}
        assert error_of(lambda reference=reference: reader.get_manifest(name, reference)) == told
    counts = reader.usage.counts()
    assert (counts.head_count, counts.manifest_get_count, counts.retry_count) == (2, 0, 0)


def test_a_manifest_that_is_deleted_takes_its_tags_with_it(source: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(source.registry, name, content)
    source.registry.delete_manifest(name, image)
    reader = source.reader()
    for reference in (TagName("v1"), image):
        assert error_of(lambda reference=reference: reader.head_manifest(name, reference))["type"] == "NotFound"


def test_an_index_that_names_another_size_than_its_entry_has_is_reported(source: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(source.registry, name, content)
    size_bytes = len(content.manifests[image].data)
    expected = Descriptor(media_types.OCI_MANIFEST, image, size_bytes + 1)
    reader = source.reader()
    assert error_of(lambda: reader.get_manifest(name, image, expected=expected)) == {
        "type": "SizeMismatch",
        "digest": image,
        "expected": size_bytes + 1,
        "got": size_bytes,
        "is_temporary": False,
    }
    assert reader.usage.counts().manifest_get_count == 2, "it is fetched once more"


def test_other_bytes_than_the_digest_says_are_fetched_once_more(scripted: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(scripted.registry, name, content)
    other = document(content.manifests[image].data + b" ")
    scripted.registry.on("GET", "manifest", image, other, HELD)
    assert scripted.reader().get_manifest(name, image).digest == image
    scripted.registry.on("GET", "manifest", image, other)
    assert error_of(lambda: scripted.reader().get_manifest(name, image)) == {
        "type": "DigestMismatch",
        "digest": image,
        "got": Digest.of(other.data),
        "is_temporary": False,
    }


def test_another_digest_in_the_header_than_the_bytes_have_is_refused_by_digest_alone(
    scripted: Source, name: RepositoryName
) -> None:
    content, image = one_image()
    push(scripted.registry, name, content)
    for reference in (image, "v1"):
        data = content.manifests[image].data
        scripted.registry.on("GET", "manifest", reference, document(data, digest=GHOST))
    error = error_of(lambda: scripted.reader().get_manifest(name, image))
    assert (error["type"], error["digest"], error["got"]) == ("DigestMismatch", image, GHOST)
    assert scripted.reader(strict_digest_header=False).get_manifest(name, image).digest == image
    assert scripted.reader().get_manifest(name, TagName("v1")).digest == image


@pytest.mark.parametrize(
    ("data", "media_type", "error"),
    [
        (b"no manifest", media_types.OCI_MANIFEST, "InvalidManifest"),
        (b"{}", "application/json", "InvalidManifest"),
        (b'{"mediaType": "%s"}' % media_types.OCI_INDEX.encode(), media_types.OCI_MANIFEST, "MediaTypeMismatch"),
        (b'{"schemaVersion": 1, "fsLayers": []}', media_types.DOCKER_SCHEMA1, "UnsupportedManifest"),
    ],
)
def test_what_is_no_manifest_is_refused(
    scripted: Source, name: RepositoryName, data: bytes, media_type: str, error: str
) -> None:
    scripted.registry.on("GET", "manifest", "v1", document(data, media_type))
    assert error_of(lambda: scripted.reader().get_manifest(name, TagName("v1")))["type"] == error


def test_a_manifest_that_breaks_off_is_requested_again(scripted: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(scripted.registry, name, content)
    scripted.registry.on("GET", "manifest", image, Held(breaks_after=20), HELD)
    reader = scripted.reader()
    assert reader.get_manifest(name, image).data == content.manifests[image].data
    assert reader.usage.counts().retry_count == 1
    scripted.registry.on("GET", "manifest", image, Held(breaks_after=20))
    assert error_of(lambda: scripted.reader().get_manifest(name, image)) == {
        "type": "TruncatedBody",
        "is_temporary": True,
    }


def test_a_head_without_a_digest_says_so(scripted: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(scripted.registry, name, content)
    scripted.registry.tells_digests = False
    head = scripted.reader().head_manifest(name, image)
    assert (head.digest, head.size_bytes) == (None, len(content.manifests[image].data))


def test_where_head_is_refused_the_manifest_itself_decides(scripted: Source, name: RepositoryName) -> None:
    content, image = one_image()
    push(scripted.registry, name, content)
    scripted.registry.on("HEAD", "manifest", "v1", refusal(403))
    reader = scripted.reader()
    assert reader.head_manifest(name, TagName("v1")).digest == image
    counts = reader.usage.counts()
    assert (counts.head_count, counts.manifest_get_count) == (1, 1)
    scripted.registry.on("GET", "manifest", "v1", refusal(403, "DENIED"))
    reader = scripted.reader()
    assert error_of(lambda: reader.head_manifest(name, TagName("v1")))["type"] == "RepositoryUnavailable"
    counts = reader.usage.counts()
    assert (counts.head_count, counts.manifest_get_count) == (1, 1)


def test_schema_1_is_read_where_it_is_allowed_with_the_sizes_of_its_layers(
    scripted: Source, name: RepositoryName
) -> None:
    layers = {Digest.of(data): Blob.of(data) for data in (b"base", b"on top")}
    payload = payload_of(schema1_document(layers))
    digest, data = Digest.of(payload), signed(payload)
    manifest = BuiltManifest(digest, media_types.DOCKER_SCHEMA1_SIGNED, data)
    push(scripted.registry, name, RepositoryContent({"old": digest}, {digest: manifest}, layers))
    reader = scripted.reader(allow_schema1=True)
    found = reader.get_manifest(name, TagName("old"))
    assert (found.digest, found.data) == (digest, data)
    assert {layer.digest: layer.size_bytes for layer in found.layers} == {d: b.size_bytes for d, b in layers.items()}
    assert reader.usage.counts().head_count == len(layers)
    assert error_of(lambda: scripted.reader().get_manifest(name, digest))["type"] == "UnsupportedManifest"
    lost = min(layers)
    scripted.registry.delete_blob(name, lost)
    error = error_of(lambda: reader.get_manifest(name, digest))
    assert (error["type"], error["digest"]) == ("InvalidManifest", lost)
