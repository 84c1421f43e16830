"""Operators on a metadata database of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import Repository
from support.hostile_registry import HostileRegistry, errors_reply, json_reply, reply
from support.metadata import thirty_tags
from support.ready_databases import filled, ready_database
from support.triggers import DIGEST, LOGIN


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The configured metadata database, ready."""
    path = tmp_path / "registry_sync.db"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{path}")
    with ready_database(path) as database:
        yield database


@pytest.fixture
def repository(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repository:
    """A mirror of thirty tags, and a blob store of the test's own."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    return filled(database, thirty_tags)


@pytest.fixture
def listener() -> Iterator[HostileRegistry]:
    """A registry of the trigger's own, which asks for a password and keeps all that it is sent."""
    with HostileRegistry() as server:
        challenge = errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", "Basic realm=x")])

        def tags(request: Any) -> Any:
            return challenge if request.header("authorization") is None else json_reply({"tags": ["a"]})

        server.on("GET", "/v2/team/app/tags/list", tags)
        server.on("GET", "/v2/", challenge)
        server.on("GET", "/v2/open/app/tags/list", json_reply({"tags": ["a"]}))
        server.on("HEAD", "/v2/open/app/manifests/a", reply(200, headers=[("Docker-Content-Digest", DIGEST)]))
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def make(conn_id: str, **fields: Any) -> str:
        extra = {"allow_insecure_credentials": True, **fields.pop("extra", {})}
        connection = {"conn_type": "registry", **LOGIN, **fields, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return make
