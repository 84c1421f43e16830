"""Each test of the contract runs on an embedded database and on a real PostgreSQL."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from registry_sync.db.database import Database
from registry_sync.domain.records import (
    Repository,
)
from support.emptied_databases import EmptiedDatabase, filled
from support.metadata import sync
from support.postgres import Postgres, running_postgres
from support.small_histories import upstream

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


class Prepared:
    """Databases that are prepared once in the way of a key, and copied for every test after the first."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._kept: dict[Hashable, bytes | str] = {}

    def once(self, url: str, key: Hashable, prepare: Callable[[], object]) -> None:
        """Lets ``prepare`` write the database at ``url``, or a copy of what it wrote take its place."""
        address = make_url(url)
        name, kept = str(address.database), self._kept.get(key)
        if address.get_backend_name() == "sqlite":
            self._once_in_file(Path(name), key, kept, prepare)
            return
        server: Postgres = self._request.getfixturevalue("postgres")
        if kept is None:
            prepare()
            self._kept[key] = f"kept_{next(_numbers)}"
            server.make_database(str(self._kept[key]), name)
        else:
            server.drop_database(name)
            server.make_database(name, str(kept))

    def _once_in_file(self, path: Path, key: Hashable, kept: bytes | str | None, prepare: Callable[[], object]) -> None:
        if isinstance(kept, bytes):
            path.write_bytes(kept)
            return
        prepare()
        assert not path.with_name(f"{path.name}-wal").exists(), "a part of it is elsewhere"
        self._kept[key] = path.read_bytes()


@pytest.fixture(scope="session")
def prepared(request: pytest.FixtureRequest) -> Prepared:
    """What tests of upgrades begin with."""
    return Prepared(request)


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


class Emptied:
    """One database of each kind for all tests that do not ask for a ``url``."""

    def __init__(self, make_url: Callable[[str], str]) -> None:
        self._make_url = make_url
        self._opened: dict[str, EmptiedDatabase] = {}

    def take(self, dialect: str) -> Database:
        """The database of that kind, migrated and without rows."""
        if dialect not in self._opened:
            self._opened[dialect] = EmptiedDatabase(self._make_url(dialect))
        return self._opened[dialect].database

    def empty(self, dialect: str) -> None:
        """Empties it; one that would not be as a new one is given up."""
        if not self._opened[dialect].empty():
            self._opened.pop(dialect).database.close()

    def close(self) -> None:
        for opened in self._opened.values():
            opened.database.close()


@pytest.fixture(scope="session")
def emptied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emptied]:
    """The databases that tests take one after the other."""

    def make_url(dialect: str) -> str:
        if dialect == "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            return server.make_database(f"emptied_{next(_numbers)}", _MIGRATED)
        path = tmp_path_factory.mktemp("emptied") / "registry_sync.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return f"sqlite:///{path}"

    kept = Emptied(make_url)
    yield kept
    kept.close()


@pytest.fixture
def database(request: pytest.FixtureRequest, dialect: str) -> Iterator[Database]:
    """A migrated database without rows, opened; of its own, and at the ``url``, for a test that asks for that."""
    if "url" in request.fixturenames:
        with Database.connect(request.getfixturevalue("url")) as opened:
            yield opened
        return
    emptied: Emptied = request.getfixturevalue("emptied")
    yield emptied.take(dialect)
    emptied.empty(dialect)


@pytest.fixture
def app(database: Database) -> Repository:
    """A repository of three versions: ``latest`` moves from a to b to c, ``old`` goes with the second."""
    return filled(database, _three_versions)


def _three_versions(database: Database) -> Repository:
    repository = database.repositories.ensure("app")
    for content in (upstream(latest="a", old="o"), upstream(latest="b"), upstream(latest="c")):
        sync(database, repository, content)
    return repository
