"""Failed logins that all processes of an installation count together, in the metadata database.

A process counts an attempt before it is made, so that many at once are no way around a limit, and takes it back when
the login was right. In the database there are failures alone: whoever logs in rightly writes nothing there, and what is
refused writes nothing either, so that the limits bound the writes, too. One transaction of a process is under way at a
time, with everything that failed meanwhile. Without the database each process has its own counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from registry_sync.db.login_failures import LoginFailureStore
from registry_sync.errors import DatabaseError
from registry_sync.users.login_limits import FailedLogins, hashed_keys

#: Calls a function in a thread that may wait for the database.
Run: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
_log = logging.getLogger(__name__)
#: What waits to be written at a time; more is counted by this process alone.
_MOST_WAITING = 3_000
_FORGET_SECONDS = 60.0


class TooManyFailedLogins(Exception):
    """Too many logins of this account, or from this address, have failed; the next may come in ``wait_seconds``."""

    def __init__(self, wait_seconds: float) -> None:
        super().__init__("too many logins have failed; wait before the next")
        self.wait_seconds = wait_seconds


class SharedFailures:
    """The failures of all processes. ``store`` is called in a thread, by ``run``, whenever they are needed."""

    def __init__(self, store: Callable[[], LoginFailureStore], run: Run) -> None:
        self._store = store
        self._run = run
        self._waiting: dict[str, float] = {}
        self._writing = asyncio.Lock()
        self._forgotten_at = time.monotonic()
        self._is_failing = False

    async def wait(self, account: str, address: str) -> float:
        """How many seconds are to be waited before the next attempt; 0 for none."""
        rates = hashed_keys(account, address)
        ahead = await self._queried(lambda: self._store().seconds_ahead(tuple(rates)))
        return max(0.0, *(rate.wait((ahead or {}).get(key, 0.0)) for key, rate in rates.items()))

    async def add(self, account: str, address: str) -> None:
        """Counts a failure; when this returns, the other processes know."""
        if len(self._waiting) < _MOST_WAITING:
            for key, rate in hashed_keys(account, address).items():
                self._waiting[key] = self._waiting.get(key, 0.0) + rate.seconds
        async with self._writing:  # the first in line writes what all of them failed in
            failures, self._waiting = self._waiting, {}
            if failures:
                await self._queried(partial(self._record, failures))

    def _record(self, failures: dict[str, float]) -> None:
        store, now = self._store(), time.monotonic()
        store.record(failures)
        if now - self._forgotten_at > _FORGET_SECONDS:
            self._forgotten_at = now
            store.forget()

    async def _queried(self, query: Callable[[], Any]) -> Any:
        try:
            found = await self._run(query)
        except DatabaseError as problem:
            if not self._is_failing:
                _log.error("failed logins are counted by each process alone: %s", problem)
            self._is_failing = True
            return None
        self._is_failing = False
        return found


class LoginLimits:
    """The counts of this process, and those of all where there is ``shared``."""

    def __init__(self, shared: SharedFailures | None = None) -> None:
        self._failed = FailedLogins()
        self._shared = shared

    async def admit(self, account: str, address: str) -> None:
        """Counts an attempt, to be followed by :meth:`failed` or :meth:`forgive`.

        Raises :class:`TooManyFailedLogins` when there were too many before it; what is refused is not counted.
        """
        wait = self._failed.count(account, address)
        if wait == 0 and self._shared is not None:
            wait = await self._shared.wait(account, address)
            if wait > 0:
                self.forgive(account, address)
        if wait > 0:
            raise TooManyFailedLogins(wait)

    def forgive(self, account: str, address: str) -> None:
        """The attempt did not fail."""
        self._failed.forgive(account, address)

    async def failed(self, account: str, address: str) -> None:
        """The attempt failed."""
        if self._shared is not None:
            await self._shared.add(account, address)
