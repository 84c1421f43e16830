"""Many clients in one process, that ask for known paths over kept connections and count what they get.

It costs a small part of what a request costs a server, so that on a machine of two cores the server is measured and not
the clients: ``cpu_seconds`` says what it took. It reads no more of HTTP/1.1 than a length, and refuses all but 200 and
206.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_BUFFER_BYTES = 1024 * 1024
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Load:
    """What a run took: by the clock, of this process's CPU, and the bytes of bodies that came."""

    seconds: float
    cpu_seconds: float
    body_bytes: int


@dataclass
class _Client:
    connection: socket.socket
    requests: Sequence[bytes]
    asked: int = 0
    left: int = -1  # of the body; -1 while the headers come
    head: bytes = b""
    received: int = 0


def run(
    port: int, method: str, paths: Sequence[str], client_count: int, headers: Mapping[str, str] | None = None
) -> Load:
    """Asks for each of ``paths`` once, spread over ``client_count`` connections to loopback.

    Raises :class:`RuntimeError` for another status, a body without a length, or one that is cut.
    """
    requests = [_request(port, method, path, headers) for path in paths]
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    clients: dict[int, _Client] = {}
    body_bytes = 0
    with ExitStack() as connections, select.epoll() as poll:
        started, cpu_started = time.perf_counter(), time.process_time()
        for number in range(min(client_count, len(requests))):
            client = _Client(connections.enter_context(_connection(port)), requests[number::client_count])
            clients[client.connection.fileno()] = client
            poll.register(client.connection, select.EPOLLIN)
            _ask(client)
        while clients:
            events = poll.poll(_PATIENCE_SECONDS)
            if not events:
                raise RuntimeError(f"nothing came for {_PATIENCE_SECONDS:.0f} seconds")
            for descriptor, _ in events:
                client = clients[descriptor]
                if _read(client, buffer, is_head=method == "HEAD") and not _ask(client):
                    body_bytes += client.received
                    poll.unregister(descriptor)
                    clients.pop(descriptor)
        return Load(time.perf_counter() - started, time.process_time() - cpu_started, body_bytes)


@contextmanager
def held(port: int, path: str, client_count: int, headers: Mapping[str, str] | None = None) -> Iterator[None]:
    """So many downloads that have begun and are read no further, until the end of ``with``."""
    with ExitStack() as connections:
        for _ in range(client_count):
            connection = connections.enter_context(_connection(port))
            connection.sendall(_request(port, "GET", path, headers))
            if len(connection.recv(1, socket.MSG_WAITALL)) != 1:
                raise RuntimeError("a download did not begin")
        yield


def _request(port: int, method: str, path: str, headers: Mapping[str, str] | None) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode()


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(client: _Client) -> bool:
    """Sends the next request; False when there is none."""
    if client.asked == len(client.requests):
        return False
    client.connection.sendall(client.requests[client.asked])
    client.asked += 1
    client.left, client.head = -1, b""
    return True


def _read(client: _Client, buffer: memoryview, *, is_head: bool) -> bool:
    """Reads what is there; True when a response is complete."""
    count = client.connection.recv_into(buffer)
    if count == 0:
        raise RuntimeError(f"a connection ended before its response was complete; {client.received} bytes had come")
    if client.left < 0:
        client.head += bytes(buffer[:count])
        end = client.head.find(b"\r\n\r\n")
        if end < 0:
            return False
        count = len(client.head) - end - 4
        client.left = _length(client.head[:end])
        if is_head:
            client.left = 0
    client.left -= count
    client.received += count
    if client.left < 0:
        raise RuntimeError("more came than Content-Length says")
    return client.left == 0


def _length(head: bytes) -> int:
    lowered = head.lower()
    if not lowered.startswith((b"http/1.1 200", b"http/1.1 206")):
        raise RuntimeError(f"refused: {head[:300].decode('latin-1')}")
    _, found, rest = lowered.partition(b"\r\ncontent-length:")
    if not found:
        raise RuntimeError("a response without Content-Length")
    return int(rest.partition(b"\r\n")[0])
