"""Two syncs of one DAG, in nested task groups and under other task ids, by a real scheduler: each is its own."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.airflow_instance import AirflowInstance
from support.filling import push
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.rest_api import RestClient

DAG_ID = "grouped"
SMALL, MAPPED = "grouped-small", "grouped-mapped"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


def fill(registry: RegistryServer, repository: str, *tags: str) -> None:
    """Each tag on an image of its own, with a layer that no other repository has."""
    build = ContentBuilder(seed=sum(f"{repository}{tags}".encode()))
    for tag in tags:
        build.tag(tag, build.image([build.blob(500)]))
    push(registry, f"team/{repository}", build.content())


def run_ended(airflow: AirflowInstance, registry: RegistryServer) -> tuple[str, str]:
    """A run of the DAG, and how it has ended."""
    run = airflow.trigger(DAG_ID, conf={"url": registry.url})
    return run, airflow.wait(run)


def versions(airflow: AirflowInstance, repository: str) -> list[dict[str, Any]]:
    """The versions of a repository over REST, the newest first."""
    rest = RestClient(airflow.url, airflow.token())
    (found,) = rest.get("repositories/docker/docker/", name=repository)["results"]
    return list(rest.get(found["versions_href"])["results"])


def scopes(airflow: AirflowInstance, run: str) -> dict[str, str]:
    """What is recorded of the syncs of a run: the state by the task that listed."""
    with sqlite3.connect(airflow.home / "registry_sync" / "registry_sync.db") as database:
        return dict(database.execute("SELECT scope, state FROM sync_runs WHERE run_id = ?", (run,)).fetchall())


def note(airflow: AirflowInstance, run: str) -> str | None:
    found: str | None = airflow.api("GET", f"/dags/{DAG_ID}/dagRuns/{run}")["note"]
    return found


def test_each_sync_makes_its_version_has_its_own_note_and_continues_by_itself(
    airflow: AirflowInstance, registry: RegistryServer
) -> None:
    fill(registry, SMALL, "1.0")
    fill(registry, MAPPED, "a", "b", "c")
    first, state = run_ended(airflow, registry)
    assert state == "success", airflow.reasons(first)
    assert airflow.task_states(first) == {
        "mirrors.small.look": "success",
        "mirrors.small.read[0]": "success",
        "mirrors.small.plan": "skipped",
        "mirrors.small.load": "skipped",
        "mirrors.small.keep": "success",
        "mirrors.mapped.look": "success",
        "mirrors.mapped.read[0]": "success",
        "mirrors.mapped.plan": "success",
        "mirrors.mapped.load[0]": "success",
        "mirrors.mapped.keep": "success",
        "done": "success",
    }
    assert scopes(airflow, first) == {"mirrors.small.look": "completed", "mirrors.mapped.look": "completed"}
    rest = RestClient(airflow.url, airflow.token())
    for task, repository, tags in (("small", SMALL, 1), ("mapped", MAPPED, 3)):
        (version,) = versions(airflow, repository)
        assert airflow.xcom(first, f"mirrors.{task}.keep")["version"] == {
            name: version[name] for name in ("pulp_created", "pulp_href", "base_version", "content_summary", "number")
        }
        assert version["content_summary"]["present"]["docker.tag"]["count"] == tags
        provenance = rest.get(f"{version['pulp_href']}provenance/")["sync"]
        assert (provenance["dag_run_id"], provenance["remote"]["upstream_name"]) == (first, f"team/{repository}")

    fill(registry, SMALL, "1.1")
    for tag in ("a", "b"):
        registry.delete_tag(f"team/{MAPPED}", tag)
    second, state = run_ended(airflow, registry)
    assert state == "failed"
    assert list(airflow.reasons(second)) == ["mirrors.mapped.keep"]
    assert scopes(airflow, second) == {"mirrors.small.look": "completed", "mirrors.mapped.look": "failed"}
    assert [version["number"] for version in versions(airflow, SMALL)] == [2, 1]
    said = note(airflow, second)
    assert said is not None
    failed = f"{MAPPED} (mirrors.mapped.look): failed: 2 of 3 tags are gone"
    assert [line for line in said.splitlines() if line.startswith(failed)], said
    named = re.search(r"airflow (registry-sync run approve .*?), or", said)
    assert named is not None
    command = [str(Path(sys.executable).with_name("airflow")), *shlex.split(named[1]), "--yes"]
    done = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    airflow.await_task(second, "mirrors.mapped.keep", state="success")
    assert airflow.wait(second) == "success"
    assert scopes(airflow, second) == {"mirrors.small.look": "completed", "mirrors.mapped.look": "completed"}
    assert [version["number"] for version in versions(airflow, MAPPED)] == [2, 1]
    assert [version["number"] for version in versions(airflow, SMALL)] == [2, 1]

    fill(registry, MAPPED, "d")
    third, state = run_ended(airflow, registry)
    assert state == "success", airflow.reasons(third)
    states = airflow.task_states(third)
    assert {task: state for task, state in states.items() if task.startswith("mirrors.small.")} == {
        "mirrors.small.look": "success",
        **{f"mirrors.small.{stage}": "skipped" for stage in ("read", "plan", "load", "keep")},
    }, "what finds nothing new skips what is its own"
    assert (states["mirrors.mapped.keep"], states["done"]) == ("success", "success")
    assert [version["number"] for version in versions(airflow, MAPPED)] == [3, 2, 1]
