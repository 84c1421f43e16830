"""Manifests are read strictly, in one way only, and their bytes are left alone."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole, Descriptor, ManifestKind, ManifestLimits, read_manifest
from registry_sync.errors import (
    AmbiguousManifest,
    ContentError,
    DigestMismatch,
    InvalidManifest,
    LimitExceeded,
    MediaTypeMismatch,
    UnsupportedDigest,
    UnsupportedManifest,
)


def descriptor(content: bytes = b"{}", media_type: str = media_types.OCI_CONFIG, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image(**fields: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(),
        "layers": [descriptor(b"layer", media_types.OCI_LAYER_GZIP)],
        **fields,
    }


def index(*children: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(children), **fields}


def data_of(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


def read(document: object, **options: Any):  # type: ignore[no-untyped-def]
    return read_manifest(document if isinstance(document, bytes) else data_of(document), **options)


def test_an_image_is_its_config_its_layers_and_its_exact_bytes() -> None:
    data = data_of(
        image(annotations={"a": "b"}, artifactType="x/y", subject=descriptor(b"s", media_types.OCI_MANIFEST))
    )
    manifest = read_manifest(data, content_type=media_types.OCI_MANIFEST)
    assert (manifest.data, manifest.digest, manifest.size_bytes) == (data, Digest.of(data), len(data))
    assert (manifest.kind, manifest.media_type) == (ManifestKind.IMAGE, media_types.OCI_MANIFEST)
    assert [(role, blob.digest) for role, blob in manifest.blobs()] == [
        (BlobRole.CONFIG, Digest.of(b"{}")),
        (BlobRole.LAYER, Digest.of(b"layer")),
    ]
    assert (manifest.annotations, manifest.artifact_type) == ({"a": "b"}, "x/y")
    assert manifest.subject is not None
    assert manifest.subject.digest == Digest.of(b"s")


def test_an_index_is_its_children_with_their_platforms() -> None:
    child = descriptor(b"child", media_types.OCI_MANIFEST, platform={"os": "linux", "architecture": "arm64"})
    manifest = read(index(child, child))
    assert manifest.kind is ManifestKind.INDEX
    assert [entry.platform for entry in manifest.children] == [{"os": "linux", "architecture": "arm64"}] * 2
    assert list(manifest.blobs()) == []


def test_an_artifact_manifest_has_blobs_and_no_config() -> None:
    manifest = read({"mediaType": media_types.OCI_ARTIFACT, "artifactType": "x/y", "blobs": [descriptor(b"b", "x/z")]})
    assert manifest.kind is ManifestKind.ARTIFACT
    assert [blob.digest for _, blob in manifest.blobs()] == [Digest.of(b"b")]


@pytest.mark.parametrize(
    ("document", "header", "media_type"),
    [
        (image(), None, media_types.OCI_MANIFEST),
        (image(), "text/plain; charset=utf-8", media_types.OCI_MANIFEST),
        (image(), "Application/Vnd.OCI.image.manifest.v1+JSON; x=y", media_types.OCI_MANIFEST),
        (
            {"schemaVersion": 2, "config": descriptor(), "layers": []},
            media_types.DOCKER_MANIFEST,
            media_types.DOCKER_MANIFEST,
        ),
        ({"schemaVersion": 2, "config": descriptor(), "layers": []}, None, media_types.OCI_MANIFEST),
        ({"schemaVersion": 2, "manifests": []}, "application/json", media_types.OCI_INDEX),
        (image(mediaType=media_types.DOCKER_MANIFEST), media_types.DOCKER_MANIFEST, media_types.DOCKER_MANIFEST),
    ],
)
def test_a6_06_the_type_is_the_bodys_then_the_headers_then_the_shapes(
    document: object, header: str | None, media_type: str
) -> None:
    assert read(document, content_type=header).media_type == media_type


@pytest.mark.parametrize(
    ("document", "header"),
    [
        (image(), media_types.OCI_INDEX),
        (image(), media_types.DOCKER_MANIFEST),
        (index(), media_types.OCI_MANIFEST),
        (image(), "text/html"),
    ],
)
def test_a6_06_a_body_sent_as_something_else_is_refused(document: object, header: str) -> None:
    with pytest.raises(MediaTypeMismatch):
        read(document, content_type=header)


@pytest.mark.parametrize(
    ("document", "expected_type", "media_type"),
    [
        ({"schemaVersion": 2, "config": descriptor(), "layers": []}, media_types.DOCKER_MANIFEST, None),
        (image(), "application/vnd.unknown", media_types.OCI_MANIFEST),
    ],
)
def test_a6_06_a_child_is_what_its_index_says_where_it_says_nothing_itself(
    document: object, expected_type: str, media_type: str | None
) -> None:
    data = data_of(document)
    expected = Descriptor(expected_type, Digest.of(data), len(data))
    assert read_manifest(data, expected=expected).media_type == (media_type or expected_type)


def test_a6_06_a_child_that_is_not_what_its_index_says_is_refused() -> None:
    data = data_of(image())
    expected = Descriptor(media_types.OCI_INDEX, Digest.of(data), len(data))
    with pytest.raises(MediaTypeMismatch):
        read_manifest(data, expected=expected)


@pytest.mark.parametrize(
    "document",
    [
        index(config=descriptor()),
        index(layers=[]),
        index(fsLayers=[]),
        index(history=[]),
        index(Layers=[]),
        image(manifests=[]),
        image(Manifests=[]),
        image(MANIFESTS=[]),
        image(fsLayers=[]),
        image(history=[]),
        image(Config=descriptor()),
        image(MediaType=media_types.OCI_INDEX),
    ],
)
def test_a6_07_a_document_that_two_readers_understand_differently_is_refused(document: object) -> None:
    with pytest.raises(AmbiguousManifest):
        read(document)


def test_a6_07_names_that_nobody_reads_may_have_two_spellings() -> None:
    assert len(read(image(custom=1, Custom=2)).layers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"schemaVersion": 2,}',
        json.dumps(image()).encode("utf-16"),
        b"\xef\xbb\xbf" + data_of(image()),
        b'{"mediaType": "a", "mediaType": "b"}',
        b'{"schemaVersion": 2, "config": {"size": 1, "size": 2}}',
        b'{"schemaVersion": NaN}',
        b'{"schemaVersion": Infinity}',
        b'{"x": ' + b"[" * 200_000,
        b'{"x": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
    ],
)
def test_a6_08_what_is_no_strict_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        read(data)


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        "text",
        {},
        descriptor(size=-1),
        descriptor(size=True),
        descriptor(size=1.0),
        descriptor(size="2"),
        descriptor(size=10**18 * 2),
        descriptor(size=None),
        descriptor(digest="sha256:short"),
        descriptor(digest=None),
        descriptor(digest="sha256:../../etc"),
        descriptor(mediaType=None),
        descriptor(mediaType=""),
        descriptor(mediaType=7),
        descriptor(urls="https://x"),
        descriptor(urls=[7]),
        descriptor(annotations={"a": 7}),
        descriptor(annotations=[]),
        descriptor(platform="linux"),
        descriptor(artifactType=7),
        descriptor(data=7),
        descriptor(data="%%%"),
    ],
)
def test_a6_09_a_descriptor_outside_the_specification_is_refused(config: object) -> None:
    with pytest.raises(InvalidManifest):
        read(image(config=config))


def test_a6_09_an_empty_type_of_artifact_is_none() -> None:
    assert read(image(artifactType="")).artifact_type is None


def test_a6_09_unknown_fields_are_left_alone() -> None:
    assert read(image(unknown={"x": 1}, config=descriptor(unknown=1))).config.size_bytes == 2


@pytest.mark.parametrize(
    ("document", "limits"),
    [
        (image(layers=[descriptor()] * 4), ManifestLimits(layers=3)),
        (index(*[descriptor(b"x", media_types.OCI_MANIFEST)] * 4), ManifestLimits(entries=3)),
        (image(), ManifestLimits(manifest_bytes=10)),
    ],
)
def test_a6_10_more_than_the_limits_is_refused(document: object, limits: ManifestLimits) -> None:
    with pytest.raises(LimitExceeded):
        read(document, limits=limits)


def test_a6_10_as_much_as_the_limits_is_read() -> None:
    document = image(layers=[descriptor()] * 3)
    limits = ManifestLimits(layers=3, manifest_bytes=len(data_of(document)), blob_bytes=2)
    assert len(read(document, limits=limits).layers) == 3


def test_a6_11_unknown_types_of_configs_layers_and_entries_are_content() -> None:
    manifest = read(
        image(config=descriptor(b"{}", "application/vnd.cncf.helm.config.v1+json"), artifactType="any/thing")
    )
    assert manifest.config.media_type == "application/vnd.cncf.helm.config.v1+json"
    assert read(index(descriptor(b"x", "application/vnd.unknown"))).children[0].media_type == "application/vnd.unknown"


@pytest.mark.parametrize("document", [image(layers=[]), image(layers=None), index(), index(manifests=None)])
def test_a6_12_empty_lists_are_legal(document: dict[str, Any]) -> None:
    manifest = read(document)
    assert (manifest.layers, manifest.children) == ((), ())


@pytest.mark.parametrize("document", [{}, {"schemaVersion": 2}, {"errors": []}, {"schemaVersion": 2, "Manifests": []}])
def test_a6_12_an_index_that_does_not_have_its_list_is_no_empty_one(document: dict[str, Any]) -> None:
    with pytest.raises((InvalidManifest, AmbiguousManifest)):
        read_manifest(json.dumps(document).encode(), content_type=media_types.OCI_INDEX)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "fsLayers": [], "history": []},
        {"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []},
        {"schemaVersion": 1, "mediaType": media_types.DOCKER_SCHEMA1},
        {"schemaVersion": 1},
        {"fsLayers": []},
    ],
)
def test_a6_17_schema_1_is_refused_by_name(document: object) -> None:
    with pytest.raises(UnsupportedManifest):
        read(document)


@pytest.mark.parametrize("version", [1, 3, "2", True, None])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(ContentError):
        read(image(schemaVersion=version))


def test_a6_03_other_content_than_requested_is_refused() -> None:
    data = data_of(image())
    assert read_manifest(data, digest=Digest.of(data, "sha512")).digest == Digest.of(data, "sha512")
    with pytest.raises(DigestMismatch):
        read_manifest(data, digest=Digest.of(b"other"))
    with pytest.raises(UnsupportedDigest):
        read_manifest(data, digest=Digest("blake3:" + "0" * 64))


@pytest.mark.parametrize("header", [None, "text/plain", "application/json"])
def test_a6_03_what_looks_signed_and_is_of_another_kind_is_what_its_bytes_are(header: str | None) -> None:
    """Only the digest of schema 1 is over a part of a document."""
    data = data_of(image(fsLayers_=1, signatures=[]))
    assert read_manifest(data, content_type=header, digest=Digest.of(data)).digest == Digest.of(data)
    with pytest.raises(DigestMismatch):
        read_manifest(data, content_type=header, digest=Digest.of(b"other"), schema1_size_of={}.__getitem__)


def test_a5_16_inline_data_is_verified() -> None:
    text = base64.b64encode(b"inline").decode()
    assert read(image(config=descriptor(b"inline", data=text))).config.inline == b"inline"
    for lie in (descriptor(b"other!", data=text), descriptor(b"inline", data=base64.b64encode(b"lie").decode())):
        with pytest.raises(DigestMismatch):
            read(image(config=lie))
    with pytest.raises(DigestMismatch):
        read(image(config=descriptor(b"inline", data=text, size=7)))


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (descriptor(b"inline", data=base64.b64encode(b"inline").decode()), 5),
        (descriptor(b"inline", data="eA=="), 5),
        (descriptor(b"x", data="eA==" * 4), 7),
    ],
)
def test_a5_16_inline_data_is_bounded(config: dict[str, Any], limit: int) -> None:
    with pytest.raises(InvalidManifest, match="too much"):
        read(image(config=config), limits=ManifestLimits(inline_bytes=limit))


def test_a5_16_inline_data_of_just_the_bound_is_used() -> None:
    whole = descriptor(b"inline", data=base64.b64encode(b"inline").decode())
    assert read(image(config=whole), limits=ManifestLimits(inline_bytes=6)).config.inline == b"inline"
    padded = descriptor(b"x", data="eA==")
    assert read(image(config=padded), limits=ManifestLimits(inline_bytes=2)).config.inline == b"x"


def test_a5_16_inline_data_that_cannot_be_verified_is_not_used() -> None:
    unverifiable = {**descriptor(b"x", data="eA=="), "digest": "md5:abc"}
    assert read(image(config=unverifiable)).config.inline is None


@pytest.mark.parametrize(
    ("layer", "is_foreign"),
    [
        (descriptor(b"x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), True),
        (descriptor(b"x", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), True),
        (descriptor(b"x", media_types.OCI_LAYER_GZIP, urls=["https://x.example/y"]), True),
        (descriptor(b"x", media_types.OCI_LAYER_GZIP, urls=[]), False),
        (descriptor(b"x", media_types.OCI_LAYER_GZIP), False),
    ],
)
def test_a5_17_layers_that_live_elsewhere_are_reported(layer: dict[str, Any], is_foreign: bool) -> None:
    assert read(image(layers=[layer])).layers[0].is_foreign is is_foreign


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=10,
)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(
            ["schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "subject", "artifactType"]
        ),
        _json | st.just(2) | st.sampled_from(sorted(media_types.MANIFEST_TYPES)),
    )
)
def test_any_document_is_read_or_raises_an_error_of_content(document: dict[str, Any]) -> None:
    with contextlib.suppress(ContentError):
        assert read(document).media_type in media_types.MANIFEST_TYPES


@pytest.mark.slow
@given(st.binary(max_size=200), st.text(max_size=30))
def test_any_bytes_under_any_header_raise_an_error_of_content(data: bytes, header: str) -> None:
    with contextlib.suppress(ContentError):
        read_manifest(data, content_type=header)
