"""A link to a registry that breaks: a proxy that forwards so many bytes of each body, then closes the connection.

What no registry does by itself, between a client and a real one. It notes of each response which bytes it was and how
many of them it forwarded, so that it is known what was fetched twice.
"""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

_PIECE = 64 * 1024
#: What may be forwarded and not yet received lies in the buffers of two sockets; this keeps the sending one small.
SEND_BUFFER_BYTES = 256 * 1024
_RANGE = re.compile(rb"(?im)^range: bytes=(\d+)-\r?$")
_LENGTH = re.compile(rb"(?im)^content-length: (\d+)\r?$")


@dataclass
class Forwarded:
    """One response with a body: its bytes ``start`` to ``end`` were forwarded, counted as in the whole blob."""

    path: str
    begin: int
    end: int

    @property
    def byte_count(self) -> int:
        return self.end - self.begin


class DroppingLink:
    """A proxy to ``port`` of this host between ``with`` and its end. It breaks after ``drop_bytes`` of a body."""

    def __init__(self, port: int, drop_bytes: int) -> None:
        self.responses: list[Forwarded] = []
        self._target = ("127.0.0.1", port)
        self._drop_bytes = drop_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open_count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> DroppingLink:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What blocks in accept is not woken by close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def of(self, part_of_path: str) -> list[Forwarded]:
        """The responses for one object, in the order of their start; some may have forwarded nothing."""
        return [response for response in self.responses if part_of_path in response.path]

    def await_bytes(self, part_of_path: str, count: int, timeout_seconds: float = 60) -> None:
        """Returns when so many bytes were forwarded of one thing."""

        def forwarded() -> bool:
            return sum(response.byte_count for response in self.of(part_of_path)) >= count

        with self._changed:
            assert self._changed.wait_for(forwarded, timeout_seconds), "the bytes were not asked for"

    def await_end(self, timeout_seconds: float = 60) -> None:
        """Returns when no connection is open any more, so that nothing more is recorded."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._open_count == 0, timeout_seconds), "a connection stays open"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._count(1)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _count(self, change: int) -> None:
        with self._changed:
            self._open_count += change
            self._changed.notify_all()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            with client, socket.create_connection(self._target) as server:
                asked, answered = client.makefile("rb"), server.makefile("rb")
                while (request := _head(asked)) and self._exchange(request, client, server, answered):
                    pass
        except OSError:  # the client, or the registry, is gone
            pass
        finally:
            self._count(-1)

    def _exchange(self, request: bytes, client: socket.socket, server: socket.socket, answered: BinaryIO) -> bool:
        """One request and its response; False when the link breaks."""
        server.sendall(request)
        head = _head(answered)
        client.sendall(head)
        method, path = request.split(b" ")[:2]
        length = _LENGTH.search(head)
        if method == b"HEAD" or length is None:
            return bool(head)
        begins = _RANGE.search(request) if head.split(b" ")[1] == b"206" else None
        begin = int(begins[1]) if begins else 0
        response = Forwarded(path.decode(), begin, begin)
        self.responses.append(response)
        rest = int(length[1])
        while rest and response.byte_count < self._drop_bytes:
            piece = answered.read(min(rest, _PIECE, self._drop_bytes - response.byte_count))
            if not piece:
                return False
            self._send(piece, client, response)
            rest -= len(piece)
        return not rest

    def _send(self, piece: bytes, client: socket.socket, response: Forwarded) -> None:
        view = memoryview(piece)
        while view:
            sent = client.send(view)
            view = view[sent:]
            with self._changed:
                response.end += sent
                self._changed.notify_all()


def _head(stream: BinaryIO) -> bytes:
    """The lines up to the empty one; empty when the other side has closed."""
    lines: list[bytes] = []
    while (line := stream.readline()) not in (b"", b"\r\n"):
        lines.append(line)
    return b"".join([*lines, b"\r\n"]) if lines else b""
