"""Databases of tests that are filled once in a process, and copied."""

from __future__ import annotations

from pathlib import Path

from registry_sync.db.database import Database
from registry_sync.domain.records import Repository
from support.metadata import two_versions
from support.ready_databases import filled, ready_database

_filled: list[str] = []


def _fill(database: Database, name: str) -> Repository:
    _filled.append(name)
    return two_versions(database, name)


def test_what_fills_a_database_runs_once_and_each_test_changes_its_own_copy(tmp_path: Path) -> None:
    _filled.clear()
    seen = []
    for number in range(3):
        with ready_database(tmp_path / f"{number}.db") as database:
            repository = filled(database, _fill, "app")
            seen.append((repository, sorted(database.versions.tags(repository.id))))
            database.repositories.delete(repository.id)
    assert _filled == ["app"]
    assert seen == [seen[0]] * 3
    assert seen[0][1] == ["latest", "new"]


def test_another_argument_fills_another_database(tmp_path: Path) -> None:
    names = []
    for name in ("one", "other"):
        with ready_database(tmp_path / f"{name}.db") as database:
            names.append(filled(database, _fill, name).spec.name)
    assert names == ["one", "other"]
