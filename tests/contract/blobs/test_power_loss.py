"""What was committed to a folder survives a loss of power, whole; what was not is never mistaken for it.

The power fails on a real file system: the device of an ext4 disk is copied in the middle of work, and the copy mounted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.errors import DigestMismatch
from support.blob_stores import LARGE, MEBIBYTE, SIZES, SMALL, put, stored
from support.images import Blob
from support.small_disks import CAN_LOOP, after_a_loss_of_power, ext4_disk

if CAN_LOOP:

    @pytest.fixture
    def disk(tmp_path: Path) -> Iterator[Path]:
        """A disk of 8 MiB."""
        with ext4_disk(tmp_path / "disk", 8 * MEBIBYTE) as folder:
            yield folder

    def test_a_file_that_was_not_flushed_does_not_survive(disk: Path) -> None:
        """That the loss of power of these tests is one."""
        (disk / "file").write_bytes(b"not flushed")
        with after_a_loss_of_power(disk) as left:
            assert not (left / "file").exists()

    @pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
    def test_a_blob_exists_when_the_power_goes_right_after_its_commit(disk: Path, size_bytes: int) -> None:
        blob = Blob.random(1, size_bytes)
        with LocalBlobStore(disk / "deep" / "blobs").writer(blob.digest, size_bytes) as writer:
            writer.write(blob.data)
            writer.commit()
            with after_a_loss_of_power(disk) as left:
                assert stored(LocalBlobStore(left / "deep" / "blobs"), blob) == blob.data

    @pytest.mark.parametrize("size_bytes", SIZES.values(), ids=SIZES)
    def test_a_blob_beside_others_exists_too(disk: Path, size_bytes: int) -> None:
        """Folders that were there before must be flushed as well."""
        store, blob = LocalBlobStore(disk / "blobs"), Blob.random(2, size_bytes)
        put(store, blob)
        store.delete(blob.digest)
        put(store, blob)
        with after_a_loss_of_power(disk) as left:
            assert stored(LocalBlobStore(left / "blobs"), blob) == blob.data

    def test_a_resumable_download_that_the_power_spoilt_never_becomes_a_blob(disk: Path) -> None:
        blob = Blob.random(3, LARGE)
        with LocalBlobStore(disk / "blobs").writer(blob.digest, LARGE) as writer:
            writer.write(blob.data[:-1])
            with after_a_loss_of_power(disk) as left:
                store = LocalBlobStore(left / "blobs")
                assert not store.has(blob.digest)
                try:
                    put(store, blob)
                except DigestMismatch:
                    put(store, blob)
                assert stored(store, blob) == blob.data

    def test_a_blob_that_was_quarantined_stays_quarantined(disk: Path) -> None:
        store, blob = LocalBlobStore(disk / "blobs"), Blob.random(4, SMALL)
        put(store, blob)
        assert store.quarantine(blob.digest)
        with after_a_loss_of_power(disk) as left:
            store = LocalBlobStore(left / "blobs")
            assert not store.has(blob.digest)
            assert [entry.digest for entry in store.quarantined()] == [blob.digest]
