"""How many requests a client has under way at once: it grows while the registry responds as fast as before.

A client begins with what is polite. The time until the headers of a response come is compared, by kind of request, with
the shortest that is usual for the registry. As long as more requests do not make it longer, they wait on the line and
not on the registry, and their number is doubled; once they do, it returns to where they did not, and from then on grows
in small steps. This is what TCP Vegas does with segments, and what load balancers do with requests.

What one client has found of a registry that is far away another may begin with: see :meth:`Concurrency.begin_with`.

A 429 or 503 halves it. A number that was never reached before is then not reached again: it was the registry's limit. A
number at which a whole round of requests was served is another matter, a limit for each second or an outage; requests
are then slowed down as well (:mod:`registry_sync.oci.http.rate_limits`), and the number recovers. So it does where a
request was refused that was alone, or where fewer are refused and none is served in between.
"""

from __future__ import annotations

import statistics
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from types import TracebackType

from registry_sync.domain.registry_pace import FAR_SECONDS, RegistryPace
from registry_sync.domain.remote import FIRST_CONCURRENCY
from registry_sync.oci.http.options import Clock

#: Up to this multiple of the usual time a registry responds as fast as before.
AS_FAST = 1.25
#: From this multiple on it responds more slowly.
SLOWER = 1.6
#: After so many rounds in a row that were slower, the registry is: one may be a pause of either process.
SLOW_ROUNDS = 2
#: The gain in small steps, as a fraction of the number.
GAIN = 0.125
#: What was refused at the first number is allowed again after so many seconds, and twice as many after each refusal.
FORGIVEN_AFTER_SECONDS = 120.0
#: A round has at least so many responses, and compares a kind of which it has this many.
_LEAST_RESPONSES, _LEAST_OF_KIND = 8, 4
#: A request belongs to a round when so large a part of the number was under way.
_NEARLY_ALL = 0.75


@dataclass(frozen=True)
class SentRequest:
    """A request under way: what it requests, when it was sent (monotonic seconds), and how many were under way then."""

    kind: str
    sent_at: float
    level: int


class Concurrency:
    """The number of requests that all threads of a client have under way at once, at most ``most``."""

    def __init__(self, most: int, clock: Clock, first: int = FIRST_CONCURRENCY) -> None:
        self._most = max(1, most)
        self._first = min(max(1, first), self._most)
        self._clock = clock
        # Taken by itself where nobody waits: a condition does so by methods written in Python.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._limit = self._first
        self._ceiling = self._most
        self._running_count = self._waiting_count = 0
        self._is_doubled = True
        # The round of requests since the number changed.
        self._round_began_at = float("-inf")
        self._samples: dict[str, list[float]] = {}
        self._usual: dict[str, float] = {}
        self._slow_round_count = 0
        # What another client found, and the largest number that a whole round was served at without being slower.
        self._begun_with: RegistryPace | None = None
        self._proven_level = 0
        # Refusals.
        self._was_refused = False
        self._served_level = 0
        self._refused_at = float("-inf")
        self._forgives_at = float("-inf")
        self._patience = FORGIVEN_AFTER_SECONDS
        # Whether any request was served since the last refusal, and what was known before the first without.
        self._is_serving = True
        self._is_outage = False
        self._known_before = self._ceiling, self._patience
        self._slot = _Slot(self)

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return self._limit

    @property
    def is_far(self) -> bool:
        """Whether the registry is known to be far away, from before or by the responses of this client."""
        return bool(self._usual) and min(self._usual.values()) >= FAR_SECONDS

    @property
    def is_known_far(self) -> bool:
        """Whether it began with what another client has found of a registry that is far away."""
        return self._begun_with is not None and not self._was_refused and self.is_far

    def begin_with(self, pace: RegistryPace | None) -> None:
        """Begins with what another client found, before any request; None for nothing.

        Its number is this client's as well, within ``most``. Its times are what those of this client are compared with,
        so that a number that has become too large by now is noticed.
        """
        if pace is None:
            return
        with self._lock:
            self._begun_with, self._was_refused = pace, not pace.at_once
            self._usual = dict(pace.usual_seconds)
            self._limit = min(max(self._limit, pace.at_once), self._most)

    def pace(self) -> RegistryPace | None:
        """What another client may begin with; None where that is not worth remembering.

        As long as nothing speaks against what this one began with, that is it, and what was found beyond it. A refusal
        leaves a pace that says so.
        """
        with self._lock:
            before, now = self._begun_with, datetime.fromtimestamp(self._clock.now(), timezone.utc)
            if self._was_refused:
                return before if before is not None and not before.at_once else RegistryPace(0, now)
            at_once = min(self._limit, max(self._proven_level, 0 if before is None else before.at_once))
            if at_once <= self._first or not self.is_far:
                return None
            return RegistryPace(at_once, now, dict(self._usual)) if before is None else replace(before, at_once=at_once)

    def slot(self) -> AbstractContextManager[None]:
        """Surrounds a request from before it is sent to the end of its body; waits while too many are under way.

        Not to be nested: a thread that holds one would wait for itself.
        """
        return self._slot

    @property
    def may_keep_slot(self) -> bool:
        """Whether a request may follow another in its slot: nobody waits for one, and there are not too many."""
        return not self._waiting_count and self._running_count <= self._limit

    def take_slot(self, *, must_wait: bool = True) -> bool:
        """As :meth:`slot`, for a caller that frees it; without ``must_wait``, whether one is free now."""
        with self._lock:
            if self._running_count < self._limit:
                self._running_count += 1
                return True
            if not must_wait:
                return False
            self._waiting_count += 1
            try:
                while self._running_count >= self._limit:
                    self._clock.wait(self._changed)
            finally:
                self._waiting_count -= 1
            self._running_count += 1
            return True

    def free_slot(self) -> None:
        """Gives a slot to others."""
        with self._lock:
            self._running_count -= 1
            if self._waiting_count and self._running_count < self._limit:
                self._changed.notify()

    def send(self, kind: str) -> SentRequest:
        """Takes note that a request is sent now; ``kind`` is what comparable requests have in common."""
        return SentRequest(kind, self._clock.monotonic(), max(1, self._running_count))

    def record_response(self, request: SentRequest) -> None:
        """Takes note that the headers of the response have come, and that it is no refusal."""
        now = self._clock.monotonic()
        with self._lock:
            self._is_serving = True
            # The first round is sent while few are under way, and awaited among nearly all. A later one has to show
            # what more of them make of the times, which its first requests do not.
            level = request.level if self._usual else max(request.level, self._running_count)
            if request.sent_at < self._round_began_at or level < _NEARLY_ALL * self._limit:
                return
            self._samples.setdefault(request.kind, []).append(now - request.sent_at)
            if sum(map(len, self._samples.values())) >= max(_LEAST_RESPONSES, self._limit // 2):
                self._end_round(now)

    def record_refusal(self, request: SentRequest) -> bool:
        """Takes note of a 429 or 503; whether fewer requests are made from now on.

        A request from before the last refusal says nothing about the number since, only what was too many before.
        """
        with self._changed:
            self._was_refused = True
            is_new = request.sent_at > self._refused_at
            if is_new:
                self._compare_refusals()
            # One that is alone exceeds no limit of requests at once.
            if not self._is_outage and request.level > max(1, self._served_level):
                self._ceiling = min(self._ceiling, max(self._served_level, request.level * 3 // 4))
            if not is_new:
                self._limit = min(self._limit, self._ceiling)
                return False
            now = self._refused_at = self._clock.monotonic()
            self._forgives_at = now + self._patience
            if not self._is_outage:
                self._patience *= 2
            self._is_doubled = False
            self._set(max(1, min(request.level, self._limit) // 2), now)
            return True

    def _compare_refusals(self) -> None:
        """Forgets what was concluded from the refusals before when nothing was served since: it was no limit.

        A registry that serves only so many at once serves some of them.
        """
        self._is_outage = not self._is_serving
        if self._is_outage:
            self._ceiling, self._patience = self._known_before
        else:
            self._known_before = self._ceiling, self._patience
        self._is_serving = False

    def _end_round(self, now: float) -> None:
        """Compares the times of a round with the usual ones, and changes the number."""
        ratio, limit = self._compare(), self._limit
        self._served_level = max(self._served_level, min(limit, sum(map(len, self._samples.values()))))
        if self._ceiling < self._first and now >= self._forgives_at:
            self._ceiling = min(2 * self._ceiling, self._first)
            self._forgives_at = now + self._patience
        self._slow_round_count = self._slow_round_count + 1 if ratio >= SLOWER else 0
        if ratio < SLOWER:
            self._proven_level = max(self._proven_level, limit)
        if self._slow_round_count >= SLOW_ROUNDS and limit > self._first:
            # As many as would wait no longer than before, if all of the wait is for each other.
            self._is_doubled = False
            self._slow_round_count = 0
            limit = max(self._first, limit // 2, int(limit * AS_FAST / ratio))
        elif limit < self._first <= self._ceiling:
            limit = min(2 * limit, self._first)
        elif ratio <= AS_FAST or limit < self._first:
            limit = 2 * limit if self._is_doubled else limit + max(1, int(limit * GAIN))
        self._set(limit, now)

    def _compare(self) -> float:
        """The median of the times of a round, each as a multiple of what is usual for its kind.

        A quarter of a kind's requests come as fast as that or faster, in the round that was the fastest. Between fast
        and slow where a round has too few of each kind.
        """
        ratios: list[float] = []
        for kind, times in self._samples.items():
            if len(times) >= _LEAST_OF_KIND:
                short = sorted(times)[len(times) // 4]
                usual = self._usual[kind] = min(short, self._usual.get(kind, short))
                ratios += [time / usual if usual > 0 else 1.0 for time in times]
        return statistics.median(ratios) if ratios else (AS_FAST + SLOWER) / 2

    def _set(self, limit: int, now: float) -> None:
        """Begins a round with another number, or the same."""
        self._limit = min(limit, self._ceiling, self._most)
        self._round_began_at = now
        self._samples = {}
        if self._running_count < self._limit:
            self._changed.notify(self._limit - self._running_count)


class _Slot(AbstractContextManager[None]):
    """What :meth:`Concurrency.slot` returns: one for all requests, as it knows nothing of a single one."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency

    def __enter__(self) -> None:
        self._concurrency.take_slot()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._concurrency.free_slot()
