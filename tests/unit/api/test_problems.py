"""The table from errors to HTTP status."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event

from registry_sync import errors
from registry_sync.api import dependencies, problems
from registry_sync.api.problems import STATUSES, status_of
from registry_sync.db.database import Database
from registry_sync.domain.records import RepositorySpec

EVERY_ERROR = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.RegistrySyncError) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_has_a_status_that_says_whose_it_is(kind: type[errors.RegistrySyncError]) -> None:
    status = status_of(kind("message"))
    assert 400 <= status < 600
    if issubclass(kind, errors.InvalidReference):
        assert status == 400
    if kind.is_temporary:
        assert status in (409, 502, 503)


def test_a_row_of_the_table_is_used() -> None:
    """A row that says what the row above it in the tree says already is omitted."""
    for kind, status in STATUSES.items():
        above = [STATUSES[parent] for parent in kind.__mro__[1:] if parent in STATUSES]
        assert kind is errors.RegistrySyncError or status != above[0], kind


@pytest.mark.slow
def test_a_full_database_responds_with_503_and_says_whose_disk_it_is(tmp_path: Path) -> None:
    with Database.connect(f"sqlite:///{tmp_path}/registry_sync.db") as database:
        database.upgrade()
        event.listen(database._engine, "connect", lambda opened, _: opened.execute("PRAGMA max_page_count = 1"))
        database.close()
        client = _client(lambda: [database.repositories.create(RepositorySpec(f"app{n:03}" * 40)) for n in range(500)])
        response = client.get("/")
    assert response.status_code == 503
    assert "the metadata database has no space left, on the disk that its file is on" in response.json()["detail"]
    assert "Retry-After" not in response.headers, "it takes an operator"


def test_what_passes_says_when_to_retry(tmp_path: Path) -> None:
    with Database.connect(f"sqlite:///{tmp_path}/registry_sync.db", patience_seconds=0.01) as database:
        database.upgrade()
        with database.writing():
            response = _client(lambda: database.repositories.ensure("app")).get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "busy" in response.json()["detail"]


def test_what_airflows_own_database_refuses_is_distinguished_from_ours(tmp_path: Path) -> None:
    airflows = create_engine(f"sqlite:///{tmp_path}/airflow.db", connect_args={"timeout": 0.01})
    with airflows.connect() as holder, airflows.connect() as asking:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        response = _client(lambda: asking.exec_driver_sql("CREATE TABLE connection (id)")).get("/")
    airflows.dispose()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "Airflow's own metadata database is busy" in response.json()["detail"]


def test_a_request_that_finds_no_thread_free_waits_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(dependencies, "THREAD_COUNT", 1)
    at_work, may_end = threading.Event(), threading.Event()

    def work() -> None:
        at_work.set()
        assert may_end.wait(timeout=60)

    with _client(work) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/")
        assert at_work.wait(timeout=60)
        refused = client.get("/")
        may_end.set()
        assert first.result(timeout=60).status_code == 200
        assert client.get("/").status_code == 200
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")


def _client(work: Callable[[], object]) -> TestClient:
    """A client of an app with one route, in threads of ours as all are."""
    app, router = FastAPI(), dependencies.Router()

    def response() -> None:
        work()

    router.add_api_route("/", response)
    app.include_router(router)
    problems.install(app)
    return TestClient(app, raise_server_exceptions=False)
