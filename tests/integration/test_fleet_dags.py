"""The delivered DAG file of fleets in DAG runs: staged mirrors, a group in a task, and a mistake among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.hooks.stores import open_database
from support import declared_fleet
from support.dag_runs import FinishedRun, InProcessSync, runner_of
from support.registry import RegistryServer

DAG_FILE = Path(__file__).parents[2] / "dags" / "registry_sync_fleet.py"


@pytest.fixture
def run(
    sync_in_process: InProcessSync, upstream: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], FinishedRun]:
    """Runs a DAG of the fleet, whose registry is the shared upstream."""
    path = declared_fleet.write(tmp_path / "fleet", upstream.url)
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", str(path))
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "False")
    return runner_of(DAG_FILE.read_text(encoding="utf-8"), tmp_path / "dags", monkeypatch)


def tags(database: Database, repository: str) -> int:
    return len(database.versions.tags(database.repositories.by_name(repository).id))


def test_a_mirror_is_synced_in_stages_and_a_second_run_skips_them(run: Callable[[str], FinishedRun]) -> None:
    first = run("mirror.fleet.one")
    assert first.state == "success", first.tasks
    assert first.version is not None
    assert (first.version["number"], first.version["content_summary"]["present"]["docker.tag"]["count"]) == (1, 8)
    second = run("mirror.fleet.one")
    assert second.state == "success"
    assert second.tasks["commit_version"] == "skipped"


def test_a_group_is_synced_in_one_task(run: Callable[[str], FinishedRun]) -> None:
    done = run("mirrors.pair")
    assert (done.state, done.tasks) == ("success", {"sync_mirrors[0]": "success"})
    assert done.xcom("sync_mirrors", map_index=0)["counts"] == {"changed": 2}
    with open_database() as database:
        assert (tags(database, "fleet/first"), tags(database, "fleet/second")) == (1, 8)


def test_a_mirror_with_a_mistake_fails_with_it_and_so_does_the_check(run: Callable[[str], FinishedRun]) -> None:
    assert run("mirror.fleet.wrong").tasks == {"mistakes": "failed"}
    assert run("registry_sync_fleet").tasks == {"check": "failed"}
