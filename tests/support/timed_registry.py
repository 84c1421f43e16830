"""A scripted registry that notes when each request came and how many it worked on at the same time."""

from __future__ import annotations

import socket
import threading
import time

from support.hostile_registry import HostileRegistry, Raw, Request


class TimedRegistry(HostileRegistry):
    """``service_seconds`` is how long it works on each request."""

    def __init__(self, service_seconds: float = 0.0) -> None:
        super().__init__()
        self.came_at: list[float] = []
        self.most_at_work = 0
        self._service_seconds = service_seconds
        self._at_work = 0
        self._notes = threading.Lock()

    def forget(self) -> None:
        """Begins the notes anew."""
        with self._notes:
            self.came_at, self.most_at_work = [], 0

    def most_within(self, seconds: float) -> int:
        """The most requests that came within any ``seconds``."""
        times = sorted(self.came_at)
        return max((sum(begin <= at < begin + seconds for at in times) for begin in times), default=0)

    @property
    def duration_seconds(self) -> float:
        """From the first request to the last."""
        return max(self.came_at) - min(self.came_at)

    def _answer_for(self, request: Request) -> Raw:
        with self._notes:
            self.came_at.append(time.monotonic())
            self._at_work += 1
            self.most_at_work = max(self.most_at_work, self._at_work)
        time.sleep(self._service_seconds)
        return super()._answer_for(request)

    def _send(self, connection: socket.socket, response: Raw, request: Request) -> None:
        # Before the last byte is sent: who has it may ask again at once.
        with self._notes:
            self._at_work -= 1
        super()._send(connection, response, request)
