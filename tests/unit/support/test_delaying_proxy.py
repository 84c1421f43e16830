"""The link to a registry that is far away: bytes come late, in order, and none is lost."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.delaying_proxy import DelayingProxy

ROUND_TRIP_SECONDS = 0.1


@contextmanager
def served(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection to ``serve``, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work(connection: socket.socket) -> None:
        with connection:
            serve(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=work, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def connected(proxy: DelayingProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port))


def received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := connection.recv(65536)):
        data += piece
    return data


def test_the_handshake_and_each_exchange_take_a_round_trip() -> None:
    with served(echo) as port, DelayingProxy(port, ROUND_TRIP_SECONDS) as proxy, connected(proxy) as connection:
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            connection.sendall(b"ping")
            assert received(connection, 4) == b"ping"
            seconds.append(time.monotonic() - began)
    assert seconds[0] >= 2 * ROUND_TRIP_SECONDS
    assert min(seconds[1:]) >= ROUND_TRIP_SECONDS


def test_what_is_sent_without_waiting_travels_together_and_in_order() -> None:
    with served(echo) as port, DelayingProxy(port, ROUND_TRIP_SECONDS) as proxy, connected(proxy) as connection:
        began = time.monotonic()
        for number in range(100):
            connection.sendall(b"%03d" % number)
            time.sleep(0)
        assert received(connection, 300) == b"".join(b"%03d" % number for number in range(100))
        # One after the other they would have taken a hundred round trips.
        assert time.monotonic() - began < 50 * ROUND_TRIP_SECONDS


def test_the_end_comes_after_the_last_byte_from_either_side() -> None:
    sent = random.Random(5).randbytes(6_000_000)

    def hashed(connection: socket.socket) -> None:
        hasher = hashlib.sha256()
        while data := connection.recv(65536):
            hasher.update(data)
        connection.sendall(hasher.digest())

    with served(hashed) as port, DelayingProxy(port, ROUND_TRIP_SECONDS) as proxy, connected(proxy) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert received(connection, 33) == hashlib.sha256(sent).digest()


def test_all_connections_share_the_bandwidth() -> None:
    size, bits_per_second = 125_000, 4e6

    def send(connection: socket.socket) -> None:
        connection.sendall(bytes(size))

    with served(send) as port, DelayingProxy(port, 0.0, bits_per_second) as proxy:
        began = time.monotonic()
        connections = [connected(proxy) for _ in range(2)]
        assert [len(received(connection, size + 1)) for connection in connections] == [size, size]
        # The link makes up for a few milliseconds in which nobody woke it.
        assert time.monotonic() - began >= 2 * size * 8 / bits_per_second - 0.01
        for connection in connections:
            connection.close()


def test_connections_that_wait_for_a_response_are_counted() -> None:
    with served(echo) as port, DelayingProxy(port, ROUND_TRIP_SECONDS) as proxy:
        connections = [connected(proxy) for _ in range(4)]
        for connection in connections[:3]:
            connection.sendall(b"ping")
        for connection in connections[:3]:
            assert received(connection, 4) == b"ping"
        connections[3].sendall(b"ping")
        assert received(connections[3], 4) == b"ping"
        for connection in connections:
            connection.close()
    assert (proxy.most_waiting, proxy.connection_count) == (3, 4)
    assert proxy.cpu_seconds > 0
