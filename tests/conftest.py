"""What all tests rely on: no test reads or writes the Airflow of the person who runs it."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from support.airflow_instance import AirflowInstance
    from support.dag_runs import InProcessSync
    from support.registry import RegistryServer

CHECKOUT = Path(__file__).parents[1]
# Airflow fixes its home when it is first imported, so this stands before every import of it.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="registry-sync-tests-"))
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CHECKOUT / ".local/cache/hypothesis"))
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Airflow reads the key once in a process: whoever is the first, it is there, and the same for all.
    "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
}
# What tests start need not compile this project each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@event.listens_for(Engine, "connect")
def _leave_writing_to_the_system(connection: Any, _record: object) -> None:
    """Nobody's SQLite waits for the disk: what is written outlives its process all the same, kill or no kill."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

#: The suites in the order in which they are run: what says most in the shortest time first.
SUITES = ("architecture", "unit", "docs", "contract", "integration", "e2e")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the suites; within one the order stays."""
    items.sort(key=lambda item: SUITES.index(item.path.relative_to(CHECKOUT / "tests").parts[0]))


def pytest_unconfigure() -> None:
    """Removes the home that the tests shared."""
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a migrated database of Airflow, for instances to start with."""
    from support.airflow_instance import make_database

    return make_database(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def _home_with_database(airflow_database: Path) -> Path:
    """The shared home with tables, also where a test looked for a connection before and left an empty database open."""
    from airflow import settings

    settings.dispose_orm(do_log=False)
    for left in AIRFLOW_HOME.glob("airflow.db*"):
        left.unlink()
    shutil.copy(airflow_database / "airflow.db", AIRFLOW_HOME / "airflow.db")
    settings.configure_orm()
    return AIRFLOW_HOME


@pytest.fixture
def sync_in_process(_home_with_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessSync:
    """Runs DAGs in the process of the test, on an empty database and blob store of registry-sync."""
    from support.dag_runs import InProcessSync

    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path / 'registry_sync.db'}")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "True")  # as `make up` has it
    return InProcessSync()


#: The name under which the shared upstream holds the documented example.
UPSTREAM_NAME = "library/hello-world"


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with ``library/hello-world``: 8 tags, 21 manifests, 31 blobs. Tests read it and change nothing."""
    from support.filling import push
    from support.registry import RegistryServer
    from support.shapes import documented_example

    with RegistryServer(tmp_path_factory.mktemp("upstream")) as server:
        push(server, UPSTREAM_NAME, documented_example())
        yield server


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[AirflowInstance]:
    """A running Airflow with this checkout's DAGs; tests tell themselves apart by the repositories they sync into."""
    from support.airflow_instance import AirflowInstance

    settings = {"registry_sync": {"min_shard_mib": "192"}}
    folder = tmp_path_factory.mktemp("airflow")
    with AirflowInstance(folder, database=airflow_database, settings=settings) as instance:
        yield instance
