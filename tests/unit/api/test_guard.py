"""The guard before the API, on its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry_sync.api.access import MAX_BODY_BYTES, Guard

BEARER = {"authorization": "Bearer x"}
PASSED = 200


def ask(headers: dict[str, str], *, body: bytes = b"", kind: str = "http") -> int:
    """The status of a request for which the app behind the guard would respond with 200."""
    statuses: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        statuses.append(PASSED)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": "POST", "path": "/", "headers": lines}
    guard = Guard(app, cookie_name="_token", own_origins=lambda: frozenset({"https://airflow.example"}))
    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    return statuses[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Basic am9lOnB3"}, 401),
        ({"cookie": "other=1"}, 401),
        ({"cookie": "_token=x"}, PASSED),
        ({"cookie": "a=b; _token=x"}, PASSED),
        ({"authorization": "bearer x"}, PASSED),
    ],
)
def test_a_request_has_a_credential(headers: dict[str, str], status: int) -> None:
    assert ask(headers) == status


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://here.example:8080", "here.example:8080", PASSED),
        ("http://here.example", "here.example", PASSED),
        ("https://here.example", "here.example:443", PASSED),
        ("https://HERE.example", "here.example", PASSED),
        ("https://airflow.example", "internal:8080", PASSED),
        ("https://airflow.example:8443", "internal:8080", 403),
        ("http://here.example:8081", "here.example:8080", 403),
        ("https://here.example.evil.example", "here.example", 403),
        ("https://evil.example", "here.example", 403),
        ("null", "here.example", 403),
        ("null", "", 403),
        ("", "here.example", 403),
        ("http://[", "here.example", 403),
        ("http://here.example:port", "here.example", 403),
    ],
)
def test_an_origin_is_compared_by_host_and_port(origin: str, host: str, status: int) -> None:
    assert ask({**BEARER, "origin": origin, "host": host}) == status


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_without_an_origin_the_browser_s_word_for_the_site_counts(site: str, status: int) -> None:
    assert ask({**BEARER, "sec-fetch-site": site}) == status


@pytest.mark.parametrize("length", ["-1", "many", "1e9", "", "9" * 5000])
def test_a_length_that_is_none_is_ignored_and_the_body_counted(length: str) -> None:
    assert ask({**BEARER, "content-length": length}) == PASSED


def test_a_body_may_have_the_largest_size_and_no_byte_more() -> None:
    assert ask({**BEARER, "content-length": str(MAX_BODY_BYTES)}, body=b"a" * MAX_BODY_BYTES) == PASSED
    assert ask({**BEARER, "content-length": str(MAX_BODY_BYTES + 1)}) == 400


def test_what_is_no_request_passes() -> None:
    assert ask({}, kind="lifespan") == PASSED
