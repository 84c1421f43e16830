"""Work on many small items in threads that keeps the results of others when one fails; its progress is logged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from registry_sync.domain.quantities import format_bytes, format_count, format_duration
from registry_sync.errors import RegistrySyncError


def warn(report: Callable[[str], None], line: str) -> None:
    """Reports ``line`` as a warning if ``report`` supports warnings, else as any other line."""
    getattr(report, "warning", report)(line)


class Progress:
    """Counts finished items and reports the progress, at most every ``interval_seconds``, and at the end.

    Used by one thread, :meth:`receive` by any. ``total_bytes`` 0 omits bytes.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        noun: str,
        total_count: int,
        total_bytes: int = 0,
        *,
        interval_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report, self._noun, self._clock = report, noun, clock
        self._total_count, self._total_bytes = total_count, total_bytes
        self._interval = interval_seconds
        self._started = self._reported_at = clock()
        self._lock = threading.Lock()
        self._received = self._received_of_done = 0
        self.done_count = 0
        self.done_bytes = 0

    def receive(self, size_bytes: int) -> None:
        """Counts ``size_bytes`` more received of unfinished items."""
        with self._lock:
            self._received += size_bytes

    def add(self, count: int, size_bytes: int = 0, received_bytes: int = 0) -> None:
        """Counts ``count`` more finished items of ``size_bytes``, of which :meth:`receive` saw ``received_bytes``."""
        self.done_count += count
        self.done_bytes += size_bytes
        self._received_of_done += received_bytes
        self.report()

    def report(self) -> None:
        """Reports the progress if the interval has passed since the last line."""
        now = self._clock()
        if now - self._reported_at >= self._interval and self.done_count < self._total_count:
            self._reported_at = now
            self._report(self._line(now - self._started))

    def finish(self) -> None:
        """Reports the last line, unless there was nothing to do."""
        if self._total_count:
            self._report(self._line(self._clock() - self._started))

    def _line(self, seconds: float) -> str:
        line = f"{self.done_count:,} of {format_count(self._total_count, self._noun)}"
        if not self._total_bytes:
            return f"{line} in {format_duration(seconds)}"
        arriving = max(0, self._received - self._received_of_done)
        present = min(self.done_bytes + arriving, max(self.done_bytes, self._total_bytes))
        # Bytes that existed before took no time.
        rate = (self._received or self.done_bytes) / seconds if seconds > 0 else 0.0
        left = self._total_bytes - present
        line += f", {format_bytes(present)} of {format_bytes(self._total_bytes)}, {format_bytes(rate)}/s"
        if self.done_count >= self._total_count or not rate:
            return f"{line} in {format_duration(seconds)}"
        return f"{line}, {format_bytes(left)} left, about {format_duration(left / rate)}"


IDLE_SECONDS = 5.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    done: Callable[[Item, Result], None],
    failed: Callable[[Item, RegistrySyncError], None],
    idle: Callable[[], None] | None = None,
) -> None:
    """Runs ``work`` on every item, at most ``threads`` at once.

    ``done`` and ``failed`` are called in the caller's thread, as items finish, and ``idle`` every few seconds in which
    none does. An exception from these, or one from ``work`` that is no :class:`RegistrySyncError`, stops the rest:
    running items finish, and are passed to ``done`` if they succeed, unless ``done`` raised; waiting items are not
    started.
    """
    waiting = iter(items)
    running: dict[Future[Result], Item] = {}
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="registry-sync") as pool:

        def fill() -> None:
            while len(running) < 2 * threads:
                try:
                    item = next(waiting)
                except StopIteration:
                    return
                running[pool.submit(work, item)] = item

        is_done_raising = False
        fill()
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED, timeout=IDLE_SECONDS if idle else None)
                if idle and not finished:
                    idle()
                for future in finished:
                    item = running.pop(future)
                    try:
                        result = future.result()
                    except RegistrySyncError as error:
                        failed(item, error)
                    else:
                        is_done_raising = True
                        done(item, result)
                        is_done_raising = False
                fill()
        finally:
            left = [future for future in running if not future.cancel()]
            if not is_done_raising:
                for future in as_completed(left):
                    if future.exception() is None:
                        done(running[future], future.result())
