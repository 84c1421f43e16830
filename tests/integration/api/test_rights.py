"""The table of rights in ``security.md``, line by line, under SimpleAuthManager."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.domain.runs import Authority
from registry_sync.hooks.settings import load_settings
from registry_sync.operators.stage import open_stage
from support.rest_api import ROLES, ApiServer, RestClient
from support.rights import World, by_trigger, connection_that_serves_any, documented, least, line_of, over_rest
from support.task_contexts import TaskContext, rendered, sync_dag

LINES = list(documented())


@pytest.fixture(scope="module")
def clients(api_server: ApiServer) -> dict[str, RestClient]:
    return {role: api_server.client(role) for role in ROLES}


@pytest.fixture(scope="module")
def world(api_server: ApiServer) -> World:
    return World.made_by(api_server.client(), api_server.database, "https://registry.example", "team/app")


@pytest.fixture(autouse=True)
def _connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task reads of the connections: here they come by the environment."""
    monkeypatch.setenv("AIRFLOW_CONN_RIGHTS_BOUND", '{"conn_type": "registry", "host": "https://bound.example"}')
    monkeypatch.setenv("AIRFLOW_CONN_RIGHTS_ANY", '{"conn_type": "registry", "extra": {"allow_any_host": true}}')


def test_the_table_has_lines_for_everything_that_is_tried(world: World) -> None:
    for tries in (over_rest(world), by_trigger(world, "https://registry.example")):
        assert [beginning for beginning in tries if not any(line.startswith(beginning) for line in LINES)] == []
    assert len(LINES) == 15


@pytest.mark.parametrize("what", LINES)
def test_over_rest(clients: Mapping[str, RestClient], world: World, what: str) -> None:
    assert least(clients, ROLES, line_of(what, over_rest(world))) == documented()[what][0]


@pytest.mark.parametrize("what", LINES)
def test_by_a_trigger(clients: Mapping[str, RestClient], world: World, what: str) -> None:
    """Who may trigger is Airflow's to say; what the run then does, the first task's, and the last one's."""
    conf = line_of(what, by_trigger(world, "https://registry.example"))
    if what == "approve removals":
        conf = {"repository": world.name, "remote": world.name, "approve_removals": True}
    run = {"logical_date": None, "conf": conf}
    triggered = least(clients, ROLES, conf and (lambda: ("POST", "/api/v2/dags/registry_sync/dagRuns", run)))
    refusal = "nothing is tried"
    if conf is not None:
        refusal = why_not_approved(conf) if "approve_removals" in conf else why_not_begun(conf)
    assert ("no" if refusal else triggered) == documented()[what][1], refusal


@pytest.mark.parametrize("what", LINES)
def test_by_the_form_for_connections(clients: Mapping[str, RestClient], what: str) -> None:
    attempt = ("POST", "/api/v2/connections", connection_that_serves_any)
    is_form = what == "let a connection serve any registry"
    tried = (lambda: (*attempt[:2], attempt[2]())) if is_form else None
    assert least(clients, ROLES, tried) == documented()[what][2]


def test_a_connection_that_serves_any_registry_is_nothing_that_rest_makes(world: World) -> None:
    """Remotes have no field for it."""
    assert line_of("let a connection serve any registry", over_rest(world)) is None
    assert documented()["let a connection serve any registry"][:2] == ("no", "no")


def why_not_begun(conf: dict[str, Any]) -> str:
    """Why the DAG's first task begins no sync with these parameters, empty when it does; the registry is not asked."""
    context = TaskContext(conf=conf, dag_id="registry_sync", run_id=f"manual__{uuid.uuid4()}")
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    given = rendered(task, context)
    try:
        with open_stage(given) as stage:
            task._open_run(stage, given)
    except AirflowFailException as refused:
        return str(refused)
    return ""


def why_not_approved(conf: dict[str, Any]) -> str:
    """Why the DAG's last task does not take the parameter for an approval, empty when it does."""
    context = TaskContext(conf=conf, dag_id="registry_sync")
    task = sync_dag().get_task("commit_version").prepare_for_execution()
    task.sync_run = "not asked for here"
    given = rendered(task, context)
    return "" if task.authority(given, load_settings()) is Authority.AUTHOR else "the parameters are the trigger's"
