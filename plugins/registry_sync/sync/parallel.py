"""Work on many small items in threads that keeps the results of others when one fails; its progress is logged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from registry_sync.domain.quantities import format_bytes, format_count, format_duration
from registry_sync.errors import RegistrySyncError

if TYPE_CHECKING:
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.oci.client import RegistryReader


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
_MOST_THREADS = 10_000
#: Items of a nested call are quick when they take no longer than this on average, after a few that may.
QUICK_SECONDS = 0.005
_UNCOUNTED = 4
#: So long after slow items, nested calls begin with threads.
_SLOW_SECONDS = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def requests_at_once(client: RegistryReader, remote: RemoteSpec) -> Callable[[], int]:
    """How many threads request content of ``remote``: what the client allows at the time, within the remote's bound."""
    return lambda: min(client.requests_at_once, remote.download_concurrency)


def for_each(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int | Callable[[], int],
    done: Callable[[Item, Result], None],
    failed: Callable[[Item, RegistrySyncError], None],
    idle: Callable[[], None] | None = None,
) -> None:
    """Runs ``work`` on every item, at most ``threads`` at once, which may become more while it runs.

    ``done`` and ``failed`` are called in the caller's thread, as items finish, and ``idle`` every few seconds in which
    none does. An exception from these, or one from ``work`` that is no :class:`RegistrySyncError`, stops the rest:
    running items finish, and are passed to ``done`` if they succeed, unless ``done`` raised; waiting items are not
    started.

    A call in the ``work`` of another, whose threads have enough to do, works on quick items in the caller's thread, and
    shares the threads for slow ones with all others there: to start some for each small mirror costs more than its
    requests.
    """
    each = _Each(work, iter(items), done, failed, idle)
    most = threads if callable(threads) else lambda: threads
    around: _Around | None = getattr(_of_thread, "around", None)
    if around is not None and idle is None:
        if around.is_slow or not each.work_here():
            around.note_slow()
            each.work_in(around.pool, most)
        return
    with _Around() as around, ThreadPoolExecutor(_MOST_THREADS, "registry-sync", around.enter) as pool:
        each.work_in(pool, most)


_of_thread = threading.local()


class _Around:
    """A call in whose threads others are made, with the threads that these share, each started when it is needed."""

    def __init__(self) -> None:
        # Without a bound of its own: who waits for one registry must not keep others waiting.
        self.pool = ThreadPoolExecutor(_MOST_THREADS, "registry-sync")
        self._slow_until = float("-inf")

    def enter(self) -> None:
        """Makes calls in this thread nested ones."""
        _of_thread.around = self

    @property
    def is_slow(self) -> bool:
        """Whether items were slow a moment ago."""
        return time.monotonic() < self._slow_until

    def note_slow(self) -> None:
        """Takes note of slow items, unless that is known."""
        if not self.is_slow:
            self._slow_until = time.monotonic() + _SLOW_SECONDS

    def __enter__(self) -> _Around:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()


@dataclass
class _Each(Generic[Item, Result]):
    """One call of :func:`for_each`; ``waiting`` are the items that are not begun."""

    work: Callable[[Item], Result]
    waiting: Iterator[Item]
    done: Callable[[Item, Result], None]
    failed: Callable[[Item, RegistrySyncError], None]
    idle: Callable[[], None] | None

    def work_here(self) -> bool:
        """Works on items in this thread while they are quick; whether that were all."""
        began = time.monotonic()
        for count, item in enumerate(self.waiting, 1):
            try:
                result = self.work(item)
            except RegistrySyncError as error:
                self.failed(item, error)
            else:
                self.done(item, result)
            if time.monotonic() - began > QUICK_SECONDS * (count + _UNCOUNTED):
                return False
        return True

    def work_in(self, pool: ThreadPoolExecutor, most: Callable[[], int]) -> None:
        """Works on the items in threads of ``pool``, at most as many as ``most`` says at the time."""
        crew, is_done_raising = _Crew(self.work, pool, most), False
        try:
            crew.fill(self.waiting)
            while crew.has_work:
                finished = crew.next_finished(IDLE_SECONDS if self.idle else None)
                if finished is None:
                    if self.idle:
                        self.idle()
                    continue
                if isinstance(finished.error, RegistrySyncError):
                    self.failed(finished.item, finished.error)
                elif finished.error is not None:
                    raise finished.error
                else:
                    is_done_raising = True
                    self.done(finished.item, finished.result)
                    is_done_raising = False
                crew.fill(self.waiting)
        finally:
            for finished in crew.stop():
                if finished.error is None and not is_done_raising:
                    self.done(finished.item, finished.result)


@dataclass(frozen=True)
class _Finished(Generic[Item, Result]):
    """An item with its result, or with what its work raised."""

    item: Item
    error: BaseException | None
    result: Any = None


class _Crew(Generic[Item, Result]):
    """Threads of a pool that take items from a queue and put what has become of them into another."""

    def __init__(self, work: Callable[[Item], Result], pool: ThreadPoolExecutor, most: Callable[[], int]) -> None:
        self._work, self._pool, self._most = work, pool, most
        self._waiting: SimpleQueue[tuple[Item] | None] = SimpleQueue()
        self._finished: SimpleQueue[_Finished[Item, Result]] = SimpleQueue()
        self._threads: list[Future[None]] = []
        self._has_all_threads = False
        self._count = 0

    @property
    def has_work(self) -> bool:
        """Whether an item waits, runs, or has finished and was not returned."""
        return self._count > 0

    def fill(self, items: Iterator[Item]) -> None:
        """Takes as many of ``items`` as keep the threads busy until the next time."""
        most = max(1, self._most())
        while self._count < 2 * most:
            try:
                item = next(items)
            except StopIteration:
                break
            self._waiting.put((item,))
            self._count += 1
        while len(self._threads) < min(most, self._count) and not self._has_all_threads:
            try:
                self._threads.append(self._pool.submit(self._run))
            except RuntimeError:  # noqa: PERF203  the system allows no more threads
                if not self._threads:
                    raise
                self._has_all_threads = True

    def next_finished(self, timeout_seconds: float | None) -> _Finished[Item, Result] | None:
        """The next item that has finished; None when none does for that long."""
        try:
            finished = self._finished.get(timeout=timeout_seconds)
        except Empty:
            return None
        self._count -= 1
        return finished

    def stop(self) -> Iterator[_Finished[Item, Result]]:
        """Starts no item any more; those that were running, once all of them have finished."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)
        wait(self._threads)
        with suppress(Empty):
            while True:
                yield self._finished.get_nowait()

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            [item] = waiting
            try:
                finished: _Finished[Item, Result] = _Finished(item, None, self._work(item))
            except BaseException as error:  # noqa: BLE001  raised in the caller's thread
                finished = _Finished(item, error)
            self._finished.put(finished)
        # For the others, and for a run that the pool has kept although no thread could be started for it.
        self._waiting.put(None)
