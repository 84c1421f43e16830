"""What tests can do with a real Airflow: kill a task of it, and give commands to it; how its scheduler names runs."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import requests

from support.airflow_instance import AirflowInstance


def test_a_killed_task_is_tried_again(airflow: AirflowInstance) -> None:
    run = airflow.trigger("slow")
    airflow.kill_task(run, "once_slow", 0)
    assert airflow.wait(run) == "success"
    assert airflow.xcom(run, "once_slow", map_index=0) == 7
    task = airflow.task(run, "once_slow", 0)
    assert task is not None
    assert task.try_number == 2


def test_runs_by_schedule_and_by_a_command_with_its_environment_have_the_repository_in_their_ids(
    airflow: AirflowInstance,
) -> None:
    airflow.await_dag("scheduled")
    (run,) = airflow.await_runs("scheduled")
    assert run["run_type"] == "scheduled"
    assert run["dag_run_id"] == f"scheduled__team-scheduled__{run['run_after'].replace('Z', '+00:00')}"
    assert airflow.wait(run["dag_run_id"]) == "success"
    dag = airflow.api("GET", "/dags/scheduled")
    assert (dag["timetable_summary"], dag["timetable_description"]) == ("30 days, 0:00:00", "")
    program, env = str(airflow.layout.program), airflow.environment
    assert env["GREETING"] == "hello"
    subprocess.run([program, "dags", "trigger", "scheduled"], env=env, check=True, capture_output=True)
    _, triggered = airflow.await_runs("scheduled", 2)
    assert triggered["dag_run_id"].startswith("sync__team-scheduled__20")


def test_tasks_are_served_the_newest_version_of_their_api_and_few_before(airflow: AirflowInstance) -> None:
    found = find_spec("airflow.api_fastapi.execution_api")
    assert found is not None
    assert found.origin is not None
    newest, *_, oldest = sorted(
        (path.stem.removeprefix("v").replace("_", "-") for path in Path(found.origin).parent.glob("versions/v20*.py")),
        reverse=True,
    )
    served = {
        version: requests.get(
            f"{airflow.url}/execution/health", headers={"Airflow-API-Version": version}, timeout=60
        ).status_code
        for version in (newest, oldest)
    }
    assert served == {newest: 200, oldest: 404}
