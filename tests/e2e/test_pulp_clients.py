"""Pulp's clients, unmodified, walk the whole workflow with a real sync: the command, and the libraries of the time.

What else they do is tested on one API server, in ``tests/integration/api``.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest

from support.airflow_instance import AirflowInstance
from support.pulp_clients import pulp_command, walk_with_libraries
from support.registry import RegistryServer
from support.rest_api import RestClient
from support.shapes import documented_example

#: What the documented example has; in the version's summary each with the content type of the form.
COUNTS = {"blob": 31, "manifest": 21, "tag": 8}


@pytest.fixture
def name() -> str:
    return f"pulp-{secrets.token_hex(4)}"


def test_the_command_walks_the_workflow(
    airflow: AirflowInstance, upstream: RegistryServer, name: str, tmp_path: Path
) -> None:
    airflow.await_dag()
    with pulp_command(airflow.url, "admin", airflow.password(), tmp_path) as pulp:
        assert pulp("status").document["online_workers"]
        words = f"--name {name} --url {upstream.url} --upstream-name library/hello-world"
        pulp(f"container remote create {words}")
        pulp(f"container repository create --name {name} --remote {name}")
        synced = pulp(f"container repository sync --name {name}")
        assert "Done." in synced.errors
        started = re.search(r"/pulp/api/v3/tasks/[^ ]+/", synced.errors)
        assert started, synced.errors
        task = pulp("task show --href", started[0]).document
        assert task["state"] == "completed"
        repository = pulp(f"container repository show --name {name}").document
        assert task["created_resources"] == [repository["latest_version_href"]]
        assert repository["latest_version_href"].endswith("/versions/1/")
        tags = pulp(f"container repository content list --repository {name} --limit 100").document
        assert {tag["name"] for tag in tags} == set(documented_example().tags)
        pulp(f"container distribution create --name {name} --base-path {name} --repository {name} --public")
        pulp(f"container distribution destroy --name {name}")
        pulp(f"container repository destroy --name {name}")
        pulp(f"container remote destroy --name {name}")


def test_the_client_libraries_of_the_time_walk_the_documented_workflow(
    airflow: AirflowInstance, upstream: RegistryServer, name: str, tmp_path: Path
) -> None:
    airflow.await_dag()
    found = walk_with_libraries(
        "then", tmp_path, airflow.url, "admin", airflow.password(), "docker", name, upstream.url
    )
    assert (found["task"], found["number"]) == (["completed", True], 1)
    assert found["present"] == {f"docker.{kind}": count for kind, count in COUNTS.items()}
    assert found["tags"] == sorted(documented_example().tags)
    assert found["blobs"] == COUNTS["blob"]
    documented = RestClient(airflow.url, airflow.token()).get("repositories/docker/docker/", name=name)
    assert [repository["pulp_href"] for repository in documented["results"]] == found["hrefs"][:1]
