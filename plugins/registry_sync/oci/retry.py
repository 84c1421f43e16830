"""Doing a request again after errors that may pass: exponential backoff with full jitter, within two bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from typing import TypeVar

from registry_sync.errors import RateLimited, RegistryError, RegistrySyncError
from registry_sync.oci.clock import Clock
from registry_sync.oci.options import ClientOptions
from registry_sync.oci.request_rate import SLOWING_STATUSES
from registry_sync.oci.usage import Usage

T = TypeVar("T")
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 15.0


class Retry:
    """Runs attempts. A wait that a registry asks for is kept, or raised when it is longer than the options allow.

    A wait of our own choice is never longer than that, so that it is the options that say how often is tried.
    """

    def __init__(self, options: ClientOptions, clock: Clock, usage: Usage) -> None:
        self._options = options
        self._clock = clock
        self._usage = usage
        self._paused_until = float("-inf")
        self._limit: RegistryError | None = None

    def run(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` gives; the last error when it keeps failing. Only temporary errors are tried again."""
        started = self._clock.monotonic()
        self.await_pause()
        for number in range(1, self._options.max_attempts):
            try:
                return attempt()
            except RegistrySyncError as problem:  # noqa: PERF203 - the loop is about errors
                if not problem.is_temporary:
                    raise
                self.wait_after(problem, number, started)
        return attempt()

    def wait_after(self, problem: RegistrySyncError, number: int, started: float) -> None:
        """Sleeps before attempt ``number + 1``; raises ``problem`` when that would be too long."""
        asked = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
        wait = asked if asked is not None else min(backoff_seconds(number), self._options.longest_wait_seconds)
        spent = self._clock.monotonic() - started
        # A limiter of the floor has no status: what it says holds for pulls alone.
        is_told = isinstance(problem, RegistryError) and problem.status in SLOWING_STATUSES
        if wait > self._options.longest_wait_seconds or spent + wait > self._options.retry_budget_seconds:
            if is_told and asked is not None and isinstance(problem, RegistryError):
                self._limit, self._paused_until = problem, self._clock.monotonic() + asked
            raise problem
        self._usage.add("retry_count")
        if is_told or isinstance(problem, RateLimited):
            self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)
        self._clock.sleep(wait)

    def await_pause(self) -> None:
        """Waits while the registry wants no requests: what one thread was told holds for all of a client.

        Raises what it was told with what is left of a wait that is too long, and asks nothing meanwhile.
        """
        wait = self._paused_until - self._clock.monotonic()
        if wait > self._options.longest_wait_seconds and self._limit is not None:
            left = copy(self._limit)
            left.retry_after_seconds = wait
            raise left
        if wait > 0:
            self._clock.sleep(wait)


def backoff_seconds(number: int) -> float:
    """A random wait after the ``number``-th failure, between nothing and a bound that doubles each time."""
    return random.uniform(0, min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (number - 1)))
