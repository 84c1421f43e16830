"""``mirror-results/``: what became of the mirrors of fleets, its filters, its pages, and who may read it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from support.rest_api import ApiServer, RestClient

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PATH = "mirror-results/"


@pytest.fixture
def fleet(api_server: ApiServer, name: str) -> str:
    """The id of a DAG of five mirrors, each with another outcome, after an earlier run that failed for all."""
    outcomes = (
        MirrorOutcome.UNCHANGED,
        MirrorOutcome.CHANGED,
        MirrorOutcome.HELD,
        MirrorOutcome.STOPPED,
        MirrorOutcome.FAILED,
    )
    for number, outcome in enumerate(outcomes):
        last = MirrorResult(
            dag_id=name,
            run_id=f"{name}-2",
            task_id="sync_mirrors",
            repository=f"{name}/{number}",
            position=number,
            outcome=outcome,
            started_at=NOON,
            finished_at=NOON + timedelta(minutes=number),
            version_number=number or None,
            held_count=2 if outcome is MirrorOutcome.HELD else 0,
            seconds=10.0 - number,
            received_bytes=5_000_000_000,
            error=None if outcome.is_success else "what to do",
        )
        earlier = replace(last, run_id=f"{name}-1", finished_at=NOON - timedelta(days=1), outcome=MirrorOutcome.FAILED)
        for result in (last, earlier):
            api_server.database.mirror_results.record(result)
    return name


def places(page: Any) -> list[int]:
    return [int(result["repository"].rpartition("/")[2]) for result in page["results"]]


def test_a_result_is_shown_whole(admin: RestClient, fleet: str) -> None:
    page = admin.get(PATH, dag_id=fleet, outcome="held")
    assert (page["count"], page["next"], page["previous"]) == (1, None, None)
    assert page["results"] == [
        {
            "repository": f"{fleet}/2",
            "outcome": "held",
            "version_number": 2,
            "held_count": 2,
            "error": None,
            "is_temporary": False,
            "priority": 0,
            "try_count": 1,
            "seconds": 8.0,
            "request_count": 0,
            "received_bytes": 5_000_000_000,
            "started_at": "2026-03-01T12:00:00.000000Z",
            "finished_at": "2026-03-01T12:02:00.000000Z",
            "dag_id": fleet,
            "run_id": f"{fleet}-2",
            "task_id": "sync_mirrors",
            "handed_over_to": None,
        }
    ]


def test_filters_of_the_last_results_and_of_one_run(admin: RestClient, fleet: str) -> None:
    assert places(admin.get(PATH, dag_id=fleet)) == [0, 1, 2, 3, 4]
    assert places(admin.get(PATH, dag_id=fleet, outcome="failed")) == [4]
    assert places(admin.get(PATH, dag_id=fleet, outcome__in="stopped,failed")) == [3, 4]
    assert places(admin.get(PATH, dag_id=fleet, outcome__in="stopped,failed", outcome="failed")) == [4]
    assert places(admin.get(PATH, dag_id=fleet, outcome__in="stopped", outcome="failed")) == []
    assert places(admin.get(PATH, run_id=f"{fleet}-1", outcome="failed")) == [0, 1, 2, 3, 4]
    assert places(admin.get(PATH, run_id=f"{fleet}-2", dag_id=fleet)) == [0, 1, 2, 3, 4]
    assert places(admin.get(PATH, run_id=f"{fleet}-2", dag_id="another")) == []


def test_pages_and_orders(admin: RestClient, fleet: str) -> None:
    assert places(admin.get(PATH, dag_id=fleet, ordering="-repository")) == [4, 3, 2, 1, 0]
    assert places(admin.get(PATH, dag_id=fleet, ordering="seconds")) == [4, 3, 2, 1, 0]
    assert places(admin.get(PATH, dag_id=fleet, ordering="-finished_at")) == [4, 3, 2, 1, 0]
    assert places(admin.get(PATH, dag_id=fleet, ordering="received_bytes")) == [0, 1, 2, 3, 4]
    first = admin.get(PATH, dag_id=fleet, limit=2, ordering="received_bytes")
    found, page = places(first), first
    while page["next"]:
        assert page["count"] == 5
        page = admin.get(page["next"])
        found += places(page)
    assert found == [0, 1, 2, 3, 4]
    assert page["previous"]


def test_nothing_is_an_empty_page(admin: RestClient) -> None:
    assert admin.get(PATH, dag_id="no such DAG") == {"count": 0, "next": None, "previous": None, "results": []}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outcome", "broken"),
        ("outcome", "FAILED"),
        ("outcome__in", "failed,broken"),
        ("outcome__in", ""),
        ("ordering", "error"),
        ("limit", "0"),
        ("offset", "-1"),
        ("dag_id", "a\x00b"),
        ("run_id", "a" * 2_001),
        ("repository", "app"),
    ],
)
def test_an_unknown_value_is_a_bad_request_that_names_its_field(admin: RestClient, field: str, value: str) -> None:
    assert admin.get(PATH, 400, **{field: value}).keys() == {field}


@pytest.mark.usefixtures("fleet")
def test_whoever_may_read_runs_reads_results_and_nobody_else(api_server: ApiServer) -> None:
    for role in ("viewer", "user", "op", "admin"):
        assert api_server.client(role).get(PATH, limit=1)["count"] > 0
    without_role = SimpleAuthManagerUser(username="nobody", role=None)
    for token, status in ((None, 401), (get_auth_manager().generate_jwt(without_role), 403)):
        response = RestClient(api_server.url, token).ask("GET", PATH)
        assert response.status_code == status
        assert "results" not in response.json()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert api_server.client("admin").ask(method, PATH, {}).status_code == 405
