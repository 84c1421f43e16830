"""Access checks by Airflow's users and auth manager, and the checks of a request before its body is read.

Reading and syncing require a user's rights on the sync DAG and its runs, changes require their rights on connections.
Of Airflow's checks these are the ones with the same meaning under SimpleAuthManager and FAB.

Before that, :class:`Guard` only checks that a credential is present; the checks of each route identify the user and
their rights. Browsers send the session's cookie with requests of foreign pages, so a request with a foreign ``Origin``
is refused whatever its credential, unless Airflow's own setting for foreign pages allows that origin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection, requires_access_dag
from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry_sync.api.dependencies import run
from registry_sync.api.problems import WHOLE, detail, field_problems
from registry_sync.hooks.settings import load_settings

Method = Literal["GET", "POST", "PUT", "DELETE"]
#: The authenticated user of a request.
SignedIn = GetUserDep


class AccessCheck:
    """A dependency that refuses a user without authentication with 401, and one without the right with 403."""

    __call__: Callable[..., Any]


class SignedInCheck(AccessCheck):
    """Any authenticated user."""

    async def __call__(self, user: SignedIn) -> BaseUser:
        return user


class DagCheck(AccessCheck):
    """A user who may do ``method`` with the sync DAG, or with its runs."""

    def __init__(self, method: Method, entity: DagAccessEntity | None = None) -> None:
        self._method: Method = method
        self._entity = entity

    async def __call__(self, request: Request, user: SignedIn) -> None:
        await run(self._check, request, user)

    def _check(self, request: Request, user: BaseUser) -> None:
        requires_access_dag(self._method, self._entity, load_settings().sync_dag_id)(request, user)


class ConnectionCheck(AccessCheck):
    """Who may do ``method`` with connections."""

    def __init__(self, method: Method) -> None:
        self._check = requires_access_connection(method)

    async def __call__(self, request: Request, user: SignedIn) -> None:
        await self._check(request, user)


def may_use_connection(user: BaseUser, conn_id: str) -> bool:
    """Whether a user may see that connection, and so have a remote use what is in it."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
    from airflow.models import Connection

    details = ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id))
    return get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)


def may_change_repositories(user: BaseUser) -> bool:
    """Whether a user may change repositories and remotes, by the check of :data:`CHANGE`."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails

    return get_auth_manager().is_authorized_connection(method="PUT", details=ConnectionDetails(), user=user)


def _dependency(check: AccessCheck) -> list[Any]:
    return [Depends(check)]


SIGNED_IN = _dependency(SignedInCheck())
READ = _dependency(DagCheck("GET"))
READ_TASKS = _dependency(DagCheck("GET", DagAccessEntity.RUN))
SYNC = _dependency(DagCheck("POST", DagAccessEntity.RUN))
CHANGE_RUN = _dependency(DagCheck("PUT", DagAccessEntity.RUN))
CREATE = _dependency(ConnectionCheck("POST"))
CHANGE = _dependency(ConnectionCheck("PUT"))
DELETE = _dependency(ConnectionCheck("DELETE"))


#: Certificates are the largest field; a bundle of all public ones has 220 KB.
MAX_BODY_BYTES = 1024 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Guard:
    """Middleware. ``cookie_name`` is the cookie of a session; ``own_origins`` returns the allowed origins."""

    def __init__(self, app: ASGIApp, *, cookie_name: str, own_origins: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._cookie_name = cookie_name
        self._own_origins = own_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._has_credential(headers):
            response = detail(401, "Not signed in.", {"WWW-Authenticate": "Bearer"})
        elif self._is_foreign(headers):
            response = detail(403, "Requests of this page's origin are not allowed.")
        elif _length(headers) > MAX_BODY_BYTES:
            response = field_problems(WHOLE, _too_large())
        else:
            await self._app(scope, _bounded(receive), send)
            return
        await response(scope, receive, send)

    def _has_credential(self, headers: Headers) -> bool:
        scheme = headers.get("authorization", "").partition(" ")[0].lower()
        return scheme == "bearer" or self._cookie_name in cookie_parser(headers.get("cookie", ""))

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")
        requesting = _host(origin)
        if requesting is None:
            return True
        # The scheme is that of the browser's connection, which a proxy may terminate; host and port are compared.
        here = _host(f"{origin.partition(':')[0]}://{headers.get('host', '')}")
        return requesting not in {here, *(_host(own) for own in self._own_origins())}


def _bounded(receive: Receive) -> Receive:
    """``receive``, refusing a body without a declared length that turns out too large."""
    received_bytes = 0

    async def bounded() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body") or b"")
        if received_bytes > MAX_BODY_BYTES:
            raise HTTPException(400, _too_large())
        return message

    return bounded


def _length(headers: Headers) -> int:
    """The declared length of a body in bytes; 0 without one, and then it is counted as received."""
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0


def _too_large() -> str:
    return f"The body is larger than {MAX_BODY_BYTES:,} bytes."


def _host(origin: str) -> tuple[str, int | None] | None:
    """Host and port of an origin, by default the scheme's port; None for ``null`` and for an invalid origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
