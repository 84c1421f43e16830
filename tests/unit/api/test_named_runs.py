"""The middleware that puts the repository into the id of a run: what it changes, and that nothing else is changed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from registry_sync.api.named_runs import MAX_BODY_BYTES, NamedRuns

PATH = "/api/v2/dags/registry_sync/dagRuns"
#: As the form sends it.
ASKED = {"conf": {"repository": "team/app", "tags": None}, "logical_date": "2026-03-01T12:00:00+00:00", "note": ""}


def received(
    body: bytes, *, path: str = PATH, method: str = "POST", parts: int = 1, headers: Any = None, root_path: str = ""
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers that arrive behind the middleware; the body is sent in ``parts`` messages."""
    arrived: list[bytes] = []
    seen: dict[str, str] = {}
    size = -(-len(body) // parts) or 1
    chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    pending = [
        {"type": "http.request", "body": chunk, "more_body": at < len(chunks) - 1} for at, chunk in enumerate(chunks)
    ]

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        seen.update({name.decode(): value.decode() for name, value in scope["headers"]})
        more = True
        while more:
            message = await receive()
            arrived.append(message["body"])
            more = message["more_body"]

    async def receive() -> dict[str, Any]:
        return pending.pop(0)

    async def send(_message: Any) -> None:
        raise AssertionError("the middleware responds to nothing")

    sent = {"content-length": str(len(body)), "content-type": "application/json"} if headers is None else headers
    lines = [(name.encode(), value.encode()) for name, value in sent.items()]
    scope = {"type": "http", "method": method, "path": root_path + path, "root_path": root_path, "headers": lines}
    asyncio.run(NamedRuns(app)(scope, receive, send))  # type: ignore[arg-type]
    return b"".join(arrived), seen


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("root_path", ["", "/airflow"])
@pytest.mark.parametrize("without", [{}, {"dag_run_id": None}, {"dag_run_id": ""}])
def test_a_run_without_an_id_is_named_after_its_repository(parts: int, root_path: str, without: Any) -> None:
    body, headers = received(encoded({**ASKED, **without}), parts=parts, root_path=root_path)
    named = json.loads(body)
    assert named.pop("dag_run_id").startswith("sync__team-app__20")
    assert named == ASKED
    assert headers["content-length"] == str(len(body))


def test_spaces_around_the_name_are_no_part_of_it_and_values_keep_their_meaning() -> None:
    conf = {"repository": " app\t", "n": 10**30, "x": 0.1, "s": "\ud800 \N{SNOWMAN}", "deep": [{"a": None}]}
    named = json.loads(received(encoded({"conf": conf, "logical_date": None}))[0])
    assert named["dag_run_id"].startswith("sync__app__20")
    assert named["conf"] == conf


@pytest.mark.parametrize(
    "body",
    [
        encoded({**ASKED, "dag_run_id": "mine"}),
        encoded({**ASKED, "dag_run_id": 7}),
        encoded({**ASKED, "conf": None}),
        encoded({**ASKED, "conf": "team/app"}),
        encoded({**ASKED, "conf": {}}),
        encoded({**ASKED, "conf": {"repository": 5}}),
        encoded({**ASKED, "conf": {"repository": "  "}}),
        encoded({**ASKED, "conf": {"repository": "a" * 256}}),
        b'{"conf": {"repository": "app", "x": NaN}}',
        b'{"conf": {"repository": "app", "x": 1e999}}',
        b'{"conf": {"repository": "app", "x": ' + b"1" * 5000 + b"}}",
        b'{"conf": {"repository": "app"}',
        b"[" * 100_000,
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b"",
    ],
    ids=lambda body: repr(body[:60]),
)
@pytest.mark.parametrize("parts", [1, 3])
def test_any_other_body_passes_byte_by_byte(body: bytes, parts: int) -> None:
    assert received(body, parts=parts) == (
        body,
        {"content-length": str(len(body)), "content-type": "application/json"},
    )


@pytest.mark.parametrize(
    "other",
    [
        {"method": "PUT"},
        {"path": "/api/v2/dags/other/dagRuns"},
        {"path": "/api/v2/dags/registry_sync/dagRuns/"},
        {"path": "/api/v2/dags/registry_sync/dagRuns/list"},
        {"path": "/api/v2/dags/~/dagRuns/list"},
        {"path": "/pulp/api/v2/dags/registry_sync/dagRuns"},
        {"headers": {}},
        {"headers": {"content-length": str(MAX_BODY_BYTES + 1)}},
        {"headers": {"content-length": "-1"}},
        {"headers": {"content-length": "\N{SUPERSCRIPT TWO}"}},
        {"headers": {"transfer-encoding": "chunked"}},
    ],
    ids=repr,
)
def test_any_other_request_passes(other: dict[str, Any]) -> None:
    body = encoded(ASKED)
    assert received(body, **other)[0] == body


def test_what_the_deployment_does_not_permit_as_an_id_is_left_to_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encoded(ASKED)
    for pattern, is_named in (("^sync__", True), ("^manual__", False), ("(", False), ("", False)):
        monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", pattern)
        assert (received(body)[0] != body) is is_named, pattern


def test_the_sync_dag_is_the_one_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encoded(ASKED)
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SYNC_DAG_ID", "our_syncs")
    assert received(body)[0] == body
    assert received(body, path="/api/v2/dags/our_syncs/dagRuns")[0] != body
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MAX_SHARDS", "none")
    assert received(body, path="/api/v2/dags/our_syncs/dagRuns")[0] == body


def test_a_client_that_goes_away_is_left_to_airflow() -> None:
    pending = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    arrived: list[str] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        arrived.extend([(await receive())["type"], (await receive())["type"]])

    async def receive() -> dict[str, Any]:
        return pending.pop(0)

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"content-length", b"90")]}
    asyncio.run(NamedRuns(app)(scope, receive, None))  # type: ignore[arg-type]
    assert arrived == ["http.request", "http.disconnect"]
