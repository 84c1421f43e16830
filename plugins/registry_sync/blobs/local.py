"""Blobs on a local (or mounted) file system, through the operating system's calls.

A blob is at ``<root>/<algorithm>/<first two characters>/<encoded>``. Publishing has one order: flush the bytes, verify
the digest, rename the file into place, flush the folder. So a file under a digest is complete, also after a crash or a
loss of power. docs/adr/0010-blobs-on-a-file-system.md has the measurements.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from registry_sync.blobs import layout
from registry_sync.blobs.layout import PARTIALS, QUARANTINE, flat_name
from registry_sync.blobs.resume.bodies import VerifyingWriter, open_writer, published_writer
from registry_sync.blobs.resume.resumable_files import (
    PATIENCE_SECONDS,
    ResumableFile,
    ResumableFolder,
)
from registry_sync.blobs.store import StoredBlob, Unlisted, not_removed, size_error, store_errors
from registry_sync.domain.digests import Digest
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes, flush_folder
from registry_sync.errors import BlobMissing, BlobStoreError


class LocalBlobStore:
    """A :class:`registry_sync.blobs.store.BlobStore` below the folder ``root``, which is created by the first write.

    ``patience_seconds`` is how long a writer waits for another writer of the same blob that makes no progress;
    ``modes`` are the permissions of new files and folders.
    """

    def __init__(
        self, root: Path | str, *, patience_seconds: float = PATIENCE_SECONDS, modes: FileModes = OWNER_ONLY
    ) -> None:
        self.root = Path(root)
        self._root_name = str(self.root)
        self._modes = modes
        self._resumables = ResumableFolder(self.root / PARTIALS, patience_seconds, modes=modes)

    def __repr__(self) -> str:
        return f"LocalBlobStore({str(self.root)!r})"

    def path(self, digest: Digest) -> Path:
        """The path of the blob, published or not."""
        return Path(self._location(digest))

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool:
        with store_errors(self.root):
            try:
                found = os.stat(self._location(digest))  # noqa: PTH116 - called for each blob of a sync; creates no Path
            except FileNotFoundError:
                return False
        # A folder in the place of a blob is not a blob.
        return stat.S_ISREG(found.st_mode) and (size_bytes is None or found.st_size == size_bytes)

    def writer(self, digest: Digest, size_bytes: int, /, *, replaces: bool = False) -> VerifyingWriter:
        if not replaces and self._renew(digest, size_bytes):
            return published_writer(digest, size_bytes, self)

        def is_published() -> bool:
            return not replaces and self.has(digest, size_bytes)

        return open_writer(digest, size_bytes, self._resumables, self, is_published)

    def resumable_path(self, digest: Digest, /) -> Path:
        return self._resumables.path(digest)

    def open(self, digest: Digest, /) -> BinaryIO:
        with store_errors(self.root), _missing(digest):
            return self.path(digest).open("rb")

    def open_file(self, digest: Digest) -> FileIO:
        """As :meth:`open`, without a buffer, for reading by descriptor."""
        with store_errors(self.root), _missing(digest):
            return FileIO(self._location(digest))

    def size(self, digest: Digest, /) -> int:
        with store_errors(self.root), _missing(digest):
            return self.path(digest).stat().st_size

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        path = self.path(digest)
        with store_errors(self.root):
            try:
                if stored_before is not None and _time(path.stat()) >= stored_before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def quarantine(self, digest: Digest, /) -> bool:
        path, folder = self.path(digest), self.root / QUARANTINE
        with store_errors(self.root):
            if not path.exists():
                return False
            self._modes.make_folder(folder)
            try:
                path.rename(folder / flat_name(digest))
            except FileNotFoundError:
                return False
            flush_folder(folder)
            flush_folder(path.parent)
        return True

    def digests(self) -> Iterator[Digest]:
        return (blob.digest for blob in self.entries())

    def entries(self, unlisted: Unlisted | None = None, /) -> Iterator[StoredBlob]:
        return layout.published(self._children, unlisted)

    def quarantined(self) -> Iterator[StoredBlob]:
        return layout.quarantined(self._children)

    def unknown_files(self) -> Iterator[str]:
        return layout.unknown_files(self._children)

    def sweep_resumables(self, older_than_seconds: float, /) -> int:
        count, failures = self._resumables.sweep(older_than_seconds)
        if failures:
            raise not_removed(failures, "resumable downloads")
        return count

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """Publishes a small blob whose digest has been verified."""
        temporary = self._resumables.write_temporary(data, is_durable=True)
        try:
            self._move(temporary, digest)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def publish_resumable(self, digest: Digest, resumable: ResumableFile, /) -> None:
        """Publishes a blob whose digest was verified while it was written."""
        resumable.flush()
        with store_errors(resumable.path):
            # Where locks have no effect, another process may have written into the same file.
            if (found := os.fstat(resumable.descriptor).st_size) != resumable.offset:
                resumable.discard()
                raise size_error(str(resumable.path), resumable.offset, found)
            os.utime(resumable.descriptor)  # an earlier writer may have completed it long ago
        self._move(resumable.path, digest)

    def _children(self, folder: str) -> Iterator[layout.FolderEntry]:
        with store_errors(self.root):
            try:
                with os.scandir(self.root / folder) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except FileNotFoundError:
                return
        for entry in entries:
            with store_errors(self.root):
                try:
                    found = entry.stat(follow_symlinks=not _is_dangling(entry))
                except FileNotFoundError:  # deleted meanwhile
                    continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            yield layout.FolderEntry(name, entry.is_dir(), entry.is_file(), found.st_size, _time(found))

    def _renew(self, digest: Digest, size_bytes: int) -> bool:
        """Whether the complete blob exists. Its modification time is set to now, where permitted."""
        if not self.has(digest, size_bytes):
            return False
        try:
            os.utime(self._location(digest))
        except FileNotFoundError:  # deleted meanwhile
            return False
        except OSError:  # another user's file, or a read-only disk: the blob exists all the same
            pass
        return True

    def _location(self, digest: Digest) -> str:
        algorithm, _, encoded = digest.partition(":")
        return f"{self._root_name}/{algorithm}/{encoded[:2]}/{encoded}"

    def _move(self, source: str | Path, digest: Digest) -> None:
        target = self._location(digest)
        folder = target.rpartition("/")[0]
        with store_errors(target):
            try:
                os.rename(source, target)  # noqa: PTH104  called for each blob of a sync; creates no Path
            except FileNotFoundError:
                self._modes.make_folder(Path(folder))
                os.rename(source, target)  # noqa: PTH104  as above
            except IsADirectoryError as problem:  # its filename is the source
                raise BlobStoreError(f"a folder is in the place of a blob, at {target}: remove it") from problem
            flush_folder(folder)


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, timezone.utc)


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not (entry.is_file() or entry.is_dir())


@contextlib.contextmanager
def _missing(digest: Digest) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BlobMissing(f"the blob store has no blob {digest}") from None
