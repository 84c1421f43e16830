"""The running hash of a blob knows what it was at each mark, however the bytes came."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.blobs.resume.resumable_files import PrefixHash, ResumableFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, UnsupportedDigest


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


DIGEST = Digest.of(b"0123456789")


def _failing(number: int) -> object:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(("number", "is_kept"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EIO, True)])
def test_what_was_written_frees_a_full_disk_and_outlives_any_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, is_kept: bool
) -> None:
    resumable = ResumableFolder(tmp_path, 1).acquire(DIGEST, 10, lambda: False)
    assert resumable is not None
    resumable.append(b"01234")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _failing(number))
        with pytest.raises(BlobStoreError if is_kept else BlobStoreFull):
            resumable.append(b"56789") if call == "write" else resumable.flush()
    assert resumable.path.exists() == is_kept
    if is_kept:
        resumable.leave()
        assert ResumableFolder(tmp_path, 1).read(DIGEST, 10) == b"01234"


def test_a_temporary_file_that_is_kept_shorter_than_written_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 3))
    with pytest.raises(BlobStoreError, match="keeps 3 bytes of a file to which 10 were written"):
        ResumableFolder(tmp_path, 1).write_temporary(b"0123456789", is_durable=True)
    assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_locked_each_writer_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", _failing(errno.ENOLCK))
    folder = ResumableFolder(tmp_path, 1)
    one, other = (folder.acquire(DIGEST, 10, lambda: False) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.path != other.path
    for resumable in (one, other):
        resumable.discard()
