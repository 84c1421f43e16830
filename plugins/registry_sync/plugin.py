"""The Airflow plugin. Loaded in every task of a deployment, so nothing heavy is imported and nothing is opened here."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RegistrySyncPlugin(AirflowPlugin):
    """Registers registry-sync with Airflow."""

    name = "registry_sync"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow reads it of an instance
        """The apps that the API server mounts. Read by the API server only, so that only it imports FastAPI."""
        from registry_sync.api.app import MOUNT, create_app

        return [{"app": create_app(), "url_prefix": MOUNT, "name": "registry-sync REST API"}]

    @cached_property
    def listeners(self) -> list[Any]:  # type: ignore[override]  # as above
        """The listeners for the end of DAG runs."""
        from registry_sync.listener import RunNotes

        return [RunNotes()]
