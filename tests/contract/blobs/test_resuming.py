"""What was written and not published is continued: after an error, after a crash, and never by two at once."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.domain.digests import Digest
from registry_sync.errors import DigestMismatch
from support.blob_processes import writing
from support.blob_stores import KINDS, LARGE, MEBIBYTE, SIZES, SMALL, Place, put, stored
from support.images import Blob

#: Stores that another process sees; memory dies with its own.
shared = pytest.mark.parametrize("place", [kind for kind in KINDS if kind != "memory"], indirect=True)


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_writer_continues_where_the_one_before_it_broke_off(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(1, size_bytes)
    for part in range(1, 4):
        with pytest.raises(ConnectionResetError):
            _break_off(store, blob, begin=size_bytes * (part - 1) // 4, end=size_bytes * part // 4)
    put(place.open(), blob)
    assert stored(store, blob) == blob.data
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_restarted_writer_starts_at_nothing(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(2, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(b"wrong" * 10)
    with store.writer(blob.digest, size_bytes) as writer:
        assert writer.offset == 50
        writer.restart()
        assert writer.offset == 0
        writer.write(blob.data)
        writer.commit()
    assert stored(store, blob) == blob.data
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_restarted_writer_that_is_left_leaves_nothing(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(3, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(b"wrong" * 10)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.restart()
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_what_is_discarded_is_not_continued(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(4, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(b"something")
    with store.writer(blob.digest, size_bytes) as writer:
        writer.discard()
        writer.discard()
    assert place.partial_files() == []
    with store.writer(blob.digest, size_bytes) as writer:
        assert writer.offset == 0


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_writer_that_wrote_nothing_leaves_nothing(store: BlobStore, place: Place, size_bytes: int) -> None:
    with store.writer(Digest.of(b"never"), size_bytes):
        pass
    assert place.partial_files() == []


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_resumable_download_longer_than_the_blob_is_not_used(store: BlobStore, size_bytes: int) -> None:
    blob = Blob.random(5, size_bytes)
    with store.writer(blob.digest, size_bytes + 100) as writer:
        writer.write(bytes(size_bytes + 50))
    with store.writer(blob.digest, size_bytes) as writer:
        assert writer.offset == 0


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_a_resumable_download_that_was_spoilt_is_noticed_and_replaced(
    store: BlobStore, place: Place, size_bytes: int
) -> None:
    blob = Blob.random(6, size_bytes)
    with store.writer(blob.digest, size_bytes) as writer:
        writer.write(blob.data[:-100])
    (partial,) = place.partial_files()
    with partial.open("r+b") as file:
        file.write(b"spoilt")
    with pytest.raises(DigestMismatch):
        put(store, blob)
    put(store, blob)
    assert stored(store, blob) == blob.data


@pytest.mark.slow
def test_a_download_killed_in_the_middle_is_continued(store: BlobStore, place: Place) -> None:
    blob = Blob.random(7, LARGE)
    with writing(place.url, place.spool, "half", 7, LARGE, MEBIBYTE, environment=place.environment) as process:
        assert process.hear() == "offset 0"
        assert process.hear() == f"wrote {MEBIBYTE}"
        process.kill()
    assert not store.has(blob.digest)
    with store.writer(blob.digest, LARGE) as writer:
        assert writer.offset == MEBIBYTE
    put(store, blob)
    assert stored(store, blob) == blob.data
    assert place.partial_files() == []


@pytest.mark.slow
@shared
def test_whatever_is_published_when_a_process_is_killed_is_whole(place: Place) -> None:
    store = place.open()
    for attempt, delay in enumerate((0.0, 0.003, 0.011, 0.023)):
        size = (SMALL, MEBIBYTE + 7)[attempt % 2]
        seed = 100 * attempt + 100
        before = set(store.digests())
        with writing(place.url, place.spool, "many", seed, size, 90, environment=place.environment) as process:
            first = process.hear()
            time.sleep(delay)
            process.kill()
            reported = [first, *process.rest()]
        there, published = set(store.digests()), set()
        for blob in (Blob.random(seed + number, size) for number in range(90)):
            if blob.digest not in there:
                break  # none of those that would have followed is
            assert stored(store, blob) == blob.data
            published.add(blob.digest)
        assert {Digest(line.split()[1]) for line in reported if line.startswith("published")} <= published
        assert there - before == published


@shared
def test_a_second_writer_waits_for_the_first_and_finds_the_blob_published(place: Place) -> None:
    blob = Blob.random(8, LARGE)
    store = place.open()
    with writing(place.url, place.spool, "half", 8, LARGE, MEBIBYTE, environment=place.environment) as process:
        process.hear()
        process.hear()
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(_offset_found, store, blob)
            time.sleep(0.2)
            assert not second.done()
            process.go_on()
            assert second.result(timeout=30) == LARGE
        assert process.hear() == "published"
    assert stored(store, blob) == blob.data


def test_a_second_writer_continues_where_a_first_one_was_killed(store: BlobStore, place: Place) -> None:
    blob = Blob.random(9, LARGE)
    with writing(place.url, place.spool, "half", 9, LARGE, MEBIBYTE, environment=place.environment) as process:
        process.hear()
        process.hear()
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(_offset_found, store, blob)
            time.sleep(0.2)
            process.kill()
            assert second.result(timeout=30) == MEBIBYTE
    put(store, blob)
    assert stored(store, blob) == blob.data


def _break_off(store: BlobStore, blob: Blob, *, begin: int, end: int) -> None:
    with store.writer(blob.digest, blob.size_bytes) as writer:
        assert writer.offset == begin
        writer.write(blob.data[begin:end])
        raise ConnectionResetError


def _offset_found(store: BlobStore, blob: Blob) -> int:
    with store.writer(blob.digest, blob.size_bytes) as writer:
        return writer.offset


@pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
def test_many_threads_may_publish_one_blob_at_once(store: BlobStore, place: Place, size_bytes: int) -> None:
    blob = Blob.random(10, size_bytes)
    barrier = threading.Barrier(6)

    def work(_number: int) -> None:
        barrier.wait()
        put(store, blob)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert stored(store, blob) == blob.data
    assert list(store.digests()) == [blob.digest]
    assert place.partial_files() == []


@pytest.mark.slow
@shared
def test_processes_may_publish_the_same_blobs_at_once(place: Place) -> None:
    store, size = place.open(), MEBIBYTE + 9
    arguments = (place.url, place.spool, "many", 500, size, 10)
    with (
        writing(*arguments, environment=place.environment) as one,
        writing(*arguments, environment=place.environment) as other,
    ):
        expected = [f"published {Blob.random(500 + number, size).digest}" for number in range(10)]
        assert one.rest() == expected
        assert other.rest() == expected
    for number in range(10):
        blob = Blob.random(500 + number, size)
        assert stored(store, blob) == blob.data
    assert place.partial_files() == []


def test_a_sweep_takes_old_resumable_downloads_and_nothing_else(store: BlobStore, place: Place) -> None:
    published, old, fresh = (Blob.random(seed, LARGE) for seed in (11, 12, 13))
    put(store, published)
    for blob in (old, fresh):
        with store.writer(blob.digest, LARGE) as writer:
            writer.write(blob.data[:MEBIBYTE])
    for path in place.partial_files():
        if old.digest.encoded in path.name:
            os.utime(path, (time.time() - 7200,) * 2)
    assert store.sweep_resumables(3600) == 1
    assert _offset_found(store, old) == 0
    assert _offset_found(store, fresh) == MEBIBYTE
    assert stored(store, published) == published.data


def test_a_sweep_leaves_a_resumable_download_that_somebody_writes(store: BlobStore) -> None:
    blob = Blob.random(14, LARGE)
    with store.writer(blob.digest, LARGE) as writer:
        writer.write(blob.data)
        assert store.sweep_resumables(0) == 0
        writer.commit()
    assert stored(store, blob) == blob.data


def test_a_sweep_of_an_empty_store_finds_nothing(store: BlobStore) -> None:
    assert store.sweep_resumables(0) == 0
