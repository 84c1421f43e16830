"""Who may do what under the FAB auth manager: a real API server, with a user for each of FAB's roles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from support.airflow_instance import AirflowInstance
from support.fab import PASSWORD, ROLES, SETTINGS, make_fab_database
from support.metadata import Upstream, image, index, sync
from support.rest_api import API, RestClient, hrefs_in

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"
DAG_SECONDS = 60


@pytest.fixture(scope="module")
def fab(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[AirflowInstance]:
    database = make_fab_database(airflow_database, tmp_path_factory.mktemp("fab-database"))
    with AirflowInstance(tmp_path_factory.mktemp("fab"), settings=SETTINGS, database=database) as instance:
        yield instance


@pytest.fixture(scope="module")
def clients(fab: AirflowInstance) -> dict[str, RestClient]:
    """A client of each role's user; the DAG is known when they are given."""
    made = {}
    for role in ROLES:
        nobody = RestClient(fab.url)
        answer = nobody.ask("POST", "/auth/token", {"username": role.lower(), "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        made[role] = RestClient(fab.url, answer.json()["access_token"])
    deadline = time.monotonic() + DAG_SECONDS
    while not made["Admin"].get("status/")["sync_dag"]["is_known"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return made


@pytest.fixture(scope="module")
def synced(fab: AirflowInstance, clients: dict[str, RestClient]) -> dict[str, str]:
    """Paths of a repository with a version of every type of unit, of a remote with credentials and of a task."""
    admin, name = clients["Admin"], f"fab-{secrets.token_hex(4)}"
    repository = admin.post(REPOSITORIES, name=name)["pulp_href"]
    remote = admin.post(REMOTES, name=name, url="https://registry.example", upstream_name="app", password="secret!")
    upstream = Upstream()
    child = image("a layer", note=name)
    upstream.tag("latest", index(child, note=name), child)
    with Database.connect(f"sqlite:///{fab.home / 'registry_sync' / 'registry_sync.db'}") as database:
        source = database.remotes.by_name(name)
        sync(database, database.repositories.by_name(name), upstream, remote=source)
    task = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository)["task"]
    return {"repository": repository, "remote": remote["pulp_href"], "task": task, "name": name}


def statuses(clients: dict[str, RestClient], method: str, path: str, document: Any = None) -> tuple[int, ...]:
    """What each role is answered: Viewer, User, Op, Admin and Public."""
    return tuple(clients[role].ask(method, path, document).status_code for role in ROLES)


def test_every_href_resolves_for_who_may_read_and_for_nobody_else(
    fab: AirflowInstance, clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    found: dict[str, None] = {}
    waiting = [f"{API}/{path}" for path in (REPOSITORIES, REMOTES, "tasks/", "content/docker/tags/")]
    while waiting:
        href = waiting.pop()
        if href not in found:
            found[href] = None
            waiting += hrefs_in(clients["Viewer"].get(href))
    assert {synced["repository"], synced["remote"], synced["task"]} <= found.keys()
    for href in found:
        assert statuses(clients, "GET", href) == (200, 200, 200, 200, 403), href
        assert RestClient(fab.url).ask("GET", href).status_code == 401, href


def test_syncing_takes_the_right_to_run_the_dag(clients: dict[str, RestClient], synced: dict[str, str]) -> None:
    document = {"repository": synced["repository"]}
    assert statuses(clients, "POST", f"{synced['remote']}sync/", document) == (403, 202, 202, 202, 403)


def test_canceling_takes_the_right_to_change_runs(clients: dict[str, RestClient], synced: dict[str, str]) -> None:
    document = {"repository": synced["repository"]}
    task = clients["User"].post(f"{synced['remote']}sync/", 202, **document)["task"]
    asked = statuses(clients, "PATCH", task, {"state": "canceled"})
    assert (asked[0], asked[4]) == (403, 403)
    assert set(asked[1:4]) <= {200, 409}


def test_changing_takes_the_right_to_do_it_with_connections(
    clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    for kind in ("repository", "remote"):
        assert statuses(clients, "PATCH", synced[kind], {"pulp_labels": {}}) == (403, 403, 200, 200, 403)
    new = {"name": f"{synced['name']}-new"}
    assert statuses(clients, "POST", REPOSITORIES, new) == (403, 403, 201, 400, 403)
    made = clients["Admin"].get(REPOSITORIES, **new)["results"][0]["pulp_href"]
    assert statuses(clients, "DELETE", made) == (403, 403, 204, 404, 403)


def test_versions_are_read_by_who_may_read_and_made_and_removed_by_who_may_change(
    clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    version = f"{synced['repository']}versions/1/"
    for path in ("diff/", "holds/", "missing_manifests/", "provenance/"):
        assert statuses(clients, "GET", f"{version}{path}") == (200, 200, 200, 200, 403)
    assert statuses(clients, "GET", f"{synced['repository']}usage/") == (200, 200, 200, 200, 403)
    assert statuses(clients, "PATCH", version, {"description": "x"}) == (403, 403, 200, 200, 403)
    assert statuses(clients, "POST", f"{version}rollback/", {}) == (403, 403, 200, 200, 403)
    target = clients["Admin"].post(REPOSITORIES, name=f"{synced['name']}-target")["pulp_href"]
    copy = {"source_repository": synced["repository"]}
    assert statuses(clients, "POST", f"{target}copy_tags/", copy) == (403, 403, 201, 200, 403)
    assert statuses(clients, "DELETE", f"{target}versions/1/") == (403, 403, 409, 409, 403)


def test_approving_removals_takes_the_right_to_change_runs(
    clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    """409 is for who may: nothing of that task has run yet, or it has ended."""
    asked = statuses(clients, "POST", f"{synced['task']}approve_removals/")
    assert (asked[0], asked[4]) == (403, 403)
    assert set(asked[1:4]) <= {200, 409}


def test_the_manual_is_for_everybody_who_is_signed_in(fab: AirflowInstance, clients: dict[str, RestClient]) -> None:
    for path in ("docs/", "docs/api.json", "status/"):
        assert statuses(clients, "GET", path) == (200, 200, 200, 200, 200)
        assert RestClient(fab.url).ask("GET", path).status_code == 401


def test_a_token_that_is_none_is_refused(fab: AirflowInstance, clients: dict[str, RestClient]) -> None:
    forged = RestClient(fab.url, f"{clients['Admin'].token}x")
    assert forged.ask("GET", REPOSITORIES).status_code in (401, 403)
