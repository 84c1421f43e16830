"""Which connections are reset, on real sockets and with a clock of the test's own."""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from registry_sync.serve.accepted_sockets import unread_bytes
from registry_sync.serve.slow_clients import MOST_CONNECTIONS, READ_BYTES, SlowReaders, connection_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked as Linux is asked")


@dataclass
class Pair:
    """A connection: what the server has of it, and what the client has."""

    server: socket.socket
    client: socket.socket

    def fill(self) -> None:
        """Writes until the kernel takes no more, which the client's side then has not all received."""
        self.server.setblocking(False)
        try:
            while True:
                self.server.send(b"x" * 65536)
        except BlockingIOError:
            pass

    def read(self, count: int) -> None:
        """What the client has read, the server's kernel knows soon after."""
        while count > 0:
            count -= len(self.client.recv(min(count, 65536))) or count

    @property
    def is_open(self) -> bool:
        """Whether the server's side was not shut down."""
        try:
            self.server.send(b"y")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[Pair]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield Pair(server, client)


def test_of_some_clients_alone_others_are_left_as_they_are(pair: Pair) -> None:
    """As in Airflow's API server, where most connections are none of ours."""
    pair.fill()
    clients: set[tuple[str, int]] = set()
    readers = SlowReaders(60, lambda: clients)
    assert [readers.check(now) for now in (0, 61, 122)] == [0, 0, 0]
    clients.add(("192.0.2.1", 1))
    assert [readers.check(now) for now in (200, 261)] == [0, 0]
    clients.add(pair.client.getsockname())
    assert [readers.check(now) for now in (300, 361)] == [0, 1]
    assert not pair.is_open


def test_a_client_that_reads_nothing_is_reset_after_the_time(pair: Pair) -> None:
    pair.fill()
    readers = SlowReaders(60)
    assert [readers.check(now) for now in (0, 30, 59.9)] == [0, 0, 0]
    assert pair.is_open
    assert readers.check(60) == 1
    assert not pair.is_open
    pair.server.close()
    with pytest.raises(ConnectionResetError):
        pair.read(1 << 40)


def test_a_client_that_reads_a_byte_now_and_then_is_slow_too(pair: Pair) -> None:
    pair.fill()
    readers = SlowReaders(60)
    readers.check(0)
    pair.read(1)
    assert (readers.check(30), readers.check(60)) == (0, 1)


def test_a_client_that_takes_enough_may_go_on(pair: Pair) -> None:
    readers = SlowReaders(60)
    for minute in range(3):
        pair.fill()
        assert readers.check(60 * minute) == 0
        pair.read(4 * READ_BYTES)
    assert pair.is_open


def test_a_client_that_has_everything_may_wait(pair: Pair) -> None:
    """It is the server's bound for the next request that ends it."""
    pair.server.sendall(b"x")
    pair.read(1)
    readers = SlowReaders(60)
    assert [readers.check(now) for now in (0, 60, 120)] == [0, 0, 0]
    assert pair.is_open


def test_the_time_begins_anew_once_nothing_waits(pair: Pair) -> None:
    readers = SlowReaders(60)
    pair.fill()
    readers.check(0)
    pair.client.setblocking(False)
    while unread_bytes(pair.server):
        with contextlib.suppress(BlockingIOError):
            pair.client.recv(65536)
    readers.check(30)
    pair.fill()
    assert (readers.check(60), readers.check(119), readers.check(120)) == (0, 0, 1)


def test_connections_that_this_process_opened_are_left_alone(pair: Pair, listener: socket.socket) -> None:
    """Such as those to the database and to an object store."""
    pair.fill()
    listener.close()  # what was accepted is then no longer known as such
    readers = SlowReaders(60)
    assert (readers.check(0), readers.check(60)) == (0, 0)
    assert pair.is_open


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 1024, None, (1024 - 512) // 2),
        (1024, 4096, 4096, (4096 - 512) // 2),
        (1024, 1_000_000, 2 * MOST_CONNECTIONS + 512, MOST_CONNECTIONS),
        (1024, resource.RLIM_INFINITY, 2 * MOST_CONNECTIONS + 512, MOST_CONNECTIONS),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, MOST_CONNECTIONS),
        (200, 200, None, 16),
    ],
)
def test_connections_are_as_many_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, connections: int
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, values: made.append(values))
    assert connection_limit() == connections
    assert made == ([] if raised is None else [(raised, hard)])
