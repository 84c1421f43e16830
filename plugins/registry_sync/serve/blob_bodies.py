"""The bytes of a blob on their way to a client, in memory that is bounded whatever clients do.

A chunk is read and given to the server, which takes a few of them before it waits for the client. So what a client that
does not read holds is a multiple of its chunks, and chunks are as large as the memory that all clients share permits:
large ones cost fewer changes of threads. Those of files end where a processor's cache does: each byte is copied three
times on its way, and a chunk that has left the cache meanwhile costs more than the turns it saved.

What lies in the page cache is read on the event loop, which takes less time than waking a thread; everything else is
read in threads. A server's own way of sending files (``http.response.pathsend``) is not used: granian reads a piece of
the file and sends it in turn, and does not say how much of it went. docs/adr/0048-chunks-of-blobs.md has the figures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from io import FileIO
from typing import Any, BinaryIO, Protocol

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Chunks of a client: the first one, the least and the most bytes of one.
FIRST_CHUNK_BYTES, LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES = 64 * 1024, 16 * 1024, 512 * 1024
#: The most bytes of one that is read from a file when it is needed: six of them stay in a core's cache, and the C
#: library asks the kernel for no memory for each, as it does from 128 KiB on (mallopt(3), ``M_MMAP_THRESHOLD``).
MOST_FILE_CHUNK_BYTES = 112 * 1024
#: How many chunks may wait in the server for a client: granian queues four, one is written and one is held here.
CHUNKS_HELD = 6
#: What chunks of all clients of a process take, about, as long as each has more than the least.
SHARED_BYTES = 24 * 1024 * 1024
#: An object store is asked for as many chunks at once.
_CHUNKS_PER_REQUEST = 8
_CACHED_ONLY: int | None = getattr(os, "RWF_NOWAIT", None)


class BodyCut(Exception):
    """A body that ended before its ``Content-Length``: the connection has to end with it."""


class ComingBytes(Protocol):
    """Bytes that come from elsewhere while they are sent on."""

    def chunks(self, next_size: Callable[[], int]) -> AsyncGenerator[bytes, None]:
        """All of them, each no longer than ``next_size`` says just before. Raises :class:`BodyCut`."""

    def close(self) -> None:
        """No more are wanted."""


@dataclass
class BlobBody:
    """``length`` bytes from ``offset`` of a blob of ``size_bytes``; all of them without a length.

    They are in ``data``, or in the local ``file``, or in what ``open`` gives, or ``coming`` from a download, which is
    closed once they were sent or will not be. All absent: for HEAD.
    """

    size_bytes: int
    offset: int = 0
    length: int = -1
    data: bytes | None = None
    file: FileIO | None = None
    open: Callable[[], AbstractContextManager[BinaryIO]] | None = None
    coming: ComingBytes | None = None

    def __post_init__(self) -> None:
        if self.length < 0:
            self.length = self.size_bytes - self.offset

    async def send(self, receive: Receive, send: Send) -> int:
        """Sends them as messages of ASGI; how many went before the client did. Raises :class:`BodyCut`."""
        if self.data is not None or not self.length:
            data = (self.data or b"")[self.offset : self.offset + self.length]
            self.close()
            await send({"type": "http.response.body", "body": data})
            return len(data)
        # A server takes what is sent to a client that has gone, and drops it: without asking, all would be read.
        gone = asyncio.ensure_future(_client_gone(receive))
        sent_bytes = 0
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    if gone.done():
                        break
                    sent_bytes += len(chunk)
                    await send({"type": "http.response.body", "body": chunk, "more_body": sent_bytes < self.length})
        finally:
            gone.cancel()
            self.close()
        return sent_bytes

    def _chunks(self) -> AsyncGenerator[bytes, None]:
        if self.coming is not None:
            return _of_download(self.coming)
        if self.file is not None:
            return _of_file(self.file, self.offset, self.length)
        if self.open is None:
            raise BodyCut("there are no bytes of this blob")
        return _of_store(self.open, self.offset, self.length)

    def close(self) -> None:
        """No more of it is sent. May be repeated."""
        if self.coming is not None:
            self.coming.close()
        if self.file is not None:
            self.file.close()


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class SendBuffers:
    """Divides ``shared_bytes`` among the bodies that are being sent. For one event loop.

    A body may have half of what is left to it, so that some is left for those that come. Its chunks grow twofold, so
    that a client that takes little holds little.
    """

    def __init__(self, shared_bytes: int = SHARED_BYTES) -> None:
        self._left = shared_bytes

    @contextmanager
    def share(self, chunk_count: int = CHUNKS_HELD, most_bytes: int = MOST_CHUNK_BYTES) -> Iterator[Callable[[], int]]:
        """For one body, which has ``chunk_count`` chunks of up to ``most_bytes`` in memory at a time: what says how
        large the next one is.
        """
        chunk_bytes = 0

        def next_size() -> int:
            nonlocal chunk_bytes
            self._left += chunk_bytes * chunk_count
            grown = 2 * chunk_bytes or FIRST_CHUNK_BYTES
            chunk_bytes = max(min(self._left // (2 * chunk_count), grown, most_bytes), LEAST_CHUNK_BYTES)
            self._left -= chunk_bytes * chunk_count
            return chunk_bytes

        try:
            yield next_size
        finally:
            self._left += chunk_bytes * chunk_count


_buffers = SendBuffers()


async def _of_download(coming: ComingBytes) -> AsyncGenerator[bytes, None]:
    with _buffers.share() as next_size:
        async with aclosing(coming.chunks(next_size)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _of_file(file: FileIO, offset: int, length: int) -> AsyncGenerator[bytes, None]:
    loop, descriptor, end = asyncio.get_running_loop(), file.fileno(), offset + length
    with _buffers.share(most_bytes=MOST_FILE_CHUNK_BYTES) as next_size:
        while offset < end:
            count = min(next_size(), end - offset)
            if _is_cached(descriptor, offset + count - 1):
                chunk = os.pread(descriptor, count, offset)
            else:
                chunk = await loop.run_in_executor(None, os.pread, descriptor, count, offset)
            if not chunk:
                raise _short(end - offset, length)
            offset += len(chunk)
            yield chunk


def _is_cached(descriptor: int, offset: int) -> bool:
    """Whether the byte can be read without waiting for a disk (preadv2(2)); those before it then can be, mostly."""
    if _CACHED_ONLY is None:
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, _CACHED_ONLY) == 1
    except OSError:  # it is not, or the file system does not say
        return False


async def _of_store(
    open_blob: Callable[[], AbstractContextManager[BinaryIO]], offset: int, length: int
) -> AsyncGenerator[bytes, None]:
    """A request for several chunks at a time, in a thread."""
    loop, left = asyncio.get_running_loop(), length
    opened = ExitStack()
    try:
        source = await loop.run_in_executor(None, lambda: opened.enter_context(open_blob()))
        await loop.run_in_executor(None, source.seek, offset)
        with _buffers.share(CHUNKS_HELD + _CHUNKS_PER_REQUEST) as next_size:
            while left:
                size = next_size()
                block = await loop.run_in_executor(None, source.read, min(left, size * _CHUNKS_PER_REQUEST))
                if not block:
                    raise _short(left, length)
                left -= len(block)
                for start in range(0, len(block), size):
                    yield block[start : start + size]
    finally:
        await loop.run_in_executor(None, opened.close)


def _short(left: int, length: int) -> BodyCut:
    return BodyCut(f"{left} of {length} bytes are missing")
