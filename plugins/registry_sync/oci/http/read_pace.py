"""How slow a server may be: from the request to the end of its headers, and byte for byte after that.

Timeouts of sockets bound the silence between two bytes only, so that a server that sends a byte now and then would
hold a worker for ever.
"""

from __future__ import annotations

import io
import socket
import time
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from registry_sync.oci.http.options import Clock


@dataclass(frozen=True)
class Pace:
    """The least of a body: ``minimum_bytes_per_second`` over each ``window_seconds`` spent waiting for it."""

    window_seconds: float
    minimum_bytes_per_second: float
    clock: Clock

    def watch(self) -> PaceWatch:
        """A watch over one body."""
        return PaceWatch(self)


class PaceWatch:
    """Adds up what arrived and how long it was waited for; the time that the reader itself takes is not counted."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waited_seconds = 0.0
        self._seen_bytes = 0
        self._asked_at = 0.0

    def ask(self) -> None:
        """Call it before waiting."""
        self._asked_at = self._pace.clock.monotonic()

    def got(self, size_bytes: int) -> bool:
        """Call it after waiting; False when it was too little for too long."""
        self._waited_seconds += self._pace.clock.monotonic() - self._asked_at
        self._seen_bytes += size_bytes
        if self._waited_seconds < self._pace.window_seconds:
            return True
        is_enough = self._seen_bytes >= self._pace.minimum_bytes_per_second * self._waited_seconds
        self._waited_seconds, self._seen_bytes = 0.0, 0
        return is_enough


class _Received(io.RawIOBase):
    """The bytes of a socket, and an error instead of them after ``deadline`` (monotonic) where one is set.

    While ``is_beginning``, the end of the bytes is an error too: headers that break off are no headers.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self.deadline: float | None = None
        self.is_beginning = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError("the headers of an answer take too long")
        count = self._raw.readinto(buffer)
        if count == 0 and self.is_beginning:
            raise ConnectionResetError("the connection ended before the headers of the answer did")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class PunctualResponse(HTTPResponse):
    """An answer whose status line and headers must arrive within the socket's timeout, all together."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._timeout_seconds = sock.gettimeout()
        self._received = _Received(self.fp.detach())
        self.fp = io.BufferedReader(self._received)

    def begin(self) -> None:
        if self._timeout_seconds is not None:
            self._received.deadline = time.monotonic() + self._timeout_seconds
        self._received.is_beginning = True
        super().begin()
        self._received.is_beginning = False
        self._received.deadline = None
