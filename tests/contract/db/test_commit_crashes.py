"""A commit that is killed before each of its writes, meets a full disk, or loses its database: a version, or none.

The commit under test does everything at once: it adds, moves, holds and removes tags, reads one again whose links
have changed, and lets go of a version that is not kept any more.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, select

from registry_sync.db.database import Database
from registry_sync.db.tables import metadata
from registry_sync.domain.records import Repository, RepositorySpec
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import DatabaseError, DatabaseFull, DatabaseUnavailable
from support.dying import die, status_of_fork, was_killed
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.postgres import Postgres, running_postgres
from support.small_disks import CAN_MOUNT, MEBIBYTE, memory_disk

#: More writes than a commit makes; reached only when the matrix does not end by itself.
MOST_WRITES = 200


def prepare(database: Database) -> tuple[Repository, SyncRun]:
    """A repository with two versions, and a run whose commit makes the third."""
    repository = database.repositories.create(RepositorySpec("app", retain_versions=2))
    upstream = Upstream()
    children = [image(f"layer {number}", "shared") for number in range(3)]
    upstream.tag("stays", index(*children), *children)
    upstream.tag("moves", image("before", "shared"))
    upstream.tag("goes", image("goes"))
    sync(database, repository, upstream)
    upstream.tag("moves", image("between"))
    sync(database, repository, upstream)
    del upstream.tags["goes"]
    upstream.tag("moves", index(children[0], note="after"), children[0])
    upstream.tag("comes", image("comes", "shared"))
    upstream.tag("held", image("held"))
    run = open_run(database, repository)
    play_stages(database, run, upstream, held={"held": "the registry answered 500"})
    return repository, run


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with database.reading() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def on_write(database: Database, action: Callable[[int], None]) -> None:
    """Calls ``action`` with the number of each write before it happens; the COMMIT itself is the last."""
    count = 0

    def note(*_parts: object) -> None:
        nonlocal count
        count += 1
        action(count)

    def before_statement(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        words = statement.split()
        if "INSERT" in words or words[0] in ("UPDATE", "DELETE"):
            note()

    event.listen(database._engine, "before_cursor_execute", before_statement)
    event.listen(database._engine, "commit", note)


def commit_and_die(database: Database, run_id: str, number: int) -> None:
    """Commits, and kills this process before its write of that number."""
    on_write(database, lambda count: die() if count == number else None)
    database.versions.commit(run_id)


@pytest.mark.slow
def test_a_commit_killed_before_any_of_its_writes_leaves_everything_as_it_was_and_the_repeat_makes_it_whole(
    database: Database, url: str
) -> None:
    repository, run = prepare(database)
    before = everything(database)
    deaths = 0
    for number in range(1, MOST_WRITES):
        database.close()
        status = status_of_fork(lambda number=number: commit_and_die(database, run.id, number))
        if status == 0:
            break
        assert was_killed(status), status
        deaths += 1
        assert everything(database) == before, f"killed before write {number}"
    assert deaths >= 15
    assert_third_version(database, repository)
    after = everything(database)
    assert database.versions.commit(run.id).version is not None
    assert everything(database) == after, "a repeat changes nothing"


def assert_third_version(database: Database, repository: Repository) -> None:
    version = database.versions.latest(repository.id)
    assert version is not None
    assert version.number == 3
    assert set(database.versions.tags(repository.id)) == {"stays", "moves", "comes"}
    assert [hold.tag for hold in version.holds] == ["held"]
    assert version.summary.counts() == {
        "added": {"docker.blob": 2, "docker.manifest": 2, "docker.tag": 2},
        "present": {"docker.blob": 9, "docker.manifest": 6, "docker.tag": 3},
        "removed": {"docker.blob": 4, "docker.manifest": 2, "docker.tag": 2},
    }
    assert [found.number for found in database.versions.page(repository.id).items] == [3, 2]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_full_disk_stops_the_commit_and_with_room_again_it_is_made(database: Database, url: str) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    for number in range(500):
        upstream.tag(f"tag-{number}", image(f"layer {number}"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    before = everything(database)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE ballast (data BLOB)")
    database.close()

    def limit(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with Database.connect(url) as full:
        event.listen(full._engine, "connect", limit)
        with pytest.raises(DatabaseError, match="no space left"):
            _fill_pages(full)
        with pytest.raises(DatabaseError, match="no space left") as caught:
            full.versions.commit(run.id)
        assert not isinstance(caught.value, DatabaseUnavailable)
    assert everything(database) == before
    version = database.versions.commit(run.id).version
    assert version is not None
    assert version.summary.present["docker.tag"] == 500


def _fill_pages(database: Database) -> None:
    """Takes the room that is left in the pages there are."""
    for _ in range(10_000):
        with database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO ballast VALUES (zeroblob(500))")


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop."""
    with running_postgres() as server:
        yield server


@pytest.mark.slow
def test_a_database_that_goes_away_in_the_middle_is_a_passing_error_and_the_repeat_makes_the_version(
    own_server: Postgres,
) -> None:
    url = own_server.make_database("app")
    with Database.connect(url) as database:
        database.upgrade()
        repository, run = prepare(database)
        before = everything(database)
    for number in (1, 8, 15):
        with Database.connect(url) as database:
            on_write(database, lambda count, number=number: own_server.stop("fast") if count == number else None)
            with pytest.raises(DatabaseUnavailable):
                database.versions.commit(run.id)
        own_server.start()
        with Database.connect(url) as database:
            assert everything(database) == before
    with Database.connect(url) as database:
        assert database.versions.commit(run.id).version is not None
        assert_third_version(database, repository)


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="only root may mount a small disk")
def test_a_full_disk_of_a_server_is_distinguished_from_one_of_a_file(postgres: Postgres) -> None:
    url = postgres.make_database("full_disk", "migrated")
    with memory_disk(postgres.socket_folder / "small", 2 * MEBIBYTE) as disk:
        owner = postgres.socket_folder.stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        with Database.connect(url) as database:
            with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
                connection.exec_driver_sql("ALTER TABLE repositories SET TABLESPACE small")
            with pytest.raises(DatabaseFull, match="on the disk of its server"):
                _fill_rows(database)
            stored = database.repositories.page().total_count
            assert 0 < stored < 1000
        postgres.drop_database("full_disk")
        postgres.drop_tablespace("small")


def _fill_rows(database: Database) -> None:
    for number in range(1000):
        database.repositories.create(RepositorySpec(f"app-{number}", secrets.token_hex(5_000)))
