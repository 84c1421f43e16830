"""However a run ends in a real Airflow, its sync ends with it; and DAGs that wait for a repository go on doing so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.runs import RunState
from support.airflow_instance import AirflowInstance
from support.filling import push
from support.hostile_registry import HostileRegistry, Raw, Request, reply
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.rest_api import RestClient
from support.serving import serve
from support.shapes import wide


@pytest.fixture
def database(airflow: AirflowInstance) -> Iterator[Database]:
    with Database.connect(f"sqlite:///{airflow.home}/registry_sync/registry_sync.db") as database:
        database.ready()
        yield database


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """What ``condition`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return found


class Gate:
    """A registry with one image whose layer comes when the gate is opened."""

    def __init__(self) -> None:
        build = ContentBuilder(seed=time.time_ns() % 1_000_000)
        layer = build.blob(100_000)
        build.tag("latest", build.image([layer]))
        self.content = build.content()
        self.opened, self.reached = threading.Event(), threading.Event()
        self.server = serve(HostileRegistry(), "gated", self.content)
        data = self.content.blobs[layer].data

        def response(_request: Request) -> Raw:
            self.reached.set()
            self.opened.wait(120)
            return reply(200, data, content_type="application/octet-stream")

        self.server.on("GET", f"/v2/gated/blobs/{layer}", response)

    def conf(self, repository: str) -> dict[str, str]:
        return {"repository": repository, "url": self.server.base, "upstream_name": "gated"}


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    with gate.server:
        yield gate
        gate.opened.set()


def run_path(run: str) -> str:
    return f"/dags/registry_sync/dagRuns/{quote(run)}"


def clear(airflow: AirflowInstance, run: str, **what: Any) -> None:
    document = {"dag_run_id": run, "dry_run": False, "reset_dag_runs": True, **what}
    airflow.api("POST", "/dags/registry_sync/clearTaskInstances", document)


def scheduler_heartbeat(airflow: AirflowInstance) -> datetime:
    """When the scheduler last said that it runs, at the end of a round."""
    said = airflow.api("GET", "/monitor/health")["scheduler"]["latest_scheduler_heartbeat"]
    return datetime.fromisoformat(said.replace("Z", "+00:00"))


def delete(airflow: AirflowInstance, run: str) -> None:
    """Deletes a run that has ended, once the scheduler has looked at others since.

    Airflow's scheduler ends with an error when a run is deleted that it is just working on.
    """
    ended_at = datetime.now(timezone.utc)
    until(lambda: scheduler_heartbeat(airflow) > ended_at)
    airflow.api("DELETE", run_path(run))


def state(database: Database, run: str) -> RunState:
    return next(found.state for found in database.runs.page().items if found.key.run_id == run)


def errors(airflow: AirflowInstance, run: str, task: str, map_index: int, try_number: int) -> list[dict[str, Any]]:
    events = airflow._runs[run].log(task, try_number, map_index)
    return [event for event in events if event.get("level") == "error"]


def test_a_run_that_is_marked_as_failed_ends_its_sync_and_goes_on_only_whole(
    airflow: AirflowInstance, database: Database, gate: Gate
) -> None:
    run = airflow.trigger(conf=gate.conf("marked"))
    assert gate.reached.wait(90)
    assert state(database, run) is RunState.RUNNING
    airflow.api("PATCH", run_path(run), {"state": "failed"})
    assert state(database, run) is RunState.FAILED
    gate.opened.set()
    # The rest was skipped and stays so: what is cleared alone says that no version would come of it.
    clear(airflow, run, only_failed=True)
    assert airflow.wait(run) == "failed"
    assert "commit_version of this run was skipped" in airflow.reasons(run)["list_tags"]
    (line,) = errors(airflow, run, "list_tags", -1, 2)
    assert line["event"].startswith("StagesUnfinished: commit_version of this run was skipped")
    assert "error_detail" not in line
    said = airflow.api("GET", run_path(run))["note"]
    assert said.startswith("no version was made for marked: StagesUnfinished")
    assert database.repositories.by_name("marked").latest_number is None
    clear(airflow, run, only_failed=False, task_ids=["list_tags"], include_downstream=True)
    assert airflow.wait(run) == "success"
    assert airflow.xcom(run, "commit_version")["version"]["number"] == 1
    assert state(database, run) is RunState.COMPLETED


def test_a_run_that_was_deleted_ends_its_sync_when_the_repository_is_synced_again(
    airflow: AirflowInstance, database: Database, gate: Gate
) -> None:
    run = airflow.trigger(conf=gate.conf("deleted"))
    assert gate.reached.wait(90)
    with database.writing():  # so that whoever sees the run end cannot say so
        airflow.api("PATCH", run_path(run), {"state": "failed"})
    delete(airflow, run)
    assert state(database, run) is RunState.RUNNING
    gate.opened.set()
    airflow.sync(**gate.conf("deleted"))
    assert state(database, run) is RunState.CANCELED
    assert database.run_ends.unended(repository_id=database.repositories.by_name("deleted").id) == []


def test_dags_that_wait_for_a_repository_go_on_when_it_is_made_anew_or_renamed(
    airflow: AirflowInstance, database: Database, tmp_path: Path
) -> None:
    rest = RestClient(airflow.url, airflow.token())

    def told(name: str) -> int:
        return int(airflow.api("GET", f"/dags/waits_for_{name}/dagRuns")["total_entries"])

    def path() -> str:
        (found,) = rest.get("repositories/docker/docker/", name="waited-for")["results"]
        return str(found["pulp_href"])

    for name in ("waited-for", "renamed-to"):
        airflow.await_dag(f"waits_for_{name}")
    content = wide(0.01, tags=3)
    with RegistryServer(tmp_path / "registry") as registry:
        conf = {"url": registry.url, "upstream_name": "app", "remote": "waited-for"}
        push(registry, "app", content.closure(["build-0"]))
        airflow.sync(repository="waited-for", **conf)
        until(lambda: told("waited-for") == 1)
        rest.delete(path())
        airflow.sync(repository="waited-for", **conf)
        until(lambda: told("waited-for") == 2)
        rest.patch(path(), name="renamed-to")
        push(registry, "app", content.closure(["build-1"]))
        airflow.sync(repository="renamed-to", **conf)
        until(lambda: told("renamed-to") == 1)
        until(lambda: told("waited-for") == 3)
