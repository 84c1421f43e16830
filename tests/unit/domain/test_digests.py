"""Digests are checked when they are parsed and verify what can be verified."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.digests import Digest
from registry_sync.errors import InvalidReference, UnsupportedDigest

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}", f"blake3:{HEX}", "md5:abc", "sha256+b64u:LCa0a2j_xo=", "a.b-c_d:x"]
)
def test_a1_04_digests(text: str) -> None:
    assert Digest(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "sha256:", f":{HEX}", f"sha256:{HEX.upper()}", f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"SHA256:{HEX}",
     f"sha256:{HEX}\n", "sha256:../x", "md5:../x", "md5:a/b", "a++b:x",
     "x" * 256 + ":y", f"sha512:{HEX}", None, 7, b"a"],
)  # fmt: skip
def test_a1_04_anything_else_is_no_digest(text: object) -> None:
    with pytest.raises(InvalidReference):
        Digest(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_content_is_verified_with_the_digests_own_algorithm(algorithm: str) -> None:
    digest = Digest.of(b"data", algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}"
    assert digest.is_verifiable
    assert digest.matches(b"data")
    assert not digest.matches(b"other")


@pytest.mark.parametrize("text", [f"blake3:{HEX}", "md5:abc", "sha1:abc", "sha256+b64u:x"])
def test_a1_05_what_cannot_be_verified_is_reported_and_never_mistaken_for_good(text: str) -> None:
    digest = Digest(text)
    assert not digest.is_verifiable
    with pytest.raises(UnsupportedDigest):
        digest.matches(b"data")


def test_parts_and_copies() -> None:
    digest = Digest("sha256+b64u:a=b")
    assert (digest.algorithm, digest.encoded) == ("sha256+b64u", "a=b")
    assert Digest(digest) is digest
    assert pickle.loads(pickle.dumps(digest)) == digest


@given(st.binary(max_size=100))
def test_every_content_matches_its_own_digest(data: bytes) -> None:
    assert Digest.of(data).matches(data)


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_is_made_of_its_bytes(value: bytes) -> None:
    made = Digest.of_sha256(value)
    assert type(made) is Digest
    assert made == Digest(f"sha256:{value.hex()}")
