"""The REST API as one FastAPI app, to be mounted under :data:`MOUNT` of Airflow's API server.

``/docs/``: the OpenAPI document for programs, and as a self-contained page for people.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from html import escape
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from registry_sync import __version__
from registry_sync.api import problems
from registry_sync.api.access import SIGNED_IN
from registry_sync.api.basic_logins import AIRFLOW_APP, BasicLogins, logins_by
from registry_sync.api.container_actions import router as container_actions
from registry_sync.api.container_requests import CONTAINER_REQUESTS
from registry_sync.api.content_routes import artifacts_router as artifacts
from registry_sync.api.content_routes import router as content
from registry_sync.api.dependencies import OpenedDatabase, Router
from registry_sync.api.description import completed, in_pulps_form, operation_id
from registry_sync.api.distribution_routes import router as distributions
from registry_sync.api.documentation_pages import router as documentation
from registry_sync.api.form_routes import PathForms, container_router
from registry_sync.api.generic_routes import router as generic
from registry_sync.api.guard import Guard
from registry_sync.api.label_routes import router as labels
from registry_sync.api.list_filters import refuse_repeated
from registry_sync.api.maintenance_routes import router as maintenance
from registry_sync.api.mirror_routes import router as mirrors
from registry_sync.api.page_paths import is_page
from registry_sync.api.pages.problem_pages import with_problem_pages
from registry_sync.api.pages.routes import router as pages
from registry_sync.api.remote_routes import router as remotes
from registry_sync.api.repository_routes import router as repositories
from registry_sync.api.status_routes import router as status
from registry_sync.api.status_routes import workers_router as workers
from registry_sync.api.sync_routes import router as syncs
from registry_sync.api.task_routes import router as tasks
from registry_sync.api.task_routes import started_router as started_syncs
from registry_sync.api.version_routes import copies_router as copies
from registry_sync.api.version_routes import router as versions
from registry_sync.api.webhook_routes import router as webhooks
from registry_sync.pulp.container_documents import CONTAINER_DOCUMENTS
from registry_sync.pulp.hrefs import API_PREFIX

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
:root[data-theme="light"] { color-scheme: light } :root[data-theme="dark"] { color-scheme: dark }
summary { cursor: pointer; padding: .3rem 0 } summary code { font-weight: 600 }
details { border-bottom: 1px solid #8884 } details > :not(summary) { margin-left: 1.5rem }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 }
pre { overflow-x: auto; background: #8881; padding: .7rem } .method { display: inline-block; width: 4.5rem }
"""


def render(document: Mapping[str, Any]) -> str:
    """The HTML page for an OpenAPI 3.1 document."""
    server = document["servers"][0]["url"].rstrip("/")
    info = document["info"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(info['title'])} REST API</title><style>{_STYLE}</style>",
        f"<script src='{escape(server)}/pages/static/pages.js' defer></script></head><body>",
        f"<h1>{escape(info['title'])} REST API {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        f"<p>For programs: <a href='{escape(server)}/api/v3/docs/api.json'>the OpenAPI document</a>.</p>",
    ]
    for tag, operations in _by_tag(document).items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        parts += [_operation(server, *operation) for operation in operations]
    parts.append("<h2>documents</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        shown = json.dumps(schema, indent=2)
        parts.append(
            f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
            f"<pre>{escape(shown)}</pre></details>"
        )
    return "\n".join([*parts, "</body></html>"])


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    return by_tag


def _operation(server: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    shown = escape(server + path)
    if method == "get" and "{" not in path:
        shown = f"<a href='{shown}'>{shown}</a>"
    lines = [
        f"<details><summary><code class='method'>{method.upper()}</code> <code>{shown}</code>",
        f"{escape(operation.get('summary', ''))}</summary>",
        f"<p>{escape(operation.get('description', ''))}</p>",
    ]
    rows = list(_parameter_rows(operation))
    if rows:
        lines.append(f"<table><tr><th>parameter</th><th>in</th><th></th></tr>{''.join(rows)}</table>")
    if "requestBody" in operation:
        lines.append(f"<p>Body: {_schema_link(operation['requestBody'])}</p>")
    responses = (
        f"<tr><td>{escape(status)}</td><td>{escape(response['description'])}</td><td>{_schema_link(response)}</td></tr>"
        for status, response in operation["responses"].items()
    )
    lines.append(f"<table><tr><th>response</th><th></th><th></th></tr>{''.join(responses)}</table></details>")
    return "".join(lines)


def _parameter_rows(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        text = parameter.get("description", "")
        name, where = escape(parameter["name"]), escape(parameter["in"])
        yield f"<tr><td><code>{name}</code></td><td>{where}</td><td>{escape(text)}</td></tr>"


def _schema_link(holder: Mapping[str, Any]) -> str:
    """A link to the document of a body or a response; empty without one."""
    for media in holder.get("content", {}).values():
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            return f"<a href='#{escape(name)}'><code>{escape(name)}</code></a>"
    return ""


pages_router = Router(prefix="/docs", tags=["docs"])
#: The page loads and runs nothing but the script of all pages, which gives it the theme of Airflow around it.
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'"}


class DescriptionQuery(BaseModel):
    """The form of the document."""

    model_config = ConfigDict(extra="forbid")

    pk_path: Annotated[
        Literal["1", "true"] | None, Field(description="Whether paths have the ids of objects, not their whole paths")
    ] = None


@pages_router.get("/api.json")
def read_openapi(request: Request, query: Annotated[DescriptionQuery, Query()]) -> dict[str, Any]:
    """The API as an OpenAPI document, for everybody: with paths as Pulp's clients read them, or by ids."""
    document = _document(request)
    if query.pk_path is not None:
        return document
    below = (request.scope.get("root_path") or "").removesuffix(MOUNT)
    return {**in_pulps_form(document), "servers": [{"url": below or "/"}]}


@pages_router.get("/", dependencies=SIGNED_IN, response_class=HTMLResponse)
def read_page(request: Request) -> HTMLResponse:
    """The API as a page."""
    return HTMLResponse(render(_document(request)), headers=_PAGE_HEADERS)


def _document(request: Request) -> dict[str, Any]:
    """The OpenAPI document with the server that paths are relative to: where the app is mounted."""
    return {**request.app.openapi(), "servers": [{"url": request.scope.get("root_path") or "/"}]}


#: The path at which Airflow mounts the app.
MOUNT = "/pulp"
ROUTERS = (
    repositories,
    remotes,
    distributions,
    started_syncs,
    copies,
    container_actions,
    generic,
    maintenance,
    labels,
    tasks,
    syncs,
    mirrors,
    versions,
    content,
    artifacts,
    status,
    workers,
    webhooks,
    pages_router,
)
DESCRIPTION = (
    "Container repositories, mirrored as versioned content: create a repository, create a remote, sync, wait for the "
    "task, read the version. Authenticate as in Airflow: with a bearer token, the cookie of a session, or HTTP Basic."
)


class RestApi(FastAPI):
    """The app. Its document matches its responses."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI calls it; it is noted which app it came from."""
        if scope["type"] == "http" and is_page(scope):
            send = with_problem_pages(scope, send)
        await super().__call__({**scope, AIRFLOW_APP: scope.get("app")}, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document with paths by ids, created once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            self.openapi_schema = completed(document)
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
        generate_unique_id_function=operation_id,
    )
    app.state.parts = OpenedDatabase()
    app.add_middleware(PathForms)
    logins = BasicLogins(logins_by(app.state.parts.database))
    app.add_middleware(Guard, cookie_name=COOKIE_NAME_JWT_TOKEN, own_origins=own_origins, logins=logins)
    for router in (*ROUTERS, container_router(ROUTERS, {**CONTAINER_DOCUMENTS, **CONTAINER_REQUESTS})):
        app.include_router(
            router,
            prefix=API_PREFIX.removeprefix(MOUNT),
            responses=problems.PROBLEM_RESPONSES,
            dependencies=[Depends(refuse_repeated)],
        )
    app.include_router(documentation)
    app.include_router(pages)
    problems.install(app)
    return app


def own_origins() -> frozenset[str]:
    """The origins whose pages may send requests: Airflow's own, and those that its setting allows."""
    from airflow.configuration import conf

    allowed = conf.get("api", "access_control_allow_origins", fallback="").split()
    base = urlsplit(conf.get("api", "base_url", fallback=""))
    return frozenset([*allowed, f"{base.scheme}://{base.netloc}"] if base.netloc else allowed)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Sets the auth manager, which Airflow's dependencies look up in the app of a route, which is this one."""
    from airflow.api_fastapi.app import get_auth_manager

    app.state.auth_manager = get_auth_manager()
    try:
        yield
    finally:
        app.state.parts.close()
