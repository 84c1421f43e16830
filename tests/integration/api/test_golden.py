"""Every read of a kept database, byte for byte as it was: whatever changes inside, clients read the same.

Of refusals the status and the fields are kept; their words are for people, and tested where they arise.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from registry_sync.api.dependencies import OpenedDatabase
from support import rest_golden
from support.golden.make import DAG_ID

RESPONSES = rest_golden.FOLDER / "responses.json"
#: What differs from machine to machine, or from release to release; and what that release did not have.
NOT_KEPT = (
    "/docs/",
    "/pages",
    "/status/",
    "/distributions/",
    "/pulls/",
    "/container/",
    "/artifacts/",
    "/plan/",
    "/documentation",
)
#: The lists of all types, which that release did not have either.
OF_ALL_TYPES = (
    *("repositories", "remotes", "content", "repository_versions", "task-groups", "task-groups/{group_id}"),
    *("workers", "workers/{worker_id}", "mirror-results"),
)


@pytest.fixture(scope="module")
def app(_home_with_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The app on the kept database, which is upgraded by the first request."""
    file = tmp_path_factory.mktemp("golden") / "registry_sync.db"
    rest_golden.load_database(file)
    rest_golden.store_dag_runs()
    parts = OpenedDatabase()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{file}")
        patch.setenv("AIRFLOW__REGISTRY_SYNC__SYNC_DAG_ID", DAG_ID)
        yield rest_golden.app_on(parts)
        parts.close()


@pytest.fixture(scope="module")
def responses(app: FastAPI) -> dict[str, tuple[int, str]]:
    """Status and body of every read, by path."""
    found = {path: (status, _kept(status, body)) for path, status, body in rest_golden.every_response(app)}
    if os.environ.get("REGISTRY_SYNC_WRITE_GOLDEN"):
        lines = [f'["{path}", {status}, {body}]' for path, (status, body) in found.items()]
        RESPONSES.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return found


def _kept(status: int, body: str) -> str:
    return body if status < 400 else as_sent(list(json.loads(body)))


def as_sent(document: Any) -> str:
    """The bytes that a document is sent as, keys in its order."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def test_every_read_is_byte_for_byte_what_it_was(responses: dict[str, tuple[int, str]]) -> None:
    kept = {path: (status, body) for path, status, body in json.loads(RESPONSES.read_text(encoding="utf-8"))}
    assert list(responses) == list(kept)
    for path, (status, body) in kept.items():
        assert responses[path] == (status, as_sent(body)), path


def test_every_route_that_reads_is_among_them(app: FastAPI, responses: dict[str, tuple[int, str]]) -> None:
    read = {path.split("?")[0] for path, (status, _) in responses.items() if status == 200}
    later = {f"/api/v3/{name}/" for name in OF_ALL_TYPES}
    for route in app.routes:
        if getattr(route, "path", "") in later:
            continue
        if isinstance(route, APIRoute) and "GET" in route.methods and not any(part in route.path for part in NOT_KEPT):
            pattern = re.compile("/pulp" + re.sub(r"\{\w+\}", "[^/]+", route.path))
            assert any(pattern.fullmatch(path) for path in read), route.path
