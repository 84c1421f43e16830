"""How many pulls of manifests a registry still allows, and a floor of them that is left over for others.

Docker Hub counts GETs of manifests, and says with each answer how many are left; HEADs it does not count. So what is
left is asked for by a HEAD before the first pull, and pulls that are under way count as made. Other programs may pull
at the same time: nothing here can know of theirs before the registry says so.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from registry_sync.errors import RateLimited, RegistryError
from registry_sync.oci.answers import Answer
from registry_sync.oci.clock import Clock
from registry_sync.oci.usage import RateLimit, Usage

#: What was told longer ago is asked for again before a pull, when none is under way that would tell.
STALE_SECONDS = 10.0
#: The same where other tasks of the sync pull meanwhile.
SHARED_STALE_SECONDS = 0.1


@dataclass
class Pull:
    """One request for a manifest: ``began`` orders it among the others; ``is_told`` when it said what is left."""

    began: int
    is_told: bool = False


class PullLimit:
    """Keeps ``floor`` pulls left over by all threads of a client, None for all may be used.

    The client is one of ``sharers`` that pull at the same time, each with ``c`` threads. Each takes its part of what is
    left, less and less the closer the floor is, because it learns of the others' pulls only by the answers to its own.
    Alone it passes the floor by nothing. Several pass it by no more than ``(sharers - 1) * (c - 2)`` pulls, and by
    these only where the registry's answers to all but one are late: whoever was told least has two left over for each
    of the others, and of each of those no more than ``c`` pulls are under way that it was not told of.
    """

    def __init__(self, floor: int | None, sharers: int, *, host: str, clock: Clock, usage: Usage) -> None:
        self._floor = floor
        self._sharers = sharers
        self._host = host
        self._clock = clock
        self._usage = usage
        self._ticks = itertools.count(1)
        self._changed = threading.Condition()
        self._left: RateLimit | None = None
        self._told = 0
        self._told_at = float("-inf")
        self._is_unlimited = False
        self._is_alone = False
        self._under_way = 0

    def request(self) -> Pull:
        """To be made before a request whose answer is noted and which is no pull."""
        return Pull(next(self._ticks))

    def note(self, answer: Answer, request: Pull) -> None:
        """Keeps what the answer to ``request`` says of what is left; answers may arrive in another order than given."""
        self._usage.note_rate_limit(answer)
        left = RateLimit.read(answer)
        if left is None:
            return
        request.is_told = True
        with self._changed:
            if self._left is None or left.remaining <= self._left.remaining or request.began > self._told:
                self._left, self._told, self._told_at = left, next(self._ticks), self._clock.monotonic()
            self._is_unlimited = False
            self._changed.notify_all()

    @contextmanager
    def pull(self, ask_freely: Callable[[], object]) -> Iterator[Pull]:
        """Around one pull; waits where only those under way can tell whether it is allowed.

        ``ask_freely`` makes a request that is not counted and notes its answer. Raises :class:`RateLimited` when fewer
        than the floor would be left over, and temporary errors of ``ask_freely``.
        """
        if self._floor is None:
            yield self.request()
            return
        is_alone = self._begin(self._floor, ask_freely)
        pull, is_done = self.request(), False
        try:
            yield pull
            is_done = True
        finally:
            with self._changed:
                self._under_way -= 1
                if is_alone:
                    self._is_alone = False
                    self._is_unlimited = is_done and self._left is None
                if not pull.is_told and self._left is not None:
                    self._left = replace(self._left, remaining=max(0, self._left.remaining - 1))
                self._changed.notify_all()

    def _begin(self, floor: int, ask_freely: Callable[[], object]) -> bool:
        """Counts the pull as under way. True when nothing is known, so that it goes alone and tells."""
        if self._is_to_be_asked():
            try:
                ask_freely()
            except RegistryError as problem:
                if problem.is_temporary:
                    self._go_on()
                    raise
            except BaseException:
                self._go_on()
                raise
            with self._changed:
                if self._left is None:
                    self._under_way += 1
                    return True
            self._go_on()
        with self._changed:
            while not self._is_unlimited and self._left is not None and not self._is_allowed(self._left, floor):
                if self._under_way == 0 or self._left.remaining <= floor:
                    raise RateLimited(
                        f"{self._host} allows {self._left.remaining} more pulls, and {floor} are to be left over",
                        host=self._host,
                        retry_after_seconds=self._left.window_seconds,
                    )
                self._changed.wait()
            self._under_way += 1
        return False

    def _is_allowed(self, left: RateLimit, floor: int) -> bool:
        return (self._under_way + 1) * self._sharers <= left.remaining - floor - (self._sharers - 1)

    def _is_to_be_asked(self) -> bool:
        """Whether the caller is to ask what is left, while the others wait."""
        with self._changed:
            while self._is_alone:
                self._changed.wait()
            kept_seconds = STALE_SECONDS if self._sharers == 1 else SHARED_STALE_SECONDS
            is_stale = self._under_way == 0 and self._clock.monotonic() - self._told_at > kept_seconds
            self._is_alone = not self._is_unlimited and (self._left is None or is_stale)
            return self._is_alone

    def _go_on(self) -> None:
        with self._changed:
            self._is_alone = False
            self._changed.notify_all()
