"""How a blob is divided, and what its parts are called."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from registry_sync.blobs.layout import PARTIALS, flat_name
from registry_sync.blobs.remote_files import RemoteFiles
from registry_sync.blobs.resume.multipart_upload import MAX_PART_COUNT, PART_BYTES, MultipartUpload, Part, part_bytes
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError

GIBIBYTE = 1 << 30
DIGEST = Digest.of(b"")
FOLDER = Path(PARTIALS) / flat_name(DIGEST)
PART = Part(0, 3, "ab")


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, PART_BYTES),
        (PART_BYTES * MAX_PART_COUNT, PART_BYTES),
        (PART_BYTES * MAX_PART_COUNT + 1, 2 * PART_BYTES),
        (500 * GIBIBYTE, 8 * PART_BYTES),
    ],
)
def test_a_very_large_blob_has_larger_parts(size_bytes: int, expected: int) -> None:
    assert part_bytes(size_bytes) == expected
    assert size_bytes <= expected * MAX_PART_COUNT


def test_the_names_of_parts_sort_as_the_parts_do() -> None:
    parts = [Part(begin, begin + PART_BYTES, "ab") for begin in range(0, 200 * GIBIBYTE, 32 * GIBIBYTE)]
    assert sorted(part.name for part in parts) == [part.name for part in parts]


class _Interrupted(LocalFileSystem):
    """Files beside which ``interrupt`` is called after each of ``steps`` is done for the first time."""

    cachable = False

    def __init__(self, interrupt: Callable[[], None], *steps: str) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._steps = list(steps)

    def _done(self, step: str) -> None:
        if self._steps and self._steps[0] == step:
            self._steps.pop(0)
            self._interrupt()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        super().makedirs(path, exist_ok=exist_ok)
        self._done("makedirs")

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        super().pipe_file(path, value, **options)
        self._done("pipe_file")

    def info(self, path: Any, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **options)
        self._done("info")
        return found


def _upload(tmp_path: Path, interrupt: Callable[[], None], *steps: str, protocol: str = "local") -> MultipartUpload:
    files = RemoteFiles(_Interrupted(interrupt, *steps), str(tmp_path), place="here", protocol=protocol)
    return MultipartUpload(files, DIGEST, PART_BYTES)


@pytest.mark.parametrize(
    "steps", [["makedirs"], ["pipe_file"], ["info"], ["pipe_file", "makedirs", "info", "pipe_file"]], ids="+".join
)
def test_a_part_is_stored_though_other_writers_remove_the_folder_meanwhile(tmp_path: Path, steps: list[str]) -> None:
    upload = _upload(tmp_path, lambda: shutil.rmtree(tmp_path / FOLDER), *steps)
    upload.put(PART, b"abc")
    assert upload.found() == [PART]
    assert upload.read(PART, 0) == b"abc"


def test_a_part_is_stored_though_another_writer_removes_the_objects_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)  # which an object store does not need
    upload = _upload(tmp_path, (folder / PART.name).unlink, "pipe_file", protocol="s3")
    upload.put(PART, b"abc")
    assert upload.found() == [PART]


def test_a_part_that_the_store_never_shows_is_an_error(tmp_path: Path) -> None:
    upload = _upload(tmp_path, lambda: shutil.rmtree(tmp_path / FOLDER), *["pipe_file"] * 99)
    with pytest.raises(BlobStoreError, match="does not show a file that was just written") as raised:
        upload.put(PART, b"abc")
    assert raised.value.is_temporary
