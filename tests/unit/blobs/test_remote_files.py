"""Files of drivers that say times in their own ways, show files late, or list folders oddly."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from registry_sync.blobs.remote_files import RemoteFiles
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable

NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)


class Driver:
    """A file system that gives what it was told to."""

    def __init__(self, *entries: dict[str, Any], info: dict[str, Any] | None = None) -> None:
        self.entries = list(entries)
        self.found = info
        self.removed: list[str] = []
        self.written: dict[str, bytes] = {}

    def invalidate_cache(self, path: str) -> None: ...

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        return self.entries

    def info(self, path: str) -> dict[str, Any]:
        if self.found is None:
            raise FileNotFoundError(path)
        return self.found

    def modified(self, path: str) -> datetime:
        return NOON

    def pipe_file(self, path: str, data: bytes) -> None:
        self.written[path] = data

    def rm_file(self, path: str) -> None:
        self.removed.append(path)


def files(driver: Driver, protocol: str = "s3") -> RemoteFiles:
    return RemoteFiles(driver, "bucket/root", place=f"{protocol}://bucket/root", protocol=protocol)


@pytest.mark.parametrize(
    "time",
    [
        {"LastModified": NOON},
        {"last_modified": NOON.replace(tzinfo=None)},
        {"mtime": NOON.timestamp()},
        {"mtime": int(NOON.timestamp())},
        {"updated": "2026-05-04T12:00:00Z"},
        {"created": "2026-05-04T14:00:00+02:00"},
        {},
    ],
    ids=repr,
)
def test_a_time_is_understood_as_each_driver_says_it(time: dict[str, Any]) -> None:
    driver = Driver(info={"name": "bucket/root/one", "type": "file", "size": 3, **time})
    assert files(driver).stored_at("one") == NOON


def test_the_marker_of_a_folder_is_none_of_its_files() -> None:
    marker = {"name": "bucket/root/folder", "type": "file", "size": 0, "LastModified": NOON}
    inner = {"name": "bucket/root/folder/one", "type": "file", "size": 3, "LastModified": NOON}
    deeper = {"name": "bucket/root/folder/more", "type": "directory", "size": None}
    found = list(files(Driver(marker, inner, deeper)).children("folder"))
    assert [(entry.name, entry.is_folder, entry.size_bytes) for entry in found] == [
        ("folder/more", True, 0),
        ("folder/one", False, 3),
    ]


def test_a_folder_in_the_place_of_a_file_is_no_file() -> None:
    driver = Driver(info={"name": "bucket/root/one", "type": "directory", "size": 0})
    with pytest.raises(FileNotFoundError):
        files(driver).size("one")
    with pytest.raises(BlobStoreError, match="a folder where a file should be"):
        files(driver).stored_at("one")


def test_a_file_that_is_not_shown_after_it_was_written_is_tried_again_later() -> None:
    driver = Driver()
    with pytest.raises(BlobStoreUnavailable, match="does not show a file that was just written") as raised:
        files(driver).put_bytes("one", b"abc")
    assert raised.value.is_temporary
    assert driver.written == {"bucket/root/one": b"abc"}


def test_a_file_of_the_wrong_size_is_removed() -> None:
    driver = Driver(info={"name": "bucket/root/one", "type": "file", "size": 80})
    with pytest.raises(BlobStoreError, match="keeps 80 bytes of a file to which 3 were written"):
        files(driver).put_bytes("one", b"abc")
    assert driver.removed == ["bucket/root/one"]
