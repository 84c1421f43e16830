"""One resumable file while it is written: bytes appended and hashed in one pass, and flushed to the disk early."""

from __future__ import annotations

import os
from pathlib import Path

from registry_sync.blobs.store_errors import FULL, store_error, store_errors
from registry_sync.domain.digests import Digest


class PrefixHash:
    """The hash of the bytes so far, and of the first 1, 2, 3 … times ``mark_bytes`` of them; None marks nothing.

    Raises :class:`UnsupportedDigest`.
    """

    def __init__(self, digest: Digest, mark_bytes: int | None = None) -> None:
        self.marks: list[str] = []
        self._mark_bytes = mark_bytes
        self._hasher = digest.hasher()
        self._room = mark_bytes

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes."""
        if self._room is None or self._mark_bytes is None:
            self._hasher.update(chunk)
            return
        rest = memoryview(chunk)
        while rest:
            taken = rest[: self._room]
            self._hasher.update(taken)
            self._room -= len(taken)
            if not self._room:
                self.marks.append(self._hasher.hexdigest())
                self._room = self._mark_bytes
            rest = rest[len(taken) :]

    def hexdigest(self) -> str:
        """Of all bytes so far; more may follow."""
        return self._hasher.hexdigest()

    def hexdigest_with(self, more: bytes) -> str:
        """Of all bytes so far and ``more``, which is not taken."""
        hasher = self._hasher.copy()
        hasher.update(more)
        return hasher.hexdigest()


#: After so many bytes the disk is told to begin writing (measured: 1.1 GB/s, against 0.4 to 0.7 without).
_WRITE_BACK_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


class ResumableFile:
    """An open, locked partial: its bytes so far are hashed, new ones are appended.

    ``mark_bytes`` is what :class:`PrefixHash` takes.
    """

    def __init__(
        self, path: Path, descriptor: int, digest: Digest, *, is_shared: bool, mark_bytes: int | None = None
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.hasher = PrefixHash(digest, mark_bytes)
        self.offset = 0
        self._digest = digest
        self._is_shared = is_shared
        self._mark_bytes = mark_bytes
        self._written_back = 0

    def rehash(self, size_bytes: int) -> None:
        """Takes over what an earlier writer left; more than ``size_bytes`` cannot be of use and is dropped."""
        with store_errors(self.path):
            if os.fstat(self.descriptor).st_size > size_bytes:
                os.ftruncate(self.descriptor, 0)
            piece = memoryview(bytearray(_PIECE_BYTES))
            while count := os.preadv(self.descriptor, [piece], self.offset):
                self.hasher.update(piece[:count])
                self.offset += count
            os.lseek(self.descriptor, self.offset, os.SEEK_SET)
            self._written_back = self.offset

    @property
    def is_open(self) -> bool:
        """False when it was closed or removed."""
        return self.descriptor >= 0

    def read(self, begin: int, end: int) -> bytes:
        """Bytes of it that were written."""
        with store_errors(self.path):
            pieces = []
            while begin < end and (piece := os.pread(self.descriptor, end - begin, begin)):
                pieces.append(piece)
                begin += len(piece)
            return b"".join(pieces)

    def append(self, chunk: bytes | memoryview) -> None:
        """Writes all of ``chunk``. On a full disk the partial is removed: others need the room to report it."""
        try:
            write_all(self.descriptor, chunk)
        except OSError as problem:
            if problem.errno in FULL:
                self.discard()
            raise store_error(problem, str(self.path)) from problem
        self.hasher.update(chunk)
        self.offset += len(chunk)
        if self.offset - self._written_back >= _WRITE_BACK_BYTES:
            self._write_back()

    def _write_back(self) -> None:
        """Lets the disk begin now, so that the flush at the end finds little to do.

        Of the ways to say so this one needs nothing but the standard library; it also drops the pages from the
        cache once they are written, where a stream that is read later, if ever, only displaces what others need.
        """
        if hasattr(os, "posix_fadvise"):
            with store_errors(self.path):
                os.posix_fadvise(
                    self.descriptor, self._written_back, self.offset - self._written_back, os.POSIX_FADV_DONTNEED
                )
        self._written_back = self.offset

    def flush(self) -> None:
        """Makes its bytes survive a loss of power."""
        try:
            os.fsync(self.descriptor)
        except OSError as problem:
            if problem.errno in FULL:
                self.discard()
            raise store_error(problem, str(self.path)) from problem

    def restart(self) -> None:
        """Empties it."""
        with store_errors(self.path):
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.hasher = PrefixHash(self._digest, self._mark_bytes)
        self.offset = self._written_back = 0

    def leave(self) -> None:
        """Unlocks it and keeps it for the next writer, if it holds anything that one could find."""
        if self._is_shared and self.offset:
            self.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Removes it. The name goes first and the lock after it, so that nobody locks what is being removed."""
        if self.is_open:
            try:
                with store_errors(self.path):
                    self.path.unlink(missing_ok=True)
            finally:
                self.close()

    def close(self) -> None:
        """Unlocks it, whatever became of its name."""
        if self.is_open:
            os.close(self.descriptor)
            self.descriptor = -1


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all of ``data``: the system may take less at once. Raises :class:`OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
