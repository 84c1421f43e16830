"""An Airflow as ``docker-compose.yaml`` sets it up, with everything that needs no container, on PostgreSQL.

It has the example DAGs of the documentation. Users are those of the FAB auth manager, for the tests of rights: what the
compose file says of its one user is what ``make up`` says, with which the ``airflow`` of the session is tested. And its
API server serves pulls, too, beside the pull server.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from local_airflow.layout import CHECKOUT
from support import fab
from support.airflow_instance import AirflowInstance
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.postgres import Postgres, running_postgres
from support.registry import RegistryServer
from support.shapes import documented_example

EXAMPLES = CHECKOUT / "docs" / "examples"
#: What Airflow finds among the examples that is no DAG.
LOCAL_SETTINGS = "airflow_local_settings.py"
DOCKER_HUB = "https://registry-1.docker.io"
CRON_SCHEDULE = re.compile(r'schedule="[^"]+"')
SERVICES = yaml.safe_load((CHECKOUT / "docker-compose.yaml").read_text())["services"]
#: What the settings of the containers hold that is true only there: addresses, ports, paths and secrets; and what has
#: people wait less for an Airflow that is idle, as it is in tests most of the time.
#: Blobs of a small repository are for several tasks, its manifests for one.
SHARD_MIB = "7"
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
    "AIRFLOW__REGISTRY_SYNC__PULL_LOGIN_URL",
    "AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME",
}

#: The auth manager of an Airflow that is told of none, as the compose file tells of none.
AIRFLOWS_OWN = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
#: What the program ``airflow`` does, for several commands.
IN_ONE_PROCESS = """
import shlex, sys
from airflow.__main__ import main
for command in sys.argv[1:]:
    sys.argv = shlex.split(command)
    main()
"""
#: The programs that examples run on images and clusters, which the machine of the tests does not have.
PROGRAMS = ("trivy", "podman", "kubectl")


@dataclass(frozen=True)
class Composed:
    """What runs: the Airflow, whose own database is ``airflow`` of the server.

    ``called`` has a line for each call of one of :data:`PROGRAMS`, which stand in for the real ones.
    """

    airflow: AirflowInstance
    postgres: Postgres
    called: Path

    @property
    def database(self) -> str:
        """The address of registry-sync's own database, as its settings have it."""
        return self.airflow.instance.settings(port=0)["registry_sync"]["sql_alchemy_conn"]


def releases() -> RepositoryContent:
    """Five tags, of which the examples' filters select three."""
    build = ContentBuilder(seed=11)
    for name in ("3.20", "3.21", "3.22_rc1", "edge", "latest"):
        build.tag(name, build.image([build.blob(500)]))
    return build.content()


@contextmanager
def composed_airflow(folder: Path) -> Iterator[Composed]:
    """It runs for the time of the block; its database of Airflow is migrated at the start.

    A registry of its own stands for Docker Hub in the examples, which run when they are triggered or an asset is
    updated. Shards are small, so that little makes several.
    """
    with RegistryServer(folder / "registry") as registry, running_postgres() as server:
        push(registry, "library/alpine", releases())
        push(registry, "library/hello-world", documented_example())
        dags = folder / "dags"
        dags.mkdir()
        shutil.copy(CHECKOUT / "dags" / "registry_sync.py", dags)
        for example in EXAMPLES.glob("*.py"):
            if example.name != LOCAL_SETTINGS:
                code = example.read_text(encoding="utf-8").replace(DOCKER_HUB, registry.url)
                # Airflow starts a run at once for the last date of a schedule: it may leave the triggered one nothing.
                code = CRON_SCHEDULE.sub("schedule=None", code)
                (dags / example.name).write_text(code, encoding="utf-8")
        env = {"PATH": f"{stand_ins(folder)}{os.pathsep}{os.environ['PATH']}"}
        settings = _settings(server, folder / "blobs")
        instance = AirflowInstance(folder / "airflow", dags=dags, settings=settings, env=env)
        config = instance.home / "config"
        config.mkdir(parents=True)
        shutil.copy(EXAMPLES / LOCAL_SETTINGS, config)
        fab.choose_password(instance.layout)
        with instance:  # which has run the first of the commands that set up, the migration of Airflow's database
            run(instance, *set_up_commands()[1:])
            fab.add_users(f"host={server.socket_folder} user=tests dbname=airflow")
            yield Composed(instance, server, folder / "called")


def stand_ins(folder: Path) -> Path:
    """A folder with programs that succeed, and note how they were called in ``folder / "called"``."""
    programs = folder / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {shlex.quote(str(folder / "called"))}\n')
        program.chmod(0o755)
    return programs


def set_up_commands() -> list[list[str]]:
    """What the compose file runs before the parts of Airflow start."""
    return [shlex.split(command) for command in SERVICES["init"]["command"][0].split(" && ")]


def run(airflow: AirflowInstance, *commands: list[str]) -> None:
    """Runs commands of the compose file as its services would; those of Airflow in one process, which loads it once.

    The compose file names no auth manager: its commands have no part of FAB to load.
    """
    environment = {**airflow.environment, "AIRFLOW__CORE__AUTH_MANAGER": AIRFLOWS_OWN}
    python = str(airflow.layout.python)
    if all(command[0] == "airflow" for command in commands):
        together = [python, "-c", IN_ONE_PROCESS, *(shlex.join(command) for command in commands)]
        subprocess.run(together, env=environment, check=True, capture_output=True)
        return
    for program, *arguments in commands:
        at = str(airflow.layout.python.parent / program)
        subprocess.run([at, *arguments], env=environment, check=True, capture_output=True)


def _settings(server: Postgres, blobs: Path) -> dict[str, dict[str, str]]:
    airflow, ours = (
        server.make_database(name).replace("postgresql://", "postgresql+psycopg://")
        for name in ("airflow", "registry_sync")
    )
    settings: dict[str, dict[str, str]] = {
        "database": {"sql_alchemy_conn": airflow, "sql_alchemy_conn_async": airflow},
        "registry_sync": {
            "sql_alchemy_conn": ours,
            "blob_store": blobs.as_uri(),
            "min_shard_mib": SHARD_MIB,
            "pull_in_api_server": "True",
            "trust_triggers": "False",  # as it is without a setting; here people have roles
        },
        "core": {**fab.SETTINGS["core"]},
        "fab": fab.SETTINGS["fab"],
    }
    for name, value in SERVICES["scheduler"]["environment"].items():
        if name not in OF_THE_CONTAINERS:
            _, section, option = name.lower().split("__")
            settings.setdefault(section, {})[option] = value
    return settings
