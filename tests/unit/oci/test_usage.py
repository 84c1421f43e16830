"""Counters add up over threads; rate limits are read in every form they come in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.db.tables import sync_runs
from registry_sync.domain.runs import RunUsage
from registry_sync.oci.http.rate_limits import RateLimit, Usage


class Headers:
    def __init__(self, **values: str) -> None:
        self._values = {name.replace("_", "-"): value for name, value in values.items()}

    def header(self, name: str) -> str | None:
        return self._values.get(name)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"ratelimit_limit": "100;w=21600"}, None),
        ({"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "20;w=21600"}, RateLimit(20, 100, 21600)),
        ({"ratelimit_remaining": "20"}, RateLimit(20)),
        ({"ratelimit_limit": "100;w=60", "ratelimit_remaining": "0"}, RateLimit(0, 100, 60)),
        ({"ratelimit_limit": "100, 100;w=21600", "ratelimit_remaining": "7"}, RateLimit(7, 100, 21600)),
        ({"ratelimit_remaining": "soon"}, None),
        ({"ratelimit_remaining": "-5"}, None),
        (
            {"ratelimit_remaining": "5;w=1", "docker_ratelimit_source": "192.0.2.1\r\nx"},
            RateLimit(5, None, 1, "192.0.2.1x"),
        ),
    ],
)
def test_a9_06_limits_are_read_and_anything_else_is_no_limit(
    headers: dict[str, str], expected: RateLimit | None
) -> None:
    assert RateLimit.read(Headers(**headers).header) == expected


@given(st.text(max_size=60), st.text(max_size=60))
def test_a9_06_any_text_is_read_or_is_no_limit(limit: str, remaining: str) -> None:
    found = RateLimit.read(Headers(ratelimit_limit=limit, ratelimit_remaining=remaining).header)
    assert found is None or found.remaining >= 0


def test_the_latest_limit_stays_when_a_response_has_none() -> None:
    usage = Usage()
    usage.record_rate_limit(Headers(ratelimit_remaining="9").header)
    usage.record_rate_limit(Headers().header)
    assert usage.rate_limit == RateLimit(9)


def test_counters_add_up_over_threads() -> None:
    usage = Usage()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: [usage.add("received_bytes", 3) for _ in range(1000)], range(8)))
    assert usage.counts() == RunUsage(received_bytes=24_000)


def test_every_count_can_be_read_by_its_name() -> None:
    usage = Usage()
    for number, name in enumerate(RunUsage.__dataclass_fields__, 1):
        usage.add(name, number)
        assert getattr(usage.counts(), name) == number


def test_what_a_client_counts_is_what_a_run_keeps() -> None:
    """One class from the request to the row: a counter that a client has and a run has not would be lost in between."""
    usage = Usage()
    usage.add("retry_count")
    assert usage.counts() == RunUsage(retry_count=1)
    assert set(RunUsage.__dataclass_fields__) <= set(sync_runs.c.keys())


def test_a9_09_warnings_are_kept_once_and_not_without_end() -> None:
    usage = Usage()
    assert usage.record_warning("old")
    assert not usage.record_warning("old")
    assert [usage.record_warning(f"w{number}") for number in range(120)].count(True) == 99
