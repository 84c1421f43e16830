"""A link to a registry that is far away: a TCP proxy on loopback with a round trip and, if wanted, a bandwidth.

A byte reaches the other side half a round trip after it was sent, whatever was sent before it, so that the delay costs
no throughput. The first bytes of a connection come a whole round trip later still, as after TCP's handshake. The
bandwidth is that of the link: all connections share it, in turn, each direction for itself. There is no slow start and
no loss.

It runs in a process of its own, a loop over epoll. By hand, from the folder of the tests, until its input ends:
``python -m support.delaying_proxy 127.0.0.1:5000 --round-trip-ms 80 --mbit 100``.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType

_READ_BYTES = 256 * 1024
#: What a connection may send in its turn when the bandwidth is bounded: 1.3 ms at 100 Mbit/s.
_TURN_BYTES = 16 * 1024
#: Bytes on the way in one direction of a connection: 400 MB/s at 80 ms of round trip.
_WINDOW_BYTES = 16 * 1024 * 1024
#: The loop is woken up to a millisecond late; the link makes up for so much.
_CREDIT_SECONDS = 0.005


class DelayingProxy:
    """A proxy to ``port`` of this host, between ``with`` and its end.

    ``bits_per_second`` None is no bound. After the end ``most_waiting`` is the largest number of connections that
    waited for a response at once, ``connection_count`` how many were opened, and ``cpu_seconds`` what it took itself.
    """

    def __init__(self, port: int, round_trip_seconds: float, bits_per_second: float | None = None) -> None:
        self.port = 0
        self.most_waiting = 0
        self.connection_count = 0
        self.cpu_seconds = 0.0
        self._arguments = [f"127.0.0.1:{port}", f"--round-trip-ms={round_trip_seconds * 1000}"]
        if bits_per_second is not None:
            self._arguments.append(f"--mbit={bits_per_second / 1e6}")
        self._process: subprocess.Popen[str] | None = None

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> DelayingProxy:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        output, _ = self._process.communicate(timeout=20)
        counts = json.loads(output)
        self.most_waiting, self.connection_count = counts["most_waiting"], counts["connections"]
        self.cpu_seconds = counts["cpu_seconds"]


class _Bandwidth:
    """One direction of the link: when it is free for the next bytes, and who waits for its turn."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self.free_at = float("-inf")
        self.waiting: deque[_Direction] = deque()

    def pass_on(self, byte_count: int, now: float) -> float:
        """When so many bytes have left."""
        self.free_at = max(self.free_at, now - _CREDIT_SECONDS) + byte_count / self._bytes_per_second
        return max(self.free_at, now)


class _Direction:
    """One direction of a connection: what was read from ``source`` and is to reach ``sink``, with the time of each.

    Empty bytes are the end. Nothing is read before ``opens_at``, as it seems to the other side.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, opens_at: float, bandwidth: _Bandwidth | None, *, is_up: bool
    ) -> None:
        self.source, self.sink = source, sink
        self.opens_at = opens_at
        self.bandwidth = bandwidth
        self.is_up = is_up
        self.back: _Direction
        self.queue: deque[tuple[float, memoryview]] = deque()
        self.queued_bytes = 0
        self.has_read_all = self.has_ended = self.is_in_turn = self.is_blocked = self.is_waiting = False
        self.is_watched = True

    @property
    def is_reading(self) -> bool:
        return not (self.has_read_all or self.is_in_turn) and self.queued_bytes < _WINDOW_BYTES


class _Loop:
    """Forwards until the standard input ends."""

    def __init__(self, target: tuple[str, int], round_trip_seconds: float, bits_per_second: float | None) -> None:
        self._target = target
        self._round_trip = round_trip_seconds
        self._up = _Bandwidth(bits_per_second / 8) if bits_per_second else None
        self._down = _Bandwidth(bits_per_second / 8) if bits_per_second else None
        self._read_bytes = _TURN_BYTES if bits_per_second else _READ_BYTES
        self._poll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self._by_source: dict[int, _Direction] = {}
        self._due: list[tuple[float, int, _Direction]] = []
        self._order = itertools.count()
        self._waiting_count = 0
        self.most_waiting = 0
        self.connection_count = 0

    def run(self) -> None:
        listener, control = self._listener.fileno(), sys.stdin.fileno()
        self._poll.register(listener, select.EPOLLIN)
        self._poll.register(control, select.EPOLLIN | select.EPOLLHUP)
        while True:
            for number, events in self._poll.poll(self._timeout()):
                if number == control:
                    return
                if number == listener:
                    self._accept()
                elif number in self._by_source:
                    self._handle(self._by_source[number], events)
            self._deliver_due()
            for bandwidth in (self._up, self._down):
                while bandwidth is not None and bandwidth.waiting and bandwidth.free_at <= time.monotonic():
                    direction = bandwidth.waiting.popleft()
                    direction.is_in_turn = False
                    self._read(direction)

    def _timeout(self) -> float | None:
        """Seconds until something is to be done; None for when something comes."""
        times = [self._due[0][0]] if self._due else []
        times += [rate.free_at for rate in (self._up, self._down) if rate is not None and rate.waiting]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self.connection_count += 1
        opens_at = time.monotonic() + self._round_trip
        up = _Direction(client, server, opens_at, self._up, is_up=True)
        down = _Direction(server, client, opens_at, self._down, is_up=False)
        up.back, down.back = down, up
        for direction in (up, down):
            direction.source.setblocking(False)
            direction.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._by_source[direction.source.fileno()] = direction
            self._poll.register(direction.source.fileno(), select.EPOLLIN)

    def _handle(self, direction: _Direction, events: int) -> None:
        """What epoll reports of a socket: it has bytes, and takes again those that come from the other side."""
        if events & select.EPOLLOUT and direction.back.is_blocked:
            direction.back.is_blocked = False
            self._deliver(direction.back)
        if direction.source.fileno() < 0 or not events & ~select.EPOLLOUT:
            return
        bandwidth = direction.bandwidth
        if direction.is_reading and bandwidth is not None:
            direction.is_in_turn = True
            bandwidth.waiting.append(direction)
            self._watch(direction)
        elif direction.is_reading:
            self._read(direction)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            # Epoll would report it without end, and bytes of it may still be on the way.
            self._poll.unregister(direction.source)
            direction.is_watched = False

    def _read(self, direction: _Direction) -> None:
        if direction.source.fileno() < 0:
            return None
        try:
            data = direction.source.recv(self._read_bytes)
        except BlockingIOError:
            return self._watch(direction)
        except OSError:
            return self._close(direction)
        now = time.monotonic()
        if data and direction.is_up and not direction.is_waiting:
            direction.is_waiting = True
            self._waiting_count += 1
            self.most_waiting = max(self.most_waiting, self._waiting_count)
        left_at = now if direction.bandwidth is None else direction.bandwidth.pass_on(len(data), now)
        due_at = max(left_at, direction.opens_at) + self._round_trip / 2
        direction.has_read_all = not data
        direction.queue.append((due_at, memoryview(data)))
        direction.queued_bytes += len(data)
        if len(direction.queue) == 1:
            heapq.heappush(self._due, (due_at, next(self._order), direction))
        self._watch(direction)
        return None

    def _deliver_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._deliver(heapq.heappop(self._due)[2])

    def _deliver(self, direction: _Direction) -> None:
        """Sends what is due to the sink, as far as it takes it."""
        now = time.monotonic()
        while direction.queue and direction.queue[0][0] <= now and direction.sink.fileno() >= 0:
            due_at, data = direction.queue[0]
            try:
                if not data:
                    direction.queue.popleft()
                    return self._end(direction)
                sent = direction.sink.send(data)
            except BlockingIOError:
                direction.is_blocked = True
                return self._watch(direction.back)
            except OSError:
                return self._close(direction)
            if not direction.is_up and direction.back.is_waiting:
                direction.back.is_waiting = False
                self._waiting_count -= 1
            direction.queued_bytes -= sent
            if sent < len(data):
                direction.queue[0] = (due_at, data[sent:])
            else:
                direction.queue.popleft()
        if direction.queue:
            heapq.heappush(self._due, (direction.queue[0][0], next(self._order), direction))
        self._watch(direction)
        self._watch(direction.back)
        return None

    def _end(self, direction: _Direction) -> None:
        direction.has_ended = True
        if direction.back.has_ended:
            self._close(direction)
            return
        try:
            direction.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(direction)

    def _watch(self, direction: _Direction) -> None:
        """Asks epoll for what can be done with the direction's source."""
        if direction.source.fileno() < 0:
            return
        events = select.EPOLLIN if direction.is_reading else 0
        events |= select.EPOLLOUT if direction.back.is_blocked else 0
        if direction.is_watched:
            self._poll.modify(direction.source, events)
        elif events:
            self._poll.register(direction.source, events)
            direction.is_watched = True

    def _close(self, direction: _Direction) -> None:
        for one in (direction, direction.back):
            if one.is_waiting:
                one.is_waiting = False
                self._waiting_count -= 1
            one.queue.clear()
            if one.source.fileno() >= 0:
                del self._by_source[one.source.fileno()]
                one.source.close()


def main() -> None:
    """Prints the port in a line of JSON, and the counts in another at the end."""
    parser = argparse.ArgumentParser(prog="python -m support.delaying_proxy", description=__doc__)
    parser.add_argument("target", help="host:port of the registry")
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    parser.add_argument("--mbit", type=float, help="megabits per second of the link; no bound without it")
    arguments = parser.parse_args()
    host, _, port = arguments.target.rpartition(":")
    bits = arguments.mbit * 1e6 if arguments.mbit else None
    loop = _Loop((host, int(port)), arguments.round_trip_ms / 1000, bits)
    print(json.dumps({"port": loop.port}), flush=True)
    loop.run()
    counts = {
        "most_waiting": loop.most_waiting,
        "connections": loop.connection_count,
        "cpu_seconds": time.process_time(),
    }
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
