"""Commands run as Airflow's own parser reads them, on a metadata database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.cli import command_context
from registry_sync.db.database import Database
from registry_sync.domain.runs import RunKey
from registry_sync.hooks import asset_events
from support.commands import Run, run_command
from support.ready_databases import ready_database


@pytest.fixture(autouse=True)
def _without_asset_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's database is that of the process: where other tests have filled it, Airflow logs to standard output."""
    monkeypatch.setattr(asset_events, "_emit", lambda *_event: None)


@pytest.fixture(autouse=True)
def _without_airflows_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it asked for the state of syncs: of those here it would say that they were deleted."""

    def unreachable(_key: RunKey) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(command_context, "run_end", unreachable)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configured metadata database, which does not exist yet."""
    url = f"sqlite:///{tmp_path}/registry_sync.db"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", url)
    return url


@pytest.fixture
def run(url: str) -> Run:
    """Runs a command line, without ``airflow`` before it."""
    return run_command


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    """The configured metadata database, ready."""
    with ready_database(tmp_path / url.rpartition("/")[2]) as database:
        yield database
