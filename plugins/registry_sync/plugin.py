"""The Airflow plugin. Loaded in every task of a deployment, so nothing heavy is imported and nothing is opened here."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RegistrySyncPlugin(AirflowPlugin):
    """Registers registry-sync with Airflow."""

    name = "registry_sync"
    #: The pages of registry-sync in Airflow's menu; addresses are relative to Airflow's own.
    external_views = [  # noqa: RUF012  as Airflow declares it
        {
            "name": "Registry",
            "href": "pulp/pages/repositories/",
            "destination": "nav",
            "url_route": "registry-sync",
            "nav_top_level": True,
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow reads it of an instance
        """The apps that the API server mounts. Read by the API server only, so that only it imports FastAPI."""
        from registry_sync.api.app import MOUNT, create_app
        from registry_sync.listener import follow_questions

        follow_questions()
        apps: list[dict[str, Any]] = [{"app": create_app(), "url_prefix": MOUNT, "name": "registry-sync REST API"}]
        if _pulls_here():
            from registry_sync.serve import mounted

            app = mounted.MountedPullApp()
            apps.append({"app": app, "url_prefix": mounted.MOUNT, "name": "registry-sync pull API"})
        return apps

    @cached_property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]  # as above
        """The middleware of the whole API server: it puts the repository into the ids of runs."""
        from registry_sync.api.named_runs import NamedRuns

        return [{"middleware": NamedRuns, "name": "registry-sync ids of runs"}]

    @cached_property
    def timetables(self) -> list[Any]:  # type: ignore[override]  # as above
        """The timetables of DAGs that sync one repository. Read where Airflow stores DAGs."""
        from registry_sync.operators.repository_timetables import REPOSITORY_TIMETABLES

        return list(REPOSITORY_TIMETABLES)

    @cached_property
    def listeners(self) -> list[Any]:  # type: ignore[override]  # as above
        """The listeners for the end of DAG runs."""
        from registry_sync.listener import RunNotes

        return [RunNotes()]


def _pulls_here() -> bool:
    """Whether the pull API is served here, too. A setting that cannot be read leaves it out, not the rest as well."""
    from registry_sync.errors import ConfigurationError
    from registry_sync.hooks.settings import serves_pulls_in_api_server

    try:
        return serves_pulls_in_api_server()
    except ConfigurationError:
        logging.getLogger(__name__).exception("the pull API is not served in the API server")
        return False
