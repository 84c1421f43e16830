"""The set-up and the databases of ``docker-compose.yaml``, with everything that needs no container."""

from __future__ import annotations

import psycopg
import pytest

from local_airflow import migration
from support.composed import SERVICES, Composed, run, set_up_commands
from support.registry import RegistryServer


def test_the_set_up_can_be_repeated(composed: Composed) -> None:
    migrate, upgrade = set_up_commands()
    assert migrate == ["airflow", *migration.COMMAND]  # which the start of the instance has run, as it has the other
    run(composed.airflow, upgrade)


def test_a_sync_is_kept_in_the_database_of_registry_sync(composed: Composed, upstream: RegistryServer) -> None:
    airflow = composed.airflow
    run = airflow.sync(repository="composed", url=upstream.url, upstream_name="library/hello-world")
    assert airflow.xcom(run, "commit_version")["version"]["number"] == 1
    assert not list(airflow.home.glob("**/*.db"))
    socket = f"host={composed.postgres.socket_folder} user=tests"
    with psycopg.connect(f"{socket} dbname=airflow") as connection:
        assert connection.execute("SELECT state FROM dag_run WHERE run_id = %s", [run]).fetchall() == [("success",)]


@pytest.mark.parametrize("part", ["dag-processor", "triggerer"])
def test_the_health_check_of_a_part_passes_while_it_runs(composed: Composed, part: str) -> None:
    _, *check = SERVICES[part]["healthcheck"]["test"]
    run(composed.airflow, check)
