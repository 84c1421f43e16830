"""The tasks of a stage share what a connection allows on its host: each takes its part, none takes more."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.remote import RemoteSpec
from registry_sync.hooks.clients import most_tasks, open_client
from registry_sync.hooks.connection import HostLimits

pytestmark = pytest.mark.rule("A9.8")
LIMITED = RemoteSpec.parse("demo", "https://registry.example", "a", conn_id="limited")


@pytest.fixture(autouse=True)
def _limited(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"host_concurrency": 6, "requests_per_second": "4.5"}
    connection = {"conn_type": "registry", "host": "registry.example", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LIMITED", json.dumps(connection))


@given(st.integers(1, 10_000), st.floats(0.01, 10_000), st.integers(1, 200))
def test_the_parts_of_all_tasks_are_no_more_than_the_whole(concurrency: int, rate: float, wanted: int) -> None:
    limits = HostLimits(concurrency, rate)
    tasks = limits.most_tasks(wanted)
    part = limits.share(tasks)
    assert part.concurrency is not None
    assert part.requests_per_second is not None
    assert 1 <= tasks <= wanted
    assert 1 <= part.concurrency * tasks <= concurrency
    assert part.requests_per_second > 0
    assert float(Fraction(part.requests_per_second) * tasks) <= rate * (1 + 1e-12)


def test_without_limits_there_is_nothing_to_share() -> None:
    assert HostLimits().most_tasks(7) == 7
    assert HostLimits().share(7) == HostLimits()


@pytest.mark.parametrize(
    ("rate", "tasks", "concurrency"), [(100.0, 1, 2000), (1.0, 1, 20), (1.0, 4, 5), (0.06, 1, 2), (0.01, 4, 1)]
)
def test_a_slow_rate_lets_fewer_work_at_a_time_so_that_turns_come_soon(
    rate: float, tasks: int, concurrency: int
) -> None:
    assert HostLimits(None, rate).share(tasks).concurrency == concurrency
    assert HostLimits(1, rate).share(tasks).concurrency == 1


@pytest.mark.parametrize(("tasks", "concurrency", "rate"), [(1, 6, 4.5), (2, 3, 2.25), (4, 1, 1.125), (6, 1, 0.75)])
def test_a_client_gets_its_part(tasks: int, concurrency: int, rate: float) -> None:
    with open_client(LIMITED, tasks) as client:
        assert (client.options.concurrency, client.options.requests_per_second) == (concurrency, rate)


def test_a_remote_that_wants_less_gets_less() -> None:
    with open_client(replace(LIMITED, download_concurrency=2), 2) as client:
        assert client.options.concurrency == 2


def test_no_more_tasks_than_requests_at_a_time() -> None:
    assert [most_tasks(LIMITED, wanted) for wanted in (1, 4, 100)] == [1, 4, 6]
    assert most_tasks(replace(LIMITED, conn_id=None), 100) == 100


def test_without_a_connection_there_is_no_limit() -> None:
    with open_client(replace(LIMITED, conn_id=None), 4) as client:
        assert (client.options.concurrency, client.options.requests_per_second) == (64, None)
