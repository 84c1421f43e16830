"""Budgets of accounts, on both databases: what many processes take together, and what the dead give back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.db.budget_leases import AccountBudgetStore
from registry_sync.db.database import Database
from registry_sync.domain.budget_shares import BATCH, IMPORTANT_FOR, LEASE

ACCOUNT = "registry.example ana"


class Time:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(database: Database, time: Time) -> AccountBudgetStore:
    return AccountBudgetStore(database, time)


def taken(store: AccountBudgetStore, holder: str, **more: int) -> int:
    grant = store.take_pulls(ACCOUNT, holder, **more)
    assert grant is not None
    return grant.pulls


def test_the_registry_is_asked_before_the_first_pull_and_when_its_window_has_ended(
    store: AccountBudgetStore, time: Time
) -> None:
    assert store.take_pulls(ACCOUNT, "one") is None
    store.report(ACCOUNT, 100, 100, 600)
    assert taken(store, "one") == BATCH
    time.pass_(601)
    assert store.take_pulls(ACCOUNT, "one") is None
    store.report(ACCOUNT, 100, 100, 600)
    assert taken(store, "one") == BATCH


def test_pulls_are_kept_only_where_a_mirror_with_a_priority_asked_for_some_of_late(
    store: AccountBudgetStore, time: Time
) -> None:
    store.report(ACCOUNT, 4, 100, 600)
    assert taken(store, "one") == 4
    store.release(ACCOUNT, "one")
    assert taken(store, "two", priority=1) == 4
    store.release(ACCOUNT, "two")
    assert taken(store, "one") == 0
    time.pass_(IMPORTANT_FOR.total_seconds())
    store.report(ACCOUNT, 4, 100, 600)
    assert taken(store, "one") == 4


def test_a_dead_process_gives_back_what_it_held(store: AccountBudgetStore, time: Time) -> None:
    store.report(ACCOUNT, BATCH, None, None)
    assert taken(store, "dead") == BATCH
    assert taken(store, "one") == 0
    time.pass_(LEASE.total_seconds() + 1)
    assert taken(store, "one") == BATCH
    assert [lease.holder for lease in store.leases(ACCOUNT)] == ["one"]


def test_what_is_released_is_everybodys_and_what_was_made_is_not(store: AccountBudgetStore) -> None:
    store.report(ACCOUNT, BATCH, None, None)
    taken(store, "one")
    store.release(ACCOUNT, "one", made=2)
    assert taken(store, "two") == BATCH - 2
    store.release(ACCOUNT, "nobody")


def test_pulls_under_way_stay_held_and_those_without_a_report_are_counted(store: AccountBudgetStore) -> None:
    store.report(ACCOUNT, 2 * BATCH, None, None)
    assert taken(store, "one") == BATCH
    assert taken(store, "one", running=3, made=2) == BATCH
    assert taken(store, "two") == 0, "three are under way, five are held, two were made"


def test_all_processes_together_take_what_there_is_and_no_more(database: Database) -> None:
    store = AccountBudgetStore(database)
    store.report(ACCOUNT, 23, None, None)

    def take(number: int) -> int:
        return taken(store, f"holder-{number}")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(12))) == 23


def test_one_that_joins_gets_its_part_of_the_rate_once_the_others_gave_it_up(
    store: AccountBudgetStore, time: Time
) -> None:
    assert store.share_rate(ACCOUNT, "one", 10) == 10
    assert store.share_rate(ACCOUNT, "two", 10) == 0
    assert store.share_rate(ACCOUNT, "one", 10) == 5
    assert store.share_rate(ACCOUNT, "two", 10) == 5
    store.release(ACCOUNT, "one")
    assert store.share_rate(ACCOUNT, "two", 10) == 10
    time.pass_(LEASE.total_seconds() + 1)
    assert store.share_rate(ACCOUNT, "three", 10) == 10, "the second died"


def test_a_pause_is_everybodys_and_ends(store: AccountBudgetStore, time: Time) -> None:
    assert store.paused_seconds(ACCOUNT) == 0
    store.pause(ACCOUNT, 60)
    store.pause(ACCOUNT, 30)
    assert store.paused_seconds(ACCOUNT) == 60
    assert store.paused_seconds("registry.example bob") == 0
    time.pass_(61)
    assert store.paused_seconds(ACCOUNT) == 0


def test_the_databases_own_clock_is_used_without_another(database: Database) -> None:
    database.account_budgets.pause(ACCOUNT, 60)
    assert 50 < database.account_budgets.paused_seconds(ACCOUNT) <= 60
