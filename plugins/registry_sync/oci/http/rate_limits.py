"""The rate of requests to a registry, the number of manifest pulls that it still allows, and what a client has used.

The rate covers every request to the registry's own origin: tag lists, manifests, blobs and their ranges, each retry, a
token service on the same host, and a redirect that leads back. Token services and storage on other hosts have limits
of their own and are not slowed down by the configured rate. When one of them responds that it gets too many requests,
the requests to the registry that lead there are slowed down too.

Docker Hub counts GETs of manifests and reports with each response how many remain; HEADs are not counted. So the
remaining pulls are queried by a HEAD before the first pull, and running pulls count as made. Pulls of other programs
are known only once the registry reports them.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from registry_sync.domain.runs import RunUsage
from registry_sync.errors import RateLimited, RegistryError
from registry_sync.oci.http.options import Clock

#: Statuses by which a server says that it gets too many requests (RFC 6585 section 4, RFC 9110 section 15.6.4).
SLOWING_STATUSES = frozenset({429, 503})
#: The longest wait of a request for its turn, when all threads of a client wait for one.
LONGEST_TURN_SECONDS = 20
#: The gain in a second, as a fraction of the rate that was too high.
GAIN_PER_SECOND = 0.05
#: So long the rate stays below this part of the one that was too high: most limits are for a second or a minute.
HELD_SECONDS, HELD_AT = 60.0, 0.9
#: At this multiple of the rate that was too high, requests are no longer slowed down.
RELEASED_AT = 4
_WINDOW_SECONDS = 1.0
_LIMIT = re.compile(r"\s*([0-9]{1,9})\s*(?:;\s*w=([0-9]{1,9}))?.*", re.DOTALL)


@dataclass(frozen=True)
class RateLimit:
    """The pulls that a registry still allows, as Docker Hub reports them; absent fields are None."""

    remaining: int
    limit: int | None = None
    window_seconds: int | None = None
    source: str | None = None

    @classmethod
    def read(cls, header: Callable[[str], str | None]) -> RateLimit | None:
        """Reads the ``ratelimit-*`` headers of a response; None when they are absent or unreadable."""
        stated = header("ratelimit-remaining")
        remaining = None if stated is None else _last_limit(stated)
        if remaining is None:
            return None
        limit = _last_limit(header("ratelimit-limit")) or (None, None)
        source = re.sub(r"[^\x21-\x7e]", "", header("docker-ratelimit-source") or "")[:128]
        return cls(remaining[0], limit[0], remaining[1] or limit[1], source or None)


def _last_limit(value: str | None) -> tuple[int, int | None] | None:
    """The number and window of ``100;w=21600``, or of the last in a list that has a window (``100, 100;w=21600``)."""
    parsed = [match.groups() for part in (value or "").split(",") if (match := _LIMIT.fullmatch(part))]
    if not parsed:
        return None
    number, window = next((pair for pair in reversed(parsed) if pair[1]), parsed[-1])
    return int(number), int(window) if window else None


class Usage:
    """Counters that only grow; safe to use from several threads. ``rate_limit`` is the latest reported, or None.

    ``waited_seconds`` is how long requests waited before they were repeated, all threads together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(RunUsage.__dataclass_fields__, 0)
        self._warnings: dict[str, None] = {}
        self._statuses: Counter[int] = Counter()
        self.rate_limit: RateLimit | None = None
        self.waited_seconds = 0.0

    def record_status(self, status: int) -> None:
        """Counts a response."""
        with self._lock:
            self._statuses[status] += 1

    def record_wait(self, seconds: float) -> None:
        """Counts a wait before a request is repeated."""
        with self._lock:
            self.waited_seconds += seconds

    @property
    def statuses(self) -> dict[int, int]:
        """How many responses of each status there were: of a redirect the one at its end; not of token services."""
        with self._lock:
            return dict(self._statuses)

    def add(self, counter: str, amount: int = 1) -> None:
        """Adds to one of the counters of :class:`~registry_sync.domain.runs.RunUsage`."""
        with self._lock:
            self._counts[counter] += amount

    def record_rate_limit(self, header: Callable[[str], str | None]) -> None:
        """Records the rate limit in the headers of a response, which ``header`` gives."""
        limit = RateLimit.read(header)
        if limit is not None:
            self.rate_limit = limit

    def record_warning(self, text: str) -> bool:
        """Records a registry's warning; True the first time. At most a hundred different ones are kept."""
        with self._lock:
            if text in self._warnings or len(self._warnings) >= 100:
                return False
            self._warnings[text] = None
            return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the registry, each once, in the order they came."""
        with self._lock:
            return tuple(self._warnings)

    def counts(self) -> RunUsage:
        """All counters at one point in time."""
        with self._lock:
            return RunUsage(**self._counts)


class AccountBudget(Protocol):
    """What an account at a registry allows all processes of an installation: one is in the database, one in tests.

    Used by all threads of a client, and for every request: what it knows is a few seconds old.
    """

    def take_pull(self) -> bool:
        """Waits for a pull; False when the registry has to be asked first. Raises :class:`RateLimited`."""

    def end_pull(self, *, has_reported: bool) -> None:
        """Takes note that a pull has ended, and whether the registry reported with it."""

    def report(self, limit: RateLimit) -> None:
        """Takes note of what the registry reported just now."""

    def pause(self, seconds: float) -> None:
        """Takes note that the registry accepts no requests for that long."""

    def paused_seconds(self) -> float:
        """For how long it accepts none, as another process was refused; 0 when it accepts them."""

    def requests_per_second(self) -> float | None:
        """The part of this process in the configured rate; None without one."""


class RequestRate:
    """Turns for the requests of all threads of one client, evenly spaced; without delay for ``per_second`` None.

    Unused turns are not saved up: after a silence one turn comes immediately, and the next a whole interval later. So
    any ``t`` seconds have at most ``1 + t * per_second`` turns.

    :meth:`slow_down` halves the rate at which requests were made, for all ``threads`` of the client together; it then
    recovers slowly (additive increase, multiplicative decrease), and for a while only to less than what was too high.
    """

    def __init__(
        self,
        per_second: float | None,
        clock: Clock,
        threads: int = 1,
        budget: AccountBudget | None = None,
    ) -> None:
        self._configured = per_second
        self._budget = budget
        self._clock = clock
        self._threads = threads
        self._lock = threading.Lock()
        self._next_at = float("-inf")
        self._turns: deque[float] = deque()
        self._slowed_at = float("-inf")
        self._slowed_count = 0
        self._excessive_rate: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether requests are spaced by a configured rate, or were slowed down."""
        return self._rate(self._clock.monotonic()) is not None

    def wait(self) -> float:
        """Waits for the caller's turn and returns its time (monotonic seconds).

        Turns come in the order of the calls, and are assigned again when the rate changes meanwhile.
        """
        while True:
            turn_at, now, slowed_count = self._take_turn()
            if turn_at > now:
                self._clock.sleep(turn_at - now)
            if slowed_count == self._slowed_count:
                return turn_at

    def turn_now(self) -> float | None:
        """As :meth:`wait` where the caller's turn is now; None, and no turn is taken, where it would have to wait."""
        with self._lock:
            now = self._clock.monotonic()
            return None if self._next_at > now else self._add_turn(now, now)

    def slow_down(self, requested_at: float) -> float | None:
        """Halves the rate after a response to a request made at ``requested_at``; the new rate, None when unchanged.

        A request from before the last halving changes nothing: it says nothing about the new rate.
        """
        with self._lock:
            if requested_at <= self._slowed_at:
                return None
            now = self._clock.monotonic()
            made = sum(turn > requested_at - _WINDOW_SECONDS for turn in self._turns)
            rate = self._adapted(now)
            # At the start the threads have been running for less than a second, and would make more requests in one.
            self._excessive_rate = max(made, self._threads) if rate is None else min(rate, max(made, 1))
            self._excessive_rate = max(self._excessive_rate, 2 * self._threads / LONGEST_TURN_SECONDS)
            self._slowed_at = now
            self._slowed_count += 1
            halved = self._excessive_rate / 2
            self._next_at = now + 1 / halved
            return halved

    def _take_turn(self) -> tuple[float, float, int]:
        with self._lock:
            now = self._clock.monotonic()
            return self._add_turn(max(now, self._next_at), now), now, self._slowed_count

    def _add_turn(self, turn_at: float, now: float) -> float:
        rate = self._rate(turn_at)
        self._next_at = turn_at + (1 / rate if rate else 0.0)
        self._turns.append(turn_at)
        while self._turns[0] < now - 2 * _WINDOW_SECONDS:
            self._turns.popleft()
        return turn_at

    def _rate(self, at: float) -> float | None:
        part = None if self._budget is None else self._budget.requests_per_second()
        rates = [rate for rate in (self._configured, part, self._adapted(at)) if rate is not None]
        return min(rates, default=None)

    def _adapted(self, at: float) -> float | None:
        """The reduced rate, with its gain since; None when requests are not slowed down."""
        if self._excessive_rate is None:
            return None
        seconds = at - self._slowed_at
        part = min(0.5 + GAIN_PER_SECOND * seconds, HELD_AT) + GAIN_PER_SECOND * max(0.0, seconds - HELD_SECONDS)
        rate = self._excessive_rate * part
        if rate >= RELEASED_AT * self._excessive_rate:
            self._excessive_rate = None
            return None
        return rate


#: A reported number older than this is queried again before a pull, unless a running pull will report it.
STALE_SECONDS = 10.0
#: The same while other tasks of the sync pull as well.
SHARED_STALE_SECONDS = 0.1


@dataclass
class Pull:
    """One request for a manifest: ``started`` gives its order; ``has_reported`` says that its response had a limit."""

    started: int
    has_reported: bool = False


class PullLimit:
    """Leaves ``floor`` pulls unused by all threads of a client; None for no floor.

    The client is one of ``sharers`` that pull at the same time, each with ``c`` threads. Each uses its share of the
    remaining pulls, fewer as the floor comes closer, because it learns of the others' pulls only from the responses to
    its own. With a ``budget``, what all processes together may use is decided there, once the registry has reported a
    limit. A single client never passes the floor. Several pass it by at most ``(sharers - 1) * (c - 2)`` pulls, and
    only where the registry's responses to all but one are late: the client with the lowest reported number reserves two
    pulls for each of the others, and each of those has at most ``c`` pulls running that were not reported to it.
    """

    def __init__(
        self, floor: int | None, sharers: int, *, host: str, clock: Clock, budget: AccountBudget | None = None
    ) -> None:
        self._budget = budget
        self._floor = floor
        self._sharers = sharers
        self._host = host
        self._clock = clock
        self._ticks = itertools.count(1)
        self._changed = threading.Condition()
        self._remaining: RateLimit | None = None
        self._reported = 0
        self._reported_at = float("-inf")
        self._is_unlimited = False
        self._is_alone = False
        self._running_count = 0

    def request(self) -> Pull:
        """A request that is no pull; call it before the request whose response is passed to :meth:`record`."""
        return Pull(next(self._ticks))

    def record(self, header: Callable[[str], str | None], request: Pull) -> None:
        """Records the remaining pulls in the response to ``request``; responses may arrive out of order."""
        limit = RateLimit.read(header)
        if limit is None:
            return
        request.has_reported = True
        with self._changed:
            known = self._remaining
            is_current = known is None or limit.remaining <= known.remaining or request.started > self._reported
            if is_current:
                self._remaining, self._reported = limit, next(self._ticks)
                self._reported_at = self._clock.monotonic()
            self._is_unlimited = False
            self._changed.notify_all()
        if is_current and self._budget is not None:
            self._budget.report(limit)

    @contextmanager
    def pull(self, query: Callable[[], object]) -> Iterator[Pull]:
        """Surrounds one pull; waits where only running pulls can show whether it is allowed.

        ``query`` makes a request that is not counted and records its response. Raises :class:`RateLimited` when fewer
        pulls than the floor would remain, and temporary errors of ``query``.
        """
        if self._budget is None or self._remaining is None:
            with self._own_pull(query) as pull:
                yield pull
            return
        # What one process knows is not what all of them have used.
        while not self._budget.take_pull():
            query()
        has_counted = True
        try:
            with self._own_pull(query) as pull:
                has_counted = False
                yield pull
                has_counted = pull.has_reported
        finally:
            self._budget.end_pull(has_reported=has_counted)

    @contextmanager
    def _own_pull(self, query: Callable[[], object]) -> Iterator[Pull]:
        """As :meth:`pull`, among the threads of this client alone."""
        if self._floor is None:
            yield self.request()
            return
        is_alone = self._query_first(query)
        if not is_alone:
            self._wait_for_pull(self._floor)
        pull, is_done = self.request(), False
        try:
            yield pull
            is_done = True
        finally:
            with self._changed:
                self._running_count -= 1
                if is_alone:
                    self._is_alone = False
                    self._is_unlimited = is_done and self._remaining is None
                if not pull.has_reported and self._remaining is not None:
                    self._remaining = replace(self._remaining, remaining=max(0, self._remaining.remaining - 1))
                self._changed.notify_all()

    def _query_first(self, query: Callable[[], object]) -> bool:
        """True when the limit stays unknown, so that the pull, counted as running, is alone and reports it."""
        if not self._must_query():
            return False
        try:
            query()
        except RegistryError as problem:
            if problem.is_temporary:
                self._resume()
                raise
        except BaseException:
            self._resume()
            raise
        with self._changed:
            if self._remaining is None:
                self._running_count += 1
                return True
        self._resume()
        return False

    def _wait_for_pull(self, floor: int) -> None:
        """Waits until a pull is allowed, and counts it as running."""
        with self._changed:
            while not self._is_unlimited and (limit := self._remaining) is not None:
                if self._is_allowed(limit, floor):
                    break
                if self._running_count == 0 or limit.remaining <= floor:
                    raise RateLimited(
                        f"{self._host} allows {limit.remaining} more pulls, and {floor} must remain",
                        host=self._host,
                        retry_after_seconds=limit.window_seconds,
                    )
                self._changed.wait()
            self._running_count += 1

    def _is_allowed(self, limit: RateLimit, floor: int) -> bool:
        return (self._running_count + 1) * self._sharers <= limit.remaining - floor - (self._sharers - 1)

    def _must_query(self) -> bool:
        """Whether the caller has to query the remaining pulls, while the others wait."""
        with self._changed:
            while self._is_alone:
                self._changed.wait()
            kept_seconds = STALE_SECONDS if self._sharers == 1 else SHARED_STALE_SECONDS
            is_stale = self._running_count == 0 and self._clock.monotonic() - self._reported_at > kept_seconds
            self._is_alone = not self._is_unlimited and (self._remaining is None or is_stale)
            return self._is_alone

    def _resume(self) -> None:
        with self._changed:
            self._is_alone = False
            self._changed.notify_all()
