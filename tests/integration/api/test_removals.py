"""Removals approved over REST: a task that stopped at its remote's limit goes on."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.runs import RunKey, RunState
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import TooManyRemovals
from registry_sync.hooks.dag_runs import run_state
from support.metadata import Upstream, image, open_run, play_stages, sync, upstream_with
from support.rest_api import DAG_ID, ROLES, ApiServer, RestClient

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"


@pytest.fixture
def repository(api_server: ApiServer, admin: RestClient, name: str) -> Repository:
    """A repository with thirty tags."""
    admin.post(REPOSITORIES, name=name)
    record = api_server.database.repositories.by_name(name)
    sync(api_server.database, record, upstream_with(30, name))
    return record


@pytest.fixture
def task(admin: RestClient, name: str, repository: Repository) -> str:
    """The path of a task that waits."""
    remote = admin.post(REMOTES, name=name, url="https://registry.example", upstream_name="library/app")["pulp_href"]
    path = f"/pulp/api/v3/{REPOSITORIES}{repository.id}/"
    started: str = admin.post(f"{remote}sync/", 202, repository=path, mirror=True)["task"]
    return started


def run_id(task: str) -> str:
    return f"registry_sync__{task.split('/')[-2]}"


def stop(api_server: ApiServer, repository: Repository, task: str, scope: str = "") -> str:
    """Plays the task up to its commit, which fails, with its tasks and run in the states that Airflow gives them."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    database = api_server.database
    run = open_run(database, repository, key=RunKey(DAG_ID, run_id(task), scope))
    play_stages(database, run, upstream_with(3, repository.name))
    with pytest.raises(TooManyRemovals) as refused:
        database.versions.commit(run.id)
    database.runs.finish(run.id, RunState.FAILED, error=f"TooManyRemovals: {refused.value}")
    with create_session() as session:
        dag_run = session.query(DagRun).filter(DagRun.run_id == run_id(task)).one()
        for instance in dag_run.get_task_instances(session=session):
            instance.set_state("failed" if instance.task_id == "commit_version" else "success", session=session)
        dag_run.set_state("failed")
    return run.id


def wait(api_server: ApiServer, repository: Repository, task: str) -> str:
    """Plays the task up to its commit, which asks a person; its tasks and run have the states that Airflow gives."""
    from airflow.models import DagRun
    from airflow.models.hitl import HITLDetail
    from airflow.sdk.serde import serialize
    from airflow.utils.session import create_session

    database = api_server.database
    run = open_run(database, repository, key=RunKey(DAG_ID, run_id(task)))
    play_stages(database, run, upstream_with(3, repository.name))
    with pytest.raises(TooManyRemovals) as refused:
        database.versions.commit(run.id)
    database.runs.report_waiting(run.id, f"TooManyRemovals: {refused.value}")
    with create_session() as session:
        dag_run = session.query(DagRun).filter(DagRun.run_id == run_id(task)).one()
        for instance in dag_run.get_task_instances(session=session):
            waits = instance.task_id == "commit_version"
            instance.set_state("awaiting_input" if waits else "success", session=session)
            if waits:
                instance.next_method = "execute_complete"
                instance.next_kwargs = serialize({"sync_run": run.id, "seen": refused.value.fingerprint})
                session.add(HITLDetail(ti_id=instance.id, options=["Approve", "Reject"], subject="Remove?", params={}))
        dag_run.set_state("running")
    return run.id


def states(task: str) -> dict[str, Any]:
    """State of the run and of its tasks, by name."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        dag_run = session.query(DagRun).filter(DagRun.run_id == run_id(task)).one()
        tasks = {instance.task_id: instance.state for instance in dag_run.get_task_instances(session=session)}
        return {"run": dag_run.state, **tasks}


@pytest.mark.parametrize(("chosen", "approved_by"), [("Approve", "admin"), ("Reject", None)])
def test_an_approval_in_airflow_is_recorded_although_the_task_that_it_resumes_is_killed(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str, chosen: str, approved_by: str | None
) -> None:
    sync_run = wait(api_server, repository, task)
    question = f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id(task)}/taskInstances/commit_version/-1/hitlDetails"
    response = admin.ask("PATCH", question, json={"chosen_options": [chosen], "params_input": {}})
    assert response.status_code == 200, response.text
    assert api_server.database.runs.get(sync_run).removals_approved_by == approved_by
    if approved_by is None:
        with pytest.raises(TooManyRemovals):
            api_server.database.versions.commit(sync_run)
    else:
        assert api_server.database.versions.commit(sync_run).counts["removed"]["docker.tag"] == 27


def test_an_approval_of_other_removals_than_were_refused_last_is_not_recorded(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    sync_run = wait(api_server, repository, task)
    source, upstream = api_server.database.repositories.ensure(f"{repository.name}-elsewhere"), Upstream()
    upstream.tag("promoted", image("promoted"))
    sync(api_server.database, source, upstream)
    request = CopyRequest(source.id, None, TagFilter.parse(["*"]), SyncMode.ADDITIVE)
    api_server.database.versions.copy(repository.id, request)
    with pytest.raises(TooManyRemovals):
        api_server.database.versions.commit(sync_run)
    question = f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id(task)}/taskInstances/commit_version/-1/hitlDetails"
    response = admin.ask("PATCH", question, json={"chosen_options": ["Approve"], "params_input": {}})
    assert response.status_code == 200, response.text
    assert api_server.database.runs.get(sync_run).removals_approved_by is None


def test_a_stopped_task_that_is_approved_goes_on_where_it_stopped(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    sync_run = stop(api_server, repository, task)
    assert "27 of 30 tags" in admin.get(task)["error"]["description"]
    approved = admin.post(f"{task}approve_removals/", 200)
    assert (approved["pulp_href"], approved["state"], approved["error"]) == (task, "waiting", None)
    after = states(task)
    assert (after["run"], after["commit_version"], after["list_tags"]) == ("queued", None, "success")
    removed = api_server.database.versions.commit(sync_run).counts["removed"]
    assert removed["docker.tag"] == 27


def test_a_task_whose_run_waits_has_failed_for_who_polls_it_and_goes_on_when_it_is_approved(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    """A client that waits for its task is told why at once, not after a day."""
    from airflow.models import DagRun, TaskInstance
    from airflow.sdk.serde import deserialize
    from airflow.utils.session import create_session

    sync_run = wait(api_server, repository, task)
    waiting = admin.get(task)
    assert (waiting["state"], waiting["finished_at"]) == ("failed", None)
    assert waiting["error"]["description"].startswith("TooManyRemovals: 27 of 30 tags")
    listed = {state: admin.get(f"tasks/?state={state}&limit=100")["results"] for state in ("failed", "running")}
    assert {state: task in [found["pulp_href"] for found in tasks] for state, tasks in listed.items()} == {
        "failed": True,
        "running": False,
    }
    assert api_server.database.runs.get(sync_run).state is RunState.RUNNING, "what it fetched is not collected"
    assert run_state(DAG_ID, run_id(task)).is_waiting, "a command that follows the run ends"
    approved = admin.post(f"{task}approve_removals/", 200)
    assert (approved["state"], approved["error"], approved["removals_approved_by"]) == ("running", None, "admin")
    assert not run_state(DAG_ID, run_id(task)).is_waiting
    assert states(task)["commit_version"] == "scheduled"
    with create_session() as session:
        dag_run = session.query(DagRun).filter(DagRun.run_id == run_id(task)).one()
        commit: TaskInstance = dag_run.get_task_instance("commit_version", session=session)
        event: Any = deserialize(commit.next_kwargs)
        assert event["event"]["chosen_options"] == ["Approve"]
        assert event["event"]["responded_by_user"] == {"id": "admin", "name": "admin"}
    admin.post(f"{task}approve_removals/", 200)


def test_a_task_whose_run_waits_may_be_canceled(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    wait(api_server, repository, task)
    assert admin.patch(task, state="canceled")["state"] == "canceled"
    assert states(task)["run"] == "failed"


def test_an_approval_may_be_repeated_until_the_task_has_ended_well(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    sync_run = stop(api_server, repository, task)
    admin.post(f"{task}approve_removals/", 200)
    admin.post(f"{task}approve_removals/", 200)
    api_server.database.versions.commit(sync_run)
    ended = admin.post(f"{task}approve_removals/", 409)
    assert ended.keys() == {"detail"}
    assert run_id(task) in ended["detail"]
    assert sync_run not in ended["detail"], "nobody knows a sync by its own id"


def test_of_several_syncs_of_a_task_those_that_were_stopped_are_approved(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str, name: str
) -> None:
    """As in a sync DAG with several task groups."""
    admin.post(REPOSITORIES, name=f"{name}-unchanged")
    other = api_server.database.repositories.by_name(f"{name}-unchanged")
    done = open_run(api_server.database, other, key=RunKey(DAG_ID, run_id(task), "first.look"))
    play_stages(api_server.database, done, upstream_with(2, f"{name}-unchanged"))
    stopped = stop(api_server, repository, task, scope="second.look")
    assert admin.post(f"{task}approve_removals/", 200)["state"] == "waiting"
    runs = {run.key.scope: run for run in api_server.database.runs.of_dag_run(RunKey(DAG_ID, run_id(task)))}
    assert {scope: run.removals_approved_by for scope, run in runs.items()} == {
        "first.look": None,
        "second.look": "admin",
    }
    assert api_server.database.versions.commit(stopped).counts["removed"]["docker.tag"] == 27


def test_a_task_that_was_not_stopped_for_what_it_removes_cannot_be_approved(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    run = open_run(api_server.database, repository, key=RunKey(DAG_ID, run_id(task)))
    play_stages(api_server.database, run, upstream_with(3, repository.name))
    (said,) = admin.post(f"{task}approve_removals/", 400)["non_field_errors"]
    assert "nothing to approve" in said
    assert "TooManyRemovals" in said
    assert run_id(task) in said
    with pytest.raises(TooManyRemovals):
        api_server.database.versions.commit(run.id)


def test_a_task_of_a_paused_dag_is_not_left_waiting(
    api_server: ApiServer, admin: RestClient, repository: Repository, task: str
) -> None:
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    def pause(is_paused: bool) -> None:
        with create_session() as session:
            session.query(DagModel).filter(DagModel.dag_id == DAG_ID).update({"is_paused": is_paused})

    stop(api_server, repository, task)
    pause(True)
    try:
        assert "paused" in admin.post(f"{task}approve_removals/", 503)["detail"]
        assert states(task)["run"] == "failed"
    finally:
        pause(False)
    assert admin.post(f"{task}approve_removals/", 200)["state"] == "waiting"


def test_a_task_that_has_not_started_or_was_canceled_cannot_be_approved(admin: RestClient, task: str) -> None:
    assert "nothing of the task has run" in admin.post(f"{task}approve_removals/", 409)["detail"]
    admin.patch(task, state="canceled")
    assert "canceled" in admin.post(f"{task}approve_removals/", 409)["detail"]
    admin.post(f"tasks/{uuid.uuid4()}/approve_removals/", 404)


def test_approving_takes_the_right_to_change_runs(api_server: ApiServer, repository: Repository, task: str) -> None:
    stop(api_server, repository, task)
    responses = [api_server.client(role).ask("POST", f"{task}approve_removals/").status_code for role in ROLES]
    assert responses == [403, 200, 200, 200]
