"""Each test of the contract runs on an embedded database and on a real PostgreSQL."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from support.postgres import Postgres, running_postgres

_numbers = itertools.count()
_MIGRATED = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server with a migrated database, that the tests' databases are copied from."""
    with running_postgres() as server:
        with Database.connect(server.make_database(_MIGRATED)) as database:
            database.upgrade()
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, that the tests' databases are copied from."""
    path = tmp_path_factory.mktemp("migrated") / "registry_sync.db"
    with Database.connect(f"sqlite:///{path}") as database:
        database.upgrade()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


def _postgres_url(request: pytest.FixtureRequest, template: str) -> Iterator[str]:
    server: Postgres = request.getfixturevalue("postgres")
    name = f"contract_{next(_numbers)}"
    yield server.make_database(name, template)
    server.drop_database(name)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path}/registry_sync.db"
    else:
        yield from _postgres_url(request, "template1")


@pytest.fixture
def url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database."""
    if dialect == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "registry_sync.db")
        yield f"sqlite:///{tmp_path}/registry_sync.db"
    else:
        yield from _postgres_url(request, _MIGRATED)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A migrated database, opened."""
    with Database.connect(url) as opened:
        yield opened
