"""What the page on uninstalling says is left when the tables are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from registry_sync.db.database import Database
from registry_sync.db.schema import VERSION_TABLE
from registry_sync.hooks.stores import open_blob_store
from support.commands import run_command
from support.documents import code_blocks
from support.filling import push
from support.memory_registry import MemoryRegistry
from support.postgres import running_postgres
from support.shapes import documented_example
from support.syncing import Installation

PAGE = "how-to/upgrade-and-uninstall.md"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/registry_sync.db"
        return
    with running_postgres() as server:
        yield server.make_database("uninstall").replace("postgresql://", "postgresql+psycopg://")


def test_dropping_the_tables_leaves_an_empty_one_and_the_blobs_and_may_be_undone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    push(registry, "app", documented_example())
    store = open_blob_store((tmp_path / "blobs").as_uri())
    with Database.connect(url) as database:
        database.upgrade()
        Installation(database, store).sync("app", registry.url, "app")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", url)
    (block,) = (block.text for block in code_blocks(PAGE) if block.language == "bash")
    run_command(*block.split()[2:])
    engine = create_engine(url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == [VERSION_TABLE]
        assert connection.execute(text(f"SELECT count(*) FROM {VERSION_TABLE}")).scalar() == 0
    engine.dispose()
    assert len(list(store.digests())) == 31
    with Database.connect(url) as database:
        database.upgrade()
        assert not database.repositories.page().items
        Installation(database, store).sync("app", registry.url, "app")
    assert registry.log().blob_get_count == 31, "what is in the store already is not downloaded again"
