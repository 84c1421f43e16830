"""How often a registry may be asked, and how many pulls of manifests it still allows.

What counts is a request to the registry's own origin: tag lists, manifests, blobs and their ranges, each retry, a
token service on the same host, and a redirect that leads back. Token services and storage on other hosts have limits
of their own and are not slowed down by what is configured. When one of them says that it is asked too often, the
requests that lead there become fewer too.

Docker Hub counts GETs of manifests, and says with each answer how many are left; HEADs it does not count. So what is
left is asked for by a HEAD before the first pull, and pulls that are under way count as made. Other programs may pull
at the same time: nothing here can know of theirs before the registry says so.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from registry_sync.errors import RateLimited, RegistryError
from registry_sync.oci.http.options import Clock
from registry_sync.oci.http.responses import Response
from registry_sync.oci.http.usage import RateLimit, Usage

#: Statuses by which a server says that it is asked too often (RFC 6585 section 4, RFC 9110 section 15.6.4).
SLOWING_STATUSES = frozenset({429, 503})
#: How long a request waits for its turn at most, when all threads of a client want one.
LONGEST_TURN_SECONDS = 20
#: What the rate gains in a second, of the rate that was too much: ten seconds to be there again.
GAIN_PER_SECOND = 0.05
#: At so many times the rate that was too much nothing is held back any more.
RELEASED_AT = 4
_WINDOW_SECONDS = 1.0


class RequestRate:
    """Turns for the requests of all threads of one client, evenly spaced; ``per_second`` None lets all pass at once.

    Nothing is saved up: after a silence there is one turn at once, and the next a whole interval later. So in any
    ``t`` seconds there are at most ``1 + t * per_second`` turns.

    :meth:`slow_down` halves the rate at which requests were made, for all ``threads`` of the client together, and from
    then on it recovers slowly (additive increase, multiplicative decrease).
    """

    def __init__(self, per_second: float | None, clock: Clock, threads: int = 1) -> None:
        self._configured = per_second
        self._clock = clock
        self._threads = threads
        self._lock = threading.Lock()
        self._next_at = float("-inf")
        self._turns: deque[float] = deque()
        self._slowed_at = float("-inf")
        self._slowed_count = 0
        self._too_much: float | None = None

    def wait(self) -> float:
        """Returns when it is the caller's turn, with the moment of it (monotonic seconds).

        Turns are given in the order in which they are asked for, and anew when the rate changes meanwhile.
        """
        while True:
            turn_at, now, slowed_count = self._take_turn()
            if turn_at > now:
                self._clock.sleep(turn_at - now)
            if slowed_count == self._slowed_count:
                return turn_at

    def slow_down(self, asked_at: float) -> float | None:
        """Halves the rate because of an answer to what was asked at ``asked_at``; the new rate, None when it stays.

        It stays for what was asked before it was last halved, which says nothing of the new rate.
        """
        with self._lock:
            if asked_at <= self._slowed_at:
                return None
            now = self._clock.monotonic()
            made = sum(turn > asked_at - _WINDOW_SECONDS for turn in self._turns)
            rate = self._adapted(now)
            # At first the threads have only begun; they would do more in a whole second.
            self._too_much = max(made, self._threads) if rate is None else min(rate, max(made, 1))
            self._too_much = max(self._too_much, 2 * self._threads / LONGEST_TURN_SECONDS)
            self._slowed_at = now
            self._slowed_count += 1
            halved = self._too_much / 2
            self._next_at = now + 1 / halved
            return halved

    def _take_turn(self) -> tuple[float, float, int]:
        with self._lock:
            now = self._clock.monotonic()
            turn_at = max(now, self._next_at)
            rate = self._rate(turn_at)
            self._next_at = turn_at + (1 / rate if rate else 0.0)
            self._turns.append(turn_at)
            while self._turns[0] < now - 2 * _WINDOW_SECONDS:
                self._turns.popleft()
            return turn_at, now, self._slowed_count

    def _rate(self, at: float) -> float | None:
        rates = [rate for rate in (self._configured, self._adapted(at)) if rate is not None]
        return min(rates, default=None)

    def _adapted(self, at: float) -> float | None:
        """What is left of the rate that was too much, with what it has gained since; None when nothing is held back."""
        if self._too_much is None:
            return None
        rate = self._too_much * (0.5 + GAIN_PER_SECOND * (at - self._slowed_at))
        if rate >= RELEASED_AT * self._too_much:
            self._too_much = None
            return None
        return rate


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

    def note(self, response: Response, request: Pull) -> None:
        """Keeps what the answer to ``request`` says of what is left; answers may arrive in another order than given."""
        self._usage.note_rate_limit(response)
        left = RateLimit.read(response)
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
