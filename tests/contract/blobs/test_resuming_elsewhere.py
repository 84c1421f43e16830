"""Downloads are resumable in the store: any machine that shares it can continue them, and none can damage them."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from registry_sync.blobs.layout import blob_name
from registry_sync.blobs.store import BlobStore
from registry_sync.errors import BlobStoreError, DigestMismatch
from support.blob_processes import writing
from support.blob_stores import KINDS, LARGE, SMALL, Place, put, stored
from support.images import Blob

#: Stores that another process sees; memory dies with its own.
shared = pytest.mark.parametrize("place", [kind for kind in KINDS if kind != "memory"], indirect=True)
#: Stores in which a resumable download is a multipart upload.
parted = pytest.mark.parametrize("place", [kind for kind in KINDS if kind != "local"], indirect=True)

#: As short as parts can be when three of them, the last a short one, are more than is collected in memory.
PART_BYTES = 512 * 1024
PARTED = 2 * PART_BYTES + PART_BYTES // 4 + 123
#: How much is written at a time.
STEP = PART_BYTES // 4


@pytest.fixture
def place(place: Place) -> Place:
    """A store of each kind, with those parts."""
    return place.with_parts_of(PART_BYTES)


@pytest.fixture
def place_of_long_parts(place: Place) -> Place:
    """The same store with parts as long as a blob that is not collected in memory."""
    return place.with_parts_of(LARGE)


@pytest.fixture
def elsewhere(place: Place) -> BlobStore:
    """The store as another machine sees it."""
    return place.elsewhere().open()


@pytest.fixture(scope="module")
def blob() -> Blob:
    return Blob.of(Blob.random(1, PARTED).data)


@pytest.fixture(scope="module")
def wrong() -> bytes:
    """Other bytes of the same number."""
    return Blob.random(2, PARTED).data


def _leave(store: BlobStore, blob: Blob, end: int, data: bytes | None = None) -> int:
    """Writes up to ``end`` and stops there; returns the offset at which it started."""
    with store.writer(blob.digest, blob.size_bytes) as writer:
        began = writer.offset
        for start in range(began, end, STEP):
            writer.write((data or blob.data)[start : min(start + STEP, end)])
    return began


def _parts(place: Place) -> list[str]:
    """Parts that are stored; one that is still being written has another name."""
    return [name for name in place.names() if re.match(r"\.partials/.*/\d{15}-\d{15}-", name)]


@shared
def test_another_machine_continues_where_a_killed_one_had_completed_a_part(
    place: Place, elsewhere: BlobStore, blob: Blob
) -> None:
    written = 2 * PART_BYTES + 3 * STEP // 4
    with writing(place.url, place.spool, "half", 1, PARTED, written, environment=place.environment) as process:
        process.hear()
        process.hear()
        process.kill()
    began = _leave(elsewhere, blob, 0)
    # The second part may have been on its way to the store.
    assert began in ((written,) if place.kind == "local" else (PART_BYTES, 2 * PART_BYTES))
    put(elsewhere, blob)
    assert stored(elsewhere, blob) == blob.data
    assert _parts(place) == []


@pytest.mark.parametrize("end", [STEP, PART_BYTES, PART_BYTES + 77, PARTED])
def test_another_machine_continues_exactly_where_a_writer_was_left(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob, end: int
) -> None:
    assert _leave(store, blob, end) == 0
    with elsewhere.writer(blob.digest, PARTED) as writer:
        assert writer.offset == end
        writer.write(blob.data[end:])
        writer.commit()
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


def test_two_machines_may_take_turns(place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob) -> None:
    ends = [STEP, 3 * STEP, PART_BYTES + 1, 2 * PART_BYTES - 1, 2 * PART_BYTES + 5, PARTED - 7]
    for turn, (begin, end) in enumerate(zip([0, *ends], [*ends, PARTED], strict=False)):
        assert _leave((store, elsewhere)[turn % 2], blob, end) == begin
    put(store, blob)
    assert stored(elsewhere, blob) == blob.data
    assert _parts(place) == []


def test_two_machines_may_write_one_blob_at_once(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda of: put(of, blob), (store, elsewhere)))
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


@parted
@pytest.mark.parametrize("published_first", [0, 1])
def test_a_second_writer_publishes_too_though_its_parts_are_gone(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob, published_first: int
) -> None:
    with (
        store.writer(blob.digest, PARTED) as one,
        elsewhere.writer(blob.digest, PARTED) as other,
    ):
        for start in range(0, PARTED, STEP):
            one.write(blob.data[start : start + STEP])
            other.write(blob.data[start : start + STEP])
        order = [one, other] if published_first == 0 else [other, one]
        order[0].commit()
        assert stored(store, blob) == blob.data
        order[1].commit()
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


@parted
@pytest.mark.parametrize("is_wrong_first", [True, False])
def test_a_writer_of_wrong_bytes_spoils_nothing_of_one_of_right_bytes(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob, wrong: bytes, is_wrong_first: bool
) -> None:
    with (
        store.writer(blob.digest, PARTED) as right_one,
        elsewhere.writer(blob.digest, PARTED) as wrong_one,
    ):
        for start in range(0, PARTED, STEP):
            right_one.write(blob.data[start : start + STEP])
            wrong_one.write(wrong[start : start + STEP])
        if is_wrong_first:
            with pytest.raises(DigestMismatch):
                wrong_one.commit()
        right_one.commit()
        if not is_wrong_first:
            with pytest.raises(DigestMismatch):
                wrong_one.commit()
        assert wrong_one.offset == 0
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


def test_wrong_bytes_of_another_machine_are_noticed_and_forgotten(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob, wrong: bytes
) -> None:
    _leave(store, blob, PART_BYTES + 5, wrong)
    assert _leave(elsewhere, blob, PARTED) == PART_BYTES + 5
    with pytest.raises(DigestMismatch):
        put(elsewhere, blob)
    assert _parts(place) == []
    put(elsewhere, blob)
    assert stored(store, blob) == blob.data


@parted
def test_wrong_bytes_of_this_machine_do_not_hide_right_ones_of_the_store(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    _leave(store, blob, PART_BYTES + STEP)
    (spooled,) = [path for path in place.partial_files() if blob.digest.encoded in path.name]
    with spooled.open("r+b") as file:
        file.write(b"spoilt")
    with pytest.raises(DigestMismatch):
        put(store, blob)
    put(store, blob)
    assert stored(elsewhere, blob) == blob.data


@parted
@pytest.mark.parametrize("spoil", [lambda data: b"spoilt" + data[6:], lambda data: data[:-1], lambda data: data + b"x"])
def test_a_part_that_is_not_what_its_name_says_is_not_used(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob, spoil: object
) -> None:
    assert callable(spoil)
    _leave(store, blob, 2 * PART_BYTES + 5)
    _first, second, _rest = _parts(place)
    place.write(second, spoil(place.read(second)))
    with elsewhere.writer(blob.digest, PARTED) as writer:
        assert writer.offset == PART_BYTES
        writer.write(blob.data[PART_BYTES:])
        writer.commit()
    assert stored(store, blob) == blob.data


@parted
def test_unknown_files_among_the_parts_stop_nothing(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    _leave(store, blob, PART_BYTES + 5)
    place.write(_parts(place)[0].rpartition("/")[0] + "/README", b"not a part")
    assert _leave(elsewhere, blob, 0) == PART_BYTES + 5
    put(elsewhere, blob)
    assert stored(store, blob) == blob.data


@parted
def test_what_is_discarded_or_restarted_is_not_continued_elsewhere(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    for end in ("discard", "restart"):
        _leave(store, blob, PART_BYTES + 5)
        with store.writer(blob.digest, PARTED) as writer:
            getattr(writer, end)()
        assert _leave(elsewhere, blob, 0) == 0
        assert _parts(place) == []


@parted
def test_a_blob_of_one_part_leaves_nothing_in_the_store_before_it_is_published(
    place: Place, place_of_long_parts: Place
) -> None:
    store, blob = place_of_long_parts.open(), Blob.random(3, LARGE)
    _leave(store, blob, LARGE)
    assert place.names() == []
    put(store, blob)
    assert place.names() == [blob_name(blob.digest)]


def test_a_blob_of_whole_parts_is_stored_like_any_other(place: Place, store: BlobStore, elsewhere: BlobStore) -> None:
    blob = Blob.of(Blob.random(4, 3 * PART_BYTES).data, "sha512")
    _leave(store, blob, 3 * PART_BYTES)
    put(elsewhere, blob)
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


@parted
def test_parts_that_were_left_after_the_blob_was_published_are_harmless_and_swept(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    _leave(store, blob, PARTED)
    left = {name: place.read(name) for name in _parts(place)}
    put(store, blob)
    for name, data in left.items():  # as a crash between the two leaves them
        place.write(name, data)
    assert _leave(elsewhere, blob, 0) == PARTED
    put(elsewhere, blob)
    assert stored(store, blob) == blob.data
    for name, data in left.items():
        place.write(name, data)
    assert elsewhere.sweep_resumables(0) == 1
    assert _parts(place) == []
    assert stored(store, blob) == blob.data


@parted
def test_a_writer_whose_parts_are_swept_away_publishes_all_the_same(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    with store.writer(blob.digest, PARTED) as writer:
        writer.write(blob.data[: 2 * PART_BYTES + 5])
        while len(_parts(place)) < 2:  # the second is stored beside the writer
            time.sleep(0.01)
        assert elsewhere.sweep_resumables(0) == 1
        writer.write(blob.data[2 * PART_BYTES + 5 :])
        writer.commit()
    assert stored(elsewhere, blob) == blob.data
    assert _parts(place) == []


@pytest.mark.parametrize("place", ["fsspec"], indirect=True)
def test_a_sweep_leaves_the_old_beginning_of_what_somebody_still_writes(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    _leave(store, blob, PART_BYTES + 5)
    names = _parts(place)
    files = [Path(place.url.removeprefix("local://")) / name for name in names]
    os.utime(files[0], (time.time() - 7200,) * 2)
    assert elsewhere.sweep_resumables(3600) == 0
    assert _parts(place) == names
    os.utime(files[1], (time.time() - 7200,) * 2)
    assert elsewhere.sweep_resumables(3600) == 1
    assert _parts(place) == []


@pytest.fixture
def away(place: Place) -> None:
    """A bucket that is missing until the test continues."""
    filesystem = fsspec.filesystem("s3")
    filesystem.rmdir(place.url.split("/")[2])


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_store_that_takes_no_part_fails_the_write_and_keeps_what_this_machine_has(
    place: Place, store: BlobStore, blob: Blob
) -> None:
    with pytest.raises(BlobStoreError, match=place.url.split("/")[2]):
        put(store, blob)
    fsspec.filesystem("s3").mkdir(place.url.split("/")[2])
    with store.writer(blob.digest, PARTED) as writer:
        assert writer.offset >= PART_BYTES
        writer.write(blob.data[writer.offset :])
        writer.commit()
    assert stored(store, blob) == blob.data
    assert _parts(place) == []


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_part_that_could_not_be_stored_is_stored_by_the_next_write(
    place: Place, store: BlobStore, blob: Blob
) -> None:
    with store.writer(blob.digest, PARTED) as writer:
        writer.write(blob.data[:PART_BYTES])  # stored beside the writer: its failure is met by the next
        with pytest.raises(BlobStoreError):
            writer.write(blob.data[PART_BYTES : 2 * PART_BYTES])
        assert writer.offset == 2 * PART_BYTES
        fsspec.filesystem("s3").mkdir(place.url.split("/")[2])
        writer.write(blob.data[2 * PART_BYTES :])
        writer.commit()
    assert stored(store, blob) == blob.data
    assert _was_joined_of(place, blob, 3)


def _was_joined_of(place: Place, blob: Blob, part_count: int) -> bool:
    """Whether S3 made the blob of so many parts; an upload from here has parts of another size."""
    filesystem = fsspec.filesystem("s3")
    filesystem.invalidate_cache()
    tag: str = filesystem.info(f"{place.url}/{blob_name(blob.digest)}")["ETag"]
    return tag.strip('"').endswith(f"-{part_count}")


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_s3_makes_the_blob_of_its_parts_by_itself(
    place: Place, store: BlobStore, elsewhere: BlobStore, blob: Blob
) -> None:
    _leave(store, blob, PART_BYTES + 5)
    put(elsewhere, blob)
    assert _was_joined_of(place, blob, 3)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_writer_that_restarted_stores_its_parts_again(place: Place, store: BlobStore, blob: Blob) -> None:
    with store.writer(blob.digest, PARTED) as writer:
        writer.write(blob.data)
        writer.restart()
        writer.write(blob.data)
        writer.commit()
    assert stored(store, blob) == blob.data
    assert _was_joined_of(place, blob, 3)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize("size_bytes", [SMALL, LARGE], ids=["small", "large"])
def test_a_blob_of_one_part_is_one_upload_and_one_question_for_its_size(
    place_of_long_parts: Place, caplog: pytest.LogCaptureFixture, size_bytes: int
) -> None:
    store, blob = place_of_long_parts.open(), Blob.random(5, size_bytes)
    caplog.set_level("INFO", logger="werkzeug")
    put(store, blob)
    asked = [record.getMessage().split('"')[1] for record in caplog.records if record.name == "werkzeug"]
    request, question = asked
    assert request.startswith("PUT ")
    assert question.startswith("HEAD ")
    assert blob_name(blob.digest) in request
    assert blob_name(blob.digest) in question
