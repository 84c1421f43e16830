"""One blob while it is downloaded: a thread writes it, and any number of requests read it meanwhile, each at its pace.

The bytes lie in the file that the blob store downloads into, so that readers cost no memory and wait for nobody. What
has no file (a blob that is not kept, or a store that is full) goes through a window of memory that waits for its
readers. Blobs that fit into the window stay there.

Nobody gets the last bytes of what they asked for before the digest of all bytes is known to be right. A download that
starts again, and has other bytes then, ends those who were given some.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, DigestMismatch, SizeMismatch, TruncatedBody
from registry_sync.serve.blob_bodies import BodyCut

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobWriter

#: Bytes that one download may have in memory. At least as many as the blob store keeps of a small blob.
WINDOW_BYTES = 2 * 1024 * 1024
#: What each reader gets only after the verification, from the end of what was asked for.
HELD_BYTES = 64 * 1024
#: How long a window waits for a reader that takes nothing.
STALL_SECONDS = 60.0
_POLL_SECONDS = 1.0
_READ_BYTES = 256 * 1024


class DownloadAbandoned(Exception):
    """Nobody wants the bytes any more."""


@dataclass(eq=False)
class _Reader:
    """``position`` is the next byte that it wants, up to ``end``; those from ``first`` on are given already."""

    first: int
    end: int
    position: int
    moved_at: float
    is_ended: bool = False


class BlobDownload:
    """The bytes so far of a blob of ``size_bytes``. Made on the event loop of its readers.

    ``window_bytes`` and ``stall_seconds`` as above.
    """

    def __init__(
        self,
        digest: Digest,
        size_bytes: int,
        *,
        window_bytes: int = WINDOW_BYTES,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.problem: Exception | None = None
        #: Whether the blob store has the blob, so that it is read there.
        self.is_stored = False
        self._is_verified = False
        self._is_over = False
        self._is_abandoned = False
        self._offset = 0
        self._hasher = digest.hasher()
        #: How many bytes an earlier attempt had, and their hash: what readers may have been given of it.
        self._earlier: tuple[int, str] | None = None
        self._file: int | None = None
        self._file_end = 0
        self._files: list[int] = []
        self._window: deque[bytes] = deque()
        self._window_start = 0
        self._window_size = 0
        self._most_in_window = window_bytes
        self._stall_seconds = stall_seconds
        self._readers: set[_Reader] = set()
        self._was_read = False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    # For the thread that downloads.

    @property
    def offset(self) -> int:
        """How many bytes of the running attempt are here."""
        return self._offset

    @property
    def has_readers(self) -> bool:
        """Whether a request is waiting for bytes."""
        with self._changed:
            return bool(self._readers)

    @property
    def is_left(self) -> bool:
        """Whether there were readers, and none is left."""
        with self._changed:
            return self._was_read and not self._readers

    def use_file(self, path: Path) -> None:
        """From now on the bytes from the first one are in this file, before they are appended."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._changed:
            self._files.append(descriptor)
            self._file, self._file_end = descriptor, self._offset

    def append_from_file(self, end: int) -> None:
        """Takes the bytes up to ``end`` that lie in the file. Raises :class:`TruncatedBody` when they do not."""
        while self._offset < end:
            chunk = os.pread(self._file or 0, min(_READ_BYTES, end - self._offset), self._offset)
            if not chunk:
                raise TruncatedBody(f"the file of blob {self.digest} was cut", digest=self.digest)
            self.append(chunk, is_in_file=True)

    @property
    def file_size(self) -> int:
        """How many bytes the file has."""
        return os.fstat(self._file).st_size if self._file is not None else 0

    def append(self, chunk: bytes | memoryview, *, is_in_file: bool) -> None:
        """The next bytes; what is not in the file waits for room in the window.

        Raises :class:`DownloadAbandoned` when it would wait and has no reader, and after :meth:`abandon`.
        """
        if self._is_abandoned:
            raise DownloadAbandoned
        earlier = self._earlier
        if earlier is not None and self._offset < earlier[0] <= self._offset + len(chunk):
            cut = earlier[0] - self._offset
            self._hasher.update(chunk[:cut])
            is_same = self._hasher.hexdigest() == earlier[1]
            self._hasher.update(chunk[cut:])
            self._earlier = None
            if not is_same:
                self._end_given()
        else:
            self._hasher.update(chunk)
        with self._changed:
            if is_in_file:
                self._file_end = self._offset + len(chunk)
            else:
                self._put(bytes(chunk))
            self._offset += len(chunk)
        self._notify()

    def restart(self) -> None:
        """The bytes come again from the first one. The file is not read any more before :meth:`use_file`."""
        if self._offset == self.size_bytes and self._hasher.hexdigest() != self.digest.encoded:
            self._end_given()  # all bytes together were wrong, so that others will follow
        elif self._offset > (self._earlier[0] if self._earlier else 0):
            self._earlier = (self._offset, self._hasher.hexdigest())
        with self._changed:
            self._offset = self._file_end = self._window_start = self._window_size = 0
            self._window.clear()
            self._file = None
            self._hasher = self.digest.hasher()

    def verify(self) -> None:
        """Lets the readers have the last bytes. Raises :class:`TruncatedBody`, :class:`DigestMismatch`."""
        if self._offset != self.size_bytes:
            raise TruncatedBody(
                f"blob {self.digest} ended after {self._offset} of {self.size_bytes} bytes", digest=self.digest
            )
        if (got := self._hasher.hexdigest()) != self.digest.encoded:
            got = f"{self.digest.algorithm}:{got}"
            raise DigestMismatch(f"blob {self.digest} has other bytes: {got}", digest=self.digest, got=got)
        self._is_verified = True
        self._notify()

    def abandon(self) -> None:
        """Ends the thread with :class:`DownloadAbandoned` at its next byte."""
        self._is_abandoned = True

    def end(self, problem: Exception | None = None, *, is_stored: bool = False) -> None:
        """No more bytes come. Readers of a verified blob read on."""
        with self._changed:
            self.problem, self.is_stored, self._is_over = problem, is_stored, True
            self._close_unused()
        self._notify()

    def _put(self, chunk: bytes) -> None:
        """Into the window, once there is room; the lock is held."""
        if not self._window:
            self._window_start = self._offset
        since = time.monotonic()
        while self._window_size + len(chunk) > self._most_in_window:
            if not self._readers:
                raise DownloadAbandoned
            wanted = [reader.position for reader in self._readers if reader.position < reader.end]
            if self._window and self._window_start + len(self._window[0]) <= min(wanted, default=self.size_bytes):
                dropped = self._window.popleft()
                self._window_start += len(dropped)
                self._window_size -= len(dropped)
                continue
            if not self._window:
                break
            for reader in [found for found in self._readers if found.position < min(found.end, self._offset)]:
                if time.monotonic() - max(reader.moved_at, since) > self._stall_seconds:
                    reader.is_ended = True
                    self._readers.discard(reader)
            self._changed.wait(min(_POLL_SECONDS, self._stall_seconds))
        self._window.append(chunk)
        self._window_size += len(chunk)

    def _end_given(self) -> None:
        with self._changed:
            for reader in [found for found in self._readers if found.position > found.first]:
                reader.is_ended = True
                self._readers.discard(reader)
        self._notify()

    def _close_unused(self) -> None:
        if self._is_over and not self._readers:
            for descriptor in self._files:
                os.close(descriptor)
            self._files.clear()
            self._file = None
            self._window.clear()

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended with its server
            self._loop.call_soon_threadsafe(self._wake)

    # For requests, on the event loop.

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _change(self) -> None:
        """Waits for news; what happened since the caller looked is none only if it did not await in between."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        await future

    async def started(self, timeout_seconds: float) -> bool:
        """Whether bytes come, or all is decided, within the time; a small blob is decided at once or not at all."""

        async def wait() -> None:
            while not (self._is_over or self._is_verified or self._offset > HELD_BYTES):
                await self._change()

        try:
            await asyncio.wait_for(wait(), timeout_seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def can_join(self) -> bool:
        """Whether a reader that wants the first byte can still have it."""
        with self._changed:
            return not self._is_over and self._window_start <= self._file_end

    def reader(self, offset: int, length: int) -> BlobReader:
        """A place among the readers, for ``length`` bytes from ``offset``; to be read or closed."""
        return BlobReader(self, offset, length)

    async def next_bytes(self, reader: _Reader, most: int) -> bytes:
        """What comes next for the reader, up to ``most`` bytes. Raises :class:`BodyCut`."""
        while True:
            with self._changed:
                if reader.is_ended:
                    raise BodyCut(f"blob {self.digest}: the download began again with other bytes, or waited too long")
                if self.problem is not None or (self._is_over and not self._is_verified):
                    raise BodyCut(f"blob {self.digest}: {self.problem or 'the download has ended'}")
                ready = min(self._offset, reader.end) - reader.position
                if ready > 0 and reader.position >= self._file_end:
                    return self._from_window(reader.position, min(ready, most))
                descriptor, count = self._file, min(most, ready, self._file_end - reader.position)
            if ready > 0 and descriptor is not None:
                chunk = await self._loop.run_in_executor(None, os.pread, descriptor, count, reader.position)
                if chunk:
                    return chunk
                await asyncio.sleep(0.01)  # cut for the next attempt, which is about to be known here
                continue
            await self._change()

    def _from_window(self, position: int, most: int) -> bytes:
        """Bytes from ``position``; the lock is held."""
        start = self._window_start
        if position < start:
            raise BodyCut(f"blob {self.digest}: its first bytes are not here any more")
        for chunk in self._window:
            if position < start + len(chunk):
                return chunk[position - start : position - start + most]
            start += len(chunk)
        raise BodyCut(f"blob {self.digest}: bytes are missing")

    def enter(self, reader: _Reader) -> None:
        """From now on the window waits for it."""
        with self._changed:
            self._readers.add(reader)
            self._was_read = True

    def moved(self, reader: _Reader, count: int) -> None:
        """The reader took ``count`` bytes."""
        with self._changed:
            reader.position += count
            reader.moved_at = time.monotonic()
            self._changed.notify_all()

    def leave(self, reader: _Reader) -> None:
        """Nobody waits for it any more."""
        with self._changed:
            self._readers.discard(reader)
            self._close_unused()
            self._changed.notify_all()

    async def until_verified(self, reader: _Reader) -> None:
        """Returns once all bytes are known to be right. Raises :class:`BodyCut`."""
        while not self._is_verified:
            if reader.is_ended or self._is_over:
                raise BodyCut(f"blob {self.digest}: {self.problem or 'the download began again with other bytes'}")
            await self._change()


class BlobReader:
    """Bytes of a download, for one request."""

    def __init__(self, download: BlobDownload, offset: int, length: int) -> None:
        self._download = download
        self._reader = _Reader(offset, offset + length, offset, time.monotonic())
        download.enter(self._reader)

    def close(self) -> None:
        """Gives the place up. May be repeated."""
        self._download.leave(self._reader)

    async def chunks(self, next_size: Callable[[], int]) -> AsyncGenerator[bytes, None]:
        """All of them, each of ``next_size()`` bytes at most.

        Raises :class:`BodyCut` instead of the last ones when the blob turns out wrong.
        """
        reader, held_from = self._reader, max(self._reader.first, self._reader.end - HELD_BYTES)
        held: list[bytes] = []
        try:
            while reader.position < reader.end:
                chunk = await self._download.next_bytes(reader, next_size())
                free = min(len(chunk), max(0, held_from - reader.position))
                self._download.moved(reader, len(chunk))
                if free:
                    yield chunk[:free]
                if free < len(chunk):
                    held.append(chunk[free:])
            await self._download.until_verified(reader)
            for chunk in held:
                yield chunk
        finally:
            self.close()


class DownloadWriter:
    """Writes a download for its readers, and into the blob store too as long as that takes it.

    ``kept`` None is for what is not kept, which ends when its last reader leaves. ``lost`` is called once with the
    error of a store that takes no more.
    """

    def __init__(self, download: BlobDownload, kept: BlobWriter | None, lost: Callable[[BlobStoreError], None]) -> None:
        self._download = download
        self._kept = kept
        self._lost = lost
        self.is_kept = False

    def resume(self) -> None:
        """Takes over what the store has of an earlier download."""
        if self._kept is None:
            return
        if self._kept.path is None:
            if self._kept.offset:
                self._store(self._kept.restart)
            return
        self._download.use_file(self._kept.path)
        try:
            self._download.append_from_file(self._kept.offset)
        except TruncatedBody:
            self.restart()

    @property
    def offset(self) -> int:
        return self._download.offset

    def write(self, chunk: bytes | memoryview, /) -> None:
        if (got := self.offset + len(chunk)) > self._download.size_bytes:
            raise SizeMismatch(
                f"blob {self._download.digest} is longer than {self._download.size_bytes} bytes",
                digest=self._download.digest,
                expected=self._download.size_bytes,
                got=got,
            )
        kept = self._kept
        if kept is None and self._download.is_left:
            raise DownloadAbandoned
        if kept is not None:
            self._store(lambda: kept.write(chunk))
        self._download.append(chunk, is_in_file=self._kept is not None and self._kept.path is not None)

    def restart(self) -> None:
        self._download.restart()
        if self._kept is not None:
            self._store(self._kept.restart)
        if self._kept is not None and self._kept.path is not None:
            self._download.use_file(self._kept.path)

    def commit(self) -> None:
        """Readers have all bytes before the store has flushed them."""
        self._download.verify()
        if self._kept is not None:
            self._store(self._kept.commit)
            self.is_kept = self._kept is not None

    def discard(self) -> None:
        if self._kept is not None:
            self._store(self._kept.discard)

    def _store(self, change: Callable[[], object]) -> None:
        try:
            change()
        except BlobStoreError as problem:
            self._kept = None
            self._lost(problem)
