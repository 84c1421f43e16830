"""What a collector and a verifier need: listing, deleting, setting aside, and never touching what is not ours."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.blobs.layout import blob_name
from registry_sync.blobs.store import BlobStore, StoredBlob
from registry_sync.errors import BlobMissing
from support.blob_stores import KINDS, LARGE, MEBIBYTE, SIZES, SMALL, Place, put, stored
from support.images import Blob


def test_a_listing_has_each_blob_with_its_size_and_its_time(store: BlobStore) -> None:
    began = datetime.now(timezone.utc) - timedelta(seconds=2)  # some stores know whole seconds
    blobs = [Blob.random(seed, seed * 100) for seed in range(1, 12)] + [Blob.random(12, LARGE)]
    for blob in blobs:
        put(store, blob)
    found = list(store.entries())
    assert {(entry.digest, entry.size_bytes) for entry in found} == {(blob.digest, blob.size_bytes) for blob in blobs}
    assert len(found) == len(blobs)
    assert all(began <= entry.stored_at <= datetime.now(timezone.utc) for entry in found)
    assert set(store.digests()) == {entry.digest for entry in found}


def test_an_empty_store_lists_nothing(store: BlobStore) -> None:
    assert [*store.entries(), *store.digests(), *store.quarantined(), *store.unknown_files()] == []


def test_blobs_may_be_deleted_while_they_are_listed(store: BlobStore) -> None:
    blobs = [Blob.random(seed, SMALL) for seed in range(20, 40)]
    for blob in blobs:
        put(store, blob)
    assert sum(store.delete(entry.digest) for entry in store.entries()) == len(blobs)
    assert list(store.entries()) == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_deleting_again_deletes_nothing(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(1, size_bytes)
    put(store, blob)
    assert store.delete(blob.digest)
    assert not store.delete(blob.digest)
    assert not store.delete(blob.digest, stored_before=datetime.now(timezone.utc))


def test_a_delete_leaves_what_was_stored_since_the_given_time(store: BlobStore) -> None:
    blob = Blob.random(2, SMALL)
    before = datetime.now(timezone.utc) - timedelta(seconds=2)
    put(store, blob)
    assert not store.delete(blob.digest, stored_before=before)
    assert stored(store, blob) == blob.data
    assert store.delete(blob.digest, stored_before=datetime.now(timezone.utc) + timedelta(seconds=2))
    assert not store.has(blob.digest)


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_blob_that_is_written_again_is_as_young_as_that(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(3, size_bytes)
    put(store, blob)
    (first,) = store.entries()
    deadline = time.monotonic() + 10
    while True:  # some stores know whole seconds
        put(store, blob)
        (second,) = store.entries()
        if second.stored_at > first.stored_at or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert second.stored_at > first.stored_at
    assert not store.delete(blob.digest, stored_before=second.stored_at)
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_blob_that_is_deleted_while_it_is_written_exists_in_the_end(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(4, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data[:-1])
        assert not store.delete(blob.digest)
        writer.write(blob.data[-1:])
        writer.commit()
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize("place", [kind for kind in KINDS if kind != "s3"], indirect=True)
@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_reader_of_a_blob_of_a_file_system_that_is_deleted_reads_on(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(5, size_bytes)
    put(store, blob)
    with store.open(blob.digest) as file:
        begin = file.read(10)
        store.delete(blob.digest)
        assert begin + file.read() == blob.data


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_broken_blob_that_is_quarantined_is_missing_and_kept(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(6, size_bytes)
    broken = b"broken" + blob.data[6:]
    put(store, blob)
    place.write(blob_name(blob.digest), broken)
    assert store.quarantine(blob.digest)
    assert not store.has(blob.digest)
    assert not store.has(blob.digest, size_bytes)
    assert [*store.digests(), *store.entries(), *store.unknown_files()] == []
    with pytest.raises(BlobMissing):
        store.open(blob.digest)
    (entry,) = store.quarantined()
    assert (entry.digest, entry.size_bytes) == (blob.digest, size_bytes)
    (name,) = place.names()
    assert name.startswith(".quarantine/")
    assert place.read(name) == broken


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_blob_that_was_quarantined_is_written_like_one_that_never_was(
    store: BlobStore, place: Place, size_bytes: int
) -> None:
    blob = Blob.random(7, size_bytes)
    place.write(blob_name(blob.digest), bytes(size_bytes))
    assert store.quarantine(blob.digest)
    with store.writer(blob.digest, size_bytes) as writer:
        assert writer.offset == 0
    put(store, blob)
    assert stored(store, blob) == blob.data
    assert [entry.digest for entry in store.quarantined()] == [blob.digest]


def test_what_is_missing_cannot_be_quarantined(store: BlobStore, place: Place) -> None:
    assert not store.quarantine(Blob.random(8, SMALL).digest)
    assert place.names() == []


def test_a_blob_that_breaks_again_is_quarantined_again(store: BlobStore, place: Place) -> None:
    blob = Blob.random(9, SMALL)
    for broken in (b"first", b"second time"):
        place.write(blob_name(blob.digest), broken)
        assert store.quarantine(blob.digest)
    (entry,) = store.quarantined()
    assert entry.size_bytes == len(b"second time")


def test_names_that_are_no_blobs_are_reported_and_left(store: BlobStore, place: Place) -> None:
    blob = Blob.random(10, SMALL)
    put(store, blob)
    encoded = blob.digest.encoded
    other_two = "00" if encoded[:2] != "00" else "11"
    names = [
        "README",
        "backup/of/something",
        f"blake3/{encoded[:2]}/{encoded}",
        "sha256/notes",
        f"sha256/{other_two}/{encoded}",
        f"sha256/{encoded[:2]}/{encoded[:-1]}",
        f"sha256/{encoded[:2]}/{encoded.upper()}",
        f"sha256/{encoded[:2]}/README",
        "sha256/zz/what",
    ]
    for name in names:
        place.write(name, b"not a blob")
    expected = {*names} - {"backup/of/something", f"blake3/{encoded[:2]}/{encoded}", "sha256/zz/what"}
    assert sorted(store.unknown_files()) == sorted(expected | {"backup", "blake3", "sha256/zz"})
    assert [entry.digest for entry in store.entries()] == [blob.digest]
    assert store.sweep_resumables(0) == 0
    assert {*names} <= {*place.names()}


def test_what_the_store_keeps_for_itself_is_no_unknown_file(store: BlobStore) -> None:
    blob = Blob.random(11, LARGE)
    with store.writer(blob.digest, LARGE) as writer:
        writer.write(blob.data[:MEBIBYTE])
        assert list(store.unknown_files()) == []
    assert list(store.unknown_files()) == []


def test_an_entry_can_be_taken_apart(store: BlobStore) -> None:
    blob = Blob.random(13, SMALL)
    put(store, blob)
    (entry,) = store.entries()
    digest, size_bytes, stored_at = entry
    assert StoredBlob(digest, size_bytes, stored_at) == entry
