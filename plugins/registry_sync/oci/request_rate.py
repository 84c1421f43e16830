"""How often a registry may be asked.

What counts is a request to the registry's own origin: tag lists, manifests, blobs and their ranges, each retry, a
token service on the same host, and a redirect that leads back. Token services and storage on other hosts have limits
of their own and are not slowed down by this one.
"""

from __future__ import annotations

import threading

from registry_sync.oci.clock import Clock


class RequestRate:
    """Turns for the requests of all threads of one client, evenly spaced; ``per_second`` None lets all pass at once.

    Nothing is saved up: after a silence there is one turn at once, and the next a whole interval later. So in any
    ``t`` seconds there are at most ``1 + t * per_second`` turns.
    """

    def __init__(self, per_second: float | None, clock: Clock) -> None:
        self._interval_seconds = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at = float("-inf")

    def wait(self) -> None:
        """Returns when it is the caller's turn. Turns are given in the order in which they are asked for."""
        if not self._interval_seconds:
            return
        with self._lock:
            now = self._clock.monotonic()
            turn_at = max(now, self._next_at)
            self._next_at = turn_at + self._interval_seconds
        if turn_at > now:
            self._clock.sleep(turn_at - now)
