"""A database that a test finds empty, or put back as it was filled before, is as one that was filled anew."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from registry_sync.db.database import Database
from registry_sync.db.tables import metadata
from support.emptied_databases import EmptiedDatabase, filled
from support.metadata import image, stopped_run, sync, two_versions, upstream_with


def everything(database: Database) -> dict[str, list[Any]]:
    with database.reading() as connection:
        found = {table.name: connection.execute(select(table)).all() for table in metadata.sorted_tables}
    return {name: sorted(map(repr, rows)) for name, rows in found.items() if rows}


def fill(database: Database, name: str) -> list[str]:
    two_versions(database, name)
    stopped_run(database, f"{name}/stopped")
    return [name]


def test_what_filled_it_is_put_back_with_its_ids_and_times(url: str) -> None:
    emptied = EmptiedDatabase(url)
    with emptied.database as database:
        made = filled(database, fill, "app")
        found = everything(database)
        assert len(found) > 10
        sync(database, database.repositories.ensure("third"), upstream_with(2))
        assert emptied.empty()
        assert everything(database) == {}

        assert filled(database, fill, "app") is made
        assert everything(database) == found
        sync(database, database.repositories.ensure("third"), upstream_with(2))

        emptied.empty()
        assert filled(database, fill, "other") == ["other"]
        assert [repository.spec.name for repository in database.repositories.page().items] == ["other", "other/stopped"]


def test_numbers_begin_anew_when_it_is_emptied_and_go_on_when_it_is_put_back(url: str) -> None:
    emptied = EmptiedDatabase(url)
    with emptied.database as database:

        def added(text: str) -> int:
            database.contents.add_manifests([image(text)])
            with database.reading() as connection:
                return max(connection.execute(select(metadata.tables["manifests"].c.id)).scalars())

        assert filled(database, lambda _database: [added(text) for text in "ab"][-1]) == added("b") == 2
        emptied.empty()
        assert filled(database, _two_images) == 2
        emptied.empty()
        assert filled(database, _two_images) == 2
        assert added("c") == 3
        emptied.empty()
        assert added("d") == 1


def _two_images(database: Database) -> int:
    database.contents.add_manifests([image("a"), image("b")])
    return 2


def test_one_that_had_many_rows_is_not_used_again(url: str) -> None:
    emptied = EmptiedDatabase(url)
    with emptied.database as database:
        database.contents.add_manifests([image(f"layer {number}") for number in range(1100)])  # and as many configs
        assert not emptied.empty()


def test_one_of_a_tests_own_is_filled_anew(database: Database, url: str) -> None:
    """Of which nothing is kept."""
    calls = []

    def fill(_database: Database) -> None:
        calls.append(url)

    filled(database, fill)
    filled(database, fill)
    assert len(calls) == 2
