"""A sync in a real Airflow, and what happens to one whose processes die."""

from __future__ import annotations

import subprocess

import pytest

from local_airflow.errors import ApiError
from support.airflow_instance import AirflowInstance
from support.registry import RegistryServer


def test_a_sync_gives_the_documented_version(airflow: AirflowInstance, upstream: RegistryServer) -> None:
    run = airflow.sync(repository="documented", url=upstream.url, upstream_name="library/hello-world")
    version = airflow.xcom(run, "commit_version")["version"]
    counts = {
        part: {kind: entry["count"] for kind, entry in content.items()}
        for part, content in version["content_summary"].items()
    }
    everything = {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    assert version["number"] == 1
    assert version["base_version"] is None
    assert counts == {"added": everything, "present": everything, "removed": {}}


def test_a_second_sync_of_the_same_ends_after_its_first_task(
    airflow: AirflowInstance, upstream: RegistryServer
) -> None:
    conf = {"repository": "twice", "url": upstream.url, "upstream_name": "library/hello-world"}
    airflow.sync(**conf)
    run = airflow.sync(**conf)
    assert airflow.task_states(run) == {
        "list_tags": "success",
        "fetch_manifests": "skipped",
        "plan_blobs": "skipped",
        "fetch_blobs": "skipped",
        "commit_version": "skipped",
    }
    assert airflow.xcom(run, "list_tags", key="summary")["unchanged_version"]["number"] == 1


def test_a_missing_upstream_fails_at_once_and_its_log_says_why(
    airflow: AirflowInstance, upstream: RegistryServer
) -> None:
    run = airflow.trigger(conf={"repository": "absent", "url": upstream.url, "upstream_name": "library/absent"})
    assert airflow.wait(run) == "failed"
    assert "NotFound" in airflow.reasons(run)["list_tags"]
    assert "has no repository library/absent" in airflow.task_log(run, "list_tags")


def test_parameters_that_do_not_fit_are_refused(airflow: AirflowInstance) -> None:
    with pytest.raises(ApiError, match="mode") as refused:
        airflow.trigger(conf={"repository": "refused", "mode": "sideways"})
    assert refused.value.status == 400


def test_a_killed_task_is_tried_again(airflow: AirflowInstance) -> None:
    run = airflow.trigger("slow")
    airflow.kill_task(run, "once_slow", 0)
    assert airflow.wait(run) == "success"
    assert airflow.xcom(run, "once_slow", map_index=0) == 7
    task = airflow.task(run, "once_slow", 0)
    assert task is not None
    assert task.try_number == 2


def test_a_command_with_its_environment_speaks_of_the_instance(airflow: AirflowInstance) -> None:
    env = airflow.environment
    program = str(airflow.layout.program)
    told = subprocess.run([program, "dags", "list", "-o", "plain"], env=env, check=True, capture_output=True, text=True)
    assert "slow" in told.stdout
    assert env["GREETING"] == "hello"
