"""Whatever text a server sends in a header or a body, what reads it gives a value in bounds or raises its own error.

The parsers with a module of tests of their own are tried there too; here is what has none, and what is read together.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import ManifestLimits, read_manifest
from registry_sync.domain.references import TagName, fallback_tag
from registry_sync.domain.strict_json import parse_strict_json
from registry_sync.errors import (
    ChallengeInvalid,
    ContentError,
    InvalidManifest,
    InvalidReference,
    LimitExceeded,
    ProtocolError,
    RealmRefused,
    RedirectRefused,
)
from registry_sync.oci.auth.authenticator import select_challenge
from registry_sync.oci.auth.challenges import scopes_to_request, split_scope
from registry_sync.oci.auth.credentials import Credentials, RealmPolicy
from registry_sync.oci.blobs import continues, strong_etag
from registry_sync.oci.http.origins import AddressGate, Origin, Target, is_disguised
from registry_sync.oci.http.requester import warnings_in
from registry_sync.oci.http.responses import DECODABLE, decoded
from registry_sync.oci.manifests import declared_digest

OWN = Origin("https", "registry.example", 443)
ASKED_AT = Target(OWN, "/v2/a/tags/list")


class Headers:
    """Stands in for a response where only headers are read."""

    def __init__(self, **values: str) -> None:
        self._values = {name.replace("_", "-").lower(): value for name, value in values.items()}

    def header(self, name: str) -> str | None:
        return self._values.get(name.lower())


def response(**values: str) -> Any:
    return Headers(**values)


_numbers = st.integers(0, 10**20).map(str) | st.text("0123456789 +-_٣", max_size=25)


@given(
    _numbers,
    _numbers,
    _numbers | st.just("*"),
    st.sampled_from(["bytes ", "bytes=", "Bytes ", "items ", ""]),
    st.data(),
)
def test_a5_11_any_content_range_continues_exactly_or_not_at_all(
    first: str, last: str, total: str, unit: str, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, 10**18))
    size = data.draw(st.integers(offset + 1, 10**18 + 1))
    text = f"{unit}{first}-{last}/{total}"
    if continues(response(Content_Range=text), offset, size):
        assert (int(first), int(last)) == (offset, size - 1)
        assert total == "*" or int(total) == size
    assert continues(response(Content_Range=f"bytes {offset}-{size - 1}/{size}"), offset, size) is (size <= 10**18 - 1)


@given(st.text(max_size=40))
def test_a5_11_any_entity_tag_is_strong_and_printable_or_none(text: str) -> None:
    found = strong_etag(response(ETag=text))
    assert found is None or (found.isascii() and found.isprintable() and found[0] == found[-1] == '"')


@given(st.text(max_size=100))
def test_a6_04_any_declared_digest_is_a_digest_or_none(text: str) -> None:
    found = declared_digest(response(Docker_Content_Digest=text))
    assert found is None or found == text.strip()


@given(
    st.lists(st.sampled_from(['299 - "', "x", "\\", '"', ", ", "\x07", "199 ", "\r", "é"]), max_size=30).map("".join)
)
def test_a9_09_any_warning_is_printable_text_or_none(header: str) -> None:
    assert all(text.isprintable() for text in warnings_in(header))


_challenges = st.lists(st.sampled_from(["Bearer ", "Basic ", "realm=", '"', "https://x/t", ",", "\\", "é", "//evil/"]))


@given(_challenges.map("".join))
def test_a2_04_any_challenge_is_selected_or_refused(header: str) -> None:
    with contextlib.suppress(ChallengeInvalid, ProtocolError):
        assert select_challenge(header, ASKED_AT, Credentials("alice", "secret")).scheme in ("bearer", "basic")


_parts = ("https:", "http:", "/", "//", "registry.example", "evil", "@", "#", "?", ":443", "\\", "[::1]", "é", "%")


@given(st.lists(st.sampled_from(_parts)).map("".join) | st.text(max_size=60))
def test_a3_02_a_secret_goes_to_the_registry_itself_whatever_the_realm_is(realm: str) -> None:
    with contextlib.suppress(RealmRefused):
        target = RealmPolicy(OWN, frozenset(), allow_insecure=False).check(realm, ASKED_AT, has_secret=True)
        assert target.origin == OWN
        assert "#" not in target.path


@given(st.text("0123456789abcdefx.:[]%-", max_size=30) | st.text(max_size=30))
def test_a3_04_any_host_is_judged(host: str) -> None:
    is_disguised(host)
    with contextlib.suppress(RedirectRefused):
        AddressGate("registry.example").check_name(host)


@given(st.text(max_size=80))
def test_a4_11_no_scope_requests_more_than_reading_the_repository(offered: str) -> None:
    for scope in scopes_to_request(offered, "repository:library/demo:pull"):
        _, name, actions = split_scope(scope)
        assert (name, actions) == ("library/demo", {"pull"})


@given(st.sampled_from(sorted(DECODABLE)), st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 200))
def test_a5_07_any_bytes_decode_within_bounds_or_not_at_all(encoding: str, chunks: list[bytes], limit: int) -> None:
    with contextlib.suppress(zlib.error, LimitExceeded, ContentError):
        assert len(b"".join(decoded(chunks, encoding, limit))) <= limit


_algorithms = st.text("abcxyz0189+._-", min_size=1, max_size=60)


@given(_algorithms, st.text("abcABC019=_-", min_size=1, max_size=120))
def test_a8_03_every_digest_has_a_fallback_tag(algorithm: str, encoded: str) -> None:
    try:
        digest = Digest(f"{algorithm}:{encoded}")
    except InvalidReference:
        return
    tag = fallback_tag(digest)
    assert TagName(tag) == tag
    assert len(tag) <= 32 + 1 + 64


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=5), _json, max_size=5))
def test_a6_08_any_object_is_read_as_what_was_written(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    assert parse_strict_json(data, Digest.of(data)) == document


@given(st.binary(max_size=60) | st.text('{}[]":,\\u0123eE+-.truefalsnNI\ufeff ', max_size=60).map(str.encode))
def test_a6_08_any_bytes_are_an_object_or_an_invalid_manifest(data: bytes) -> None:
    with contextlib.suppress(InvalidManifest):
        assert isinstance(parse_strict_json(data, Digest.of(data)), dict)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"b":['])
def test_a6_08_any_depth_is_read_or_refused(opening: str) -> None:
    for depth in (10, 500, 1500, 20_000, 200_000):
        with contextlib.suppress(InvalidManifest):
            read_manifest(b'{"x": ' + opening.encode() * depth, limits=ManifestLimits(manifest_bytes=1 << 24))


_LIMITS = ManifestLimits(layers=3, entries=3, inline_bytes=20, blob_bytes=10**6)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([media_types.OCI_LAYER_GZIP, "", "x"]) | _json,
        "digest": st.sampled_from([str(Digest.of(b"x")), "md5:x", "sha256:../x", f"sha256:{'A' * 64}"]) | _json,
        "size": st.integers(-2, 10**7) | _json,
        "urls": st.lists(st.text(max_size=8), max_size=2) | _json,
        "annotations": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2) | _json,
        "platform": st.dictionaries(st.sampled_from(["os", "architecture", "variant"]), _json, max_size=3) | _json,
        "data": st.sampled_from(["eA==", "eA", "%%", "e" * 60]) | _json,
        "artifactType": _json,
    },
)
_whole = {"mediaType": "x/y", "digest": str(Digest.of(b"x")), "size": 1}
_descriptors = _fields.map(lambda fields: {**_whole, **fields})


@pytest.mark.slow
@given(_descriptors, st.lists(_descriptors, max_size=4), st.sampled_from(sorted(media_types.MANIFEST_TYPES)))
def test_a6_09_any_descriptor_is_read_within_its_limits_or_refused(
    config: dict[str, Any], entries: list[dict[str, Any]], media_type: str
) -> None:
    document = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": entries}
    if media_type in media_types.INDEX_TYPES:
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    with contextlib.suppress(ContentError):
        manifest = read_manifest(json.dumps(document).encode(), limits=_LIMITS)
        read = [*manifest.layers, *manifest.children, *([manifest.config] if manifest.config else [])]
        assert len(manifest.layers) <= 3
        assert len(manifest.children) <= 3
        for descriptor in read:
            assert 0 <= descriptor.size_bytes <= 10**6
            assert descriptor.inline is None or descriptor.digest.matches(descriptor.inline)
