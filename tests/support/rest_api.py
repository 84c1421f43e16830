"""The REST API as people reach it: mounted in Airflow's own app, with its middleware, users and tokens, over HTTP.

The server runs in a thread of the test's process, so that a test can look at the database it works on.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import requests

from registry_sync.db.database import Database

if TYPE_CHECKING:
    from fastapi import FastAPI

ROLES = ("viewer", "user", "op", "admin")
API = "/pulp/api/v3"
DAG_ID = "registry_sync"
START_SECONDS = 60


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document of our API, which takes a second to make and which nobody changes."""
    return application().openapi()


@cache
def application() -> FastAPI:
    """Our API as an app on its own, made once for all who look at its routes; nobody changes it or starts it."""
    from registry_sync.api.app import create_app

    return create_app()


@dataclass
class RestClient:
    """Requests of one user; ``token`` None for no authentication."""

    url: str
    token: str | None = None
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    def ask(
        self, method: str, path: str, json: Any = None, *, headers: Mapping[str, str | None] | None = None, **more: Any
    ) -> requests.Response:
        """The response to a request for an href; a path without the API's prefix gets it."""
        full = path if path.startswith("/") else f"{API}/{path}"
        sent: dict[str, str | None] = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        sent |= headers or {}
        return self.session.request(
            method, self.url + full, json=json, headers=sent, timeout=90, allow_redirects=False, **more
        )

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        """The document at a path."""
        return self._document(self.ask("GET", path, params=query), status)

    def post(self, path: str, status: int = 201, **document: Any) -> Any:
        """The response to a document."""
        return self._document(self.ask("POST", path, document), status)

    def patch(self, path: str, status: int = 200, **document: Any) -> Any:
        """The response to a change."""
        return self._document(self.ask("PATCH", path, document), status)

    def put(self, path: str, status: int = 200, **document: Any) -> Any:
        """The response to a replacement."""
        return self._document(self.ask("PUT", path, document), status)

    def delete(self, path: str, status: int = 204) -> None:
        """Removes what is at a path."""
        self._document(self.ask("DELETE", path), status)

    @staticmethod
    def _document(response: requests.Response, status: int) -> Any:
        assert response.status_code == status, (
            f"{response.request.method} {response.url}: {response.status_code} {response.text}"
        )
        return response.json() if response.content else None


@dataclass(frozen=True)
class ApiServer:
    """A running API server. ``database`` is the metadata database that it works on."""

    url: str
    tokens: dict[str, str]
    database: Database

    def client(self, role: str | None = "admin") -> RestClient:
        """A client of the user with that role; None for no authentication."""
        return RestClient(self.url, None if role is None else self.tokens[role])


def hrefs_in(document: Any) -> list[str]:
    """Every path of the API in a response."""
    if isinstance(document, dict):
        return [href for value in document.values() for href in hrefs_in(value)]
    if isinstance(document, list):
        return [href for value in document for href in hrefs_in(value)]
    return [document] if isinstance(document, str) and document.startswith(f"{API}/") else []


def one_of_each_route(hrefs: Collection[str]) -> list[str]:
    """One of those whose paths differ by ids and by what they ask for alone."""
    by_route = {re.sub(r"(?<=/)([0-9a-f-]{36}|[0-9]+)(?=/)", "*", href.partition("?")[0]): href for href in hrefs}
    assert 10 < len(by_route) < len(hrefs)
    return list(by_route.values())


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serves an ASGI app on a free port of loopback; gives its URL."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
