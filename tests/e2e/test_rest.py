"""Syncs over REST in a real Airflow: run by its scheduler, from a real registry, canceled and failed as well."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from support.airflow_instance import POLL_SECONDS, AirflowInstance
from support.certificates import CertificateAuthority
from support.filling import push
from support.registry import PASSWORD, USERNAME, RegistryServer
from support.rest_api import RestClient, hrefs_in
from support.shapes import documented_example

UPSTREAM_NAME = "library/hello-world"
FINAL = ("completed", "failed", "canceled")
WAIT_SECONDS = 90


@pytest.fixture(scope="module")
def rest(airflow: AirflowInstance) -> RestClient:
    airflow.await_dag()
    return RestClient(airflow.url, airflow.token())


@pytest.fixture
def name() -> str:
    return f"rest-{secrets.token_hex(4)}"


def make_pair(rest: RestClient, name: str, url: str, **remote: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A repository, and a remote at ``url``."""
    remote = {"upstream_name": UPSTREAM_NAME, **remote}
    made = rest.post("remotes/docker/docker/", name=name, url=url, **remote)
    return rest.post("repositories/docker/docker/", name=name), made


def finished(rest: RestClient, task: str) -> dict[str, Any]:
    """The task, when it has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (read := rest.get(task))["state"] not in FINAL:
        assert time.monotonic() < deadline, read
        time.sleep(POLL_SECONDS)
    return dict(read)


def test_a_second_sync_of_the_same_content_completes_without_a_version(
    rest: RestClient, upstream: RegistryServer, name: str
) -> None:
    repository, remote = make_pair(rest, name, upstream.url)
    ask = {"repository": repository["pulp_href"], "mirror": True}
    first = finished(rest, rest.post(f"{remote['pulp_href']}sync/", 202, **ask)["task"])
    assert (first["state"], len(first["created_resources"])) == ("completed", 1)
    assert rest.get(repository["pulp_href"])["latest_version_href"] == first["created_resources"][0]
    second = finished(rest, rest.post(f"{remote['pulp_href']}sync/", 202, **ask)["task"])
    assert (second["state"], second["created_resources"], second["error"]) == ("completed", [], None)
    assert rest.get(repository["versions_href"])["count"] == 1
    for href in {*hrefs_in(first), *hrefs_in(second), *hrefs_in(rest.get(first["created_resources"][0]))}:
        assert rest.ask("GET", href).status_code == 200, href


def events_of(airflow: AirflowInstance, run_id: str) -> list[str]:
    """The versions that assets were told of by a run."""
    found = airflow.api("GET", f"/assets/events?source_run_id={run_id}&limit=50")["asset_events"]
    return [event["extra"]["href"] for event in found]


def test_clearing_what_has_ended_rewrites_no_history(
    rest: RestClient, airflow: AirflowInstance, upstream: RegistryServer, name: str
) -> None:
    """The commit, the tasks before it, and the whole run when nothing changed: all end well, and what was told is."""
    repository, remote = make_pair(rest, name, upstream.url)
    ask = {"repository": repository["pulp_href"], "mirror": True}
    task = rest.post(f"{remote['pulp_href']}sync/", 202, **ask)["task"]
    made = finished(rest, task)["created_resources"]
    run_id = airflow.remember("registry_sync", rest.get(task)["dag_run_id"])
    provenance = rest.get(f"{made[0]}provenance/")
    assert events_of(airflow, run_id) == made
    clear = {"dry_run": False, "only_failed": False}
    for tasks in (["commit_version"], ["fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"]):
        airflow.api(
            "POST", "/dags/registry_sync/clearTaskInstances", {**clear, "dag_run_id": run_id, "task_ids": tasks}
        )
        assert airflow.wait(run_id) == "success", airflow.reasons(run_id)
        assert airflow.xcom(run_id, "commit_version")["version"]["pulp_href"] == made[0]
    airflow.api("POST", f"/dags/registry_sync/dagRuns/{run_id}/clear", clear)
    assert airflow.wait(run_id) == "success", airflow.reasons(run_id)
    states = airflow.task_states(run_id)
    assert states["fetch_manifests[0]"] == "skipped", "which was expanded when it was cleared alone"
    assert {task: state for task, state in states.items() if state != "skipped"} == {"list_tags": "success"}
    again = finished(rest, task)
    assert (again["state"], again["created_resources"]) == ("completed", made)
    assert rest.get(f"{made[0]}provenance/") == provenance
    assert events_of(airflow, run_id) == made
    assert rest.get(repository["versions_href"])["count"] == 1


def test_a_remote_with_certificates_and_credentials_reads_a_private_registry(
    rest: RestClient, tmp_path: Path, name: str
) -> None:
    """TLS by a CA of its own, a client certificate, a user and a password: all of them given over REST alone."""
    server = CertificateAuthority(tmp_path / "ca").server(asks_for_client=True)
    assert server.client_pair is not None
    certificate, key = (Path(path).read_text() for path in server.client_pair)
    with RegistryServer(tmp_path / "registry", basic_auth=True, certificate=server) as private:
        push(private, UPSTREAM_NAME, documented_example())
        repository, remote = make_pair(
            rest, name, private.url, username=USERNAME, password=PASSWORD, ssl_client_key=key,
            ssl_client_certificate=certificate, ssl_ca_certificate=server.ca_path.read_text(),
        )  # fmt: skip
        task = rest.post(f"{repository['pulp_href']}sync/", 202, remote=remote["pulp_href"], mirror=True)["task"]
        done = finished(rest, task)
        assert (done["state"], done["error"]) == ("completed", None)
        rest.patch(remote["pulp_href"], password="wrong-password")
        task = rest.post(f"{repository['pulp_href']}sync/", 202, remote=remote["pulp_href"])["task"]
        failed = finished(rest, task)
    assert failed["state"] == "failed"
    assert "AuthenticationFailed" in failed["error"]["description"]
    assert "wrong-password" not in str(failed)


def test_a_failed_sync_says_why(rest: RestClient, upstream: RegistryServer, name: str) -> None:
    repository, remote = make_pair(rest, name, upstream.url, upstream_name="library/no-such-thing")
    task = rest.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"])["task"]
    failed = finished(rest, task)
    assert (failed["state"], failed["created_resources"]) == ("failed", [])
    assert "no-such-thing" in failed["error"]["description"]
    assert rest.get(repository["pulp_href"])["latest_version_href"] is None


def test_a_canceled_sync_stops_and_makes_no_version(rest: RestClient, airflow: AirflowInstance, name: str) -> None:
    """Its registry takes connections and never answers, so that the sync hangs until it is stopped."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        repository, remote = make_pair(rest, name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        task = rest.post(f"{remote['pulp_href']}sync/", 202, repository=repository["pulp_href"])["task"]
        run = airflow.remember("registry_sync", rest.get(task)["dag_run_id"])
        airflow.await_task(run, "list_tags")
        assert rest.get(task)["state"] == "running"
        canceled = rest.patch(task, state="canceled")
        assert canceled["state"] == "canceled"
        airflow.wait(run, 30)
        deadline = time.monotonic() + WAIT_SECONDS
        while airflow.task_states(run)["list_tags"] == "running":
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)
    read = rest.get(task)
    assert (read["state"], read["error"], read["created_resources"]) == ("canceled", None, [])
    assert rest.get("tasks/", state="canceled")["results"][0]["pulp_href"] == task
    assert rest.get(repository["pulp_href"])["latest_version_href"] is None
