"""The set-up and the databases of ``docker-compose.yaml``, with everything that needs no container."""

from __future__ import annotations

import subprocess
import time

import psycopg

from local_airflow import migration
from local_airflow.ports import free_port
from local_airflow.pull_server import PullServer
from support.composed import SERVICES, Composed, run, set_up_commands
from support.registry import RegistryServer


def test_the_set_up_can_be_repeated_and_the_health_checks_pass_while_the_parts_run(composed: Composed) -> None:
    migrate, upgrade = set_up_commands()
    assert migrate == ["airflow", *migration.COMMAND]  # which the start of the instance has run, as it has the other
    checks = [SERVICES[part]["healthcheck"]["test"][1:] for part in ("dag-processor", "triggerer")]
    run(composed.airflow, upgrade, *checks)


def test_a_sync_is_kept_in_the_database_of_registry_sync(composed: Composed, upstream: RegistryServer) -> None:
    airflow = composed.airflow
    run = airflow.sync(repository="composed", url=upstream.url, upstream_name="library/hello-world")
    assert airflow.xcom(run, "commit_version")["version"]["number"] == 1
    assert not list(airflow.home.glob("**/*.db"))
    socket = f"host={composed.postgres.socket_folder} user=tests"
    with psycopg.connect(f"{socket} dbname=airflow") as connection:
        assert connection.execute("SELECT state FROM dag_run WHERE run_id = %s", [run]).fetchall() == [("success",)]


def test_the_pull_server_starts_beside_and_its_health_check_passes(composed: Composed) -> None:
    airflow, port = composed.airflow, str(free_port())
    service = SERVICES["pull-server"]
    command = [part.replace("5050", port).replace("0.0.0.0", "127.0.0.1") for part in service["command"]]
    _, *check = service["healthcheck"]["test"]
    program = str(airflow.layout.program)
    with subprocess.Popen([program, *command], env=airflow.environment, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while not PullServer(int(port)).is_ready():
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            run(airflow, [part.replace("5050", port) for part in check])
        finally:
            server.terminate()
