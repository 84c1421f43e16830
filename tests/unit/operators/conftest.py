"""Operators on a metadata database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from support.ready_databases import ready_database


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The configured metadata database, ready."""
    path = tmp_path / "registry_sync.db"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{path}")
    with ready_database(path) as database:
        yield database
