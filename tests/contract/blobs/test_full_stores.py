"""A store that cannot take more says so, leaves nothing under a digest, and gives back the room it took."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.errors import BlobStoreError, BlobStoreFull
from registry_sync.hooks.stores import open_blob_store
from support.blob_processes import writing
from support.blob_stores import MEBIBYTE, PART_BYTES, SMALL, Place, open_store, put, stored
from support.images import Blob
from support.small_disks import CAN_LOOP, CAN_MOUNT, ext4_disk, memory_disk

ON_DISK = ("local", "fsspec")
DISK_BYTES = 8 * MEBIBYTE
DISKS = {"memory": memory_disk, **({"ext4": ext4_disk} if CAN_LOOP else {})}


@pytest.fixture(params=DISKS)
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    with DISKS[request.param](tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 * 1024))
    return filler


if CAN_MOUNT:

    @pytest.mark.parametrize("scheme", ["file", "local"])
    def test_a_large_blob_on_a_full_disk_leaves_the_disk_as_it_was(
        small_disk: Path, tmp_path: Path, scheme: str
    ) -> None:
        url, spool = f"{scheme}://{small_disk}/blobs", tmp_path / "spool"
        store = open_blob_store(url, spool_folder=spool, part_bytes=DISK_BYTES // 2)
        kept, blob = Blob.random(1, SMALL), Blob.random(2, 2 * DISK_BYTES)
        put(store, kept)
        with pytest.raises(BlobStoreFull, match="free space"):
            put(store, blob)
        assert not store.has(blob.digest)
        assert stored(store, kept) == kept.data
        put(store, Blob.random(3, DISK_BYTES // 2))

    @pytest.mark.parametrize("scheme", ["file", "local"])
    def test_a_small_blob_on_a_full_disk_can_be_stored_when_there_is_room_again(
        small_disk: Path, tmp_path: Path, scheme: str
    ) -> None:
        store = open_store(f"{scheme}://{small_disk}/blobs", tmp_path / "spool")
        blob = Blob.random(4, MEBIBYTE // 2)
        filler = _fill(small_disk)
        with pytest.raises(BlobStoreFull):
            put(store, blob)
        assert not store.has(blob.digest)
        assert [path for path in small_disk.rglob("*") if path.is_file() and path != filler] == []
        filler.unlink()
        put(store, blob)
        assert stored(store, blob) == blob.data

    def test_a_store_that_is_full_of_parts_is_left_as_it_was(tmp_path: Path) -> None:
        with memory_disk(tmp_path / "disk", 2 * PART_BYTES + MEBIBYTE) as disk:
            store = open_store(f"local://{disk}/blobs", tmp_path / "spool")
            with pytest.raises(BlobStoreFull, match="free space"):
                put(store, Blob.random(8, 4 * PART_BYTES))
            assert [path for path in disk.rglob("*") if path.is_file()] == []

    def test_a_spool_that_is_full_leaves_the_parts_in_the_store(tmp_path: Path) -> None:
        blob = Blob.random(9, 2 * PART_BYTES + MEBIBYTE)
        url = f"local://{tmp_path}/blobs"
        with memory_disk(tmp_path / "disk", PART_BYTES + MEBIBYTE) as disk:
            with pytest.raises(BlobStoreFull, match="spool"):
                put(open_store(url, disk / "spool"), blob)
            assert [path for path in disk.rglob("*") if path.is_file()] == []
        store = open_store(url, tmp_path / "spool")
        with store.writer(blob.digest, blob.size_bytes) as writer:
            assert writer.offset == PART_BYTES
        put(store, blob)
        assert stored(store, blob) == blob.data

    def test_a_full_spool_is_reported_like_a_full_store(small_disk: Path) -> None:
        store = open_store("memory://full-spool", small_disk / "spool")
        blob = Blob.random(5, 2 * DISK_BYTES)
        with pytest.raises(BlobStoreFull, match="spool"):
            put(store, blob)
        assert [path for path in small_disk.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ON_DISK, indirect=True)
@pytest.mark.parametrize("size_bytes", [MEBIBYTE // 2, 3 * MEBIBYTE], ids=["small", "large"])
def test_a_limit_on_the_size_of_files_is_reported_like_a_full_disk(
    place: Place, store: BlobStore, size_bytes: int
) -> None:
    arguments = (place.url, place.spool, "limited", 6, size_bytes, 1)
    with writing(*arguments, environment=place.environment) as process:
        said = process.rest()
    assert len(said) == 1
    assert said[0].startswith("BlobStoreFull ")
    assert not store.has(Blob.random(6, size_bytes).digest)
    assert place.partial_files() == []


@pytest.mark.parametrize("place", ON_DISK, indirect=True)
def test_a_store_that_cannot_be_used_is_named_in_the_error(place: Place, tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where a folder must be")
    store = place.open()
    blob = Blob.random(7, SMALL)
    with pytest.raises(BlobStoreError, match=str(tmp_path / "blobs")) as caught:
        put(store, blob)
    assert type(caught.value) is BlobStoreError


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_an_object_store_without_the_bucket_is_an_error_that_names_it(place: Place, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/blobs", tmp_path / "spool")
    assert place.environment
    with pytest.raises(BlobStoreError, match="no-such-bucket"):
        put(store, Blob.random(8, SMALL))
