"""Operators on a metadata database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.db.database import Database


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The configured metadata database, ready."""
    url = f"sqlite:///{tmp_path}/registry_sync.db"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", url)
    with Database.connect(url) as database:
        database.ready()
        yield database
