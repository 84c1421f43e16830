"""Each test of the contract runs on an embedded database and on a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from support.postgres import Postgres, running_postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/registry_sync.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = f"contract_{next(_numbers)}"
    yield server.make_database(name)
    server.drop_database(name)


@pytest.fixture
def url(empty_url: str) -> str:
    """The URL of a migrated database."""
    with Database.connect(empty_url) as database:
        database.upgrade()
    return empty_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database.connect(url) as opened:
        yield opened
