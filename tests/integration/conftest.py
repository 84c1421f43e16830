"""What most tests of whole syncs begin with: an installation of their own, and a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.registry import RegistryServer
from support.syncing import Installation


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    """An installation with nothing in it."""
    installation = Installation.embedded(tmp_path)
    yield installation
    installation.database.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """A real registry with nothing in it; modules that need another kind have their own."""
    with RegistryServer(tmp_path / "registry") as server:
        yield server
