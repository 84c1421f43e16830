"""Docker's schema 1 from a registry: requested where it is allowed, with sizes from the registry."""

from __future__ import annotations

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import ManifestLimits
from registry_sync.domain.references import TagName
from registry_sync.errors import (
    DigestMismatch,
    InvalidManifest,
    LimitExceeded,
    ProtocolError,
    RegistryError,
    UnsupportedManifest,
)
from support.hostile_registry import HostileRegistry, Raw, errors_reply, reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter
from support.schema1 import document, payload_of, signed

TAG = TagName("latest")
LAYERS = {Digest.of(data): data for data in (b"base", b"second layer")}
BASE, SECOND = LAYERS
PAYLOAD = payload_of(document([SECOND, BASE, SECOND]))
SIGNED = signed(PAYLOAD)
DIGEST = Digest.of(PAYLOAD)
BY_TAG = f"/v2/{REPOSITORY}/manifests/{TAG}"
BY_DIGEST = f"/v2/{REPOSITORY}/manifests/{DIGEST}"


def blob_path(layer: Digest) -> str:
    return f"/v2/{REPOSITORY}/blobs/{layer}"


@pytest.fixture
def old(registry: HostileRegistry) -> HostileRegistry:
    """A registry that has one image of the old kind, by its tag and by its digest."""
    declared = [("Docker-Content-Digest", str(DIGEST))]
    for path in (BY_TAG, BY_DIGEST):
        for method in ("GET", "HEAD"):
            registry.on(method, path, reply(200, SIGNED, declared, content_type=media_types.DOCKER_SCHEMA1_SIGNED))
    for layer, data in LAYERS.items():
        for method in ("GET", "HEAD"):
            registry.on(method, blob_path(layer), reply(200, data))
    return registry


def test_a6_17_an_old_image_arrives_whole(old, client_of) -> None:
    client = client_of(old, allow_schema1=True)
    head = client.head_manifest(REPOSITORY, TAG)
    assert head.digest == DIGEST
    manifest = client.get_manifest(REPOSITORY, head.digest)
    assert (manifest.data, manifest.digest) == (SIGNED, DIGEST)
    assert [(layer.digest, layer.size_bytes) for layer in manifest.layers] == [(SECOND, 12), (BASE, 4), (SECOND, 12)]
    for layer in manifest.layers:
        writer = MemoryWriter(layer)
        client.fetch_blob(REPOSITORY, layer, writer)
        assert writer.published == LAYERS[layer.digest]
    assert len(old.asked("HEAD", blob_path(SECOND))) == 1
    assert client.usage.counts().head_count == 1 + len(LAYERS)


def test_a6_17_by_tag_the_digest_is_computed_from_the_payload(old, client_of) -> None:
    assert client_of(old, allow_schema1=True).get_manifest(REPOSITORY, TAG).digest == DIGEST


def test_a6_17_the_old_types_are_accepted_where_they_are_allowed_and_not_elsewhere(old, client_of) -> None:
    client_of(old, allow_schema1=True).head_manifest(REPOSITORY, TAG)
    client_of(old).head_manifest(REPOSITORY, TAG)
    allowed, usual = (set((request.header("accept") or "").split(", ")) for request in old.requests)
    assert allowed - usual == media_types.SCHEMA1_TYPES
    assert usual == set(media_types.ACCEPTED_MANIFEST_TYPES)


@pytest.mark.parametrize("reference", [TAG, DIGEST])
def test_a6_17_unless_allowed_it_is_refused_by_name_and_no_layer_is_requested(
    old, client_of, reference: TagName | Digest
) -> None:
    with pytest.raises(UnsupportedManifest, match="allow_schema1"):
        client_of(old).get_manifest(REPOSITORY, reference)
    assert len(old.requests) == 1


def test_a6_17_another_payload_than_was_requested_is_fetched_once_more_and_then_refused(old, client_of) -> None:
    other = signed(payload_of(document([BASE])))
    old.on("GET", BY_DIGEST, reply(200, other, content_type=media_types.DOCKER_SCHEMA1_SIGNED))
    with pytest.raises(DigestMismatch):
        client_of(old, allow_schema1=True).get_manifest(REPOSITORY, DIGEST)
    assert [request.path for request in old.requests] == [BY_DIGEST] * 2


def test_a6_17_a_layer_that_is_missing_is_no_missing_tag(old, client_of) -> None:
    """Or a mirror would take the tag for deleted."""
    old.on("HEAD", blob_path(BASE), reply(404))
    with pytest.raises(InvalidManifest, match="lacks layer"):
        client_of(old, allow_schema1=True).get_manifest(REPOSITORY, TAG)


@pytest.mark.parametrize("head", [reply(200, length=None), reply(405), reply(403), errors_reply(400, "UNSUPPORTED")])
def test_a6_17_a_size_that_head_does_not_report_is_reported_by_get(old, client_of, head: Raw) -> None:
    old.on("HEAD", blob_path(BASE), head)
    client = client_of(old, allow_schema1=True, concurrency=1)
    for _ in range(2):
        manifest = client.get_manifest(REPOSITORY, TAG)
        assert [layer.size_bytes for layer in manifest.layers] == [12, 4, 12]


def test_a6_17_a_size_that_is_reported_nowhere_is_an_error(old, client_of) -> None:
    old.on("HEAD", blob_path(BASE), reply(200, length=None))
    old.on("GET", blob_path(BASE), reply(200, b"base", length=None))
    with pytest.raises(ProtocolError, match="does not state the size"):
        client_of(old, allow_schema1=True).get_manifest(REPOSITORY, TAG)


def test_a6_17_a_layer_that_is_too_large_is_refused(old, client_of) -> None:
    old.on("HEAD", blob_path(BASE), reply(200, length=10**12), reply(200, length=10**12 + 1))
    client = client_of(old, allow_schema1=True, limits=ManifestLimits(blob_bytes=10**12))
    assert client.get_manifest(REPOSITORY, TAG).layers[1].size_bytes == 10**12
    with pytest.raises(LimitExceeded):
        client.get_manifest(REPOSITORY, TAG)


def test_a6_17_an_outage_while_sizes_are_requested_is_tried_again_within_its_own_bound(
    old, client_of, fake_time: FakeTime
) -> None:
    old.on("HEAD", blob_path(BASE), reply(503), reply(200, b"base"))
    client = client_of(old, allow_schema1=True, max_attempts=3)
    assert client.get_manifest(REPOSITORY, TAG).digest == DIGEST
    old.on("HEAD", blob_path(BASE), reply(503))
    before = len(old.requests)
    with pytest.raises(RegistryError) as raised:
        client.get_manifest(REPOSITORY, TAG)
    assert raised.value.is_temporary
    assert len(old.asked("HEAD", blob_path(BASE))) == 2 + 3
    assert len(old.requests) - before == 1 + 1 + 3
