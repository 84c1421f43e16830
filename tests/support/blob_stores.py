"""Where a blob store under test lies, and how blobs get into it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec

from registry_sync.blobs.store import BlobStore
from registry_sync.hooks.stores import open_blob_store
from support.images import Blob

#: Local files by our own calls, by fsspec's, memory, an object store.
KINDS = ("local", "fsspec", "memory", "s3")
MEBIBYTE = 1024 * 1024
#: One blob that is collected in memory, and one that goes through a resumable file.
SMALL, LARGE = 1000, MEBIBYTE + MEBIBYTE // 4 + 123
SIZES = {"small": SMALL, "large": LARGE}
#: How long the parts of these stores are; as large as they must be for LARGE to be one.
PART_BYTES = MEBIBYTE + MEBIBYTE // 2
#: One that an object store keeps in three parts while it is written, the last of them short.
PARTED = 2 * PART_BYTES + PART_BYTES // 4 + 123
#: The variable that says to another process how long the parts are, when they are not as long as that.
_PART_BYTES_VARIABLE = "TESTS_PART_BYTES"


@dataclass(frozen=True)
class Place:
    """Where a store lies; ``environment`` is what another process requires to open it."""

    kind: str
    url: str
    spool: Path
    environment: dict[str, str]
    part_bytes: int = PART_BYTES

    @property
    def partials(self) -> Path:
        """The local folder whose files are resumable downloads."""
        return Path(self.url.removeprefix("file://")) / ".partials" if self.kind == "local" else self.spool

    def open(self) -> BlobStore:
        return open_store(self.url, self.spool, self.part_bytes)

    def with_parts_of(self, part_bytes: int) -> Place:
        """The same place with shorter parts, so that a parted blob is a shorter one; in other processes too."""
        environment = {**self.environment, _PART_BYTES_VARIABLE: str(part_bytes)}
        return replace(self, part_bytes=part_bytes, environment=environment)

    def elsewhere(self) -> Place:
        """The same place as another machine sees it, which shares the store and nothing else."""
        return replace(self, spool=self.spool.with_name(f"{self.spool.name}-elsewhere"))

    def write(self, name: str, data: bytes) -> None:
        """Puts a file into the store past it, as another program does; ``name`` is relative to its root."""
        filesystem, root = self._filesystem()
        filesystem.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{root}/{name}", data)

    def names(self) -> list[str]:
        """Every file in the store, relative to its root."""
        filesystem, root = self._filesystem()
        return sorted(name.removeprefix(f"{root}/") for name in filesystem.find(root))

    def read(self, name: str) -> bytes:
        """What the file ``name`` holds."""
        filesystem, root = self._filesystem()
        return bytes(filesystem.cat_file(f"{root}/{name}"))

    def _filesystem(self) -> tuple[Any, str]:
        filesystem, root = fsspec.core.url_to_fs(self.url)
        filesystem.invalidate_cache()
        return filesystem, root.rstrip("/")

    def partial_files(self) -> list[Path]:
        return [path for path in self.partials.rglob("*") if path.is_file()] if self.partials.is_dir() else []


def open_store(url: str, spool: Path, part_bytes: int | None = None) -> BlobStore:
    """The store at ``url``, with the short parts of the tests."""
    part_bytes = part_bytes or int(os.environ.get(_PART_BYTES_VARIABLE, PART_BYTES))
    return open_blob_store(url, spool_folder=spool, part_bytes=part_bytes)


def put(store: BlobStore, blob: Blob) -> None:
    """Publishes ``blob``, as a download does that starts where an earlier one stopped."""
    with store.writer(blob.digest, blob.size_bytes) as writer:
        data = blob.data
        while writer.offset < blob.size_bytes:
            writer.write(data[writer.offset : writer.offset + MEBIBYTE])
        writer.commit()


def stored(store: BlobStore, blob: Blob) -> bytes:
    """The bytes under the blob's digest."""
    with store.open(blob.digest) as file:
        return file.read()
