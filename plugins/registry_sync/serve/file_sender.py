"""Large files go to the client's socket from a thread with one buffer, past the server, which would copy them again.

The server's connection is used beside it (docs/adr/0084-large-blobs-past-the-server.md), for one response, which is the
last one of the connection: the app writes head and body itself, and shuts the sending side down before it returns to
the server, whose own response to the request then cannot be written and ends the connection there.

Nobody else may write meanwhile, and nothing may still wait to be written. A server of HTTP/1 writes nothing between a
request that has no body and its response. What it wrote before is counted: all heads and bodies of earlier responses,
as the server writes them, must have reached the kernel, byte for byte. Where that is not so, or anything else is not
as expected, the response takes the usual way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from io import FileIO
from typing import Any

from registry_sync.serve import accepted_sockets
from registry_sync.serve.blob_bodies import BlobBody, BodyCut
from registry_sync.serve.slow_clients import HEAD_SECONDS

Pairs = Iterable[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
#: Address and port, as they stand in the scope: granian gives the port as text.
Client = tuple[str, Any]
#: A body of so many bytes is worth a connection, which the client has to open anew for its next request.
LARGE_BYTES = 32 * 1024 * 1024
#: What is read of a file at a time: it stays in the cache of a core until it is written, and costs few turns.
BUFFER_BYTES = 1024 * 1024
#: Responses of one process that are sent at a time in this way, each by a thread; those whose clients are waited for
#: afterwards; and open files up to which a socket is looked for.
MOST_AT_ONCE, MOST_LINGERING, MOST_FILES = 16, 256, 2048
#: How long a client that has received everything may take to close its side, in seconds.
LINGER_SECONDS = 5.0
_MOST_LINGERS = 12
_MOST_REMEMBERED = 8192
_DISCARDED_BYTES = 64 * 1024
#: What granian and hyper add to the head of each response; a date is always of this length.
_SERVER = b"server: granian\r\n"
_ADDED_BYTES = len(_SERVER) + len(b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n") + len(b"\r\n")
#: What granian says for the versions of HTTP/1, and how they are written.
_VERSIONS = {"1": b"HTTP/1.0", "1.1": b"HTTP/1.1"}
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {416: b"Range Not Satisfiable"}
#: With any of these in a request the server may write something before the response, or after it.
_KEEPING_AWAY = {b"expect", b"upgrade", b"transfer-encoding", b"http2-settings"}


class FileSender:
    """Sends files of at least ``least_bytes`` past the server of this process. For one event loop.

    ``idle_seconds`` is how long the server keeps a connection that waits for a request.
    """

    def __init__(self, least_bytes: int = LARGE_BYTES, idle_seconds: float = HEAD_SECONDS) -> None:
        self._least_bytes = least_bytes
        self._idle_seconds = idle_seconds
        self._sockets = accepted_sockets.AcceptedSockets()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "large files")
        self._sending: set[socket.socket] = set()
        self._lingering: set[asyncio.Task[None]] = set()
        #: When the last response to a client began, and how many bytes all of them are; None for unknown.
        self._written: dict[Client, tuple[float, int | None]] = {}

    def close(self) -> None:
        """Waits for no client any more; what is still being sent ends there."""
        for connection in self._sending:
            _interrupt(connection)
        for task in self._lingering:
            task.cancel()
        self._threads.shutdown(wait=False)

    def note(self, scope: Scope, status: int, headers: Pairs, body_bytes: int) -> None:
        """To be called before a response is given to the server, which is expected to write so many bytes of it."""
        client = scope.get("client")
        if client is None:
            return
        total = self._written_before(client)
        if scope.get("http_version") != "1.1":
            total = None
        elif total is not None:
            total += len(_head("1.1", status, headers)) + _ADDED_BYTES + body_bytes
        self._written.pop(client, None)  # so that the first one is always the oldest
        self._written[client] = (time.monotonic(), total)
        if len(self._written) > _MOST_REMEMBERED:
            del self._written[next(iter(self._written))]

    def _written_before(self, client: Client) -> int | None:
        began_at, total = self._written.get(client, (0.0, 0))
        return total if time.monotonic() - began_at <= self._idle_seconds else 0

    async def send(self, scope: Scope, status: int, headers: Pairs, body: BlobBody) -> int | None:
        """Sends a response to a GET, with a body of a file.

        Returns how many bytes of it went before the client did, and closes the body; None if nothing was done, and the
        server has to send it. Raises :class:`BodyCut`.
        """
        if body.file is None or body.length < self._least_bytes:
            return None
        connection = self._take(scope)
        if connection is None:
            return None
        date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        head = _head(scope["http_version"], status, headers) + _SERVER + date + b"connection: close\r\n\r\n"
        sending = _Sending(connection, body.file, body.offset, body.length)
        self._sending.add(connection)
        is_complete = False
        try:
            await self._in_thread(sending, head)
            connection.shutdown(socket.SHUT_WR)
            is_complete = True
        except ConnectionError:
            pass  # the client has gone
        finally:
            body.close()
            self._sending.discard(connection)
            self._end(connection, is_complete=is_complete)
        return sending.sent_bytes

    async def _in_thread(self, sending: _Sending, head: bytes) -> None:
        """Whoever is cancelled ends the sending and waits for the thread: its file must not be closed before."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, sending.run, head)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            _interrupt(sending.connection)
            await asyncio.wait([future])
            raise

    def _take(self, scope: Scope) -> socket.socket | None:
        """The socket of a request, if nothing but its response can be written to it."""
        client, server = scope.get("client"), scope.get("server")
        if (
            client is None
            or server is None
            or sys.platform != "linux"
            or scope.get("scheme") != "http"
            or scope.get("http_version") not in _VERSIONS
            or len(self._sending) >= MOST_AT_ONCE
            or len(self._lingering) >= MOST_LINGERING
            or not all(_is_plain(*header) for header in scope["headers"])
        ):
            return None
        expected = self._written_before(client)
        with contextlib.suppress(OSError):
            connection = self._sockets.copy_of((client[0], int(client[1])), int(server[1]), MOST_FILES)
            if connection is not None:
                with contextlib.suppress(OSError):
                    if accepted_sockets.written_bytes(connection) == expected:
                        connection.setblocking(False)
                        return connection
                connection.close()
        return None

    def _end(self, connection: socket.socket, *, is_complete: bool) -> None:
        """After this, what the server writes to the connection goes nowhere."""
        if is_complete:
            lingering = asyncio.ensure_future(_linger(connection))
            self._lingering.add(lingering)
            lingering.add_done_callback(self._lingering.discard)
            return
        with contextlib.suppress(OSError):  # the client was quicker
            accepted_sockets.reset(connection)
        connection.close()


class _Sending:
    """Writes ``length`` bytes of a file to ``connection``; ``sent_bytes`` of them went so far."""

    def __init__(self, connection: socket.socket, file: FileIO, offset: int, length: int) -> None:
        self.connection = connection
        self._file = file
        self._offset = offset
        self._length = length
        self._waiting = select.poll()
        self._waiting.register(connection, select.POLLOUT)
        self.sent_bytes = 0

    def run(self, head: bytes) -> None:
        """All of it, in a thread that waits for the disk and for the client.

        Raises :class:`ConnectionError` when the client has gone, and :class:`BodyCut` when the file is not what it was.
        """
        while head:
            head = head[self._write(head, socket.MSG_MORE) :]  # the kernel keeps its end until the file follows
        buffer = memoryview(bytearray(min(BUFFER_BYTES, self._length)))
        while self.sent_bytes < self._length:
            left = self._length - self.sent_bytes
            try:
                count = os.preadv(self._file.fileno(), [buffer[:left]], self._offset + self.sent_bytes)
            except OSError as problem:
                raise BodyCut(f"the file cannot be read: {problem.strerror}") from problem
            if not count:
                raise BodyCut(f"{left} of {self._length} bytes are missing")
            written = 0
            while written < count:
                sent = self._write(buffer[written:count])
                written += sent
                self.sent_bytes += sent

    def _write(self, data: bytes | memoryview, flags: int = 0) -> int:
        """How many bytes the kernel took, at least one."""
        while True:
            try:
                return self.connection.send(data, flags)
            except BlockingIOError:  # noqa: PERF203 - the kernel takes nothing until the client does
                self._waiting.poll()


def _interrupt(connection: socket.socket) -> None:
    """Ends what waits to write to it."""
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def _head(version: str, status: int, headers: Pairs) -> bytes:
    """Status line and headers as hyper writes them, without what the server adds."""
    lines = [b"%s %d %s\r\n" % (_VERSIONS[version], status, _REASONS.get(status, b""))]
    lines += [b"%s: %s\r\n" % pair for pair in headers]
    return b"".join(lines)


def _is_plain(name: bytes, value: bytes) -> bool:
    """Whether a request with this header has no body, and gets one response."""
    return name not in _KEEPING_AWAY and (name != b"content-length" or value == b"0")


async def _linger(connection: socket.socket) -> None:
    """Closes it once the client has closed its side, or has received everything and had time to.

    What the client still sends is read: a connection that is closed with unread bytes is reset, which would also drop
    what the client has not read yet.
    """
    loop = asyncio.get_running_loop()
    try:
        for _ in range(_MOST_LINGERS):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_closed_by_client(loop, connection), LINGER_SECONDS)
                return
            if not accepted_sockets.unread_bytes(connection):
                return
    except OSError:
        pass
    finally:
        connection.close()


async def _closed_by_client(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    while await loop.sock_recv(connection, _DISCARDED_BYTES):
        pass
