"""What processes get of an account's pulls and of its rate: never more than there is, the most important first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.budget_shares import (
    BATCH,
    SHORTEST_WAIT_SECONDS,
    UNKNOWN_WAIT_SECONDS,
    BudgetLease,
    ReportedPulls,
    granted_pulls,
    granted_rate,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
WINDOW = 21_600


def reported(remaining: int, *, passed: float = 0.0, limit: int | None = 100) -> ReportedPulls:
    began = NOON - timedelta(seconds=WINDOW * passed)
    return ReportedPulls(remaining, NOON, began, limit, None if limit is None else WINDOW)


def granted(
    known: ReportedPulls, own: BudgetLease, *others: BudgetLease, floor: int = 0, has_important: bool = True
) -> tuple[int, float]:
    grant = granted_pulls(known, own, others, floor=floor, now=NOON, has_important=has_important)
    return grant.pulls, grant.wait_seconds


ORDINARY, IMPORTANT = BudgetLease("one"), BudgetLease("one", priority=5)


def test_half_of_a_window_is_kept_for_what_is_important_and_less_as_it_passes() -> None:
    assert granted(reported(100), ORDINARY) == (BATCH, 0)
    assert granted(reported(52), ORDINARY) == (2, 0)
    pulls, seconds = granted(reported(50), ORDINARY)
    assert (pulls, seconds) == (0, pytest.approx(WINDOW * 0.02))
    assert granted(reported(50), IMPORTANT) == (BATCH, 0)
    assert granted(reported(50, passed=0.5), ORDINARY) == (BATCH, 0)
    assert granted(reported(1, passed=1.0), ORDINARY) == (1, 0)


def test_nothing_is_kept_where_nothing_is_important() -> None:
    assert granted(reported(3), ORDINARY, has_important=False) == (3, 0)
    assert granted(reported(0, passed=0.5), ORDINARY, has_important=False) == (0, WINDOW / 2)


def test_half_of_what_is_above_the_floor_is_kept() -> None:
    assert granted(reported(100), ORDINARY, floor=88) == (BATCH, 0)
    assert granted(reported(94), ORDINARY, floor=88)[0] == 0
    assert granted(reported(94), IMPORTANT, floor=88) == (BATCH, 0)


def test_a_wait_for_what_is_kept_is_as_long_as_it_takes() -> None:
    _, seconds = granted(reported(40, passed=0.1), ORDINARY)
    later = reported(40, passed=0.1 + seconds / WINDOW)
    assert granted(later, ORDINARY)[0] == 1


def test_the_floor_and_what_others_hold_are_not_given_away() -> None:
    unspread = reported(20, limit=None)
    assert granted(unspread, ORDINARY, BudgetLease("two", pulls=12), floor=5) == (3, 0)
    assert granted(unspread, ORDINARY, BudgetLease("two", pulls=15), floor=5) == (0, SHORTEST_WAIT_SECONDS)
    assert granted(reported(5), ORDINARY, floor=5) == (0, WINDOW)


def test_one_that_waits_for_a_more_important_mirror_goes_first_and_then_who_waits_longest() -> None:
    known = reported(BATCH, limit=None)
    waiting = BudgetLease("two", priority=1, waiting_since=NOON)
    assert granted(known, ORDINARY, waiting) == (0, SHORTEST_WAIT_SECONDS)
    assert granted(known, IMPORTANT, waiting) == (BATCH, 0)
    first = BudgetLease("one", waiting_since=NOON - timedelta(seconds=2))
    second = BudgetLease("two", waiting_since=NOON - timedelta(seconds=1))
    assert granted(known, first, second) == (BATCH, 0)
    assert granted(known, second, first) == (0, SHORTEST_WAIT_SECONDS)


def test_a_window_that_is_used_up_is_waited_for_to_its_end() -> None:
    assert granted(reported(0, passed=0.99), ORDINARY) == (0, pytest.approx(WINDOW * 0.01))
    assert granted(reported(0, limit=None), ORDINARY) == (0, UNKNOWN_WAIT_SECONDS)


def test_a_late_report_takes_nothing_back_and_a_new_window_begins_with_its_first() -> None:
    known = reported(40, passed=0.5)
    late = ReportedPulls(43, NOON, NOON, 100, WINDOW)
    assert known.followed_by(late).remaining == 40
    assert known.followed_by(late).began_at == known.began_at
    lower = ReportedPulls(37, NOON, NOON, 100, WINDOW)
    assert known.followed_by(lower).remaining == 37
    renewed = ReportedPulls(100, NOON, NOON, 100, WINDOW)
    assert known.followed_by(renewed) == renewed
    over = reported(2, passed=1.0)
    assert over.followed_by(late) == late


def test_a_report_of_an_earlier_time_begins_no_window_and_one_of_an_earlier_window_is_nothing() -> None:
    known = reported(40, passed=0.5)
    for remaining, left in ((90, 40), (38, 38)):
        before = NOON - timedelta(seconds=60)
        assert known.followed_by(ReportedPulls(remaining, before, before, 100, WINDOW)) == replace(
            known, remaining=left
        )
    earlier = known.began_at - timedelta(seconds=1)
    assert known.followed_by(ReportedPulls(0, earlier, earlier, 100, WINDOW)) == known


@given(st.integers(0, 200), st.integers(0, 50), st.lists(st.integers(0, 20), max_size=5), st.floats(0, 1))
def test_no_more_is_granted_than_there_is(remaining: int, floor: int, held: list[int], passed: float) -> None:
    others = [BudgetLease(f"other-{number}", pulls=pulls) for number, pulls in enumerate(held)]
    pulls, seconds = granted(reported(remaining, passed=passed), IMPORTANT, *others, floor=floor)
    assert 0 <= pulls <= max(0, remaining - floor - sum(held))
    assert (pulls == 0) is (seconds >= SHORTEST_WAIT_SECONDS)


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 1000), max_size=6))
def test_the_parts_of_a_rate_are_never_more_than_the_whole(total: float, others: list[float]) -> None:
    rate = granted_rate(total, others)
    assert 0 <= rate <= total / (len(others) + 1)
    assert rate == 0 or rate + sum(others) <= total * (1 + 1e-9)


def test_one_that_joins_waits_until_the_first_gave_up_half() -> None:
    first = granted_rate(10, [])
    second = granted_rate(10, [first])
    assert (first, second) == (10, 0)
    first = granted_rate(10, [second])
    assert granted_rate(10, [first]) == 5
