"""Failed logins of all processes, on both databases."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.db.database import Database
from registry_sync.db.login_failures import LoginFailureStore

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def failures(database: Database) -> LoginFailureStore:
    return database.login_failures


def test_what_never_failed_lies_not_ahead(failures: LoginFailureStore) -> None:
    assert failures.seconds_ahead([ONE, OTHER]) == {}
    failures.record({})
    assert failures.forget() == 0


def test_each_failure_moves_its_time_on_and_no_other(failures: LoginFailureStore) -> None:
    began = time.monotonic()
    for _ in range(3):
        failures.record({ONE: 30.0})
    failures.record({OTHER: 10.0, ONE: 60.0})
    ahead = failures.seconds_ahead([ONE, OTHER, "3" * 64])
    took = time.monotonic() - began
    assert ahead.keys() == {ONE, OTHER}
    assert 150 - took - 0.1 <= ahead[ONE] <= 150
    assert 10 - took - 0.1 <= ahead[OTHER] <= 10


def test_a_time_that_has_passed_counts_for_nothing_and_is_removed(failures: LoginFailureStore) -> None:
    failures.record({ONE: -5.0, OTHER: 1000.0})
    assert failures.seconds_ahead([ONE, OTHER]).keys() == {OTHER}
    failures.record({ONE: 10.0})
    assert failures.seconds_ahead([ONE])[ONE] <= 10, "it begins now, and not where it ended"
    failures.record({"3" * 64: -1.0})
    assert failures.forget() == 1
    assert failures.seconds_ahead([ONE, OTHER]).keys() == {ONE, OTHER}


def test_however_many_have_passed_they_are_removed(failures: LoginFailureStore) -> None:
    failures.record({f"{number:064}": -1.0 for number in range(1501)})
    assert failures.forget() == 1501
    assert failures.forget() == 0


def test_many_at_once_count_like_many_in_turn(failures: LoginFailureStore) -> None:
    keys = [f"{number:064}" for number in range(20)]

    def fail(number: int) -> None:
        failures.record(dict.fromkeys(keys if number % 2 else reversed(keys), 1000.0))
        failures.forget()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fail, range(16)))
    assert all(15_800 < ahead <= 16_000 for ahead in failures.seconds_ahead(keys).values())
    assert len(failures.seconds_ahead(keys)) == len(keys)
