"""Middleware of Airflow's API server: a run of the sync DAG that is requested without an id gets its repository in one.

Airflow makes such an id of the time alone, and its list of runs shows the id and nothing else that says what a run is
about. Requests are those of the trigger form, and of any other client of ``POST /api/v2/dags/<the sync DAG>/dagRuns``.
Whatever is not clearly one of them, and whatever Airflow is going to refuse, passes as it came.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import MAX_NAME_LENGTH
from registry_sync.domain.runs import run_id_about
from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.dag_runs import conf_repository, permits_run_id
from registry_sync.hooks.settings import load_settings

#: The form sends less than 10 KB. A larger body passes without being read.
MAX_BODY_BYTES = 256 * 1024
_RUNS = re.compile(r"/api/v2/dags/([^/]+)/dagRuns")


class NamedRuns:
    """The middleware. Any other request costs it two comparisons."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and _is_about_syncs(scope):
            scope, receive = await _named(scope, receive)
        await self._app(scope, receive, send)


def _is_about_syncs(scope: Scope) -> bool:
    """Whether the request starts a run of the sync DAG with a body that is short enough to be read here."""
    # With a base URL that has a path, this precedes the path of the request (ASGI's ``root_path``).
    found = _RUNS.fullmatch(str(scope["path"]).removeprefix(str(scope.get("root_path", ""))))
    if found is None:
        return False
    length = Headers(scope=scope).get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= MAX_BODY_BYTES):
        return False
    try:
        return found.group(1) == load_settings().sync_dag_id
    except RegistrySyncError:
        return False


async def _named(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request with the id in its body, or as it came."""
    received: list[Message] = []
    more = True
    while more:
        message = await receive()
        received.append(message)
        # A client that has gone sends "http.disconnect"; the server refuses more than the length that it declared.
        more = message["type"] == "http.request" and message.get("more_body", False)
    body = b"".join(message.get("body", b"") for message in received)
    named = _with_id(body) if received[-1]["type"] == "http.request" else None
    if named is not None:
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers["content-length"] = str(len(named))
        scope = {**scope, "headers": headers.raw}
        received = [{"type": "http.request", "body": named, "more_body": False}]
    return scope, _replayed(received, receive)


def _replayed(received: list[Message], receive: Receive) -> Receive:
    async def replayed() -> Message:
        return received.pop(0) if received else await receive()

    return replayed


def _with_id(body: bytes) -> bytes | None:
    """The body with a ``dag_run_id``; None where it has one, names no repository, or is nothing that Airflow accepts.

    All other values stay what Airflow reads of them, which reads JSON with the same functions.
    """
    try:
        request: Any = json.loads(body)
        repository = _repository(request)
        if repository is None:
            return None
        run_id = run_id_about("sync", repository, utc_now().isoformat())
        if not permits_run_id(run_id):
            return None
        return json.dumps({**request, "dag_run_id": run_id}, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def _repository(request: Any) -> str | None:
    """The repository that the parameters of a run without an id name."""
    if not isinstance(request, dict) or request.get("dag_run_id") not in (None, ""):
        return None
    conf = request.get("conf")
    name = conf_repository(conf) if isinstance(conf, dict) else None
    return name if name is not None and len(name) <= MAX_NAME_LENGTH else None
