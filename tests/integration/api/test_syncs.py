"""Syncs as a list of their own: those of REST, of schedules and of other DAGs alike."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain.runs import RunKey, RunState, RunTrigger, RunUsage
from support.metadata import Upstream, image, new_key, open_run, play_stages
from support.rest_api import DAG_ID, ApiServer, RestClient

LIST = "syncs/"


@pytest.fixture
def pair(admin: RestClient, name: str) -> dict[str, Any]:
    """Paths of a repository and of a remote."""
    remote = admin.post("remotes/docker/docker/", name=name, url="https://registry.example", upstream_name="app")
    repository = admin.post("repositories/docker/docker/", name=name)
    return {"repository": repository["pulp_href"], "remote": remote["pulp_href"]}


def play(api_server: ApiServer, name: str, key: RunKey | None = None, **more: Any) -> str:
    """A sync up to its commit; its id."""
    database, upstream = api_server.database, Upstream()
    upstream.tag("latest", image(name))
    upstream.tag("bad", image(f"{name} bad"))
    repository, remote = database.repositories.by_name(name), database.remotes.by_name(name)
    run = open_run(database, repository, key=key or new_key(), remote=remote)
    play_stages(database, run, upstream, **more)
    return run.id


def test_a_sync_that_no_rest_request_started_is_listed_and_read(
    api_server: ApiServer, admin: RestClient, name: str, pair: dict[str, Any]
) -> None:
    database = api_server.database
    key = RunKey("nightly", f"scheduled__{name}")
    run = database.runs.begin(
        key,
        repository_id=pair["repository"].split("/")[-2],
        remote_id=pair["remote"].split("/")[-2],
        remote=database.remotes.by_name(name).spec,
        mode=open_run(database, database.repositories.by_name(name)).mode,
        by=RunTrigger(name, "schedule"),
    )
    play(api_server, name, key, held={"bad": "its manifest is not JSON"})
    database.runs.add_usage(run.id, RunUsage(head_count=2, received_bytes=7))
    database.versions.commit(run.id)
    read = admin.get(f"{LIST}{run.id}/")
    shown = {field: read[field] for field in ("state", "mode", "task", "dag_id", "dag_run_id", "error")}
    assert shown == {
        "state": "completed", "mode": "mirror", "task": None, "dag_id": "nightly", "dag_run_id": key.run_id,
        "error": None,
    }  # fmt: skip
    assert (read["repository"], read["remote"]) == (pair["repository"], pair["remote"])
    assert read["repository_version"] == f"{pair['repository']}versions/1/"
    assert (read["held_tag_count"], read["requests"]["heads"], read["requests"]["received_bytes"]) == (1, 2, 7)
    listed = admin.get(LIST, repository=pair["repository"], state="completed")
    assert (listed["count"], listed["results"]) == (1, [read])
    assert admin.get(f"{read['repository_version']}provenance/")["sync"]["dag_run_id"] == key.run_id


def test_a_sync_that_rest_started_leads_to_its_task(
    api_server: ApiServer, admin: RestClient, name: str, pair: dict[str, Any]
) -> None:
    task = admin.post(f"{pair['remote']}sync/", 202, repository=pair["repository"])["task"]
    run_id = play(api_server, name, RunKey(DAG_ID, f"registry_sync__{task.split('/')[-2]}"))
    api_server.database.runs.finish(run_id, RunState.FAILED, error="NotFound: there is no app")
    read = admin.get(f"{LIST}{run_id}/")
    assert (read["task"], read["state"], read["error"]) == (task, "failed", "NotFound: there is no app")
    assert (read["repository_version"], read["finished_at"] is None) == (None, False)
    assert admin.get(read["task"])["dag_run_id"] == read["dag_run_id"]


def test_no_document_leads_to_a_task_that_is_deleted(
    api_server: ApiServer, admin: RestClient, name: str, pair: dict[str, Any]
) -> None:
    """The record of the sync stays, whether the task is deleted here or its run in Airflow."""
    task = admin.post(f"{pair['remote']}sync/", 202, repository=pair["repository"])["task"]
    run_id = play(api_server, name, RunKey(DAG_ID, f"registry_sync__{task.split('/')[-2]}"))
    api_server.database.versions.commit(run_id)
    provenance = f"{pair['repository']}versions/1/provenance/"
    assert (admin.get(f"{LIST}{run_id}/")["task"], admin.get(provenance)["sync"]["task"]) == (task, task)
    admin.patch(task, state="canceled")
    admin.delete(task)
    assert (admin.get(f"{LIST}{run_id}/")["task"], admin.get(provenance)["sync"]["task"]) == (None, None)
    (listed,) = admin.get(LIST, repository=pair["repository"])["results"]
    assert (listed["task"], listed["state"]) == (None, "completed")


def test_syncs_are_filtered_and_ordered(
    api_server: ApiServer, admin: RestClient, name: str, pair: dict[str, Any]
) -> None:
    first, second, third = (play(api_server, name) for _ in range(3))
    api_server.database.runs.finish(first, RunState.FAILED, error="x")
    api_server.database.runs.finish(second, RunState.CANCELED, error="x")

    def ids(**query: str) -> list[str]:
        found = admin.get(LIST, repository=pair["repository"], **query)["results"]
        return [entry["pulp_href"].split("/")[-2] for entry in found]

    assert ids() == [third, second, first]
    assert ids(ordering="started_at", limit="2") == [first, second]
    assert ids(ordering="finished_at", state__in="failed, canceled") == [first, second]
    assert ids(state="running") == [third]
    assert ids(state="running", state__in="failed,canceled") == []
    assert ids(remote=pair["remote"]) == [third, second, first]
    other = "/pulp/api/v3/remotes/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/"
    assert ids(remote=other) == []


def test_who_may_not_read_runs_of_the_dag_reads_no_sync(api_server: ApiServer) -> None:
    assert api_server.client(None).ask("GET", LIST).status_code == 401
    assert api_server.client("viewer").ask("GET", LIST).status_code == 200
