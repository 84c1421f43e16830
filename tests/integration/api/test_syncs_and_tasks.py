"""Syncs begun over REST, and their tasks, from the run of the DAG to the version; no scheduler runs here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from registry_sync.domain.records import Repository
from registry_sync.domain.runs import RequestedSync, RunKey, RunState
from registry_sync.errors import RunEnded
from registry_sync.hooks.dag_runs import PLAN_KEY, run_end
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.sync.maintenance.collect import end_lost_runs
from support.hostile_registry import HostileRegistry
from support.metadata import Upstream, image, open_run, play_stages, sync
from support.rest_api import DAG_ID, ApiServer, RestClient
from support.serving import serve
from support.shapes import documented_example
from support.task_contexts import TaskContext

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"


def dag_run(task: str) -> Any:
    """The run of the DAG that a task's path stands for."""
    from airflow.models import DagRun

    found = DagRun.find(dag_id=DAG_ID, run_id=[f"registry_sync__{task.split('/')[-2]}"])
    return found[0] if found else None


def note_of(task: str) -> str | None:
    """The note of the run, as Airflow shows it."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter(DagRun.id == dag_run(task).id).one()
        return None if run.note is None else str(run.note)


def set_state(task: str, state: str) -> None:
    """Brings the run to a state, as the scheduler does."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter(DagRun.id == dag_run(task).id).one()
        run.set_state(state)


@pytest.fixture
def pair(admin: RestClient, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A repository and a remote."""
    remote = admin.post(REMOTES, name=f"{name}-r", url="https://registry.example", upstream_name="library/app")
    return admin.post(REPOSITORIES, name=name), remote


@pytest.fixture
def task(admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """The path of a task that waits."""
    repository, remote = pair
    path: str = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"], mirror=True)["task"]
    return path


def repository_of(api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]]) -> Repository:
    return api_server.database.repositories.by_name(pair[0]["name"])


@pytest.mark.parametrize(
    ("given", "mode"), [({"mirror": True}, "mirror"), ({"mirror": False}, "additive"), ({}, "additive")]
)
def test_a_sync_of_a_remote_begins_a_run_of_the_dag(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]], given: dict[str, Any], mode: str
) -> None:
    repository, remote = pair
    started = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"], **given)
    assert list(started) == ["task"]
    run = dag_run(started["task"])
    assert run.conf == {"repository": repository["name"], "remote": remote["name"], "mode": mode}
    assert (run.state, run.triggering_user_name, run.triggered_by.value) == ("queued", "admin", "rest_api")


def test_a_sync_of_a_repository_is_the_same_from_the_other_side(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    repository, remote = pair
    started = admin.post(f"{repository['pulp_href']}sync/", 202, remote=remote["pulp_href"], mirror="True")
    conf = dag_run(started["task"]).conf
    assert conf == {"repository": repository["name"], "remote": remote["name"], "mode": "mirror"}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    """A registry with content, and a blob store of the test's own."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    with HostileRegistry() as registry:
        yield serve(registry, "team/app", documented_example())


def test_a_dry_run_is_a_task_with_a_plan_and_without_a_sync(
    admin: RestClient, api_server: ApiServer, name: str, served: HostileRegistry
) -> None:
    from airflow.models.xcom import XComModel

    remote = admin.post(REMOTES, name=name, url=served.base, upstream_name="team/app")
    repository = admin.post(REPOSITORIES, name=name)
    task = admin.post(f"{repository['pulp_href']}sync/", 202, remote=remote["pulp_href"], dry_run=True)["task"]
    run = dag_run(task)
    assert run.conf == {"repository": name, "remote": name, "mode": "additive", "dry_run": True}
    assert admin.get(task)["name"] == "registry_sync.dry_run"
    assert "its dry run is waiting" in admin.get(f"{task}plan/", 404)["detail"]
    operator = ListTagsOperator(task_id="list_tags", repository=name)  # a DAG that does not pass it on
    context = TaskContext(dag_id=DAG_ID, run_id=run.run_id, user="admin", conf=run.conf)
    with pytest.raises(DownstreamTasksSkipped):
        operator.execute(context.given())  # type: ignore[arg-type]
    found = context.returned[PLAN_KEY]
    XComModel.set(PLAN_KEY, found, dag_id=DAG_ID, task_id="list_tags", run_id=run.run_id)
    set_state(task, "success")
    plan = admin.get(f"{task}plan/")
    assert plan == found
    assert (plan["outcome"], plan["number"], plan["mode"], plan["creates"]) == ("version", 1, "additive", [])
    read = admin.get(task)
    assert (read["state"], read["created_resources"], read["error"]) == ("completed", [], None)
    assert admin.get("syncs/", repository=repository["pulp_href"])["count"] == 0
    assert admin.get(repository["pulp_href"])["latest_version_href"] is None


def test_a_task_that_is_no_dry_run_has_no_plan(admin: RestClient, task: str) -> None:
    assert "it is no dry run" in admin.get(f"{task}plan/", 404)["detail"]


def asked_for(api_server: ApiServer, task: str) -> RequestedSync:
    return api_server.database.requests.get(DAG_ID, task.split("/")[-2])


def test_a_request_is_recorded_by_ids_with_its_user(
    api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    repository, remote = pair
    for role in ("user", "op"):
        client = api_server.client(role)
        started = client.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"], mirror=True)
        asked = asked_for(api_server, started["task"])
        assert asked.repository_id == repository["pulp_href"].split("/")[-2]
        assert asked.remote_id == remote["pulp_href"].split("/")[-2]
        assert (asked.mode.value, asked.requested_by, asked.may_replace_upstream) == ("mirror", role, False)


def test_another_remote_takes_the_place_only_for_who_may_change_repositories(
    api_server: ApiServer, admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    repository, remote = pair
    other = admin.post(REMOTES, name=f"{remote['name']}-2", url="https://other.example", upstream_name="library/app")
    upstream = Upstream()
    upstream.tag("latest", image(repository["name"]))
    source = api_server.database.remotes.by_name(remote["name"])
    sync(api_server.database, repository_of(api_server, pair), upstream, remote=source)
    user = api_server.client("user")
    user.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"])
    for path, document in (
        (f"{other['pulp_href']}sync/", {"repository": repository["pulp_href"]}),
        (f"{repository['pulp_href']}sync/", {"remote": other["pulp_href"], "mirror": True}),
    ):
        assert "did not come from remote" in user.post(path, 403, **document)["detail"]
        started = admin.post(path, 202, **document)
        assert asked_for(api_server, started["task"]).may_replace_upstream, "only where it is needed"


@pytest.mark.parametrize("kind", [0, 1])
def test_a_task_whose_object_is_gone_says_so(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str, kind: int
) -> None:
    """The first task of the run finds it out, and there is no sync that it could note it with."""
    admin.delete(pair[kind]["pulp_href"])
    id_ = asked_for(api_server, task).id
    operator = ListTagsOperator(task_id="list_tags", repository=pair[0]["name"], remote=pair[1]["name"])
    context = TaskContext(dag_id=DAG_ID, run_id=f"registry_sync__{id_}", conf={"repository": pair[0]["name"]})
    with pytest.raises(AirflowFailException, match="of this request is gone"):
        operator.execute(context.given())  # type: ignore[arg-type]
    set_state(task, "failed")
    said = admin.get(task)["error"]["description"]
    assert said.startswith(f"RecordNotFound: the {('repository', 'remote')[kind]} of this request is gone")
    assert [found["error"]["description"] for found in admin.get("tasks/", limit=1)["results"]] == [said]


def test_a_task_waits_before_anything_of_it_has_run(admin: RestClient, task: str) -> None:
    read = admin.get(task)
    assert read["pulp_href"] == task
    assert (read["state"], read["name"]) == ("waiting", "registry_sync.sync")
    assert (read["started_at"], read["finished_at"], read["error"]) == (None, None, None)
    assert (read["progress_reports"], read["created_resources"]) == ([], [])


def test_a_running_task_has_progress(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    set_state(task, "running")
    run = open_run(api_server.database, repository_of(api_server, pair), key=RunKey(DAG_ID, dag_run(task).run_id))
    reports = {report["message"]: report for report in admin.get(task)["progress_reports"]}
    assert {report["state"] for report in reports.values()} == {"waiting"}
    upstream = Upstream()
    for tag in ("a", "b"):
        upstream.tag(tag, image(f"{tag} {pair[0]['name']}"))
    play_stages(api_server.database, run, upstream)
    read = admin.get(task)
    assert read["state"] == "running"
    assert read["started_at"] is not None
    told = [(report["message"], report["done"], report["total"]) for report in read["progress_reports"]]
    assert told == [("Downloading tag list", 1, 1), ("Processing manifests", 2, 2), ("Downloading blobs", 4, 4)]
    assert read["reserved_resources_record"][0] == pair[0]["pulp_href"]


def test_a_completed_task_names_the_version_first(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    run = open_run(api_server.database, repository_of(api_server, pair), key=RunKey(DAG_ID, dag_run(task).run_id))
    upstream = Upstream()
    upstream.tag("latest", image(pair[0]["name"]))
    play_stages(api_server.database, run, upstream)
    api_server.database.versions.commit(run.id)
    set_state(task, "success")
    read = admin.get(task)
    assert read["state"] == "completed"
    assert read["finished_at"] is not None
    assert read["created_resources"] == [f"{pair[0]['versions_href']}1/"]
    assert admin.get(read["created_resources"][0])["number"] == 1
    assert {report["state"] for report in read["progress_reports"]} == {"completed"}


def test_a_failed_task_says_why(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    run = open_run(api_server.database, repository_of(api_server, pair), key=RunKey(DAG_ID, dag_run(task).run_id))
    api_server.database.runs.finish(run.id, RunState.FAILED, error="NotFound: there is no library/app")
    set_state(task, "failed")
    read = admin.get(task)
    assert read["state"] == "failed"
    assert read["error"] == {"description": "NotFound: there is no library/app"}
    assert read["created_resources"] == []


def test_a_task_that_failed_before_it_began_says_why(admin: RestClient, task: str) -> None:
    set_state(task, "failed")
    assert "was marked as failed in Airflow, or timed out" in admin.get(task)["error"]["description"]


def test_a_canceled_task_is_a_failed_run_of_airflow(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    set_state(task, "running")
    run = open_run(api_server.database, repository_of(api_server, pair), key=RunKey(DAG_ID, dag_run(task).run_id))
    canceled = admin.patch(task, state="canceled")
    assert (canceled["state"], canceled["error"]) == ("canceled", None)
    assert canceled["finished_at"] is not None
    assert admin.get(task) == canceled
    about = repository_of(api_server, pair).name
    assert (dag_run(task).state, note_of(task)) == ("failed", f"Canceled over REST by admin: {about}")
    set_state(task, "success")
    assert admin.get(task)["state"] == "canceled"
    assert admin.get("tasks/", state="canceled")["results"][0]["pulp_href"] == task
    assert api_server.database.runs.get(run.id).state is RunState.CANCELED


def test_a_task_is_canceled_before_it_has_started_and_only_once(admin: RestClient, task: str) -> None:
    assert admin.patch(task, state="canceled")["state"] == "canceled"
    assert admin.patch(task, 409, state="canceled").keys() == {"detail"}
    assert admin.patch(task, 400, state="running").keys() == {"state"}


def test_tasks_are_listed_by_state_the_newest_first(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    repository, remote = pair
    before = admin.get("tasks/", state__in="waiting,canceled")["count"]
    tasks = [
        admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"])["task"] for _ in range(3)
    ]
    admin.patch(tasks[1], state="canceled")
    newest = admin.get("tasks/", limit=3)
    assert [task["pulp_href"] for task in newest["results"]] == tasks[::-1]
    assert [task["pulp_href"] for task in admin.get("tasks/", state="canceled", limit=1)["results"]] == [tasks[1]]
    assert tasks[1] not in [task["pulp_href"] for task in admin.get("tasks/", state="failed")["results"]]
    assert admin.get("tasks/", state__in="waiting,canceled")["count"] == before + 3
    assert admin.get("tasks/", state="failed", state__in="waiting,canceled")["count"] == 0
    second = admin.get(newest["next"] or "tasks/")
    assert set(second) == {"count", "next", "previous", "results"}
    assert admin.get("tasks/", state__in="waiting,nonsense", status=400).keys() == {"state__in"}


def test_runs_that_were_not_started_over_rest_are_no_tasks(admin: RestClient) -> None:
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.utils.types import DagRunTriggeredByType

    count = admin.get("tasks/")["count"]
    run_id = f"manual__{uuid.uuid4()}"
    conf = {"repository": "by-command"}
    trigger_dag(DAG_ID, run_id=run_id, conf=conf, triggered_by=DagRunTriggeredByType.CLI)
    assert admin.get("tasks/")["count"] == count
    admin.get(f"tasks/{run_id.removeprefix('manual__')}/", 404)


@pytest.mark.parametrize(
    "reference",
    [
        "/pulp/api/v3/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/",
        "/pulp/api/v3/remotes/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/",
        "codzo",
        "https://elsewhere.example/pulp/api/v3/repositories/docker/docker/fcf03266-f0e4-4497-8434-0fe9d94c8053/",
        "",
        None,
        17,
    ],
)
def test_a_sync_with_a_bad_reference_is_refused_and_begins_nothing(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]], reference: object
) -> None:
    repository, remote = pair
    count = admin.get("tasks/")["count"]
    assert admin.post(f"{remote['pulp_href']}sync/", 400, repository=reference).keys() == {"repository"}
    assert admin.post(f"{repository['pulp_href']}sync/", 400, remote=reference).keys() == {"remote"}
    assert admin.get("tasks/")["count"] == count


def test_a_sync_while_the_dag_is_paused_is_refused_rather_than_left_waiting(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    def pause(is_paused: bool) -> None:
        with create_session() as session:
            session.query(DagModel).filter(DagModel.dag_id == DAG_ID).update({"is_paused": is_paused})

    repository, remote = pair
    pause(True)
    try:
        problem = admin.post(f"{remote['pulp_href']}sync/", 503, repository=repository["pulp_href"])
        assert admin.get("status/")["sync_dag"] == {"dag_id": DAG_ID, "is_known": True, "is_paused": True}
    finally:
        pause(False)
    assert "paused" in problem["detail"]


def test_a_sync_of_a_dag_that_airflow_does_not_know_says_so(
    admin: RestClient, pair: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SYNC_DAG_ID", "no_such_dag")
    repository, remote = pair
    problem = admin.post(f"{remote['pulp_href']}sync/", 503, repository=repository["pulp_href"])
    assert "no_such_dag" in problem["detail"]


def begin(api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str) -> str:
    """The id of the sync that the first task of a run begins and hands on."""
    from airflow.models.xcom import XComModel

    set_state(task, "running")
    run_id = dag_run(task).run_id
    run = open_run(api_server.database, repository_of(api_server, pair), key=RunKey(DAG_ID, run_id))
    XComModel.set("sync_run", run.id, dag_id=DAG_ID, task_id="list_tags", run_id=run_id)
    return run.id


def mark(admin: RestClient, task: str, state: str) -> None:
    """What a person does in the grid."""
    run_id = dag_run(task).run_id
    response = admin.ask("PATCH", f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id}", {"state": state})
    assert response.status_code == 200, response.text


def test_a_run_that_is_marked_as_failed_in_airflow_ends_its_sync(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    sync_id = begin(api_server, pair, task)
    mark(admin, task, "failed")
    ended = api_server.database.runs.get(sync_id)
    assert (ended.state, ended.finished_at is not None) == (RunState.FAILED, True)
    read = admin.get(task)
    assert (read["state"], read["error"]) == ("failed", {"description": ended.error})
    assert "marked as failed" in read["error"]["description"]
    with pytest.raises(RunEnded):
        api_server.database.versions.commit(sync_id)


def test_a_run_that_is_marked_as_successful_says_that_it_made_no_version(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    sync_id = begin(api_server, pair, task)
    mark(admin, task, "success")
    assert api_server.database.runs.get(sync_id).state is RunState.FAILED
    note = admin.get(f"/api/v2/dags/{DAG_ID}/dagRuns/{dag_run(task).run_id}")["note"]
    assert note.startswith("no version was made for ")
    assert "the DAG run ended well" in note
    read = admin.get(task)
    assert (read["state"], read["created_resources"]) == ("failed", [])
    assert "made no version" in read["error"]["description"]
    assert admin.get("tasks/", state="failed")["results"][0]["pulp_href"] == task
    assert task not in [found["pulp_href"] for found in admin.get("tasks/", state="completed")["results"]]


def test_a_canceled_task_is_a_canceled_sync(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    sync_id = begin(api_server, pair, task)
    assert admin.patch(task, state="canceled")["state"] == "canceled"
    ended = api_server.database.runs.get(sync_id)
    assert (ended.state, ended.error) == (RunState.CANCELED, "the DAG run was canceled")
    assert api_server.database.run_ends.unended(repository_id=ended.repository_id) == []


def test_a_busy_database_keeps_nobody_from_marking_a_run_and_the_sync_ends_later(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    sync_id = begin(api_server, pair, task)
    with api_server.database.writing():
        mark(admin, task, "failed")
    assert dag_run(task).state == "failed"
    assert api_server.database.runs.get(sync_id).state is RunState.RUNNING
    assert admin.get(task)["state"] == "failed"
    ended = end_lost_runs(api_server.database.run_ends, lambda run: run_end(run.key), report=str)
    assert ended >= 1
    assert api_server.database.runs.get(sync_id).state is RunState.FAILED


def test_a_task_says_who_began_it_and_who_approved_its_removals(
    admin: RestClient, api_server: ApiServer, pair: tuple[dict[str, Any], dict[str, Any]], task: str
) -> None:
    sync_id = begin(api_server, pair, task)
    assert (admin.get(task)["triggered_by"], admin.get(task)["removals_approved_by"]) == ("admin", None)
    api_server.database.runs.approve_removals(sync_id, "anna", in_advance=True)
    assert admin.get(task)["removals_approved_by"] == "anna"
