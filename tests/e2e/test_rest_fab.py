"""Who may do what under the FAB auth manager: the composed Airflow, with a user for each of FAB's roles."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.serving import User
from registry_sync.users.airflow_logins import AirflowLogins
from support.airflow_instance import AirflowInstance
from support.composed import Composed
from support.fab import PASSWORD, ROLES
from support.hostile_registry import HostileRegistry
from support.metadata import Upstream, image, index, sync
from support.pulp_clients import pulp_command, walk_with_libraries
from support.registry import RegistryServer
from support.rest_api import API, RestClient, hrefs_in, one_of_each_route
from support.rights import (
    World,
    by_trigger,
    connection_that_serves_any,
    documented,
    least,
    line_of,
    over_rest,
    patiently,
)

REPOSITORIES = "repositories/docker/docker/"
REMOTES = "remotes/docker/docker/"
UPSTREAM_NAME = "library/hello-world"
DAG_SECONDS = 60
RUN_SECONDS = 180


@pytest.fixture(scope="module")
def fab(composed: Composed) -> AirflowInstance:
    return composed.airflow


@pytest.fixture(scope="module")
def clients(fab: AirflowInstance) -> Iterator[dict[str, RestClient]]:
    """A client of each role's user; the DAG is known when they are given. No run goes on after the tests."""
    made = {}
    for role in ROLES:
        nobody = RestClient(fab.url)
        response = nobody.ask("POST", "/auth/token", {"username": role.lower(), "password": PASSWORD})
        assert response.status_code == 201, response.text
        made[role] = RestClient(fab.url, response.json()["access_token"])
    deadline = time.monotonic() + DAG_SECONDS
    while not made["Admin"].get("status/")["sync_dag"]["is_known"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield made
    end_other_runs(made["Admin"])


@pytest.fixture(scope="module")
def synced(composed: Composed, clients: dict[str, RestClient]) -> dict[str, str]:
    """Paths of a repository with a version of every type of unit, of a remote with credentials and of a task."""
    admin, name = clients["Admin"], f"fab-{secrets.token_hex(4)}"
    repository = admin.post(REPOSITORIES, name=name)["pulp_href"]
    remote = admin.post(REMOTES, name=name, url="https://registry.example", upstream_name="app", password="secret!")
    upstream = Upstream()
    child = image("a layer", note=name)
    upstream.tag("latest", index(child, note=name), child)
    with Database.connect(composed.database) as database:
        source = database.remotes.by_name(name)
        sync(database, database.repositories.by_name(name), upstream, remote=source)
    task = admin.post(f"{remote['pulp_href']}sync/", 202, repository=repository)["task"]
    return {"repository": repository, "remote": remote["pulp_href"], "task": task, "name": name}


def statuses(clients: dict[str, RestClient], method: str, path: str, document: Any = None) -> tuple[int, ...]:
    """What each role is answered: Viewer, User, Op, Admin and Public."""
    return tuple(clients[role].ask(method, path, document).status_code for role in ROLES)


def test_users_log_in_at_the_pull_server_and_read_what_they_read_over_rest(
    fab: AirflowInstance, clients: dict[str, RestClient]
) -> None:
    logins = AirflowLogins(fab.url)
    users = {role: asyncio.run(logins(role.lower(), PASSWORD)) for role in ROLES}
    assert users == {role: User(role.lower(), is_reader=role != "Public") for role in ROLES}
    assert asyncio.run(logins("admin", PASSWORD + "x")) is None
    assert asyncio.run(logins("nobody", PASSWORD)) is None


def test_users_of_fab_log_in_at_v2_of_the_api_server(
    fab: AirflowInstance, clients: dict[str, RestClient], synced: dict[str, str], tmp_path: Path
) -> None:
    """By Basic, by a token for it as ``docker login`` asks for it, and with a real client."""
    name = f"team/{synced['name']}"
    clients["Admin"].post(
        "distributions/docker/docker/", name=synced["name"], base_path=name, repository=synced["repository"]
    )
    nobody, path = RestClient(fab.url), f"/v2/{name}/manifests/latest"
    challenge = nobody.ask("GET", path).headers["WWW-Authenticate"]
    assert challenge == f'Bearer realm="{fab.url}/v2/token",service="registry-sync",scope="repository:{name}:pull"'
    for role in ROLES:
        login, pulls = (role.lower(), PASSWORD), 404 if role == "Public" else 200
        assert nobody.ask("GET", "/v2/", auth=login).status_code == 200, "docker login"
        assert nobody.ask("GET", path, auth=login).status_code == pulls, role
        given = nobody.ask("GET", f"/v2/token?service=registry-sync&scope=repository:{name}:pull", auth=login)
        bearer = {"Authorization": f"Bearer {given.json()['token']}"}
        assert nobody.ask("GET", "/v2/", headers=bearer).status_code == 200
        assert nobody.ask("GET", path, headers=bearer).status_code == pulls, role
    for wrong in (("viewer", "wrong"), ("nobody", "wrong")):
        for place in (path, "/v2/token"):
            refused = nobody.ask("GET", place, auth=wrong)
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")
    netloc = fab.url.partition("://")[2]
    login_file = f"--authfile={tmp_path / 'auth.json'}"
    said = skopeo("login", "--tls-verify=false", login_file, "-u=viewer", "--password-stdin", netloc, stdin=PASSWORD)
    assert "Login Succeeded" in said
    raw = skopeo("inspect", "--raw", "--tls-verify=false", login_file, f"docker://{netloc}/{name}:latest")
    assert raw.encode() == nobody.ask("GET", path, auth=("viewer", PASSWORD)).content


def skopeo(*words: str, stdin: str = "") -> str:
    """What a command prints."""
    done = subprocess.run(["skopeo", *words], input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_basic_over_rest_is_the_user_with_their_rights(fab: AirflowInstance, synced: dict[str, str]) -> None:
    nobody = RestClient(fab.url)
    for role, changes in zip(ROLES, (403, 403, 200, 200, 403), strict=True):
        login = (role.lower(), PASSWORD)
        assert nobody.ask("GET", synced["repository"], auth=login).status_code == (403 if role == "Public" else 200)
        assert nobody.ask("PATCH", synced["repository"], {"pulp_labels": {}}, auth=login).status_code == changes
    for login in (("viewer", "wrong"), ("nobody", "wrong")):
        response = nobody.ask("GET", synced["repository"], auth=login)
        assert (response.status_code, response.json()) == (401, {"detail": "Wrong name or password."})


# -- the table of rights in security.md --------------------------------------------------------------------------------

#: From the least on; what Public may do is nothing.
RISING = ("Public", "Viewer", "User", "Op", "Admin")


@pytest.fixture(scope="module")
def world(composed: Composed, clients: dict[str, RestClient], upstream: RegistryServer) -> World:
    with Database.connect(composed.database) as database:
        return World.made_by(clients["Admin"], database, upstream.url, UPSTREAM_NAME, bound=upstream.url)


def test_the_table_by_a_trigger_and_what_the_runs_do(
    clients: dict[str, RestClient], world: World, upstream: RegistryServer
) -> None:
    """Real runs of a user who may only trigger; a listener keeps all that the hosts of their choice are sent."""
    end_other_runs(clients["Admin"])  # they try hosts again and again that are not there
    remotes = {path: clients["Admin"].get(path) for path in (world.remote, world.other)}
    with HostileRegistry() as listener:
        runs = {}
        for what, (_, by, _) in documented().items():
            conf = line_of(what, by_trigger(world, upstream.url))
            if conf is None:
                continue
            if by == "no" and conf["repository"] != world.name:
                conf["url"] = listener.base
            run = {"logical_date": None, "conf": conf}
            assert least(clients, RISING[:2], lambda run=run: ("POST", RUNS, run)) == "no"  # type: ignore[misc]
            started = patiently(clients["User"], lambda run=run: ("POST", RUNS, run))  # type: ignore[misc]
            runs[what] = started.json()["dag_run_id"]
        asked_for = {"repository": "forged"}
        forged = {"dag_run_id": f"registry_sync__{uuid.uuid4()}", "logical_date": None, "conf": asked_for}
        assert patiently(clients["User"], lambda: ("POST", RUNS, forged)).status_code == 200
        ended = {what: ended_run(clients["Admin"], run_id) for what, run_id in runs.items()}
        assert {what: run["state"] for what, run in ended.items()} == {
            what: "failed" if documented()[what][1] == "no" else "success" for what in runs
        }
        assert ended_run(clients["Admin"], forged["dag_run_id"])["state"] == "failed"
        assert listener.asked() == []
    for what, run in ended.items():
        assert run["state"] == "success" or run["note"], what
    kept = [{**clients["Admin"].get(path), "pulp_last_updated": None} for path in remotes]
    assert kept == [{**document, "pulp_last_updated": None} for document in remotes.values()]


RUNS = "/api/v2/dags/registry_sync/dagRuns"


def end_other_runs(admin: RestClient) -> None:
    """Ends the runs that other tests began."""
    for state in ("running", "queued"):
        for run in admin.ask("GET", f"{RUNS}?state={state}&limit=100").json()["dag_runs"]:
            admin.ask("PATCH", f"{RUNS}/{run['dag_run_id']}", {"state": "failed"})


def ended_run(admin: RestClient, run_id: str) -> dict[str, Any]:
    """The run as Airflow shows it once it has ended."""
    deadline = time.monotonic() + RUN_SECONDS
    while True:
        run: dict[str, Any] = admin.ask("GET", f"{RUNS}/{run_id}").json()
        if run["state"] in ("success", "failed"):
            return run
        assert time.monotonic() < deadline, run
        time.sleep(0.3)


@pytest.mark.parametrize("what", documented())
def test_the_table_over_rest_and_in_the_form_for_connections(
    clients: dict[str, RestClient], world: World, what: str
) -> None:
    assert least(clients, RISING, line_of(what, over_rest(world))) == documented()[what][0]
    if what == "let a connection serve any registry":
        form = least(clients, RISING, lambda: ("POST", "/api/v2/connections", connection_that_serves_any()))
        assert form == documented()[what][2]


# -- route by route ----------------------------------------------------------------------------------------------------


def test_every_href_resolves_for_who_may_read_and_for_nobody_else(
    fab: AirflowInstance, clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    """Access is decided by the route, whichever object is read: one of each route is read by everybody."""
    found: dict[str, None] = {}
    waiting = [f"{API}/{path}" for path in (REPOSITORIES, REMOTES, "tasks/", "syncs/", "content/docker/tags/")]
    while waiting:
        href = waiting.pop()
        if href not in found:
            found[href] = None
            waiting += hrefs_in(clients["Viewer"].get(href))
    assert {synced["repository"], synced["remote"], synced["task"]} <= found.keys()
    for href in one_of_each_route(found):
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
    # Who comes first cancels it where it has not ended; there is nothing left to cancel for the others, unless the
    # scheduler wrote the state that it had read before the first of them.
    assert set(asked[1:4]) <= {200, 400, 409}
    assert 403 not in asked[1:4]


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
    """400 and 409 are for who may: nothing of that task was refused or has run yet, or it has ended."""
    asked = statuses(clients, "POST", f"{synced['task']}approve_removals/")
    assert (asked[0], asked[4]) == (403, 403)
    # Who comes first cancels it where it has not ended; there is nothing left to cancel for the others, unless the
    # scheduler wrote the state that it had read before the first of them.
    assert set(asked[1:4]) <= {200, 400, 409}
    assert 403 not in asked[1:4]


def test_the_manual_is_for_everybody_who_is_signed_in(fab: AirflowInstance, clients: dict[str, RestClient]) -> None:
    for path in ("docs/", "docs/api.json", "status/"):
        assert statuses(clients, "GET", path) == (200, 200, 200, 200, 200)
        # The document is for everybody: Pulp's clients read it before they log in.
        assert RestClient(fab.url).ask("GET", path).status_code == (200 if path == "docs/api.json" else 401)


def test_pages_are_for_who_may_read_by_the_cookie_of_a_browser(
    clients: dict[str, RestClient], synced: dict[str, str]
) -> None:
    for role in ROLES:
        browser = {"Cookie": f"_token={clients[role].token}", "Authorization": None}
        for path in ("repositories/", "syncs/", synced["repository"].replace(f"{API}/{REPOSITORIES}", "repositories/")):
            seen = clients[role].ask("GET", f"/pulp/pages/{path}", headers=browser)
            assert (seen.status_code, seen.headers["content-type"][:9]) == (
                403 if role == "Public" else 200,
                "text/html",
            )
            assert (synced["name"] in seen.text) is (role != "Public")
    # Airflow's menu has what this lists, which FAB permits from Op on.
    assert statuses(clients, "GET", "/api/v2/plugins") == (403, 403, 200, 200, 403)


def test_a_token_that_is_none_is_refused(fab: AirflowInstance, clients: dict[str, RestClient]) -> None:
    forged = RestClient(fab.url, f"{clients['Admin'].token}x")
    assert forged.ask("GET", REPOSITORIES).status_code == 401


# -- Pulp's own clients ------------------------------------------------------------------------------------------------


def test_pulps_command_syncs_under_fab(
    fab: AirflowInstance, clients: dict[str, RestClient], upstream: RegistryServer, tmp_path: Path
) -> None:
    """The least role that may change repositories does everything; one that may only read is told so."""
    end_other_runs(clients["Admin"])
    name = f"fab-pulp-{secrets.token_hex(4)}"
    with pulp_command(fab.url, "op", PASSWORD, tmp_path / "op") as pulp:
        assert pulp("status").document["database_connection"]["connected"] is True
        pulp(f"container remote create --name {name} --url {upstream.url} --upstream-name {UPSTREAM_NAME}")
        pulp(f"container repository create --name {name} --remote {name}")
        assert "Done." in pulp(f"container repository sync --name {name}").errors
        version = pulp(f"container repository version show --repository {name}").document
        assert (version["number"], version["content_summary"]["present"]["container.tag"]["count"]) == (1, 8)
        (worker,) = pulp("worker list --online").document
        assert worker["current_task"] is None
        with pulp_command(fab.url, "viewer", PASSWORD, tmp_path / "viewer") as viewer:
            assert viewer(f"container repository show --name {name}").document["remote"] is not None
            assert "Operation" in viewer(f"container repository destroy --name {name}", status=1).errors
        pulp(f"container repository destroy --name {name}")
        pulp(f"container remote destroy --name {name}")


@pytest.mark.parametrize(("generation", "form"), [("today", "container"), ("then", "docker")])
def test_pulps_libraries_sync_under_fab(
    fab: AirflowInstance,
    clients: dict[str, RestClient],
    upstream: RegistryServer,
    generation: str,
    form: str,
    tmp_path: Path,
) -> None:
    end_other_runs(clients["Admin"])
    name = f"fab-{generation}-{secrets.token_hex(4)}"
    found = walk_with_libraries(generation, tmp_path, fab.url, "op", PASSWORD, form, name, upstream.url)
    assert (found["task"], found["number"], found["present"][f"{form}.tag"]) == (["completed", True], 1, 8)
