"""What is particular to blobs on a file system: where they lie, and how writers meet."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.blobs.layout import FolderEntry, published
from registry_sync.blobs.local import LocalBlobStore
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError
from support.blob_stores import LARGE, MEBIBYTE, SMALL, put, stored
from support.images import Blob


def test_a_blob_lies_under_its_algorithm_and_its_first_two_characters(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(1, SMALL)
    put(store, blob)
    encoded = blob.digest.encoded
    assert (tmp_path / "sha256" / encoded[:2] / encoded).read_bytes() == blob.data
    assert store.path(blob.digest) == tmp_path / "sha256" / encoded[:2] / encoded


def test_unknown_files_are_no_blobs(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(2, SMALL)
    put(store, blob)
    store.path(blob.digest).with_name("README").write_text("not a blob")
    (tmp_path / "lost+found").mkdir()
    assert list(store.digests()) == [blob.digest]


def test_a_link_that_leads_nowhere_is_reported_and_stops_no_listing(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(8, SMALL)
    put(store, blob)
    encoded = Blob.random(9, SMALL).digest.encoded
    (tmp_path / "sha256" / encoded[:2]).mkdir(exist_ok=True)
    (tmp_path / "sha256" / encoded[:2] / encoded).symlink_to(tmp_path / "nowhere")
    assert list(store.digests()) == [blob.digest]
    assert list(store.unknown_files()) == [f"sha256/{encoded[:2]}/{encoded}"]


def test_a_blob_that_was_moved_and_linked_to_is_a_blob_of_its_size(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path / "blobs"), Blob.random(10, SMALL)
    put(store, blob)
    store.path(blob.digest).rename(tmp_path / "moved")
    store.path(blob.digest).symlink_to(tmp_path / "moved")
    assert [(entry.digest, entry.size_bytes) for entry in store.entries()] == [(blob.digest, SMALL)]


def test_a_folder_in_the_place_of_a_blob_is_none_and_cannot_be_deleted(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(12, SMALL)
    store.path(blob.digest).mkdir(parents=True)
    assert not store.has(blob.digest)
    with pytest.raises(BlobStoreError, match=blob.digest.encoded):
        store.delete(blob.digest)
    with pytest.raises(BlobStoreError, match=blob.digest.encoded):
        put(store, blob)
    assert [path.name for path in (tmp_path / ".partials").iterdir() if path.suffix == ".tmp"] == []


def test_a_folder_that_cannot_be_listed_hides_none_of_the_others(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    blobs = sorted((Blob.random(seed, SMALL) for seed in range(20, 24)), key=lambda blob: blob.digest)
    for blob in blobs:
        put(store, blob)
    closed = f"sha256/{blobs[1].digest.encoded[:2]}"

    def children(folder: str) -> Iterator[FolderEntry]:
        if folder == closed:
            raise BlobStoreError("permission denied")
        return iter(store._children(folder))

    met: list[str] = []
    found = [entry.digest for entry in published(children, lambda folder, _problem: met.append(folder))]
    assert found == [blob.digest for blob in blobs if blob is not blobs[1]]
    assert met == [closed]
    with pytest.raises(BlobStoreError, match="permission denied"):
        list(published(children))


def test_an_unknown_folder_is_not_looked_into(tmp_path: Path) -> None:
    for name in ("lost+found/deep/file", f"sha256/{'a' * 2}/{'a' * 64}/file"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("not a blob")
    assert sorted(LocalBlobStore(tmp_path).unknown_files()) == ["lost+found", f"sha256/aa/{'a' * 64}"]


def test_a_file_of_the_wrong_size_under_a_digest_is_replaced(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(3, SMALL)
    put(store, blob)
    store.path(blob.digest).write_bytes(b"cut")
    assert not store.has(blob.digest, SMALL)
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_a_writer_of_a_stored_blob_requires_no_bytes(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(4, LARGE)
    put(store, blob)
    with store.writer(blob.digest, LARGE) as writer:
        assert writer.offset == LARGE
        writer.restart()
        writer.commit()
        writer.discard()
    assert stored(store, blob) == blob.data


def test_a_writer_does_not_wait_for_one_that_stands_still(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path, patience_seconds=0.1), Blob.random(5, LARGE)
    with store.writer(blob.digest, LARGE) as first:
        first.write(blob.data[:MEBIBYTE])
        with store.writer(blob.digest, LARGE) as second:
            assert second.offset == 0
            second.write(blob.data)
            second.commit()
        assert stored(store, blob) == blob.data
        first.write(blob.data[MEBIBYTE:])
        first.commit()
    assert stored(store, blob) == blob.data
    assert list((tmp_path / ".partials").iterdir()) == []


def test_what_a_second_writer_left_unfinished_is_not_kept(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path, patience_seconds=0.1), Blob.random(6, LARGE)
    with store.writer(blob.digest, LARGE) as first:
        first.write(blob.data[:MEBIBYTE])
        with store.writer(blob.digest, LARGE) as second:
            second.write(blob.data[:10])
    with store.writer(blob.digest, LARGE) as third:
        assert third.offset == MEBIBYTE


def test_a_sweep_leaves_a_temporary_that_is_new(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    temporary = tmp_path / ".partials" / "0123.tmp"
    temporary.parent.mkdir()
    temporary.write_bytes(b"being written")
    assert store.sweep_resumables(0) == 0
    os.utime(temporary, (time.time() - 120,) * 2)
    assert store.sweep_resumables(0) == 1
    assert not temporary.exists()


def test_a_sweep_takes_what_a_killed_process_left_of_an_unpublished_blob(tmp_path: Path) -> None:
    store, blob = LocalBlobStore(tmp_path), Blob.random(7, LARGE)
    with store.writer(blob.digest, LARGE) as writer:
        writer.write(b"left")
    assert store.sweep_resumables(0) == 1
    with store.writer(blob.digest, LARGE) as writer:
        assert writer.offset == 0


def test_a_file_that_somebody_else_wrote_into_is_not_published(tmp_path: Path) -> None:
    """Where locks have no effect, two processes may write into one file, which then has more bytes than were hashed."""
    store, blob = LocalBlobStore(tmp_path), Blob.random(11, LARGE)
    with store.writer(blob.digest, LARGE) as writer:
        writer.write(blob.data)
        (partial,) = (tmp_path / ".partials").iterdir()
        with partial.open("ab") as file:
            file.write(b"of another")
        with pytest.raises(BlobStoreError, match=f"keeps {LARGE + 10:,} bytes"):
            writer.commit()
    assert not store.has(blob.digest)
    assert list((tmp_path / ".partials").iterdir()) == []
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_one_resumable_download_that_cannot_be_removed_keeps_no_sweep_from_the_others(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    (tmp_path / ".partials" / "sha256-aa").mkdir(parents=True)
    for name in ("sha256-00", "sha256-bb"):
        (tmp_path / ".partials" / name).write_bytes(b"left")
    with pytest.raises(
        BlobStoreError, match=r"1 resumable downloads could not be removed; any others were: .*sha256-aa"
    ):
        store.sweep_resumables(0)
    assert [path.name for path in (tmp_path / ".partials").iterdir()] == ["sha256-aa"]


@pytest.mark.slow
@given(data=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000)), stops=st.sets(st.integers(0, 5)))
def test_however_the_bytes_arrive_the_blob_is_the_same(data: bytes, cuts: list[int], stops: set[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with TemporaryDirectory() as folder:
        store, digest = LocalBlobStore(folder), Digest.of(data)
        writer = store.writer(digest, len(data))
        for number, (begin, end) in enumerate(itertools.pairwise(edges)):
            if number in stops:
                writer.__exit__(None, None, None)
                writer = store.writer(digest, len(data))
            assert writer.offset == begin
            writer.write(data[begin:end])
        with writer:
            writer.commit()
        assert store.path(digest).read_bytes() == data
