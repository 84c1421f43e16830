"""What accounts at registries allow, kept in the database for all processes of an installation.

An account is a registry's host with the user that reads it. Nothing is written for a registry that neither limits pulls
nor has a configured rate: a process then only looks once a second whether another one was refused. Pulls come in small
batches, reports of a registry are written every few seconds, and a part of the rate is renewed as often.
"""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from registry_sync.domain.budget_shares import is_of_new_window
from registry_sync.errors import RateLimited, RegistrySyncError
from registry_sync.oci.http.options import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from registry_sync.db.budget_leases import AccountBudgetStore
    from registry_sync.hooks.connection import RegistryConnection
    from registry_sync.oci.http.options import ClientOptions
    from registry_sync.oci.http.rate_limits import RateLimit

log = logging.getLogger(__name__)
#: What is known of an account is read, written and renewed after so long.
RENEWAL_SECONDS = 5.0
PAUSE_SECONDS = 1.0
_RATE_POLL_SECONDS = 0.5
#: Who waits for pulls looks so often whether somebody more important has come.
_LONGEST_SLEEP_SECONDS = 1.0
#: A smaller part of the rate is none yet: others give up theirs within a renewal.
_SMALLEST_PART = 0.01


class DatabaseBudget:
    """The part of this process in what ``account`` allows; safe to use from several threads.

    Threads take pulls one after the other, the most important first and then in the order of their calls. One of them
    asks the database, and waits without the lock, so that the others record what they have used; where somebody more
    important calls meanwhile, it steps back. Each pull is taken under a lease that the database still knows: a machine
    that was suspended finds its own expired, and what it held is with others.

    ``floor`` pulls are left unused. ``total_rate`` is the configured rate of all processes, None for none.
    ``longest_wait_seconds`` is how long a pull is waited for; for more, :class:`RateLimited` is raised.
    """

    def __init__(
        self,
        store: AccountBudgetStore,
        account: str,
        *,
        floor: int = 0,
        total_rate: float | None = None,
        longest_wait_seconds: float = 20.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._account = account
        self._holder = uuid.uuid4().hex
        self._floor = floor
        self._total_rate = total_rate
        self._longest_wait_seconds = longest_wait_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._rate_lock = threading.Lock()
        self._numbers = itertools.count()
        self._queue: list[tuple[int, int]] = []
        self._is_taking = False
        self._left = self._running = self._made = 0
        self._pending: RateLimit | None = None
        self._pending_at = float("-inf")
        self._written_at = self._renewed_at = self._looked_at = float("-inf")
        self._rate = 0.0
        self._paused_until = float("-inf")
        self._has_lease = False
        self._refused_until, self._refused_priority, self._is_ordered = float("-inf"), 0, False
        self.priority = 0

    def take_pull(self) -> bool:
        """Waits for a pull; False when the registry has to be asked first. Raises :class:`RateLimited`."""
        with self._changed:
            priority, deadline = self.priority, self._clock.monotonic() + self._longest_wait_seconds
            self._refuse_overtaking(priority)
            place = (-priority, next(self._numbers))
            self._queue.append(place)
            try:
                while True:
                    self._changed.wait_for(lambda: not self._is_taking and min(self._queue) == place)
                    self._refuse_overtaking(priority)
                    self._is_taking = True
                    try:
                        is_taken = self._take(place, priority, deadline)
                    finally:
                        self._is_taking = False
                        self._changed.notify_all()
                    if is_taken is not None:
                        return is_taken
            finally:
                self._queue.remove(place)
                self._changed.notify_all()

    def _take(self, place: tuple[int, int], priority: int, deadline: float) -> bool | None:
        """As :meth:`take_pull`, for the first in the queue; None where somebody more important has come."""
        if self._left and not self._is_held():
            self._left = 0
        while not self._left:
            self._write_report()
            self._has_lease = True
            grant = self._store.take_pulls(
                self._account,
                self._holder,
                running=self._running,
                made=self._made,
                floor=self._floor,
                priority=priority,
            )
            self._made = 0
            if grant is None:
                return False
            self._left = grant.pulls
            if grant.pulls:
                break
            if self._clock.monotonic() + grant.wait_seconds > deadline:
                self._refused_until = self._clock.monotonic() + grant.wait_seconds
                self._refused_priority = priority
                raise self._refusal(grant.wait_seconds)
            if not self._waits(grant.wait_seconds, place):
                return None
        self._left -= 1
        self._running += 1
        return True

    def _is_held(self) -> bool:
        """Whether the lease of the pulls that are left has not expired, by the database's clock."""
        with self._unlocked():
            return self._store.is_held(self._account, self._holder)

    def _waits(self, seconds: float, place: tuple[int, int]) -> bool:
        """Waits without the lock; False as soon as somebody more important is in the queue."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            with self._unlocked():
                self._clock.sleep(min(left, _LONGEST_SLEEP_SECONDS))
            if min(self._queue)[0] < place[0]:
                return False
        return True

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Lets others have the lock, which the caller holds once."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def begin_round(self) -> None:
        """Lets everything ask for pulls again; from now on, nothing overtakes what was refused until the next call."""
        with self._lock:
            self._refused_until, self._is_ordered = float("-inf"), True

    def _refuse_overtaking(self, priority: int) -> None:
        """Raises :class:`RateLimited` while another mirror that is no less important waits for its next try."""
        left = self._refused_until - self._clock.monotonic()
        was_refused = self._refused_until > float("-inf")
        if priority <= self._refused_priority and (left > 0 or (was_refused and self._is_ordered)):
            raise self._refusal(max(left, _RATE_POLL_SECONDS))

    def end_pull(self, *, has_reported: bool) -> None:
        """Takes note that a pull has ended, and whether the registry reported with it."""
        with self._lock:
            self._running -= 1
            self._made += not has_reported

    def report(self, limit: RateLimit) -> None:
        """Takes note of what the registry reported just now; it is written every few seconds.

        Threads and clients take note in another order than the registry counted: of those of one window the lowest is
        kept.
        """
        with self._lock:
            pending = self._pending
            if pending is not None and not is_of_new_window(limit.remaining, pending.remaining):
                limit = replace(limit, remaining=min(limit.remaining, pending.remaining))
            self._pending, self._pending_at = limit, self._clock.monotonic()
            if self._clock.monotonic() - self._written_at >= RENEWAL_SECONDS:
                self._write_report()

    def pause(self, seconds: float) -> None:
        """Takes note that the registry accepts no requests for that long."""
        self._store.pause(self._account, seconds)

    def paused_seconds(self) -> float:
        """For how long the registry accepts none, as of the last look."""
        now = self._clock.monotonic()
        with self._lock:
            if now - self._looked_at >= PAUSE_SECONDS:
                self._paused_until = now + self._store.paused_seconds(self._account)
                self._looked_at = now
            return max(0.0, self._paused_until - now)

    def requests_per_second(self) -> float | None:
        """The part of this process in the configured rate; waits until others have given it up."""
        if self._total_rate is None:
            return None
        with self._rate_lock:
            while self._clock.monotonic() - self._renewed_at >= RENEWAL_SECONDS:
                self._has_lease = True
                self._rate = self._store.share_rate(self._account, self._holder, self._total_rate)
                if self._rate < self._total_rate * _SMALLEST_PART:
                    self._clock.sleep(_RATE_POLL_SECONDS)
                    continue
                self._renewed_at = self._clock.monotonic()
            return self._rate

    def release(self) -> None:
        """Gives back what is left; what nobody gives back expires."""
        if not self._has_lease:
            return
        try:
            with self._lock:
                self._write_report()
                self._store.release(self._account, self._holder, made=self._made)
        except RegistrySyncError as problem:
            log.warning("the budget of %s is given back later: %s", self._account, problem)

    def _write_report(self) -> None:
        limit, self._pending = self._pending, None
        if limit is not None:
            now = self._clock.monotonic()
            age = max(0.0, now - self._pending_at)
            self._store.report(self._account, limit.remaining, limit.limit, limit.window_seconds, age_seconds=age)
            self._written_at = now

    def _refusal(self, seconds: float) -> RateLimited:
        error = RateLimited(
            f"the pulls that remain for {self._account} are for others, for later or used up: nothing was requested",
            host=self._account.partition(" ")[0],
            retry_after_seconds=seconds,
        )
        error.is_repeated = True
        return error


class AccountBudgets:
    """The budgets that one process uses, given back at its end."""

    def __init__(self, store: AccountBudgetStore) -> None:
        self._store = store
        self._budgets: dict[str, DatabaseBudget] = {}
        self._lock = threading.Lock()
        self._priority = 0
        self._is_ordered = False

    def of(self, host: str, settings: RegistryConnection, options: ClientOptions) -> DatabaseBudget:
        """The budget of the account that a connection reads ``host`` with."""
        user = settings.credentials.username or settings.credential_helper or "anonymous"
        account = f"{host} {user}"[:500]
        with self._lock:
            found = self._budgets.get(account)
            if found is None:
                found = self._budgets[account] = DatabaseBudget(
                    self._store,
                    account,
                    floor=options.rate_limit_floor or 0,
                    total_rate=settings.limits.requests_per_second,
                    longest_wait_seconds=options.longest_wait_seconds,
                )
                found.priority = self._priority
                if self._is_ordered:
                    found.begin_round()
            return found

    def use_priority(self, priority: int) -> None:
        """Asks for pulls with that priority from now on: that of the mirror that was started last."""
        with self._lock:
            self._priority = priority
            for budget in self._budgets.values():
                budget.priority = priority

    def begin_round(self) -> None:
        """As of each budget: mirrors are tried in their order again."""
        with self._lock:
            self._is_ordered = True
            for budget in self._budgets.values():
                budget.begin_round()

    def close(self) -> None:
        """Gives everything back."""
        while self._budgets:
            self._budgets.popitem()[1].release()

    def __enter__(self) -> AccountBudgets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
