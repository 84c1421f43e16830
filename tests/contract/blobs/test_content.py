"""What every store gives back, and what it never takes."""

from __future__ import annotations

import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobMissing, DigestMismatch, SizeMismatch, TruncatedBody, UnsupportedDigest
from support.blob_stores import LARGE, MEBIBYTE, PARTED, SIZES, SMALL, Place, put, stored
from support.images import Blob

EDGES = (0, 1, SMALL, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, LARGE, PARTED)


@pytest.mark.parametrize("size_bytes", EDGES)
def test_a_blob_of_any_size_is_given_back_as_it_was_written(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(size_bytes, size_bytes)
    put(store, blob)
    assert stored(store, blob) == blob.data
    assert store.size(blob.digest) == size_bytes
    assert store.has(blob.digest)
    assert store.has(blob.digest, size_bytes)
    assert not store.has(blob.digest, size_bytes + 1)
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_sha512_blob_is_stored_like_any_other(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.of(Blob.random(1, size_bytes).data, "sha512")
    put(store, blob)
    assert stored(store, blob) == blob.data
    assert list(store.digests()) == [blob.digest]


def test_a_digest_that_cannot_be_verified_is_refused_before_a_byte_is_written(store: BlobStore) -> None:
    for size_bytes in SIZES.values():
        with pytest.raises(UnsupportedDigest):
            store.writer(Digest(f"blake3:{'a' * 64}"), size_bytes)


def test_a_chunk_may_be_a_view_of_a_buffer_that_is_used_again(store: BlobStore) -> None:
    blob = Blob.random(2, LARGE)
    buffer = bytearray(100_000)
    with store.writer(blob.digest, LARGE) as writer:
        for start in range(0, LARGE, len(buffer)):
            piece = blob.data[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            writer.write(memoryview(buffer)[: len(piece)])
        writer.commit()
    assert stored(store, blob) == blob.data


def test_a_stored_blob_can_be_sought_in(store: BlobStore) -> None:
    blob = Blob.random(3, LARGE)
    put(store, blob)
    with store.open(blob.digest) as file:
        file.seek(MEBIBYTE)
        assert file.read(10) == blob.data[MEBIBYTE : MEBIBYTE + 10]


def test_two_readers_of_one_blob_do_not_disturb_each_other(store: BlobStore) -> None:
    blob = Blob.random(4, SMALL)
    put(store, blob)
    with store.open(blob.digest) as one, store.open(blob.digest) as other:
        assert one.read(10) == other.read(10) == blob.data[:10]


@pytest.mark.rule("A5.8")
@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_nothing_is_under_the_digest_until_commit(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(5, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data)
        assert not store.has(blob.digest)
        assert list(store.digests()) == []
        with pytest.raises(BlobMissing):
            store.open(blob.digest)
        writer.commit()
        assert store.has(blob.digest)


@pytest.mark.rule("A5.8")
@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_other_bytes_than_the_digest_says_are_refused_and_forgotten(
    store: BlobStore, place: Place, size_bytes: int
) -> None:
    blob, other = Blob.random(6, size_bytes), Blob.random(7, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(other.data)
        with pytest.raises(DigestMismatch) as caught:
            writer.commit()
        assert writer.offset == 0
    assert (caught.value.digest, caught.value.got) == (blob.digest, other.digest)
    assert not store.has(blob.digest)
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_after_wrong_bytes_the_same_writer_takes_the_right_ones(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(8, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(bytes(size_bytes))
        with pytest.raises(DigestMismatch):
            writer.commit()
        writer.write(blob.data)
        writer.commit()
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_chunk_past_the_size_is_refused_whole(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(9, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data[:-1])
        with pytest.raises(SizeMismatch) as caught:
            writer.write(blob.data[-1:] + b"x")
        assert writer.offset == size_bytes - 1
        assert (caught.value.expected, caught.value.got) == (size_bytes, size_bytes + 1)
        writer.write(blob.data[-1:])
        writer.commit()
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_blob_that_is_too_short_is_not_published_and_is_kept(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(10, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data[:-1])
        with pytest.raises(TruncatedBody) as caught:
            writer.commit()
    assert caught.value.is_temporary
    assert not store.has(blob.digest)
    with store.writer(blob.digest, size_bytes) as writer:
        assert writer.offset == size_bytes - 1


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_size_that_is_too_small_for_the_content_publishes_nothing(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(11, size_bytes)
    with store.writer(blob.digest, size_bytes - 1) as writer:
        writer.write(blob.data[:-1])
        with pytest.raises(DigestMismatch):
            writer.commit()
    assert not store.has(blob.digest)


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_committing_again_changes_nothing(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(12, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data)
        writer.commit()
        writer.commit()
        assert writer.offset == size_bytes
        with pytest.raises(SizeMismatch):
            writer.write(b"x")
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_blob_that_exists_may_be_written_again(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(13, size_bytes)
    put(store, blob)
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_a_missing_blob_is_missing_everywhere(store: BlobStore) -> None:
    digest = Digest.of(b"never written")
    assert not store.has(digest)
    assert not store.delete(digest)
    assert list(store.digests()) == []
    for ask in (store.open, store.size):
        with pytest.raises(BlobMissing, match=str(digest)):
            ask(digest)


def test_a_deleted_blob_is_gone_and_can_come_back(store: BlobStore) -> None:
    blob = Blob.random(14, SMALL)
    put(store, blob)
    assert store.delete(blob.digest)
    assert not store.has(blob.digest)
    assert not store.delete(blob.digest)
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_digests_lists_what_is_published_and_nothing_else(store: BlobStore) -> None:
    blobs = [Blob.random(seed, SMALL) for seed in range(20, 30)] + [Blob.random(30, LARGE)]
    for blob in blobs:
        put(store, blob)
    unfinished = Blob.random(31, LARGE)
    with store.writer(unfinished.digest, LARGE) as writer:
        writer.write(unfinished.data[:MEBIBYTE])
        assert sorted(store.digests()) == sorted(blob.digest for blob in blobs)
    assert sorted(store.digests()) == sorted(blob.digest for blob in blobs)


def test_another_store_at_the_same_place_has_the_same_blobs(store: BlobStore, place: Place) -> None:
    blob = Blob.random(15, SMALL)
    put(store, blob)
    assert stored(place.open(), blob) == blob.data


def test_a_store_says_in_its_repr_where_it_is(store: BlobStore, place: Place) -> None:
    assert place.url.removeprefix("file://") in repr(store)
