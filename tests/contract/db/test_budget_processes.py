"""Processes on one account of a registry, on both databases: at once, killed, and asleep until their lease expired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from registry_sync.db.budget_leases import AccountBudgetStore
from registry_sync.db.database import Database
from registry_sync.domain.budget_shares import BATCH, LEASE, PullGrant
from registry_sync.domain.quantities import utc_now
from registry_sync.errors import RateLimited
from registry_sync.hooks.account_budgets import RENEWAL_SECONDS, DatabaseBudget
from registry_sync.oci.http.options import Clock
from registry_sync.oci.http.rate_limits import RateLimit
from support.dying import Copy, die, was_killed
from support.hostile_registry import wait_until

ACCOUNT = "registry.example ana"
EXPIRED_SECONDS = LEASE.total_seconds() + 1


@dataclass
class Time:
    """A time that passes when a process sleeps: for its own clock, and for the database's where that is injected."""

    elapsed: float = 0.0
    began_at: datetime = field(default_factory=utc_now)
    while_asleep: Callable[[], object] = lambda: None

    def now(self) -> datetime:
        return self.began_at + timedelta(seconds=self.elapsed)

    def sleep(self, seconds: float) -> None:
        self.elapsed += seconds
        self.while_asleep()

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.elapsed, sleep=self.sleep)


def limit(remaining: int, window_seconds: int | None = None) -> RateLimit:
    return RateLimit(remaining=remaining, limit=None, window_seconds=window_seconds)


def pulled(budget: DatabaseBudget) -> int:
    """How many pulls a budget allows until it refuses one; each ends at once, without a report."""
    count = 0
    try:
        while budget.take_pull():
            budget.end_pull(has_reported=False)
            count += 1
    except RateLimited:
        pass
    return count


# -- processes of their own --------------------------------------------------------------------------------------------


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Callable[[Callable[[Database, Path], object]], tuple[Copy, Path]]]:
    """Starts copies of this process with a connection of their own to the database, and a file for what they found."""
    copies: list[Copy] = []

    def started(act: Callable[[Database, Path], object]) -> tuple[Copy, Path]:
        found = tmp_path / f"found-{len(copies)}"

        def connected() -> None:
            with Database.connect(url) as database:
                act(database, found)

        copies.append(Copy(connected, tmp_path / f"errors-{len(copies)}"))
        return copies[-1], found

    yield started
    for copy in copies:
        copy.kill()


Start = Callable[[Callable[[Database, Path], object]], tuple[Copy, Path]]


def pull_all(database: Database, found: Path) -> None:
    """Takes pulls until the account has none, and gives back what is left; without any, until another had them all."""
    time, count = Time(), 0
    budget = DatabaseBudget(database.account_budgets, ACCOUNT, longest_wait_seconds=0.0, clock=time.clock)
    for _ in range(5_000):
        count += pulled(budget)
        time.elapsed += 3_600
        has_begun = count or any(found.parent.glob("found-*"))
        if has_begun and not any(lease.pulls for lease in database.account_budgets.leases(ACCOUNT)):
            break
    budget.release()
    found.write_text(str(count))


@pytest.mark.slow
def test_two_processes_make_all_pulls_together_and_no_more(url: str, start: Start) -> None:
    with Database.connect(url) as database:
        database.account_budgets.report(ACCOUNT, 23, None, None)
    running = [start(pull_all), start(pull_all)]
    assert [copy.wait() for copy, _ in running] == [0, 0], [copy.errors for copy, _ in running]
    assert sum(int(found.read_text()) for _, found in running) == 23
    with Database.connect(url) as database:
        assert database.account_budgets.leases(ACCOUNT) == []
        grant = database.account_budgets.take_pulls(ACCOUNT, "later")
        assert grant is not None
        assert grant.pulls == 0


def take_and_die(database: Database, found: Path) -> None:
    budget = DatabaseBudget(database.account_budgets, ACCOUNT)
    assert budget.take_pull()
    found.touch()
    die()


def test_what_a_killed_process_held_is_everybodys_when_its_lease_has_expired(url: str, start: Start) -> None:
    with Database.connect(url) as database:
        database.account_budgets.report(ACCOUNT, BATCH, None, None)
    copy, found = start(take_and_die)
    assert was_killed(copy.wait()), copy.errors
    assert found.exists()
    with Database.connect(url) as database:
        (lost,) = database.account_budgets.leases(ACCOUNT)
        assert lost.pulls == BATCH
        time = Time()
        store = AccountBudgetStore(database, time.now)
        budget = DatabaseBudget(store, ACCOUNT, longest_wait_seconds=0.0, clock=time.clock)
        with pytest.raises(RateLimited):
            budget.take_pull()
        time.elapsed += EXPIRED_SECONDS
        assert pulled(budget) == BATCH
        assert lost.holder not in {lease.holder for lease in store.leases(ACCOUNT)}


@pytest.mark.parametrize(
    ("reported", "known"),
    [((20, 9, 10), 9), ((20, 10, 9), 9), ((9, 20, 18), 18)],
    ids=["late", "in-order", "new-window"],
)
def test_reports_that_are_noted_in_another_order_give_no_pull_back(
    url: str, reported: tuple[int, ...], known: int
) -> None:
    """Those of eight mirrors that are synced at once, each by a client of its own."""
    with Database.connect(url) as database:
        budget = DatabaseBudget(database.account_budgets, ACCOUNT, longest_wait_seconds=0.0, clock=Time().clock)
        assert budget.take_pull() is False
        budget.report(limit(30))  # written at once
        for remaining in reported:
            budget.report(limit(remaining))
        budget.release()
        assert database.account_budgets.report(ACCOUNT, 19, None, None).remaining == known


# -- a process that sleeps ---------------------------------------------------------------------------------------------


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(database: Database, time: Time) -> AccountBudgetStore:
    return AccountBudgetStore(database, time.now)


@pytest.fixture
def sleeper(store: AccountBudgetStore, time: Time) -> DatabaseBudget:
    return DatabaseBudget(store, ACCOUNT, total_rate=10.0, longest_wait_seconds=0.0, clock=time.clock)


@pytest.fixture
def other(store: AccountBudgetStore, time: Time) -> DatabaseBudget:
    return DatabaseBudget(store, ACCOUNT, total_rate=10.0, longest_wait_seconds=0.0, clock=time.clock)


def test_pulls_of_an_expired_lease_are_not_made_by_the_one_that_slept(
    store: AccountBudgetStore, time: Time, sleeper: DatabaseBudget, other: DatabaseBudget
) -> None:
    store.report(ACCOUNT, BATCH, None, None)
    assert sleeper.take_pull()
    sleeper.end_pull(has_reported=False)
    time.elapsed += EXPIRED_SECONDS
    assert pulled(other) == BATCH, "the pull that was made is not known before the sleeper says so"
    with pytest.raises(RateLimited):
        sleeper.take_pull()
    other.release()
    sleeper.release()
    assert store.leases(ACCOUNT) == []


def test_a_pull_that_was_under_way_during_the_sleep_is_held_again(
    store: AccountBudgetStore, time: Time, sleeper: DatabaseBudget, other: DatabaseBudget
) -> None:
    store.report(ACCOUNT, 2 * BATCH, None, None)
    assert sleeper.take_pull()
    time.elapsed += EXPIRED_SECONDS
    assert sleeper.take_pull()
    assert [lease.pulls for lease in store.leases(ACCOUNT)] == [BATCH + 1], "one of before, and a batch"
    assert pulled(other) == BATCH - 1


def test_the_rate_of_an_expired_lease_is_taken_up_again_once_others_give_it_up(
    store: AccountBudgetStore, time: Time, sleeper: DatabaseBudget, other: DatabaseBudget
) -> None:
    assert sleeper.requests_per_second() == 10.0
    time.elapsed += EXPIRED_SECONDS
    assert other.requests_per_second() == 10.0
    sums = []

    def renew() -> None:
        if time.elapsed > EXPIRED_SECONDS + RENEWAL_SECONDS:
            other.requests_per_second()
        sums.append(sum(lease.requests_per_second for lease in store.leases(ACCOUNT)))

    time.while_asleep = renew
    assert sleeper.requests_per_second() == 5.0
    assert other.requests_per_second() == 5.0
    assert sums
    assert max(sums) <= 10.0


def test_a_report_that_waited_is_not_taken_for_a_new_window(
    store: AccountBudgetStore, time: Time, sleeper: DatabaseBudget, other: DatabaseBudget
) -> None:
    """Reports are written every few seconds; one that waited longer is of what remained then."""
    sleeper.report(limit(90, 21_600))
    sleeper.report(limit(89, 21_600))
    time.elapsed += EXPIRED_SECONDS
    other.report(limit(8, 21_600))
    time.elapsed += RENEWAL_SECONDS
    assert pulled(sleeper) + pulled(other) == 8


def test_a_report_of_the_window_before_does_not_end_the_present_one(
    store: AccountBudgetStore, time: Time, sleeper: DatabaseBudget, other: DatabaseBudget
) -> None:
    sleeper.report(limit(5, 600))
    sleeper.report(limit(0, 600))
    time.elapsed += 601
    other.report(limit(20, 600))
    assert pulled(sleeper) + pulled(other) == 20


# -- a machine that stood still, and threads that wait -----------------------------------------------------------------


def test_a_machine_that_stood_still_makes_no_pull_of_its_expired_lease(
    store: AccountBudgetStore, time: Time, other: DatabaseBudget
) -> None:
    """Its own clock does not know how long it was suspended."""
    stopped = Clock(monotonic=lambda: 0.0, sleep=time.sleep)
    suspended = DatabaseBudget(store, ACCOUNT, longest_wait_seconds=0.0, clock=stopped)
    store.report(ACCOUNT, BATCH, None, None)
    assert suspended.take_pull()
    suspended.end_pull(has_reported=False)
    (lease,) = store.leases(ACCOUNT)
    time.elapsed += EXPIRED_SECONDS
    assert pulled(other) == BATCH
    store.share_rate(ACCOUNT, lease.holder, 10.0)  # a renewal for another reason brings no pulls back
    with pytest.raises(RateLimited):
        suspended.take_pull()


class NotingStore(AccountBudgetStore):
    """Notes for which priorities pulls are asked."""

    def take_pulls(self, account: str, holder: str, *, priority: int = 0, **more: int) -> PullGrant | None:
        asked.append(priority)
        return super().take_pulls(account, holder, priority=priority, **more)


asked: list[int] = []


def test_while_a_thread_waits_others_record_and_a_more_important_one_goes_first(
    database: Database, time: Time, other: DatabaseBudget
) -> None:
    asked.clear()
    budget = DatabaseBudget(NotingStore(database, time.now), ACCOUNT, longest_wait_seconds=60.0, clock=time.clock)
    budget.report(limit(BATCH))
    budget._write_report()
    assert other.take_pull()  # a whole batch, so that others wait
    threads: list[Thread] = []

    def start(act: Callable[[], object]) -> Thread:
        threads.append(Thread(target=act))
        threads[-1].start()
        return threads[-1]

    def while_asleep() -> None:
        if threads:
            return
        recording = start(lambda: budget.report(limit(BATCH)))
        recording.join(timeout=30)
        assert not recording.is_alive(), "who waits holds the lock"
        budget.priority = 5
        start(budget.take_pull)
        assert wait_until(lambda: len(budget._queue) == 2, timeout_seconds=30)
        other.end_pull(has_reported=True)
        other.release()

    time.while_asleep = while_asleep
    assert budget.take_pull()
    for thread in threads:
        thread.join()
    assert asked == [0, 5], "the ordinary one, which steps back, and the important one for both"
