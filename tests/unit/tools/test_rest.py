"""The client of Airflow's REST API, and runs followed by it, against a scripted server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_airflow import rest
from local_airflow.dag_run import DagRun, TaskState, await_dag
from local_airflow.errors import ApiError, DagBroken
from local_airflow.ports import free_port
from local_airflow.rest import AirflowApi
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply, reply

RUN = "/api/v2/dags/d/dagRuns/r%201"


@pytest.fixture
def server() -> Iterator[HostileRegistry]:
    with HostileRegistry() as answering:
        answering.on("POST", "/auth/token", json_reply({"access_token": "t"}, 201))
        yield answering


@pytest.fixture
def api(server: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> AirflowApi:
    monkeypatch.setattr(rest, "PAUSES_SECONDS", (0, 0))
    return AirflowApi(server.base, "admin", "secret")


@pytest.fixture
def run(api: AirflowApi) -> DagRun:
    return DagRun(api, "d", "r 1")


def _paths(server: HostileRegistry) -> list[str]:
    return [request.path for request in server.requests]


def test_it_signs_in_once_and_sends_the_token(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("GET", "/api/v2/dags", json_reply({"ok": True}))
    assert [api.request("GET", "/dags"), api.request("GET", "/dags")] == [{"ok": True}] * 2
    assert _paths(server) == ["/auth/token", "/api/v2/dags", "/api/v2/dags"]
    assert server.requests[-1].header("Authorization") == "Bearer t"


def test_a_listing_is_read_page_by_page(server: HostileRegistry, api: AirflowApi) -> None:
    def page(request: Request) -> Raw:
        offset = int(request.query.rpartition("offset=")[2])
        return json_reply({"dags": [{"n": n} for n in range(offset, min(offset + 100, 150))], "total_entries": 150})

    server.on("GET", "/api/v2/dags", page)
    assert [dag["n"] for dag in api.every("/dags", "dags")] == list(range(150))


def test_a_refusal_says_what_was_requested_and_why(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("POST", "/api/v2/dags/d/dagRuns", json_reply({"detail": "mode is wrong"}, 400))
    with pytest.raises(ApiError, match="POST /api/v2/dags/d/dagRuns: 400 mode is wrong") as refused:
        DagRun.trigger(api, "d", {})
    assert refused.value.status == 400


def test_reading_is_tried_again_when_the_server_is_too_busy(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("GET", "/api/v2/dags", reply(503), reply(500), json_reply({"ok": True}))
    assert api.request("GET", "/dags") == {"ok": True}


def test_reading_ends_with_the_error_when_it_stays_so(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("GET", "/api/v2/dags", reply(503))
    with pytest.raises(ApiError) as refused:
        api.request("GET", "/dags")
    assert refused.value.status == 503
    assert _paths(server).count("/api/v2/dags") == 3


def test_a_trigger_is_never_sent_twice(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("POST", "/api/v2/dags/d/dagRuns", reply(503))
    with pytest.raises(ApiError):
        DagRun.trigger(api, "d", {})
    assert _paths(server).count("/api/v2/dags/d/dagRuns") == 1


def test_a_server_that_is_missing_has_no_status() -> None:
    with pytest.raises(ApiError, match="refused") as refused:
        AirflowApi(f"http://127.0.0.1:{free_port()}", "admin", "secret").token()
    assert refused.value.status is None


def test_a_dag_that_cannot_be_imported_is_reported_with_its_error(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("GET", "/api/v2/dags/d", json_reply({"detail": "not found"}, 404))
    errors = [{"filename": "d.py", "stack_trace": "SyntaxError: oh"}]
    server.on("GET", "/api/v2/importErrors", json_reply({"import_errors": errors, "total_entries": 1}))
    with pytest.raises(DagBroken, match=r"d\.py:\nSyntaxError: oh"):
        await_dag(api, "d")


def test_a_dag_that_does_not_appear_is_not_waited_for_without_end(server: HostileRegistry, api: AirflowApi) -> None:
    server.on("GET", "/api/v2/dags/d", json_reply({"detail": "not found"}, 404))
    server.on("GET", "/api/v2/importErrors", json_reply({"import_errors": [], "total_entries": 0}))
    with pytest.raises(DagBroken, match="did not appear"):
        await_dag(api, "d", timeout_seconds=0)


def _tasks(*states: str | None) -> Raw:
    tasks = [
        {
            "task_id": f"t{number}",
            "map_index": -1,
            "state": state,
            "try_number": int(state is not None),
            "duration": None,
        }
        for number, state in enumerate(states)
    ]
    return json_reply({"task_instances": tasks, "total_entries": len(tasks)})


def test_every_change_of_a_task_is_reported_once_and_nothing_of_one_that_waits(
    server: HostileRegistry, run: DagRun
) -> None:
    states = [json_reply({"state": state}) for state in ("running", "running", "success")]
    server.on("GET", RUN, *states)
    tasks = [_tasks("running", None), _tasks("running", None), _tasks("success", "skipped")]
    server.on("GET", f"{RUN}/taskInstances", *tasks)
    assert [(task.name, task.state) for task in run.changes()] == [
        ("t0", "running"),
        ("t0", "success"),
        ("t1", "skipped"),
    ]


def test_what_a_task_did_not_hand_on_is_none(server: HostileRegistry, run: DagRun) -> None:
    server.on("GET", f"{RUN}/taskInstances/t/xcomEntries/return_value", json_reply({"detail": "none"}, 404))
    assert run.xcom("t") is None


FAILED = TaskState(task_id="t", map_index=-1, label="", state="failed", try_number=2, seconds=1)
ENDED_BY = {"event": "Task failed", "level": "error", "error_detail": [{"exc_type": "NotFound", "exc_value": "gone"}]}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([{"event": "Earlier", "level": "error"}, ENDED_BY, {"event": "after", "level": "info"}], "NotFound: gone"),
        ([{"event": "Killed", "level": "error"}, "plain text"], "Killed"),
        ([], "its log names no error"),
    ],
)
def test_the_reason_of_a_failure_is_read_from_the_log(
    server: HostileRegistry, run: DagRun, events: list[object], reason: str
) -> None:
    server.on("GET", f"{RUN}/taskInstances/t/logs/2", json_reply({"content": events}))
    assert run.reason(FAILED, 2) == reason


def test_a_log_that_cannot_be_read_is_no_second_failure(server: HostileRegistry, run: DagRun) -> None:
    server.on("GET", f"{RUN}/taskInstances/t/logs/2", reply(404))
    assert run.reason(FAILED, 2) == "its log cannot be read"
