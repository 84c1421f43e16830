"""A mirror that would lose most of its tags, in a real Airflow: it waits for a person, is approved, and goes on."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.airflow_instance import POLL_SECONDS, AirflowInstance
from support.filling import place
from support.registry import RegistryServer
from support.rest_api import RestClient
from support.shapes import many_tags

TAGS = 30
KEPT = 3


@pytest.fixture
def name() -> str:
    return f"shrinking-{secrets.token_hex(4)}"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


def fill(registry: RegistryServer, name: str) -> list[str]:
    """Thirty tags in ``name``; the names of those that are to go."""
    content = many_tags(tags=TAGS, images=5)
    place(registry, name, content)
    return list(content.tags)[KEPT:]


def note(airflow: AirflowInstance, run: str) -> str | None:
    found: str | None = airflow.api("GET", f"/dags/registry_sync/dagRuns/{run}")["note"]
    return found


def is_marked(airflow: AirflowInstance, run: str) -> bool:
    """Whether the grid of the web UI shows that the run has a note."""
    response = RestClient(airflow.url, airflow.token()).ask("GET", "/ui/grid/runs/registry_sync?limit=100")
    return bool(next(shown for shown in response.json() if shown["run_id"] == run)["has_note"])


def removed(airflow: AirflowInstance, run: str) -> int:
    """How many tags the version of a run removed."""
    summary = airflow.xcom(run, "commit_version")["version"]["content_summary"]
    return int(summary["removed"]["docker.tag"]["count"])


def test_a_stopped_run_is_approved_by_the_command_that_its_message_names(
    airflow: AirflowInstance, registry: RegistryServer, name: str
) -> None:
    conf = {"repository": name, "url": registry.url, "upstream_name": name}
    gone = fill(registry, name)
    airflow.sync(**conf)
    for tag in gone:
        registry.delete_tag(name, tag)
    run = airflow.trigger(conf=conf)
    airflow.await_task(run, "commit_version", state="awaiting_input")
    (asked,) = airflow.api("GET", f"/dags/registry_sync/dagRuns/{run}/hitlDetails")["hitl_details"]
    assert (asked["subject"], asked["response_received"]) == (f"Remove {len(gone)} tags from {name}?", False)
    assert all(f"| `{tag}` |" in asked["body"] for tag in gone)
    command = [str(Path(sys.executable).with_name("airflow")), "registry-sync", "run", "approve", run, "--yes"]
    done = subprocess.run(command, env=airflow.environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 task of it will run again, once a scheduler runs" in done.stdout
    assert f"TooManyRemovals: {len(gone)} of {TAGS} tags are gone" in done.stderr
    assert f"airflow registry-sync run approve '{run}'" in done.stderr
    assert airflow.wait(run) == "success"
    assert removed(airflow, run) == len(gone)
    said = note(airflow, run)
    assert said is not None
    assert "more tags were removed or fewer are left than the remote allows, as " in said
    assert is_marked(airflow, run)
    # The commit's own number may be 2: Airflow may take the task that it resumes for killed.
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(run)}
    assert tries["list_tags"] == 1, "what was listed and fetched is not done again"


def test_a_task_that_would_leave_too_few_tags_is_approved_over_rest(
    airflow: AirflowInstance, registry: RegistryServer, name: str
) -> None:
    airflow.await_dag()
    rest = RestClient(airflow.url, airflow.token())
    gone = fill(registry, name)
    guard = {"max_removed_share": 1.0, "min_tags": KEPT + 1}
    remote = rest.post("remotes/docker/docker/", name=name, url=registry.url, upstream_name=name, **guard)["pulp_href"]
    repository = rest.post("repositories/docker/docker/", name=name)["pulp_href"]

    def sync() -> str:
        task: str = rest.post(f"{remote}sync/", 202, repository=repository, mirror=True)["task"]
        return task

    def ended(task: str) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while (read := rest.get(task))["state"] not in ("completed", "failed"):
            assert time.monotonic() < deadline, read
            time.sleep(POLL_SECONDS)
        return dict(read)

    assert ended(sync())["state"] == "completed"
    for tag in gone:
        registry.delete_tag(name, tag)
    stopped = ended(sync())
    assert stopped["state"] == "failed"
    assert stopped["error"]["description"].startswith("TooFewTags: ")
    assert f"would have {KEPT} tags, fewer than min_tags {KEPT + 1}" in stopped["error"]["description"]
    assert rest.get(repository)["latest_version_href"].endswith("/versions/1/")
    rest.post(f"{stopped['pulp_href']}approve_removals/", 200)
    airflow.wait(airflow.remember("registry_sync", stopped["dag_run_id"]))
    done = ended(stopped["pulp_href"])
    assert (done["state"], done["error"]) == ("completed", None)
    assert (done["triggered_by"], done["removals_approved_by"]) == ("admin", "admin")
    (version,) = done["created_resources"]
    assert rest.get(version)["content_summary"]["removed"]["docker.tag"]["count"] == len(gone)
    rest.post(f"{stopped['pulp_href']}approve_removals/", 409)
