"""Whether a repository lacks a blob is asked at each sync: what others lack, as on-demand mirrors do, costs nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, insert

from registry_sync.db.content.closures import lacks_blob
from registry_sync.db.database import Database
from registry_sync.db.tables import blobs
from registry_sync.domain.quantities import utc_now
from support.metadata import Upstream, image, layer, sync


def add_missing(connection: Connection, start: int, count: int) -> None:
    """Blobs of other repositories that were never fetched."""
    common = {"size_bytes": 1, "media_type": "text/plain", "is_foreign": False, "created_at": utc_now()}
    rows = [{"digest": f"sha256:{number:064x}", **common} for number in range(start, start + count)]
    connection.execute(insert(blobs), rows)


@pytest.mark.parametrize("count", [0, 1, 250])
def test_a_missing_blob_is_found_however_many_others_lack(database: Database, count: int) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("a", "b"))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    if count:
        with database.writing() as connection:
            add_missing(connection, 0, count)

    def lacks() -> tuple[bool, int]:
        with database.reading() as connection:
            return lacks_blob(connection, repository.id), database.versions.missing_blob_count(repository.id)

    database.contents.mark_stored([blob.digest for blob in database.units.blobs().items])
    assert lacks() == (False, 0)
    database.contents.mark_missing([layer("b").digest])
    assert lacks() == (True, 1)
    upstream.tag("latest", image("a"))
    sync(database, repository, upstream)
    assert lacks() == (False, 0), "it is in an earlier version alone"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_others_lack_costs_nothing(database: Database) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("a", "b"))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    database.contents.mark_stored([blob.digest for blob in database.units.blobs().items])

    def step_count() -> int:
        """How many steps SQLite's machine takes for the answer."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        with database.reading() as connection:
            lacks_blob(connection, repository.id)
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(step, 1)
            try:
                assert not lacks_blob(connection, repository.id)
            finally:
                driver.set_progress_handler(None, 1)
        return steps

    with database.writing() as connection:
        add_missing(connection, 0, 500)
    few = step_count()
    with database.writing() as connection:
        add_missing(connection, 500, 5000)
    assert step_count() <= few + 10
