"""How often a registry may be asked: as often as was configured, and less after it says that this is too much.

What counts is a request to the registry's own origin: tag lists, manifests, blobs and their ranges, each retry, a
token service on the same host, and a redirect that leads back. Token services and storage on other hosts have limits
of their own and are not slowed down by what is configured. When one of them says that it is asked too often, the
requests that lead there become fewer too.
"""

from __future__ import annotations

import threading
from collections import deque

from registry_sync.oci.clock import Clock

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
