"""The client's connections and credentials as a ``requests`` session, for code that sends its own requests.

Its requests use the same connection pools, address policy, rate limit and tokens as the client's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.cookies import RequestsCookieJar
from urllib3 import HTTPConnectionPool

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import InvalidReference, RegistryError
from registry_sync.oci.auth.authenticator import Authenticator, Login, NoAuthorizationLeft
from registry_sync.oci.auth.challenges import repository_scope
from registry_sync.oci.http.error_mapping import (
    Refusal,
    RequestContext,
    error_of_refusal,
    parse_error_body,
    parse_retry_after,
)
from registry_sync.oci.http.origins import Origin, Target
from registry_sync.oci.http.responses import web_page
from registry_sync.oci.http.transport import Transport

__all__ = [
    "PooledAdapter",
    "PreparedRequest",
    "RegistryAuth",
    "Response",
    "Session",
    "error_of_response",
    "open_session",
]


class PooledAdapter(HTTPAdapter):
    """Sends through the pools of a client; TLS and proxy are theirs, whatever a session or call says."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._pools = transport.pools
        self._own = transport.own
        self._clock = transport.clock
        self._rate = transport.rate
        self._record_status = transport.record_status

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """Sends as ``requests`` does, at the client's rate; authorized at the request's turn.

        Raises :class:`NoAuthorizationLeft` as :meth:`Login.authorization`, and what exchanges raise.
        """
        target = Target.parse(request.url or "")
        requested_at = self._rate.wait() if target.origin == self._own else self._clock.monotonic()
        for hook in request.hooks.get("response", ()):
            if isinstance(hook, _Challenges):
                hook.authorize(request, target, self._rate.wait)
        response = super().send(request, *arguments, **options)
        self._record_status(response.status_code, target.origin, requested_at)
        return response

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: bool | str | None,  # noqa: ARG002 - decided by the client's options
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002 - as above
        cert: Any = None,  # noqa: ARG002 - as above
    ) -> HTTPConnectionPool:
        return self._pools.pool(Target.parse(request.url or "").origin)

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:  # noqa: ARG002 - as above
        """The path, or the whole URL for a proxy that fetches it over plain http."""
        target = Target.parse(request.url or "")
        return target.url if self._pools.is_proxied and target.origin.scheme == "http" else target.path

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Does nothing: the pools have their own TLS settings."""


class RegistryAuth(AuthBase):
    """Tokens and Basic for one registry, and for no other host of a request or redirect."""

    def __init__(self, own: Origin, authenticator: Authenticator, adapter: PooledAdapter) -> None:
        self._own = own
        self._authenticator = authenticator
        self._adapter = adapter

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        challenges = _Challenges(self._own, self._authenticator, self._adapter)
        request.register_hook("response", challenges)  # type: ignore[no-untyped-call]
        return request


class _Challenges:
    """One request's authorization and the handling of its 401, also for redirects that stay at the registry."""

    def __init__(self, own: Origin, authenticator: Authenticator, adapter: PooledAdapter) -> None:
        self._own = own
        self._authenticator = authenticator
        self._adapter = adapter
        self._login: Login | None = None
        self._header: str | None = None

    def authorize(self, request: PreparedRequest, target: Target, turn: Callable[[], object]) -> None:
        """Sets ``Authorization`` for the registry itself, and removes it for any other host."""
        if target.origin != self._own:
            if self._header is not None and request.headers.get("Authorization") == self._header:
                del request.headers["Authorization"]
            return
        scope = scope_of(target)
        if self._login is None or self._login.scope != scope:
            self._login = self._authenticator.login(scope)
        self._header = self._login.authorization(turn)
        if self._header is not None:
            request.headers["Authorization"] = self._header
            request.headers.on_send = self._login.record_sent  # type: ignore[attr-defined]

    def __call__(self, response: Response, **options: Any) -> Response:
        """The response after every challenge has been handled."""
        while (login := self._login) is not None and response.status_code == 401:
            target = Target.parse(response.request.url or "")
            if target.origin != self._own:
                break
            # Read first: a token may be requested from the same host, which must not wait for this connection.
            _ = response.content
            if login.is_refused(response.headers.get("WWW-Authenticate"), target):
                break
            again = response.request.copy()
            try:
                retried = self._adapter.send(again, **options)
            except NoAuthorizationLeft:
                break
            retried.history[:] = [*response.history, response]
            retried.request = again
            response = retried
        return response


def scope_of(target: Target) -> str | None:
    """The scope to read ``target``, from its path; None for ``/v2/`` and paths outside a repository's content."""
    path = target.path.partition("?")[0].removeprefix("/v2/")
    for part in ("/manifests/", "/blobs/", "/tags/list", "/referrers/"):
        name, found, _ = path.rpartition(part)
        if found:
            try:
                return repository_scope(RepositoryName(name))
            except InvalidReference:
                return None
    return None


def error_of_response(response: Response, *, is_anonymous: bool = False) -> RegistryError:
    """The error for a response of a session, with the registry's codes, message and ``Retry-After``."""
    target = Target.parse(response.url)
    codes, message = parse_error_body(response.content)
    refusal = Refusal(
        target,
        response.request.method or "GET",
        response.status_code,
        codes,
        message,
        parse_retry_after(response.headers.get("Retry-After"), time.time()),
        Target.parse(response.history[0].url or "").origin.netloc if response.history else None,
        len(response.request.headers.get("Authorization") or ""),
        web_page(response.content, response.headers.get("Content-Type")) is not None,
    )
    path = target.path.partition("?")[0]
    return error_of_refusal(refusal, RequestContext("content", subject=path), is_anonymous=is_anonymous)


def open_session(transport: Transport, authenticator: Authenticator) -> Session:
    """A session that reads nothing from the environment and keeps no cookies."""
    session = Session()
    session.trust_env = False
    session.cookies = _NoCookies()
    session.headers.update({"User-Agent": transport.user_agent, "Accept-Encoding": "identity"})
    adapter = PooledAdapter(transport)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = RegistryAuth(transport.own, authenticator, adapter)
    return session


class _NoCookies(RequestsCookieJar):
    """A jar that stays empty."""

    def set_cookie(self, cookie: Any, *arguments: Any, **options: Any) -> None:
        """Does nothing: a registry identifies the client by ``Authorization`` alone."""
