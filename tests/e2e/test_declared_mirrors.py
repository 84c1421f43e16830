"""A fleet from a file, by a real Airflow: the good mirrors are synced, and the one with a mistake says what it is."""

from __future__ import annotations

from typing import Any

import pytest

from support import declared_fleet
from support.airflow_instance import AirflowInstance
from support.registry import RegistryServer
from support.rest_api import RestClient


@pytest.fixture
def rest(airflow: AirflowInstance, upstream: RegistryServer) -> RestClient:
    """REST of the Airflow, whose fleet is of the shared upstream."""
    declared_fleet.write(airflow.layout.folder / "fleet", upstream.url)
    return RestClient(airflow.url, airflow.token())


def only(rest: RestClient, kind: str, name: str) -> dict[str, Any]:
    (found,) = rest.get(f"{kind}/docker/docker/", name=name)["results"]
    return dict(found)


def ended(airflow: AirflowInstance, dag_id: str) -> tuple[str, str]:
    run = airflow.trigger(dag_id)
    return run, airflow.wait(run)


def test_airflow_shows_each_mirror_and_no_broken_file(airflow: AirflowInstance) -> None:
    shown = {dag["dag_id"]: dag for dag in airflow.api("GET", "/dags?tags=registry-sync&limit=100")["dags"]}
    assert {"registry_sync_fleet", "mirror.fleet.one", "mirror.fleet.wrong", "mirrors.pair"} <= set(shown)
    wrong = shown["mirror.fleet.wrong"]
    assert wrong["dag_display_name"] == "fleet/wrong (mistake)"
    assert "mirrors.yaml:8: there is no key 'shedule'" in wrong["description"]
    assert not any(dag["is_paused"] for dag in (shown["mirror.fleet.one"], shown["mirrors.pair"]))
    errors = airflow.api("GET", "/importErrors")["import_errors"]
    assert [error for error in errors if "fleet" in error["filename"]] == []


def test_a_mirror_is_synced_in_stages_as_declared(airflow: AirflowInstance, rest: RestClient) -> None:
    run, state = ended(airflow, "mirror.fleet.one")
    assert state == "success", airflow.reasons(run)
    assert run.startswith("sync__fleet-one__20")
    repository = only(rest, "repositories", "fleet/one")
    version = rest.get(repository["latest_version_href"])
    assert version["content_summary"]["present"]["docker.tag"]["count"] == 8
    assert repository["pulp_labels"] == {"team": "fleet"}
    remote = only(rest, "remotes", "fleet/one")
    assert (remote["max_removed_tags"], remote["pulp_labels"]) == (3, {"team": "fleet"})
    assert only(rest, "distributions", "fleet/one")["private"] is False
    run, state = ended(airflow, "mirror.fleet.one")
    assert state == "success", airflow.reasons(run)
    assert only(rest, "repositories", "fleet/one")["latest_version_href"] == repository["latest_version_href"]


def test_a_group_is_synced_in_one_task(airflow: AirflowInstance, rest: RestClient) -> None:
    run, state = ended(airflow, "mirrors.pair")
    assert state == "success", airflow.reasons(run)
    counts = []
    for name in ("fleet/first", "fleet/second"):
        version = rest.get(only(rest, "repositories", name)["latest_version_href"])
        counts.append(version["content_summary"]["present"]["docker.tag"]["count"])
    assert counts == [1, 8]


def test_a_run_of_the_mirror_with_a_mistake_fails_with_it(airflow: AirflowInstance, rest: RestClient) -> None:
    run, state = ended(airflow, "mirror.fleet.wrong")
    assert state == "failed"
    note = airflow.api("GET", f"/dags/mirror.fleet.wrong/dagRuns/{run}")["note"]
    assert "mirrors.yaml:8: there is no key 'shedule': did you mean 'schedule'" in str(note)
