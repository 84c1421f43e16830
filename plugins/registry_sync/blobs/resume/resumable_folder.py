"""Resumable files: what was written of blobs that are not published, in a folder of their own beside the blobs.

Folders survive a loss of power: each is flushed into the one above it before it is used.

A resumable file belongs to one writer at a time, by an advisory lock (flock) that the kernel drops with the process
that holds it. Whoever comes second waits as long as the first makes progress, then continues where it stopped or
finds the blob published, so that two syncs do not fetch one layer twice; when the first stands still, the second
takes a temporary of its own. Such files are not flushed: after a crash of the process all is there, after a loss of
power perhaps not, and then the digest tells.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from registry_sync.blobs.layout import flat_name
from registry_sync.blobs.resume.resumable_file import ResumableFile, write_all
from registry_sync.blobs.store_errors import size_error, store_error, store_errors
from registry_sync.domain.digests import Digest
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.errors import BlobStoreError


def make_folder(folder: Path, modes: FileModes = OWNER_ONLY) -> None:
    """Makes ``folder`` and those above it; one that exists is left as it is. Raises :class:`OSError`."""
    if not folder.is_dir():
        make_folder(folder.parent, modes)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(OWNER_ONLY.folder)
            if modes != OWNER_ONLY:
                folder.chmod(modes.folder)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Makes the names in ``folder`` survive. Raises :class:`OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


#: How long a second writer waits for a first that makes no progress.
PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.05
#: A temporary may lie between two calls of its writer without a lock, for moments; a sweep leaves it so long.
_TEMPORARY, _TEMPORARY_SECONDS = ".tmp", 60.0


class ResumableFolder:
    """The partials of one store."""

    def __init__(
        self, folder: Path, patience_seconds: float = PATIENCE_SECONDS, *, modes: FileModes = OWNER_ONLY
    ) -> None:
        self.folder = folder
        self._modes = modes
        self._patience_seconds = patience_seconds

    def path(self, digest: Digest) -> Path:
        """Where the partial of ``digest`` lies."""
        return self.folder / flat_name(digest)

    def temporary(self) -> Path:
        """A name that nobody else has."""
        return self.folder / f"{uuid.uuid4().hex}{_TEMPORARY}"

    def take(
        self, digest: Digest, size_bytes: int, is_published: Callable[[], bool], mark_bytes: int | None = None
    ) -> ResumableFile | None:
        """The partial of ``digest``, locked and hashed; None when somebody published the blob meanwhile.

        ``mark_bytes`` is what :class:`PrefixHash` takes.
        """
        path = self.path(digest)
        while True:
            descriptor = self._open(path, os.O_RDWR | os.O_CREAT)
            try:
                with store_errors(path):
                    is_locked = self._lock(descriptor)
                    is_named = _is_named(descriptor, path)
                if is_locked and is_named:
                    partial = ResumableFile(path, descriptor, digest, is_shared=True, mark_bytes=mark_bytes)
                    partial.rehash(size_bytes)
                    return partial
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not is_locked:
                return self._own(digest, mark_bytes)
            if is_published():
                return None

    def read(self, digest: Digest, size_bytes: int) -> bytes:
        """What an earlier writer of a small blob left; empty when nothing, or when it cannot be of use."""
        with store_errors(self.path(digest)):
            try:
                descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
            try:
                data = os.read(descriptor, size_bytes + 1)
            finally:
                os.close(descriptor)
        return data if len(data) <= size_bytes else b""

    def keep(self, digest: Digest, data: bytes | bytearray | memoryview) -> None:
        """Leaves ``data`` for the next writer of a small blob."""
        path = self.write_temporary(data, is_durable=False)
        with store_errors(path):
            path.replace(self.path(digest))

    def forget(self, digest: Digest) -> None:
        """Removes the partial of a small blob."""
        with store_errors(self.path(digest)):
            self.path(digest).unlink(missing_ok=True)

    def write_temporary(self, data: bytes | bytearray | memoryview, *, is_durable: bool) -> Path:
        """``data`` in a file of its own, flushed if ``is_durable``. A file that cannot be completed is removed."""
        path = self.temporary()
        descriptor = self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(descriptor, data)
            if is_durable:
                os.fsync(descriptor)
            if (found := os.fstat(descriptor).st_size) != len(data):
                path.unlink(missing_ok=True)
                raise size_error(str(path), len(data), found)
        except OSError as problem:
            path.unlink(missing_ok=True)
            raise store_error(problem, str(path)) from problem
        finally:
            os.close(descriptor)
        return path

    def sweep(self, older_than_seconds: float) -> tuple[int, list[BlobStoreError]]:
        """Removes what nobody holds and nobody touched for so long; how many, and what could not be removed."""
        now = time.time()
        count, failures = 0, list[BlobStoreError]()
        with store_errors(self.folder):
            if not self.folder.is_dir():
                return count, failures
            for entry in os.scandir(self.folder):
                is_temporary = entry.name.endswith(_TEMPORARY)
                age_seconds = max(older_than_seconds, _TEMPORARY_SECONDS if is_temporary else 0)
                try:
                    count += self._sweep_one(Path(entry.path), now - age_seconds)
                except BlobStoreError as problem:
                    failures.append(problem)
        return count, failures

    def _sweep_one(self, path: Path, oldest: float) -> bool:
        with store_errors(path):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                is_free = _try_lock(descriptor) is not None
                if not is_free or os.fstat(descriptor).st_mtime > oldest or not _is_named(descriptor, path):
                    return False
                path.unlink()
            finally:
                os.close(descriptor)
        return True

    def _open(self, path: Path, flags: int) -> int:
        with store_errors(path):
            try:
                descriptor = os.open(path, flags | os.O_CLOEXEC, self._modes.file)
            except FileNotFoundError:
                make_folder(self.folder, self._modes)
                descriptor = os.open(path, flags | os.O_CLOEXEC, self._modes.file)
            self._modes.apply(descriptor)
        return descriptor

    def _own(self, digest: Digest, mark_bytes: int | None) -> ResumableFile:
        path = self.temporary()
        descriptor = self._open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        _try_lock(descriptor)  # keeps a sweep away
        return ResumableFile(path, descriptor, digest, is_shared=False, mark_bytes=mark_bytes)

    def _lock(self, descriptor: int) -> bool:
        """Whether the lock was had, perhaps after waiting. A file system without locks never gives it."""
        seen, seen_at = -1, time.monotonic()
        while (is_locked := _try_lock(descriptor)) is None:
            size, now = os.fstat(descriptor).st_size, time.monotonic()
            if size != seen:
                seen, seen_at = size, now
            elif now - seen_at > self._patience_seconds:
                return False
            time.sleep(_POLL_SECONDS)
        return is_locked


def _try_lock(descriptor: int) -> bool | None:
    """True when locked, None when somebody else holds it, False where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still is the file behind ``descriptor``."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
