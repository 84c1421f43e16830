"""Progress that is told every few seconds: how many, how many bytes, how fast, how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_bytes(size_bytes: float) -> str:
    """``340 MiB``: three digits at the most, in binary units."""
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.0f} {_UNITS[-1]}"


def format_count(count: int, noun: str) -> str:
    """``1 blob``, ``3,000 tags``: a noun that takes an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Progress:
    """Counts what is finished and says so through ``tell``, at most every ``interval_seconds``, and at the end.

    Used by one thread. ``total_bytes`` 0 leaves bytes out.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        noun: str,
        total_count: int,
        total_bytes: int = 0,
        *,
        interval_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._noun, self._clock = tell, noun, clock
        self._total_count, self._total_bytes = total_count, total_bytes
        self._interval = interval_seconds
        self._started = self._told = clock()
        self.done_count = 0
        self.done_bytes = 0

    def add(self, count: int, size_bytes: int = 0) -> None:
        """``count`` more are finished, with ``size_bytes`` more bytes."""
        self.done_count += count
        self.done_bytes += size_bytes
        now = self._clock()
        if now - self._told >= self._interval and self.done_count < self._total_count:
            self._told = now
            self._tell(self._line(now - self._started))

    def finish(self) -> None:
        """Says the last line."""
        self._tell(self._line(self._clock() - self._started))

    def _line(self, seconds: float) -> str:
        line = f"{self.done_count:,} of {format_count(self._total_count, self._noun)}"
        if not self._total_bytes:
            return f"{line} in {seconds:.1f} s"
        rate = self.done_bytes / seconds if seconds > 0 else 0.0
        left = self._total_bytes - self.done_bytes
        line += f", {format_bytes(self.done_bytes)} of {format_bytes(self._total_bytes)}, {format_bytes(rate)}/s"
        if self.done_count >= self._total_count or not rate:
            return f"{line} in {seconds:.1f} s"
        return f"{line}, {format_bytes(left)} left, about {left / rate:.0f} s"
