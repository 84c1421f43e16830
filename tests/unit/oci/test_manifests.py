"""Manifests are the bytes that were sent, under the digest that those bytes have."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, ManifestLimits
from registry_sync.domain.references import TagName
from registry_sync.errors import (
    AccessDenied,
    DigestMismatch,
    InvalidManifest,
    LimitExceeded,
    MediaTypeMismatch,
    NotFound,
    ProtocolError,
    RateLimited,
    RepositoryUnavailable,
    SizeMismatch,
    UnsupportedDigest,
    UnsupportedManifest,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.rate_limits import RateLimit
from support.hostile_registry import Raw, errors_reply, reply
from support.oci import REPOSITORY, FakeTime

TAG = TagName("latest")
CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
IMAGE = json.dumps(
    {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": CONFIG, "layers": []}, indent=3
).encode()
DIGEST = Digest.of(IMAGE)
SPACED = b" \n" + IMAGE
BY_TAG = f"/v2/{REPOSITORY}/manifests/{TAG}"
BY_DIGEST = f"/v2/{REPOSITORY}/manifests/{DIGEST}"
READY = Credentials(registry_token="ready-token")


def manifest(
    data: bytes = IMAGE, *headers: tuple[str, str], content_type: str | None = media_types.OCI_MANIFEST
) -> Raw:
    return reply(200, data, headers, content_type=content_type)


def declared(digest: str) -> tuple[str, str]:
    return ("Docker-Content-Digest", digest)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a6_01_all_kinds_are_accepted_in_one_header_and_nothing_else(registry, client_of, method: str) -> None:
    registry.on(method, BY_TAG, manifest())
    client = client_of(registry)
    client.get_manifest(REPOSITORY, TAG) if method == "GET" else client.head_manifest(REPOSITORY, TAG)
    (asked,) = registry.requests
    values = [value for name, value in asked.headers if name == "accept"]
    assert values == [", ".join(media_types.ACCEPTED_MANIFEST_TYPES)]
    assert {media_types.OCI_INDEX, media_types.DOCKER_LIST} < set(values[0].split(", "))
    assert "*/*" not in values[0]
    assert asked.header("accept-encoding") == "identity"


def test_a6_02_a_manifest_over_the_limit_is_not_read(registry, client_of) -> None:
    client = client_of(registry, limits=ManifestLimits(manifest_bytes=1000))
    registry.on("GET", BY_TAG, reply(200, b"{}", length=2_000_000_000, cut=True))
    with pytest.raises(LimitExceeded):
        client.get_manifest(REPOSITORY, TAG)
    registry.on("GET", BY_TAG, reply(200, b"x" * 3_000_000, length=None))
    with pytest.raises(LimitExceeded):
        client.get_manifest(REPOSITORY, TAG)


def test_a6_02_a_body_longer_than_declared_ends_where_it_was_declared_to(registry, client_of) -> None:
    registry.on("GET", BY_TAG, reply(200, IMAGE + b"x" * 1000, length=len(IMAGE), cut=True))
    assert client_of(registry).get_manifest(REPOSITORY, TAG).data == IMAGE


def test_a6_03_the_bytes_are_kept_and_the_digest_is_theirs(registry, client_of) -> None:
    registry.on("GET", BY_TAG, manifest())
    client = client_of(registry)
    found = client.get_manifest(REPOSITORY, TAG)
    assert (found.data, found.digest, found.media_type) == (IMAGE, DIGEST, media_types.OCI_MANIFEST)
    assert client.usage.counts().manifest_get_count == 1
    assert client.usage.counts().received_bytes == len(IMAGE)


def test_a6_03_other_bytes_than_were_requested_are_fetched_once_more_and_then_refused(registry, client_of) -> None:
    registry.on("GET", BY_DIGEST, manifest(IMAGE + b" "), manifest())
    assert client_of(registry).get_manifest(REPOSITORY, DIGEST).data == IMAGE
    registry.on("GET", BY_DIGEST, manifest(IMAGE + b" "))
    with pytest.raises(DigestMismatch) as raised:
        client_of(registry).get_manifest(REPOSITORY, DIGEST)
    assert raised.value.digest == DIGEST
    assert len(registry.requests) == 4


def test_a6_03_a_sha512_digest_is_verified_with_sha512(registry, client_of) -> None:
    digest = Digest.of(IMAGE, "sha512")
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", manifest())
    assert client_of(registry).get_manifest(REPOSITORY, digest).digest == digest


def test_a1_05_a_digest_that_cannot_be_verified_is_refused(registry, client_of) -> None:
    digest = Digest("blake3:" + "0" * 64)
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", manifest())
    with pytest.raises(UnsupportedDigest):
        client_of(registry).get_manifest(REPOSITORY, digest)


@pytest.mark.parametrize("value", [None, "sha256:ZZ", "", "sha512:" + "0" * 128, f"{DIGEST}, {DIGEST}"])
def test_a6_04_a_declared_digest_may_be_missing_broken_or_of_another_algorithm(
    registry, client_of, value: str | None
) -> None:
    registry.on("GET", BY_DIGEST, manifest(IMAGE, *([declared(value)] if value is not None else [])))
    assert client_of(registry).get_manifest(REPOSITORY, DIGEST).digest == DIGEST


def test_a6_04_a_lying_header_is_refused_by_digest_and_outvoted_by_tag(
    registry, client_of, caplog: pytest.LogCaptureFixture
) -> None:
    lie = declared("sha256:" + "0" * 64)
    registry.on("GET", BY_DIGEST, manifest(IMAGE, lie))
    registry.on("GET", BY_TAG, manifest(IMAGE, lie))
    with pytest.raises(DigestMismatch, match="declares"):
        client_of(registry).get_manifest(REPOSITORY, DIGEST)
    assert client_of(registry).get_manifest(REPOSITORY, TAG).digest == DIGEST
    assert "the digest of the bytes is used" in caplog.text
    assert client_of(registry, strict_digest_header=False).get_manifest(REPOSITORY, DIGEST).digest == DIGEST


def test_a6_05_a_head_says_what_the_registry_says(registry, client_of) -> None:
    registry.on(
        "HEAD", BY_TAG, manifest(IMAGE, declared(DIGEST), content_type=f"{media_types.OCI_MANIFEST}; charset=x")
    )
    client = client_of(registry)
    head = client.head_manifest(REPOSITORY, TAG)
    assert (head.digest, head.media_type, head.size_bytes) == (DIGEST, media_types.OCI_MANIFEST, len(IMAGE))
    assert client.usage.counts().head_count == 1


@pytest.mark.parametrize("headers", [[], [declared("sha256:ZZ")], [declared("../../etc/passwd")]])
def test_a6_04_a_head_without_usable_digest_has_none(registry, client_of, headers: list[tuple[str, str]]) -> None:
    registry.on("HEAD", BY_TAG, reply(200, b"", headers, length=None))
    head = client_of(registry).head_manifest(REPOSITORY, TAG)
    assert (head.digest, head.size_bytes) == (None, None)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream", None])
def test_a6_06_a_header_that_says_nothing_leaves_the_body_to_speak(
    registry, client_of, content_type: str | None
) -> None:
    registry.on("GET", BY_TAG, manifest(content_type=content_type))
    assert client_of(registry).get_manifest(REPOSITORY, TAG).media_type == media_types.OCI_MANIFEST


def test_a6_06_a_header_that_names_another_kind_is_refused(registry, client_of) -> None:
    registry.on("GET", BY_TAG, manifest(content_type=media_types.OCI_INDEX))
    with pytest.raises(MediaTypeMismatch):
        client_of(registry).get_manifest(REPOSITORY, TAG)


def test_a6_06_a_child_of_another_size_than_its_descriptor_says_is_refused(registry, client_of) -> None:
    registry.on("GET", BY_DIGEST, manifest())
    expected = Descriptor(media_types.OCI_MANIFEST, DIGEST, len(IMAGE) + 1)
    with pytest.raises(SizeMismatch):
        client_of(registry).get_manifest(REPOSITORY, DIGEST, expected=expected)
    good = Descriptor(media_types.OCI_MANIFEST, DIGEST, len(IMAGE))
    assert client_of(registry).get_manifest(REPOSITORY, DIGEST, expected=good).digest == DIGEST


def test_a6_17_schema_1_is_refused_by_name(registry, client_of) -> None:
    old = json.dumps({"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []}).encode()
    registry.on("GET", BY_TAG, manifest(old, content_type=media_types.DOCKER_SCHEMA1_SIGNED))
    with pytest.raises(UnsupportedManifest, match="schema 1"):
        client_of(registry).get_manifest(REPOSITORY, TAG)


def encoded(data: bytes, encoding: str) -> Raw:
    return manifest(data, ("Content-Encoding", encoding))


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (gzip.compress(IMAGE), "gzip"),
        (gzip.compress(IMAGE), "x-gzip"),
        (zlib.compress(IMAGE), "deflate"),
        (IMAGE, "gzip"),
        (IMAGE, "deflate"),
        (IMAGE, "br"),
        (IMAGE, "identity"),
        (IMAGE, "gzip, br"),
        (SPACED, "br"),
    ],
)
@pytest.mark.parametrize("reference", [TAG, DIGEST])
def test_a5_07_an_encoding_that_was_not_requested_is_undone_or_was_never_there(
    registry, client_of, data: bytes, encoding: str, reference: Any
) -> None:
    meant = SPACED if data is SPACED else IMAGE
    reference = Digest.of(meant) if isinstance(reference, Digest) else reference
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{reference}", encoded(data, encoding))
    assert client_of(registry).get_manifest(REPOSITORY, reference).data == meant


def test_a5_07_a_bomb_is_not_unpacked(registry, client_of) -> None:
    registry.on("GET", BY_TAG, encoded(gzip.compress(b" " * 50_000_000), "gzip"))
    with pytest.raises(LimitExceeded):
        client_of(registry).get_manifest(REPOSITORY, TAG)


def test_a5_07_an_encoding_that_cannot_be_undone_is_an_error(registry, client_of) -> None:
    for data, encoding in ((b"\x00brotli", "br"), (gzip.compress(IMAGE), "gzip, br")):
        registry.on("GET", BY_TAG, encoded(data, encoding))
        with pytest.raises(ProtocolError, match="encodes a manifest"):
            client_of(registry).get_manifest(REPOSITORY, TAG)
    registry.on("GET", BY_TAG, encoded(b"neither", "gzip"))
    with pytest.raises(InvalidManifest):
        client_of(registry).get_manifest(REPOSITORY, TAG)


def test_a9_02_a_missing_manifest_is_distinguished_from_a_missing_repository(registry, client_of) -> None:
    for code, kind in (("MANIFEST_UNKNOWN", "manifest"), ("NAME_UNKNOWN", "repository"), ("UNKNOWN", "manifest")):
        registry.on("GET", BY_TAG, errors_reply(404, code))
        with pytest.raises(NotFound) as raised:
            client_of(registry).get_manifest(REPOSITORY, TAG)
        assert (raised.value.kind, raised.value.codes) == (kind, (code,))
    registry.on("HEAD", BY_TAG, reply(404))
    with pytest.raises(NotFound) as raised:
        client_of(registry).head_manifest(REPOSITORY, TAG)
    assert raised.value.kind == "manifest"


@pytest.mark.parametrize("reference", [TAG, DIGEST])
def test_a9_02_errors_under_status_200_are_an_error_of_the_registry(registry, client_of, reference: Any) -> None:
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{reference}", errors_reply(200, "MANIFEST_UNKNOWN", "gone"))
    with pytest.raises(ProtocolError, match="200 with errors") as raised:
        client_of(registry).get_manifest(REPOSITORY, reference)
    assert (raised.value.status, raised.value.codes) == (200, ("MANIFEST_UNKNOWN",))
    assert len(registry.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a6_20_nothing_is_requested_conditionally_and_an_unrequested_304_is_no_manifest(
    registry, client_of, method: str
) -> None:
    registry.on(method, BY_TAG, manifest(IMAGE, ("ETag", f'"{DIGEST}"')), reply(304, content_type=None))
    client = client_of(registry)
    ask = client.get_manifest if method == "GET" else client.head_manifest
    ask(REPOSITORY, TAG)
    with pytest.raises(ProtocolError) as raised:
        ask(REPOSITORY, TAG)
    assert raised.value.status == 304
    asked = {name for request in registry.requests for name, _ in request.headers}
    assert not {"if-none-match", "if-modified-since"} & asked


def test_a9_01_a_refused_head_is_requested_once_more_by_get_to_learn_why(registry, client_of) -> None:
    registry.on("HEAD", BY_TAG, reply(403))
    registry.on("GET", BY_TAG, errors_reply(403, "DENIED", "billing is overdue"))
    client = client_of(registry, READY)
    with pytest.raises(AccessDenied, match="billing is overdue") as raised:
        client.head_manifest(REPOSITORY, TAG)
    assert (client.usage.counts().head_count, client.usage.counts().manifest_get_count) == (1, 1)
    assert raised.value.codes == ("DENIED",)
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]
    with pytest.raises(RepositoryUnavailable):
        client_of(registry).head_manifest(REPOSITORY, TAG)


def test_a9_06_the_rate_limit_is_read_and_its_floor_respected(registry, client_of, fake_time: FakeTime) -> None:
    limit = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "20;w=21600")]
    registry.on("HEAD", BY_TAG, reply(200, b"", limit))
    registry.on("GET", BY_TAG, manifest())
    client = client_of(registry, rate_limit_floor=21)
    client.head_manifest(REPOSITORY, TAG)
    assert client.usage.rate_limit == RateLimit(20, 100, 21600)
    with pytest.raises(RateLimited, match="20 more pulls") as raised:
        client.get_manifest(REPOSITORY, TAG)
    assert raised.value.retry_after_seconds == 21600
    assert [request.method for request in registry.requests] == ["HEAD"]
    assert fake_time.sleeps == []


@pytest.mark.parametrize(
    ("remaining", "floor", "is_refused"), [(None, 20, False), (21, 20, False), (20, 20, True), (0, None, False)]
)
def test_a9_06_pulls_continue_down_to_the_floor_and_without_one_to_the_end(
    registry, client_of, remaining: int | None, floor: int | None, is_refused: bool
) -> None:
    limit = [] if remaining is None else [("ratelimit-remaining", f"{remaining};w=21600")]
    registry.on("GET", BY_TAG, manifest(IMAGE, *limit))
    client = client_of(registry, rate_limit_floor=floor)
    client.get_manifest(REPOSITORY, TAG)
    assert client.usage.rate_limit == (None if remaining is None else RateLimit(remaining, None, 21600))
    if is_refused:
        with pytest.raises(RateLimited):
            client.get_manifest(REPOSITORY, TAG)
    else:
        client.get_manifest(REPOSITORY, TAG)
    assert len(registry.asked("GET")) == (1 if is_refused else 2)


def test_a9_09_warnings_are_kept_once_and_only_in_their_form(registry, client_of) -> None:
    good = '299 - "This tag is \\"old\\""'
    warnings = [
        good,
        good,
        '199 - "other code"',
        '299 host "other agent"',
        "299 - unquoted",
        '299 - "con\x07trol"',
        "x" * 5000,
    ]
    registry.on("GET", BY_TAG, manifest(IMAGE, *[("Warning", text) for text in warnings]))
    client = client_of(registry)
    client.get_manifest(REPOSITORY, TAG)
    client.get_manifest(REPOSITORY, TAG)
    assert client.usage.warnings == ('This tag is "old"',)


def test_a_manifest_cut_short_is_fetched_again(registry, client_of) -> None:
    registry.on("GET", BY_TAG, reply(200, IMAGE[:50], length=len(IMAGE), cut=True), manifest())
    assert client_of(registry).get_manifest(REPOSITORY, TAG).data == IMAGE
