"""Docker's schema 1 is read where it is allowed, and its digest is over what was signed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole, Manifest, ManifestKind, ManifestLimits, read_manifest
from registry_sync.errors import (
    AmbiguousManifest,
    ContentError,
    DigestMismatch,
    InvalidManifest,
    LimitExceeded,
    UnsupportedManifest,
)
from support.schema1 import TAIL, base64url, document, payload_of, signature, signed

EMPTY, BASE, TOP = (Digest.of(text) for text in (b"empty", b"base", b"top"))
SIZES = {EMPTY: 32, BASE: 4000, TOP: 700}
PAYLOAD = payload_of(document([EMPTY, TOP, EMPTY, BASE]))
LENGTH = len(PAYLOAD) - len(TAIL)
SIGNED = signed(PAYLOAD)


def read(data: bytes, content_type: str | None = media_types.DOCKER_SCHEMA1_SIGNED, **options: Any) -> Manifest:
    return read_manifest(data, content_type=content_type, schema1_size_of=SIZES.__getitem__, **options)


@pytest.mark.parametrize("content_type", [media_types.DOCKER_SCHEMA1_SIGNED, "text/plain", "application/json", None])
def test_a6_17_a_signed_manifest_has_the_digest_of_its_payload_and_keeps_its_bytes(content_type: str | None) -> None:
    manifest = read(SIGNED, content_type)
    assert manifest.digest == Digest.of(PAYLOAD) != Digest.of(SIGNED)
    assert (manifest.data, manifest.kind) == (SIGNED, ManifestKind.IMAGE)
    assert manifest.media_type == media_types.DOCKER_SCHEMA1_SIGNED
    assert (manifest.config, manifest.children, manifest.subject) == (None, (), None)


def test_a6_17_layers_are_named_as_in_the_document_and_each_has_a_size() -> None:
    assert [(role, blob.digest, blob.size_bytes, blob.media_type) for role, blob in read(SIGNED).blobs()] == [
        (BlobRole.LAYER, layer, SIZES[layer], media_types.DOCKER_LAYER_GZIP) for layer in (EMPTY, TOP, EMPTY, BASE)
    ]


def test_a6_17_the_size_of_a_layer_is_requested_once() -> None:
    asked: list[Digest] = []

    def size_of(layer: Digest) -> int:
        asked.append(layer)
        return SIZES[layer]

    read_manifest(SIGNED, schema1_size_of=size_of)
    assert asked == [EMPTY, TOP, BASE]


def test_a6_17_a_plain_manifest_has_the_digest_of_its_bytes() -> None:
    manifest = read(PAYLOAD, media_types.DOCKER_SCHEMA1)
    assert (manifest.digest, manifest.media_type) == (Digest.of(PAYLOAD), media_types.DOCKER_SCHEMA1)
    assert read(PAYLOAD, None, digest=Digest.of(PAYLOAD, "sha512")).digest == Digest.of(PAYLOAD, "sha512")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content_type", [media_types.DOCKER_SCHEMA1_SIGNED, "text/plain", None])
def test_a6_17_a_signed_manifest_is_requested_by_the_digest_of_its_payload(
    algorithm: str, content_type: str | None
) -> None:
    wanted = Digest.of(PAYLOAD, algorithm)
    assert read(SIGNED, content_type, digest=wanted).digest == wanted
    for other in (Digest.of(SIGNED, algorithm), Digest.of(b"other", algorithm)):
        with pytest.raises(DigestMismatch):
            read(SIGNED, content_type, digest=other)


def test_a6_17_a_manifest_that_ends_before_its_signatures_is_other_content() -> None:
    with pytest.raises(DigestMismatch):
        read(PAYLOAD[:100], digest=Digest.of(PAYLOAD))


def test_a6_17_a_length_below_nothing_is_refused_although_it_would_cut_at_the_right_place() -> None:
    length = 0
    while len(data := signed(PAYLOAD, [signature(length)])) != LENGTH - length:
        length = LENGTH - len(data)
    assert data[:length] + TAIL == PAYLOAD
    with pytest.raises(InvalidManifest, match="formatLength"):
        read(data)


def test_a6_17_signatures_that_are_not_looked_at_may_be_many_and_change_nothing() -> None:
    again = signed(PAYLOAD, [signature(LENGTH), signature(LENGTH, signature="another", header={"alg": "none"})])
    assert read(again).digest == read(SIGNED).digest


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        {},
        "text",
        7,
        None,
        [7],
        [{}],
        [{"protected": 7}],
        [{"protected": "%%%"}],
        [{"protected": "a"}],
        [{"protected": base64url(b"no json")}],
        [{"protected": base64url(b"[]")}],
        [{"protected": base64url(b'{"formatLength": 1, "formatLength": 2, "formatTail": ""}')}],
        [signature(10**12)],
        [signature(-1)],
        [signature(True)],
        [signature(1.0)],
        [signature("5")],
        [signature(None)],
        [signature(0)],
        [signature(LENGTH - 1)],
        [signature(LENGTH + 1)],
        [signature(LENGTH, b"")],
        [signature(LENGTH, b"\n}junk")],
        [signature(LENGTH, b"\xff\xfe")],
        [signature(LENGTH, 7)],
        [signature(LENGTH, "***")],
        [signature(LENGTH), signature(LENGTH, b" }")],
        [signature(LENGTH), signature(LENGTH - 1)],
        [signature(LENGTH), {}],
    ],
    ids=str,
)
def test_a6_17_signatures_that_do_not_say_what_they_sign_are_refused(signatures: Any) -> None:
    written = json.dumps(signatures).encode()
    data = PAYLOAD[:LENGTH] + b', "signatures": ' + written + TAIL
    with pytest.raises(InvalidManifest):
        read(data)


@pytest.mark.parametrize(
    "between",
    [b', "more": 1', f', "layers": [{{"digest": "{TOP}"}}]'.encode(), b', "fsLayers": []'],
)
def test_a6_17_what_is_not_signed_is_not_read(between: bytes) -> None:
    with pytest.raises(InvalidManifest):
        read(signed(PAYLOAD, between=between), digest=Digest.of(PAYLOAD))


def test_a6_17_a_manifest_sent_as_signed_that_has_no_signatures_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="no signatures"):
        read(PAYLOAD)


@pytest.mark.parametrize(
    "fields",
    [
        {"schemaVersion": True},
        {"schemaVersion": "1"},
        {"schemaVersion": 3},
        {"fsLayers": None},
        {"fsLayers": {}},
        {"fsLayers": [7, 7]},
        {"fsLayers": [{}, {}]},
        {"fsLayers": [{"blobSum": "sha256:short"}] * 2},
        {"fsLayers": [{"blobSum": "../../etc/passwd"}] * 2},
        {"fsLayers": [{"blobSum": str(TOP)}]},
        {"history": None},
        {"history": []},
    ],
    ids=str,
)
def test_a6_17_a_document_outside_its_form_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest):
        read(payload_of(document([TOP, BASE], **fields)), media_types.DOCKER_SCHEMA1)


@pytest.mark.parametrize("name", ["config", "layers", "Layers", "manifests", "blobs", "subject", "FSLayers", "HISTORY"])
def test_a6_17_a_document_of_two_kinds_is_refused(name: str) -> None:
    with pytest.raises(AmbiguousManifest):
        read(payload_of(document([TOP], **{name: []})), media_types.DOCKER_SCHEMA1)


def test_a6_17_unknown_fields_are_left_alone_in_any_spelling() -> None:
    assert len(read(payload_of(document([TOP], author="a", Author="b")), media_types.DOCKER_SCHEMA1).layers) == 1


def test_a6_17_more_layers_than_the_limit_are_refused_before_any_is_requested() -> None:
    assert len(read(SIGNED, limits=ManifestLimits(layers=4)).layers) == 4
    with pytest.raises(LimitExceeded):
        read_manifest(SIGNED, schema1_size_of={}.__getitem__, limits=ManifestLimits(layers=3))


@pytest.mark.parametrize("digest", [None, Digest.of(PAYLOAD), Digest.of(SIGNED)])
def test_a6_17_it_is_refused_by_name_unless_allowed_whatever_its_digest(digest: Digest | None) -> None:
    with pytest.raises(UnsupportedManifest, match="allow_schema1"):
        read_manifest(SIGNED, content_type=media_types.DOCKER_SCHEMA1_SIGNED, digest=digest)


@pytest.mark.parametrize("sent_as", [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST, "text/html"])
def test_a6_17_a_payload_proves_nothing_under_another_type(sent_as: str) -> None:
    """Or a document could be stored under the digest of a part of it, and be read as something else."""
    with pytest.raises(DigestMismatch):
        read(SIGNED, sent_as, digest=Digest.of(PAYLOAD))


_numbers = st.integers(-3, len(SIGNED) + 3) | st.integers() | st.booleans() | st.none() | st.text(max_size=5)
_tails = st.binary(max_size=20) | st.just(TAIL) | st.text(max_size=10) | st.none()


@given(st.lists(st.builds(signature, _numbers, _tails), max_size=3), st.binary(max_size=10))
def test_a6_17_any_signature_is_read_or_raises_an_error_of_content(signatures: list[Any], between: bytes) -> None:
    with contextlib.suppress(ContentError):
        manifest = read(signed(PAYLOAD, signatures, between=between))
        assert manifest.digest == Digest.of(PAYLOAD)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from([str(TOP), str(BASE)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["blobSum", "x"]), inner, max_size=2),
    max_leaves=8,
)
_names = st.sampled_from(
    ["schemaVersion", "fsLayers", "history", "signatures", "name", "layers", "config", "mediaType"]
)


@given(st.dictionaries(_names, _values), st.sampled_from([*sorted(media_types.SCHEMA1_TYPES), "text/plain"]))
def test_a6_17_any_document_is_read_or_raises_an_error_of_content(fields: dict[str, Any], header: str) -> None:
    with contextlib.suppress(ContentError):
        manifest = read(payload_of(document([TOP], **fields)), header)
        assert [layer.size_bytes for layer in manifest.layers] == [SIZES[layer.digest] for layer in manifest.layers]
