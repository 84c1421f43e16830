"""What most tests of whole syncs begin with: an installation of their own, and a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ready_databases import RenewedDatabase
from support.registry import RegistryServer
from support.syncing import Installation


@pytest.fixture(scope="session")
def _renewed_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedDatabase]:
    database = RenewedDatabase(tmp_path_factory.mktemp("here") / "registry_sync.db")
    yield database
    database.close()


@pytest.fixture
def here(_renewed_database: RenewedDatabase, tmp_path: Path) -> Installation:
    """An installation with nothing in it."""
    return Installation.on(_renewed_database.renewed(), tmp_path)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """A real registry with nothing in it; modules that need another kind have their own."""
    with RegistryServer(tmp_path / "registry") as server:
        yield server
