"""A real Airflow and a real registry, shared by the end-to-end tests where they can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.airflow_instance import AirflowInstance
from support.filling import push
from support.registry import RegistryServer
from support.shapes import documented_example

E2E = Path(__file__).parent
#: The name under which the shared upstream holds the documented example.
UPSTREAM_NAME = "library/hello-world"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what stands in this folder."""
    for item in items:
        if item.path.is_relative_to(E2E):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with ``library/hello-world``: 8 tags, 21 manifests, 31 blobs. Tests read it and change nothing."""
    with RegistryServer(tmp_path_factory.mktemp("upstream")) as server:
        push(server, UPSTREAM_NAME, documented_example())
        yield server


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[AirflowInstance]:
    """A running Airflow with this checkout's DAGs; tests tell themselves apart by the repositories they sync into."""
    with AirflowInstance(tmp_path_factory.mktemp("airflow"), database=airflow_database) as instance:
        yield instance
