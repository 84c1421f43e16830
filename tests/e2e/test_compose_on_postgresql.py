"""The set-up and the databases of ``docker-compose.yaml``, with everything that needs no container."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
import yaml

from local_airflow import migration
from local_airflow.layout import CHECKOUT
from support.airflow_instance import AirflowInstance
from support.postgres import Postgres, running_postgres
from support.registry import RegistryServer

SERVICES = yaml.safe_load((CHECKOUT / "docker-compose.yaml").read_text())["services"]
#: What the settings of the containers hold that is true only there: addresses, ports, paths and secrets.
OF_THE_CONTAINERS = {
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    "AIRFLOW__REGISTRY_SYNC__BLOB_STORE",
    "AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def composed(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowInstance]:
    """An Airflow with the settings of the compose file, its database of Airflow migrated at the start."""
    folder = tmp_path_factory.mktemp("composed")
    airflow, ours = (
        postgres.make_database(name).replace("postgresql://", "postgresql+psycopg://")
        for name in ("airflow", "registry_sync")
    )
    settings: dict[str, dict[str, str]] = {
        "database": {"sql_alchemy_conn": airflow, "sql_alchemy_conn_async": airflow},
        "registry_sync": {"sql_alchemy_conn": ours, "blob_store": (folder / "blobs").as_uri()},
    }
    for name, value in SERVICES["scheduler"]["environment"].items():
        if name not in OF_THE_CONTAINERS:
            _, section, option = name.lower().split("__")
            settings.setdefault(section, {})[option] = value
    with AirflowInstance(folder, settings=settings) as instance:
        yield instance


def _set_up_commands() -> list[list[str]]:
    return [shlex.split(command) for command in SERVICES["init"]["command"][0].split(" && ")]


def test_the_set_up_can_be_repeated(composed: AirflowInstance) -> None:
    migrate, upgrade = _set_up_commands()
    assert migrate == ["airflow", *migration.COMMAND]  # which the start of the instance has run
    for command in (upgrade, upgrade):
        program = composed.layout.python.parent / command[0]
        subprocess.run([str(program), *command[1:]], env=composed.environment, check=True, capture_output=True)


def test_a_sync_is_kept_in_the_database_of_registry_sync(
    composed: AirflowInstance, postgres: Postgres, upstream: RegistryServer
) -> None:
    run = composed.sync(repository="composed", url=upstream.url, upstream_name="library/hello-world")
    assert composed.xcom(run, "commit_version")["version"]["number"] == 1
    assert not list(composed.home.glob("**/*.db"))
    socket = f"host={postgres.socket_folder} user=tests"
    with psycopg.connect(f"{socket} dbname=airflow") as connection:
        assert connection.execute("SELECT state FROM dag_run").fetchall() == [("success",)]


@pytest.mark.parametrize("part", ["dag-processor", "triggerer"])
def test_the_health_check_of_a_part_passes_while_it_runs(composed: AirflowInstance, part: str) -> None:
    _, *check = SERVICES[part]["healthcheck"]["test"]
    program = composed.layout.python.parent / check[0]
    subprocess.run([str(program), *check[1:]], env=composed.environment, check=True, capture_output=True)
