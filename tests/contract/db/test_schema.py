"""How a database gets its tables, and what is said when it lacks them."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table, insert, inspect, select, text

from registry_sync.db import schema
from registry_sync.db.database import Database
from registry_sync.db.engine import make_engine, read_url
from registry_sync.db.tables import (
    metadata,
    repositories,
    repository_tags,
    tags,
)
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import DatabaseError, DatabaseOutdated, DatabaseUnavailable
from support.dying import Copy
from support.metadata import two_versions


def test_the_migrations_make_the_tables_that_the_code_describes(url: str) -> None:
    engine = make_engine(read_url(url))
    options = {"version_table": schema.VERSION_TABLE, "compare_type": True, "compare_server_default": False}
    with engine.connect() as connection, connection.begin():
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_every_index_and_constraint_of_the_migrations_is_named_as_in_the_code(url: str) -> None:
    engine = make_engine(read_url(url))
    with engine.connect() as connection, connection.begin():
        found = inspect(connection)
        for table in metadata.sorted_tables:
            assert {index["name"] for index in found.get_indexes(table.name)} >= {index.name for index in table.indexes}
            assert {key["name"]: key["options"].get("ondelete") for key in found.get_foreign_keys(table.name)} == {
                str(key.name): key.ondelete for key in table.foreign_key_constraints
            }
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [
                column.name for column in table.primary_key
            ]
    engine.dispose()


@pytest.mark.slow
def test_downgrading_to_base_leaves_nothing_and_upgrading_again_works(url: str) -> None:
    with Database.connect(url) as database:
        database.downgrade("base")
        assert database.revision() is None
        engine = make_engine(read_url(url))
        with engine.connect() as connection, connection.begin():
            assert set(inspect(connection).get_table_names()) <= {schema.VERSION_TABLE}
        engine.dispose()
        database.upgrade()
        database.repositories.ensure("app")


FULL = RemoteSpec.parse(
    "full",
    "docker.io/",
    "alpine",
    include_tags=("3.*", "latest", "latest"),
    exclude_tags=("*-rc",),
    policy="streamed",
    download_concurrency=7,
    conn_id="hub",
    proxy_url="http://proxy.example:3128",
    ssl_validation=False,
    ssl_ca_certificate="-----BEGIN CERTIFICATE-----",
    ssl_client_certificate="-----BEGIN CERTIFICATE-----",
    platforms=("linux/x86_64", "linux/arm/v7"),
    include_referrers=False,
    labels={"team": "b\u00fcro \U0001f600"},
    allow_sparse=True,
    allow_schema1=True,
    include_foreign_layers=True,
    max_held_share=0.1,
    max_removed_share=None,
    max_removed_tags=3,
    max_total_bytes=50_000_000_000,
)
PLAIN = RemoteSpec.parse("plain", "https://registry.example", "team/app", include_tags=())


def remotes_of_0003(url: str) -> dict[str, dict[str, Any]]:
    """The options as columns, by the name of their remote."""
    engine = make_engine(read_url(url))
    table = Table("remotes", MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(select(table))]
    engine.dispose()
    return {row["name"]: row for row in rows}


@pytest.mark.slow
def test_options_of_remotes_move_into_their_document_and_back_as_they_were_written(url: str) -> None:
    with Database.connect(url) as database:
        made = [database.remotes.create(spec) for spec in (FULL, PLAIN)]
        database.downgrade("0003")
        before = remotes_of_0003(url)
        for spec in (FULL, PLAIN):
            document = spec.document()
            # which that schema has no place for
            for name in [*list(document)[-9:], "max_total_bytes", "digest_list", "min_tags"]:
                del document[name]
            assert {name: before[spec.name][name] for name in document} == document
            assert "options" not in before[spec.name]
        columns = {column["name"]: column["nullable"] for column in columns_of_remotes(url)}
        required = ("exclude_tags", "policy", "download_concurrency", "ssl_validation", "include_referrers", "labels")
        assert [name for name in required if columns[name]] == []
        database.upgrade()
        now = [database.remotes.get(remote.id) for remote in made]
        assert [remote.spec.document() for remote in now] == [
            {**spec.document(), "max_total_bytes": None} for spec in (FULL, PLAIN)
        ]
        assert [(remote.created_at, remote.updated_at) for remote in now] == [
            (remote.created_at, remote.updated_at) for remote in made
        ]
        database.downgrade("0003")
        assert remotes_of_0003(url) == before


def names_beside_tags(database: Database) -> list[tuple[str, str]]:
    """The name in each interval of a tag, and the one of the tag itself."""
    statement = select(repository_tags.c.name, tags.c.name).join(tags, tags.c.id == repository_tags.c.tag_id)
    with database.reading() as connection:
        return [(there, own) for there, own in connection.execute(statement)]


def test_each_interval_of_a_tag_has_its_name_however_it_was_made(url: str) -> None:
    """By syncs, a copy and a rollback; and the migration fills the names in again."""
    with Database.connect(url) as database:
        app, copied = two_versions(database, "app"), database.repositories.ensure("copied")
        database.versions.copy(copied.id, CopyRequest(app.id, 2, TagFilter(), SyncMode.MIRROR))
        database.versions.copy(copied.id, CopyRequest(app.id, 1, TagFilter(), SyncMode.ADDITIVE))
        database.versions.roll_back(app.id, 1)
        made = names_beside_tags(database)
        assert {there for there, _ in made} == {"latest", "new", "old"}
        assert [there for there, _ in made] == [own for _, own in made]
        database.downgrade("0006")
        engine = make_engine(read_url(url))
        assert "name" not in {column["name"] for column in inspect(engine).get_columns("repository_tags")}
        engine.dispose()
        database.upgrade()
        assert sorted(names_beside_tags(database)) == sorted(made)
        assert database.versions.tags(copied.id).keys() == {"latest", "new", "old"}


def columns_of_remotes(url: str) -> list[Any]:
    engine = make_engine(read_url(url))
    found = list(inspect(engine).get_columns("remotes"))
    engine.dispose()
    return found


def test_an_empty_embedded_database_is_migrated_at_first_use_and_another_is_only_checked(
    empty_url: str, dialect: str
) -> None:
    with Database.connect(empty_url) as database:
        assert database.is_embedded == (dialect == "sqlite")
        with pytest.raises(DatabaseOutdated):
            database.check()
        if database.is_embedded:
            database.ready()
            database.ready()
        else:
            with pytest.raises(DatabaseOutdated, match="airflow registry-sync db upgrade"):
                database.ready()
            database.upgrade()
            database.ready()
        assert database.revision() == database.needed_revision


def test_a_store_used_before_the_tables_exist_says_what_to_run(empty_url: str) -> None:
    with (
        Database.connect(empty_url) as database,
        pytest.raises(DatabaseOutdated, match="airflow registry-sync db upgrade"),
    ):
        database.repositories.by_name("app")


def test_a_database_of_a_newer_release_is_left_alone(url: str) -> None:
    engine = make_engine(read_url(url))
    with engine.connect() as connection, connection.begin():
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with Database.connect(url) as database:
        with pytest.raises(DatabaseOutdated, match="newer registry-sync"):
            database.ready()
        with pytest.raises(DatabaseError, match="cannot be migrated"):
            database.upgrade()


def test_a_failing_transaction_leaves_nothing(database: Database) -> None:
    row = {"id": "1", "name": "app", "labels": {}, "created_at": utc_now(), "updated_at": utc_now()}

    def write_and_fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(repositories), row)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.reading() as connection:
        assert connection.execute(select(repositories)).all() == []


@pytest.mark.slow
def test_several_processes_may_be_the_first_at_once(empty_url: str, tmp_path: Path) -> None:
    def use_first(number: int) -> None:
        with Database.connect(empty_url) as database:
            (database.ready if database.is_embedded else database.upgrade)()
            database.repositories.ensure("app")
            (tmp_path / f"found-{number}").write_text(database.repositories.by_name("app").id)

    copies = [Copy(partial(use_first, number), tmp_path / f"errors-{number}") for number in range(4)]
    assert [copy.wait() for copy in copies] == [0] * 4, [copy.errors for copy in copies]
    found = {(tmp_path / f"found-{number}").read_text() for number in range(4)}
    assert len(found) == 1, "all of them found the same repository"


def made_by_an_earlier_release(path: Path) -> str:
    """The URL of an embedded database at the schema before this one, with a repository."""
    url = f"sqlite:///{path}"
    with Database.connect(url) as database:
        database.ready()
        database.repositories.ensure("app")
        database.downgrade("0015")
    return url


@pytest.mark.slow
def test_an_embedded_database_is_not_migrated_under_a_process_that_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_PATIENCE_SECONDS", 0.1)
    url = made_by_an_earlier_release(tmp_path / "used.db")
    with Database.connect(url) as running, Database.connect(url) as newer:
        assert running.repositories.by_name("app").name == "app"  # as a server does, which keeps the connection
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match=r"at schema 0015.*has it open.*airflow registry-sync db upg"):
                newer.ready()
        assert newer.revision() == "0015"
        running.repositories.ensure("still-works")
        running.close()
        newer.ready()
        assert newer.revision() == schema.HEAD_REVISION
        assert newer.repositories.by_name("still-works").name == "still-works"
        with newer.reading() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


@pytest.mark.slow
def test_whoever_asks_for_it_migrates_a_database_in_use(tmp_path: Path) -> None:
    url = made_by_an_earlier_release(tmp_path / "used.db")
    with Database.connect(url) as running, Database.connect(url) as newer:
        running.repositories.by_name("app")
        newer.upgrade()
        newer.ready()
        assert newer.repositories.by_name("app").name == "app"


@pytest.mark.slow
def test_processes_of_one_release_that_start_at_once_migrate_it_together(tmp_path: Path) -> None:
    url = made_by_an_earlier_release(tmp_path / "used.db")
    barrier = multiprocessing.get_context("fork").Barrier(4)

    def start() -> None:
        with Database.connect(url) as database:
            barrier.wait(60)
            database.ready()
            assert database.repositories.by_name("app").name == "app"

    copies = [Copy(start, tmp_path / f"{number}.errors") for number in range(4)]
    assert [copy.wait() for copy in copies] == [0] * 4, [copy.errors for copy in copies]


@pytest.mark.slow
def test_a_migration_is_one_line_in_the_log_and_none_when_there_is_nothing_to_do(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A first sync migrates in its task, whose log people read."""
    caplog.set_level("INFO")
    with Database.connect(url) as database:
        database.downgrade("base")
        caplog.clear()
        for _ in range(2):
            database.upgrade()
    lines = [(record.name, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("registry_sync.db.schema", f"the metadata database was made, and is at schema {schema.HEAD_REVISION}")
    ]
