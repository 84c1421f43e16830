"""How fast bytes may be read, so that a verification leaves the disk or the network to others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class ByteRate:
    """Turns for reading threads: together at most ``bytes_per_second``, None for no limit.

    Nothing is saved up: a pause is not made up for by reading faster afterwards.
    """

    def __init__(
        self,
        bytes_per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size_bytes: int) -> None:
        """Waits until as many bytes may be read as were taken before, then counts ``size_bytes`` more."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            now = self._clock()
            turn_at = max(now, self._free_at)
            self._free_at = turn_at + size_bytes * self._seconds_per_byte
        if turn_at > now:
            self._sleep(turn_at - now)
