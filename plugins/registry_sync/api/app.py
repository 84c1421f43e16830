"""The REST API as one FastAPI app, to be mounted under :data:`MOUNT` of Airflow's API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from registry_sync import __version__
from registry_sync.api import problems
from registry_sync.api.access import Guard
from registry_sync.api.content.routes import router as content
from registry_sync.api.dependencies import OpenedDatabase
from registry_sync.api.manual.routes import router as manual
from registry_sync.api.remotes.routes import router as remotes
from registry_sync.api.repositories.routes import router as repositories
from registry_sync.api.status.routes import router as status
from registry_sync.api.syncs.routes import router as syncs
from registry_sync.api.tasks.routes import router as tasks
from registry_sync.api.versions.routes import copies_router as copies
from registry_sync.api.versions.routes import router as versions
from registry_sync.pulp.hrefs import API_PREFIX

#: Where Airflow mounts the app; what comes after it in paths is the app's own.
MOUNT = "/pulp"
ROUTERS = (repositories, remotes, syncs, copies, tasks, versions, content, status, manual)
DESCRIPTION = (
    "Container repositories, mirrored as versioned content: create a repository, create a remote, sync, wait for the "
    "task, read the version. Sign in as to Airflow: with a bearer token, or the cookie of a session."
)


class RestApi(FastAPI):
    """The app; what it documents is what it answers: bad input is 400 here, never FastAPI's own 422."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            self.openapi_schema = document
        return self.openapi_schema


def create_app() -> FastAPI:
    """The app. Nothing is opened before the first request."""
    from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN

    app = RestApi(
        title="registry-sync",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = OpenedDatabase()
    app.add_middleware(Guard, cookie_name=COOKIE_NAME_JWT_TOKEN, own_origins=own_origins)
    for router in ROUTERS:
        app.include_router(router, prefix=API_PREFIX.removeprefix(MOUNT), responses=problems.PROBLEM_RESPONSES)
    problems.install(app)
    return app


def own_origins() -> frozenset[str]:
    """Origins whose pages may ask: Airflow's own, and those that its setting for foreign pages allows."""
    from airflow.configuration import conf

    allowed = conf.get("api", "access_control_allow_origins", fallback="").split()
    base = urlsplit(conf.get("api", "base_url", fallback=""))
    return frozenset([*allowed, f"{base.scheme}://{base.netloc}"] if base.netloc else allowed)


def _operation_id(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Airflow's own dependencies look for the auth manager on the app that a route belongs to, which is this one."""
    from airflow.api_fastapi.app import get_auth_manager

    app.state.auth_manager = get_auth_manager()
    try:
        yield
    finally:
        app.state.parts.close()
