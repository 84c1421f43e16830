"""A database of the first release, made by its own code, is brought to this one's schema and back without loss."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Engine, MetaData, Table, func, insert, select, text

from registry_sync.db import schema
from registry_sync.db.columns import UtcDateTime
from registry_sync.db.content.closures import is_in_version
from registry_sync.db.database import Database
from registry_sync.db.engine import make_engine, read_url
from registry_sync.db.tables import manifests, metadata, repository_links
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.records import PageRequest
from registry_sync.domain.runs import RunState
from registry_sync.errors import StagesUnfinished
from registry_sync.hooks.stores import open_blob_store
from support import first_release
from support.first_release.make import NAME, upstreams, versions_of
from support.memory_registry import MemoryRegistry
from support.syncing import Installation

if TYPE_CHECKING:
    from contract.db.conftest import Prepared

FOLDER = Path(first_release.__file__).parent
DOCUMENT = json.loads((FOLDER / "first_release.json").read_text())
FIRST = "0001"
#: The one thing that the upgrade changes: tags of a run in flight are to be read again.
RUN_TAGS = "run_tags"


def untagged(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return base64.b64decode(value["bytes"])
    if isinstance(value, dict) and value.keys() == {"time"}:
        return datetime.fromisoformat(value["time"])
    return value


def first_remotes(engine: Engine) -> Table:
    """The one table whose columns have become fewer since."""
    times = [Column(name, UtcDateTime(), nullable=False) for name in ("created_at", "updated_at")]
    return Table("remotes", MetaData(), *times, autoload_with=engine)


def load_rows(url: str) -> None:
    engine = make_engine(read_url(url))
    schema.upgrade(engine, FIRST)
    tables = dict(metadata.tables) | {"remotes": first_remotes(engine)}
    with engine.begin() as connection:
        for name, rows in DOCUMENT["rows"].items():
            for row in rows:
                values = {column: untagged(value) for column, value in row.items()}
                connection.execute(insert(tables[name]).values(**values))
        if engine.dialect.name == "postgresql":
            for name in ("manifests", "blobs", "tags"):
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}"))
    engine.dispose()


@pytest.fixture(params=[("sqlite", "file"), ("sqlite", "rows"), ("postgresql", "rows")], ids="-".join)
def old_url(request: pytest.FixtureRequest, prepared: Prepared) -> str:
    """A database at the first release's schema, with what its syncs made."""
    dialect, form = request.param
    request.getfixturevalue("dialect_of_old")
    url: str = request.getfixturevalue("empty_url")
    assert dialect == read_url(url).get_backend_name()
    prepared.once(url, ("first release", dialect, form), partial(load_file if form == "file" else load_rows, url))
    return url


def load_file(url: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.executescript((FOLDER / "first_release.sql").read_text())
    connection.close()


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """The one of ``old_url``."""
    return str(request.node.callspec.params["old_url"][0])


@pytest.fixture
def dialect_of_old(dialect: str) -> str:
    return dialect


@pytest.fixture
def database(request: pytest.FixtureRequest, old_url: str, prepared: Prepared) -> Iterator[Database]:
    """The old database, upgraded."""
    prepared.once(old_url, ("upgraded", request.node.callspec.params["old_url"]), partial(upgrade, old_url))
    with Database.connect(old_url) as opened:
        yield opened


def upgrade(url: str) -> None:
    with Database.connect(url) as opened:
        assert opened.revision() == FIRST
        opened.upgrade()
        opened.check()


def by_name(table: Table) -> list[Column[Any]]:
    """Its columns: those that an upgrade takes away and a downgrade brings again come last in the table."""
    return sorted(table.c, key=lambda column: str(column.name)) if table.name == "remotes" else list(table.c)


def every_row(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the database itself describes its tables."""
    engine = make_engine(read_url(url))
    found = MetaData()
    found.reflect(engine)
    with engine.begin() as connection:
        rows = {
            table.name: sorted((tuple(row) for row in connection.execute(select(*by_name(table)))), key=repr)
            for table in found.sorted_tables
        }
    columns = {table.name: [column.name for column in by_name(table)] for table in found.sorted_tables}
    engine.dispose()
    return {f"{name}{columns[name]}": values for name, values in rows.items()}


def assert_versions_are_as_they_were(database: Database) -> None:
    said = {
        repository.name: json.loads(json.dumps(versions_of(database, repository)))
        for repository in database.repositories.page().items
    }
    assert said == DOCUMENT["expected"]


@pytest.mark.slow
def test_every_version_says_after_the_upgrade_what_it_said_before(database: Database) -> None:
    assert_versions_are_as_they_were(database)
    assert {name: len(versions) for name, versions in DOCUMENT["expected"].items()} == {
        "app": 4,
        "kept": 2,
        "later": 1,
        "stopped": 0,
    }
    for row in DOCUMENT["rows"]["manifests"]:
        assert database.contents.manifest(row["digest"]).data == untagged(row["data"])


def test_versions_include_the_entries_of_their_indexes_as_they_did(database: Database) -> None:
    link_count = 0
    for repository in database.repositories.page().items:
        for version in DOCUMENT["expected"][repository.name]:
            there = {entry[0] for entry in version["units"]["present"]["manifests"]}
            expected = {
                (digest, child)
                for digest, *_, children in version["units"]["present"]["manifests"]
                for child in children
                if child in there
            }
            statement = (
                select(manifests.c.digest, repository_links.c.child_digest)
                .join(manifests, manifests.c.id == repository_links.c.parent_id)
                .where(is_in_version(repository_links, repository.id, version["number"]))
                .where(repository_links.c.child_id.is_not(None), repository_links.c.kind == "child")
            )
            with database.reading() as connection:
                assert {tuple(row) for row in connection.execute(statement)} == expected
            link_count += len(expected)
    assert link_count > 20


def test_a_sync_goes_on_where_the_first_release_stopped(database: Database, tmp_path: Path) -> None:
    here = Installation(database, open_blob_store((tmp_path / "blobs").as_uri()))
    upstream = upstreams()[-1]
    registry = MemoryRegistry()
    registry.serve(NAME, upstream)
    version = here.sync("app", registry.url, NAME, replace_upstream=True)
    assert version is not None
    assert (version.number, version.base_number, version.holds) == (5, 4, ())
    assert version.summary.counts()["added"]["docker.tag"] == 1, "the tag that had been held"
    assert here.sync("app", registry.url, NAME) is None
    query = UnitQuery(version.repository_id)
    everything = PageRequest(limit=1000)
    assert database.versions.tags(version.repository_id) == upstream.tags
    assert {unit.digest for unit in database.units.manifests(query, everything).items} == upstream.manifests.keys()
    assert {unit.digest for unit in database.units.blobs(query, everything).items} == upstream.blobs.keys()


@pytest.mark.slow
def test_a_run_that_the_upgrade_interrupted_makes_no_half_version(database: Database, tmp_path: Path) -> None:
    repository = database.repositories.by_name("stopped")
    run = database.runs.page(repository_id=repository.id).items[0]
    assert run.state is RunState.FAILED
    with pytest.raises(StagesUnfinished, match="was not fetched"):
        database.versions.commit(run.id)
    assert database.versions.latest(repository.id) is None
    here = Installation(database, open_blob_store((tmp_path / "blobs").as_uri()))
    registry = MemoryRegistry()
    registry.serve(NAME, upstreams()[0])
    version = here.sync("stopped", registry.url, NAME, replace_upstream=True)
    assert version is not None
    assert database.versions.tags(repository.id) == upstreams()[0].tags


@pytest.mark.slow
def test_numbers_go_on_and_older_versions_can_be_had_again(database: Database) -> None:
    app = database.repositories.by_name("app")
    made = database.versions.roll_back(app.id, 1).version
    assert made is not None
    assert (made.number, database.versions.tags(app.id)) == (5, database.versions.tags(app.id, 1))
    assert database.versions.difference(app.id, 5, 1).is_empty
    database.versions.delete(app.id, 5)
    again = database.versions.roll_back(app.id, 2).version
    assert again is not None
    assert again.number == 6


@pytest.mark.slow
def test_going_back_leaves_every_row_that_the_first_release_had(old_url: str) -> None:
    before = every_row(old_url)
    with Database.connect(old_url) as database:
        database.upgrade()
        database.downgrade(FIRST)
        after = every_row(old_url)
        run_tags = next(name for name in before if name.startswith(RUN_TAGS))
        assert [(row[0], row[1], row[4]) for row in after.pop(run_tags)] == [
            (row[0], row[1], row[4]) for row in before.pop(run_tags)
        ]
        assert after == before
        database.upgrade()
        assert_versions_are_as_they_were(database)


def test_the_dumps_hold_the_same(old_url: str) -> None:
    engine = make_engine(read_url(old_url))
    with engine.begin() as connection:
        for name, rows in DOCUMENT["rows"].items():
            assert connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar_one() == len(rows)
    engine.dispose()
