"""The registry API in this process: no socket, an empty blob store, and a database with one version."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.db.database import Database
from registry_sync.domain.serving import DistributionSpec
from registry_sync.serve.pull_api import PullApp
from support.metadata import two_versions
from support.ready_databases import filled, ready_database

T = TypeVar("T")


class PullDesk:
    """An installation that serves ``app`` to everybody, and the same as ``team/private`` and ``other/private``.

    ``make`` gives an app, which lives as long as one :meth:`play`.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.store = LocalBlobStore(folder / "blobs")
        self.repository = filled(database, two_versions, "app")
        for name, is_private in (("app", False), ("team/private", True), ("other/private", True)):
            database.distributions.create(DistributionSpec(name, name, self.repository.id, is_private=is_private))

    def make(self, **options: Any) -> PullApp:
        return PullApp(self.database, self.store, **options)

    def play(self, story: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(story)


def client(app: PullApp, address: str = "192.0.2.1") -> httpx.AsyncClient:
    """Asks the app from that address."""
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://registry.example", trust_env=False)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[PullDesk]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield PullDesk(database, tmp_path)
