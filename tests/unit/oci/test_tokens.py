"""How long a token is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.oci.auth.tokens import scrubbed, token_life_seconds

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (None, 60),
        (0, 60),
        (-1, 60),
        (30, 60),
        ("300", 300),
        (300, 300),
        (300.5, 300.5),
        ("soon", 60),
        ([], 60),
        (True, 60),
        (1e99, 86400),
        (float("inf"), 86400),
        (float("nan"), 60),
        (10**400, 60),
    ],
)
def test_a4_06_a_life_is_between_a_minute_and_a_day(expires_in: object, seconds: float) -> None:
    assert token_life_seconds({"expires_in": expires_in}, NOW) == seconds


@pytest.mark.parametrize(
    ("issued_at", "seconds"),
    [
        ("2027-01-15T08:00:00Z", 600),
        ("2027-01-15T07:58:20Z", 500),
        ("2027-01-15T07:58:20.123456789Z", 500),
        ("2027-01-15T08:10:00Z", 600),
        ("2027-01-15T07:00:00Z", 600),
        ("2027-01-15T08:58:20+01:00", 500),
        ("yesterday", 600),
        (12, 600),
    ],
)
def test_a4_07_issued_at_can_only_shorten_and_is_ignored_when_a_clock_is_wrong(
    issued_at: object, seconds: float
) -> None:
    assert token_life_seconds({"expires_in": 600, "issued_at": issued_at}, NOW) == pytest.approx(seconds, abs=1)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_a4_06_anything_gives_a_life_in_bounds(value: object) -> None:
    assert 60 <= token_life_seconds({"expires_in": value, "issued_at": value}, NOW) <= 86400


def test_scrubbing_takes_the_longest_secret_first() -> None:
    assert scrubbed("token abcdef and abc", ("abc", "abcdef", "")) == "token *** and ***"
