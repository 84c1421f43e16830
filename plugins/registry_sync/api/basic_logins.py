"""HTTP Basic (RFC 7617): a user's name and password, exchanged for a token of Airflow before a route is reached.

The password goes to Airflow's own login, in this process, whichever auth manager it has; it is kept and logged nowhere.
Basic is accepted where nobody reads along: over TLS, on loopback, or where a setting says that the network is trusted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import httpx
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from registry_sync.api.dependencies import ServerBusy, run
from registry_sync.api.problems import detail
from registry_sync.db.database import Database
from registry_sync.errors import ConfigurationError, DatabaseUnavailable
from registry_sync.hooks.settings import load_settings
from registry_sync.users.airflow_logins import AirflowLogins, LoginUnavailable
from registry_sync.users.checked_logins import CheckedLogins, read_basic
from registry_sync.users.login_limits import Network, client_address
from registry_sync.users.shared_limits import LoginLimits, SharedFailures, TooManyFailedLogins

_log = logging.getLogger(__name__)
#: Where :class:`~registry_sync.api.app.RestApi` notes the app of Airflow that it is mounted in.
AIRFLOW_APP = "registry_sync.airflow_app"
_WRONG = "Wrong name or password."
_NOT_HERE = (
    "HTTP Basic is accepted over TLS and on loopback alone, lest others read the password: use https, a token of POST "
    "/auth/token, or set [registry_sync] rest_basic_over_http where the network is trusted."
)
_BEARER, _BASIC = "Bearer", 'Basic realm="registry-sync", charset="UTF-8"'
_RETRY_SECONDS = 10

#: Gives a check of logins by the app of Airflow.
OpenLogins = Callable[[Any], CheckedLogins[str]]


def logins_by(open_database: Callable[[], Database]) -> OpenLogins:
    """Logins at an Airflow in this process; failures are counted in the database, with those at pull servers."""

    async def in_thread(work: Callable[[], Any]) -> Any:
        try:
            return await run(work)
        except ServerBusy as problem:
            raise DatabaseUnavailable(str(problem)) from None

    def open_logins(airflow: Any) -> CheckedLogins[str]:
        transport = httpx.ASGITransport(airflow, raise_app_exceptions=False)
        shared = SharedFailures(lambda: open_database().login_failures, in_thread)
        return CheckedLogins(AirflowLogins("http://localhost", transport).token, LoginLimits(shared))

    return open_logins


@dataclass
class BasicLogins:
    """Exchanges the logins of requests. ``open`` is how they are checked."""

    open: OpenLogins
    _logins: CheckedLogins[str] | None = field(default=None, init=False)

    async def exchange(self, scope: Scope) -> JSONResponse | None:
        """Puts a bearer token in place of the request's Basic; the response when it goes no further."""
        connection = ClientConnection.of(scope)
        if not connection.is_private:
            return detail(403, _NOT_HERE)
        login = read_basic(Headers(scope=scope)["authorization"].partition(" ")[2])
        airflow = scope.get(AIRFLOW_APP)
        if login is None or airflow is None:
            return detail(401, _WRONG)
        if self._logins is None:
            self._logins = self.open(airflow)
        try:
            token = await self._logins(*login, connection.address)
        except TooManyFailedLogins as problem:
            message = f"{str(problem).capitalize()}."
            return detail(429, message, {"Retry-After": str(math.ceil(problem.wait_seconds))})
        except LoginUnavailable as problem:
            _log.error("the login of the user %r cannot be checked: %s", login[0], problem)
            return detail(503, "Users cannot log in now; try again.", {"Retry-After": str(_RETRY_SECONDS)})
        if token is None:
            return detail(401, _WRONG)
        MutableHeaders(scope=scope)["authorization"] = f"{_BEARER} {token}"
        return None


def challenge_of(scope: Scope) -> str:
    """What a request without a usable credential may send (RFC 9110 section 11.6.1).

    Pages are told of Bearer alone: for Basic a browser would ask its user for a password, in the middle of Airflow.
    """
    is_browser = any(name.startswith("sec-fetch-") for name in Headers(scope=scope))
    return _BEARER if is_browser or not ClientConnection.of(scope).is_private else f"{_BEARER}, {_BASIC}"


@dataclass(frozen=True)
class ClientConnection:
    """Whose request it is, by ``address``, and whether its credentials ``is_private`` to the two ends."""

    address: str
    is_private: bool

    @classmethod
    def of(cls, scope: Scope) -> ClientConnection:
        """By the scheme and the peer, or by what trusted proxies say of them."""
        headers, peer = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        try:
            settings = load_settings()
        except ConfigurationError:  # reported by the route
            return cls(peer, scope["scheme"] == "https")
        trusted = tuple(ip_network(text, strict=False) for text in settings.pull_trusted_proxies)
        address = client_address(peer, headers.get("x-forwarded-for"), trusted)
        is_direct = not {"x-forwarded-for", "x-forwarded-proto", "forwarded"} & set(headers.keys())
        by_proxy = any(_is_in(peer, network) for network in trusted)
        is_tls = scope["scheme"] == "https" or (by_proxy and headers.get("x-forwarded-proto", "").lower() == "https")
        is_here = _is_loopback(address) and (is_direct or by_proxy)
        return cls(address, is_tls or is_here or settings.rest_basic_over_http)


def _is_in(address: str, network: Network) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:
        return False


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
