"""Large files on real sockets, beside a server that is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from registry_sync.serve import file_sender
from registry_sync.serve.accepted_sockets import AcceptedSockets, written_bytes
from registry_sync.serve.blob_bodies import BlobBody, BodyCut
from registry_sync.serve.file_sender import BUFFER_BYTES, MOST_AT_ONCE, FileSender

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked as Linux is asked")
_LEAST_BYTES = 4 * 1024 * 1024
_SIZE_BYTES = _LEAST_BYTES + 5
_PAIRS = [(b"etag", b'"x"'), (b"content-length", b"%d" % _SIZE_BYTES)]
_LATER = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"


@dataclass
class Connection:
    """What the server has accepted, and what the client has."""

    server: socket.socket
    client: socket.socket

    def scope(self, **more: Any) -> dict[str, Any]:
        """A request of the client as granian describes it."""
        (host, port), (server_host, server_port) = self.client.getsockname(), self.server.getsockname()
        asked = {"http_version": "1.1", "scheme": "http", "client": (host, str(port)), "headers": [(b"host", b"x")]}
        return {**asked, "server": (server_host, str(server_port)), **more}

    def read(self) -> bytes:
        """All that comes until the server's side ends."""
        parts = []
        while part := self.client.recv(1 << 20):
            parts.append(part)
        return b"".join(parts)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def connection(listener: socket.socket) -> Iterator[Connection]:
    with socket.create_connection(listener.getsockname(), timeout=20) as client:
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            yield Connection(server, client)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "blob"
    made.write_bytes(os.urandom(_SIZE_BYTES))
    return made


def _body(path: Path, offset: int = 0, length: int = -1, size_bytes: int = _SIZE_BYTES) -> BlobBody:
    return BlobBody(size_bytes, offset, length, file=FileIO(path))


async def _sent(files: FileSender, scope: dict[str, Any], body: BlobBody) -> int | None:
    """Waits until the connection is closed here as well."""
    try:
        return await files.send(scope, 200, _PAIRS, body)
    finally:
        await _ended(files)


async def _ended(files: FileSender) -> None:
    while files._lingering:
        await asyncio.wait(files._lingering)


def _exchanged(connection: Connection, scope: dict[str, Any], body: BlobBody) -> tuple[int | None, bytes]:
    """What a sender returns, and what the client reads until it closes its side; nothing if it is reset."""
    received: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(ConnectionResetError):
            received.append(connection.read())
        connection.client.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        sent_bytes = asyncio.run(_sent(FileSender(_LEAST_BYTES), scope, body))
    finally:
        connection.server.close()
        reader.join()
    return sent_bytes, b"".join(received)


def test_a_file_goes_out_with_its_head_and_ends_the_connection(connection: Connection, path: Path) -> None:
    body = _body(path)
    sent_bytes, received = _exchanged(connection, connection.scope(), body)
    head, _, data = received.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:4] == [b"HTTP/1.1 200 OK", b'etag: "x"', b"content-length: %d" % _SIZE_BYTES, b"server: granian"]
    assert lines[4].startswith(b"date: ")
    assert lines[5:] == [b"connection: close"]
    assert sent_bytes == _SIZE_BYTES
    assert data == path.read_bytes()
    assert body.file is not None
    assert body.file.closed


def test_a_part_is_sent_and_an_old_client_gets_its_version(connection: Connection, path: Path) -> None:
    body = _body(path, 3, _LEAST_BYTES)
    sent_bytes, received = _exchanged(connection, connection.scope(http_version="1"), body)
    assert received.startswith(b"HTTP/1.0 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n" + path.read_bytes()[3 : 3 + _LEAST_BYTES])
    assert sent_bytes == _LEAST_BYTES


@pytest.mark.parametrize(
    "more",
    [
        {"scheme": "https"},
        {"http_version": "2"},
        {"client": None},
        {"server": None},
        {"client": ("127.0.0.1", "1")},
        {"client": ("192.0.2.1", "80")},
        {"headers": [(b"content-length", b"1")]},
        {"headers": [(b"transfer-encoding", b"chunked")]},
        {"headers": [(b"expect", b"100-continue"), (b"content-length", b"0")]},
        {"headers": [(b"upgrade", b"h2c")]},
    ],
    ids=str,
)
def test_what_is_not_a_plain_request_of_a_known_connection_is_left_to_the_server(
    connection: Connection, path: Path, more: dict[str, Any]
) -> None:
    with contextlib.closing(_body(path)) as body:
        assert asyncio.run(FileSender(_LEAST_BYTES).send(connection.scope(**more), 200, _PAIRS, body)) is None
        assert body.file is not None
        assert not body.file.closed
    assert written_bytes(connection.server) == 0


def test_small_bodies_and_those_that_are_no_files_are_left_to_the_server(connection: Connection, path: Path) -> None:
    with contextlib.closing(_body(path, 6)) as small:
        for body in (small, BlobBody(_SIZE_BYTES, data=path.read_bytes())):
            assert asyncio.run(FileSender(_LEAST_BYTES).send(connection.scope(), 200, _PAIRS, body)) is None


def test_more_at_once_than_there_are_descriptors_for_are_left_to_the_server(
    connection: Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MOST_AT_ONCE", 0), ("MOST_LINGERING", 0), ("MOST_FILES", 3)):
        with monkeypatch.context() as patch, contextlib.closing(_body(path)) as body:
            files = FileSender(_LEAST_BYTES)
            patch.setattr(file_sender, name, value)
            assert asyncio.run(files.send(connection.scope(), 200, _PAIRS, body)) is None
    assert MOST_AT_ONCE > 1


def test_as_many_are_sent_as_there_are_threads_and_the_next_is_left_to_the_server(
    listener: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that read nothing hold a thread each, and nobody waits for one of these."""
    monkeypatch.setattr(file_sender, "MOST_AT_ONCE", 2)
    size_bytes = 100 * _SIZE_BYTES
    os.truncate(path, size_bytes)

    async def exchange(connections: list[Connection]) -> None:
        files = FileSender(_LEAST_BYTES)

        def send(connection: Connection) -> Any:
            return files.send(connection.scope(), 200, _PAIRS, _body(path, size_bytes=size_bytes))

        held = [asyncio.ensure_future(send(connection)) for connection in connections[:2]]
        for connection in connections[:2]:
            await asyncio.to_thread(connection.client.recv, 1)
        with contextlib.closing(_body(path, size_bytes=size_bytes)) as body:
            assert await files.send(connections[2].scope(), 200, _PAIRS, body) is None
        files.close()  # as when the server stops: what is still being sent ends
        assert all(0 < sent_bytes < size_bytes for sent_bytes in await asyncio.gather(*held))

    with contextlib.ExitStack() as closing:
        connections = []
        for _ in range(3):
            client = closing.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
            connections.append(Connection(closing.enter_context(listener.accept()[0]), client))
        asyncio.run(exchange(connections))


def _written(connection: Connection, status: bytes, headers: bytes, body: bytes) -> None:
    """As hyper writes a response."""
    date = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    connection.server.sendall(
        b"HTTP/1.1 " + status + b"\r\n" + headers + b"server: granian\r\n" + date + b"\r\n" + body
    )


@pytest.mark.parametrize("missing", [0, 1, 100])
def test_nothing_is_written_before_all_of_the_earlier_responses_is(connection: Connection, missing: int) -> None:
    """A client that sends requests ahead may have left the server with bytes that the kernel did not take yet."""
    files, scope = FileSender(_LEAST_BYTES), connection.scope()
    files.note(scope, 404, [(b"content-length", b"200")], 200)
    files.note(scope, 416, [], 0)
    _written(connection, b"404 Not Found", b"content-length: 200\r\n", bytes(200))
    _written(connection, b"416 Range Not Satisfiable", b"", b"")
    if missing:
        files.note(scope, 200, [], missing - 100)  # the server has written less, or more, than is known
    taken = files._take(scope)
    assert (taken is not None) == (not missing)
    if taken is not None:
        taken.close()


def test_what_an_earlier_connection_of_the_same_port_got_is_forgotten(connection: Connection) -> None:
    scope = connection.scope()
    for files, is_taken in ((FileSender(_LEAST_BYTES), False), (FileSender(_LEAST_BYTES, idle_seconds=-1), True)):
        files.note(scope, 200, [], 5)
        taken = files._take(scope)
        assert (taken is not None) == is_taken
        if taken is not None:
            taken.close()


def test_what_was_written_to_clients_of_http_1_0_is_not_known(connection: Connection) -> None:
    files = FileSender(_LEAST_BYTES)
    files.note(connection.scope(http_version="1"), 200, [], 0)
    files.note(connection.scope(), 200, [], 0)
    assert files._take(connection.scope()) is None


def test_no_more_clients_are_remembered_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sender, "_MOST_REMEMBERED", 3)
    files = FileSender(_LEAST_BYTES)
    for port in (1, 2, 3, 1, 4):
        files.note({"client": ("127.0.0.1", port), "http_version": "1.1"}, 200, [], 0)
    assert [port for _, port in files._written] == [3, 1, 4]


def test_two_connections_from_one_port_are_told_apart_or_not_used() -> None:
    """A client may use one port for two addresses of the server; then nothing says which of them asks."""
    with contextlib.ExitStack() as closing:
        first = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = first.getsockname()[1]
        second = closing.enter_context(socket.create_server(("127.0.0.2", port)))
        accepted = []
        address = ("127.0.0.1", 0)
        for listening in (first, second):
            client = closing.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(address)
            client.connect(listening.getsockname())
            address = client.getsockname()
            accepted.append(closing.enter_context(listening.accept()[0]))
        sockets = AcceptedSockets()
        assert sockets.copy_of(address, port, 10_000) is None
        accepted.pop().close()
        found = sockets.copy_of(address, port, 10_000)
        assert found is not None
        with found:
            assert found.getsockname() == first.getsockname()
        accepted.pop().close()
        assert sockets.copy_of(address, port, 10_000) is None


def test_a_file_that_was_cut_ends_the_connection_without_a_complete_body(connection: Connection, path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(_SIZE_BYTES - 1)
    body = _body(path)
    with pytest.raises(BodyCut, match=f"1 of {_SIZE_BYTES} bytes are missing"):
        _exchanged(connection, connection.scope(), body)
    assert body.file is not None
    assert body.file.closed


def test_a_client_that_goes_is_no_error_and_its_bytes_are_counted(connection: Connection, path: Path) -> None:
    size_bytes = 100 * _SIZE_BYTES  # more than the kernel takes for a client that does not read
    os.truncate(path, size_bytes)

    async def exchange() -> int | None:
        sending = asyncio.ensure_future(
            FileSender(_LEAST_BYTES).send(connection.scope(), 200, _PAIRS, _body(path, size_bytes=size_bytes))
        )
        connection.client.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(connection.client, BUFFER_BYTES)
        connection.client.close()
        return await sending

    sent_bytes = asyncio.run(exchange())
    assert sent_bytes is not None
    assert 0 < sent_bytes < size_bytes


def test_a_sending_that_is_cancelled_ends_the_connection(connection: Connection, path: Path) -> None:
    size_bytes = 100 * _SIZE_BYTES
    os.truncate(path, size_bytes)

    async def exchange() -> None:
        sending = asyncio.ensure_future(
            FileSender(_LEAST_BYTES).send(connection.scope(), 200, _PAIRS, _body(path, size_bytes=size_bytes))
        )
        await asyncio.to_thread(connection.client.recv, 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(exchange())
    with pytest.raises(OSError):  # noqa: PT011 - which error it is depends on the kernel
        connection.server.send(_LATER)
    connection.server.close()
    with pytest.raises(ConnectionResetError):
        connection.read()


def test_after_the_body_the_server_can_write_nothing_and_what_the_client_sent_ahead_resets_nothing(
    connection: Connection, path: Path
) -> None:
    """A connection that is closed with unread bytes is reset, and the client may lose the end of the body."""
    files = FileSender(_LEAST_BYTES)

    async def exchange() -> bytes:
        sending = asyncio.ensure_future(files.send(connection.scope(), 200, _PAIRS, _body(path)))
        reading = asyncio.to_thread(connection.read)
        connection.client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        read = asyncio.ensure_future(reading)
        assert await sending == _SIZE_BYTES
        with pytest.raises(BrokenPipeError):
            connection.server.send(_LATER)
        connection.server.close()
        received = await read
        assert files._lingering, "the client has not closed its side"
        connection.client.sendall(bytes(1000))
        connection.client.close()
        await _ended(files)
        return received

    received = asyncio.run(exchange())
    assert received.endswith(path.read_bytes())
    assert not files._sending
    assert not files._lingering


@pytest.mark.parametrize("ending", ["in time", "with the app"])
def test_a_client_that_keeps_its_side_open_is_not_waited_for_long(
    connection: Connection, path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    if ending == "in time":
        monkeypatch.setattr(file_sender, "LINGER_SECONDS", 0.01)
    files = FileSender(_LEAST_BYTES)

    async def exchange() -> None:
        reading = asyncio.ensure_future(asyncio.to_thread(connection.read))
        assert await files.send(connection.scope(), 200, _PAIRS, _body(path)) == _SIZE_BYTES
        await reading
        if ending == "with the app":
            files.close()
        await _ended(files)

    asyncio.run(exchange())
    assert not files._sending
    assert not files._lingering
