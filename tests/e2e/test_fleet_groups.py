"""Groups of mirrors by a real Airflow: two on one account that allows fewer pulls, and one with a large mirror."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from registry_sync.db.database import Database
from registry_sync.db.fleet_tables import registry_accounts
from support import declared_fleet
from support.airflow_instance import AirflowInstance
from support.filling import place
from support.hostile_registry import wait_until
from support.limited_registry import LIMIT, WINDOW, LimitedRegistry, StandingTime
from support.memory_registry import MemoryRegistry
from support.mirrors import small_repository
from support.registry import RegistryServer
from support.rest_api import RestClient
from support.shapes import many_tags

TAGS = 5
GROUPS = ("left", "right")
#: As many as two tasks of a stage take by the settings of the shared Airflow, and some.
LARGE_TAGS = 300
#: From the end of a task's process until the scheduler knows of it.
EXECUTOR_SECONDS = 3.0


@pytest.fixture
def limited() -> Iterator[LimitedRegistry]:
    """A registry of the mirrors of both groups, which need more pulls than it allows."""
    with MemoryRegistry() as registry:
        for seed, name in enumerate(declared_fleet.LIMITED):
            registry.serve(name, small_repository(500 + seed, tags=TAGS))
        found = LimitedRegistry(registry, StandingTime(), tells=True)
        with found.server:
            yield found


def task_state(airflow: AirflowInstance, run_id: str) -> str | None:
    """The state of the one task of a group."""
    return airflow.task_states(run_id).get("sync_mirrors[0]")


def try_number(airflow: AirflowInstance, run_id: str) -> int:
    """How often the task of a group was tried."""
    return int(instance(airflow, run_id)["try_number"])


def instance(airflow: AirflowInstance, run_id: str) -> dict[str, Any]:
    """The one task of a group, as REST gives it."""
    (task,) = (task for task in airflow.task_instances(run_id) if task["map_index"] == 0)
    return task


def await_executor(airflow: AirflowInstance, runs: list[str]) -> None:
    """Returns when the executor has taken note that tasks which wait have ended: six hours are time enough for it.

    Airflow fails a task that is queued again before.
    """
    for run in runs:
        if task_state(airflow, run) == "up_for_reschedule":
            pid = instance(airflow, run)["pid"]
            assert wait_until(lambda pid=pid: pid is None or not psutil.pid_exists(pid), 20), "its process ends"
    time.sleep(EXECUTOR_SECONDS)


def await_states(airflow: AirflowInstance, runs: list[str], states: set[str]) -> list[str]:
    """The states of the tasks of both groups, once each is one of ``states``."""
    deadline = time.monotonic() + 120
    while not {*(found := [task_state(airflow, run) or "none" for run in runs])} <= states:
        assert time.monotonic() < deadline, found
        assert "failed" not in found, [airflow.reasons(run) for run in runs]
        time.sleep(0.2)
    return found


def pass_window(airflow: AirflowInstance, limited: LimitedRegistry) -> None:
    """Lets the next window begin, and with it the next tries of tasks that wait for it."""
    limited.time.sleep(WINDOW)
    own, past = airflow.home / "registry_sync" / "registry_sync.db", timedelta(seconds=WINDOW)
    with Database.connect(f"sqlite:///{own}") as database, database.writing() as connection:
        for row in connection.execute(select(registry_accounts)).all():
            times = {name: getattr(row, name) for name in ("reported_at", "began_at", "paused_until")}
            changed = {name: at and at - past for name, at in times.items()}
            connection.execute(
                update(registry_accounts).where(registry_accounts.c.account == row.account).values(**changed)
            )
    with closing(sqlite3.connect(airflow.layout.database, timeout=30)) as connection, connection:
        connection.execute("UPDATE task_reschedule SET reschedule_date = datetime('now', '-1 seconds') || '.000000'")


def test_two_groups_on_one_account_wait_their_turn_without_a_slot(
    airflow: AirflowInstance, limited: LimitedRegistry
) -> None:
    declared_fleet.write(airflow.layout.folder / "fleet", limited=limited.server.base)
    runs = [airflow.trigger(f"mirrors.{group}") for group in GROUPS]
    waiting = await_states(airflow, runs, {"up_for_reschedule", "success"})
    assert "up_for_reschedule" in waiting, "they need 120 pulls, and a window allows a hundred"
    assert len(limited.pulled) <= LIMIT
    assert {path.partition("/")[0] for _, path in limited.pulled} == set(GROUPS), "none starves"
    pool = airflow.api("GET", "/pools/default_pool")
    assert (pool["occupied_slots"], pool["queued_slots"]) == (0, 0)
    tries = [try_number(airflow, run) for run in runs]
    for _ in range(3):
        await_executor(airflow, runs)
        pass_window(airflow, limited)
        if await_states(airflow, runs, {"up_for_reschedule", "success"}) == ["success", "success"]:
            break
    assert [airflow.wait(run) for run in runs] == ["success", "success"]
    assert limited.refused_count == 0
    assert len(limited.pulled) == len(declared_fleet.LIMITED) * TAGS, "nothing is pulled twice"
    assert [try_number(airflow, run) for run in runs] == tries, "waiting uses up no try"
    for run, group in zip(runs, GROUPS, strict=True):
        counts = airflow.xcom(run, "sync_mirrors", map_index=0)["counts"]
        assert counts == {"changed": 12}
        order = list(dict.fromkeys(path for _, path in limited.pulled if path.startswith(group)))
        early = [path for place, path in enumerate(order) if sorted(order).index(path) - place >= 8]
        assert early == [], "eight are synced at once, and none begins before all but eight of those declared earlier"


def test_a_large_mirror_of_a_group_is_handed_over_to_the_staged_dag(airflow: AirflowInstance, tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry") as server:
        place(server, "team/large", many_tags(tags=LARGE_TAGS, images=LARGE_TAGS))
        declared_fleet.write(airflow.layout.folder / "fleet", large=f"{server.url}/team/large")
        run = airflow.trigger("mirrors.large")
        assert airflow.wait(run) == "success", airflow.reasons(run)
        assert airflow.xcom(run, "sync_mirrors", map_index=0)["counts"] == {"handed_over": 1}
        rest = RestClient(airflow.url, airflow.token())
        (result,) = rest.get("mirror-results/", run_id=run)["results"]
        other = airflow.remember("registry_sync", result["handed_over_to"])
        assert airflow.wait(other) == "success", airflow.reasons(other)
        states = airflow.task_states(other)
        assert [states[f"fetch_manifests[{shard}]"] for shard in range(2)] == ["success", "success"]
        (repository,) = rest.get("repositories/docker/docker/", name="fleet/large")["results"]
        version = rest.get(repository["latest_version_href"])
        assert version["content_summary"]["present"]["docker.tag"]["count"] == LARGE_TAGS
        again = airflow.trigger("mirrors.large")
        assert airflow.wait(again) == "success"
        assert airflow.xcom(again, "sync_mirrors", map_index=0)["counts"] == {"unchanged": 1}
