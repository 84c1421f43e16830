"""The running hash of a blob knows what it was at each mark, however the bytes came."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.blobs.resume.resumable_files import PrefixHash
from registry_sync.domain.digests import Digest
from registry_sync.errors import UnsupportedDigest


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300)), mark_bytes=st.integers(1, 70))
def test_marks_are_the_digests_of_what_came_before(data: bytes, cuts: list[int], mark_bytes: int) -> None:
    running = PrefixHash(Digest.of(data), mark_bytes)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(edges):
        running.update(memoryview(data)[begin:end])
    ends = range(mark_bytes, len(data) + 1, mark_bytes)
    assert running.marks == [hashlib.sha256(data[:end]).hexdigest() for end in ends]
    assert running.hexdigest() == hashlib.sha256(data).hexdigest()


def test_without_marks_it_is_a_hash() -> None:
    running = PrefixHash(Digest.of(b"", "sha512"))
    running.update(b"some")
    running.update(bytearray(b" bytes"))
    assert running.marks == []
    assert running.hexdigest() == hashlib.sha512(b"some bytes").hexdigest()


def test_it_says_what_it_would_be_and_does_not_become_it() -> None:
    running = PrefixHash(Digest.of(b""), 4)
    running.update(b"abc")
    assert running.hexdigest_with(b"defg") == hashlib.sha256(b"abcdefg").hexdigest()
    assert running.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    assert running.marks == []


def test_an_algorithm_that_cannot_be_computed_is_refused() -> None:
    with pytest.raises(UnsupportedDigest):
        PrefixHash(Digest(f"blake3:{'a' * 64}"))
