"""The client's connections and credentials as a ``requests`` session, for code that speaks to a registry by itself.

A request through it goes the same way as the client's own: the same pools and address policy, the same tokens.
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
from registry_sync.oci.auth.authenticator import Authenticator, Login, NothingElse
from registry_sync.oci.auth.challenges import pull_scope
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
        self._note_status = transport.note_status

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        """As requests, at the rate that the client keeps; authorized when it has its turn.

        Raises :class:`NothingElse` as :meth:`Login.authorization`, and what exchanges raise.
        """
        target = Target.parse(request.url or "")
        asked_at = self._rate.wait() if target.origin == self._own else self._clock.monotonic()
        for hook in request.hooks.get("response", ()):
            if isinstance(hook, _Challenges):
                hook.authorize(request, target, self._rate.wait)
        response = super().send(request, *arguments, **options)
        self._note_status(response.status_code, target.origin, asked_at)
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
        """The path, or the whole URL where a proxy is to fetch it in the clear."""
        target = Target.parse(request.url or "")
        return target.url if self._pools.is_proxied and target.origin.scheme == "http" else target.path

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the pools have their TLS settings."""


class RegistryAuth(AuthBase):
    """Tokens and Basic for one registry, and for no other host that a request or redirect names."""

    def __init__(self, own: Origin, authenticator: Authenticator, adapter: PooledAdapter) -> None:
        self._own = own
        self._authenticator = authenticator
        self._adapter = adapter

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        challenges = _Challenges(self._own, self._authenticator, self._adapter)
        request.register_hook("response", challenges)  # type: ignore[no-untyped-call]
        return request


class _Challenges:
    """One request's authorization and the answer to its 401; redirects that stay at the registry take it along."""

    def __init__(self, own: Origin, authenticator: Authenticator, adapter: PooledAdapter) -> None:
        self._own = own
        self._authenticator = authenticator
        self._adapter = adapter
        self._login: Login | None = None
        self._header: str | None = None

    def authorize(self, request: PreparedRequest, target: Target, turn: Callable[[], object]) -> None:
        """Puts on what the registry itself is to be sent, and takes it off for any other host."""
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
            request.headers.on_send = self._login.note_sent  # type: ignore[attr-defined]

    def __call__(self, response: Response, **options: Any) -> Response:
        """The response that is left when every challenge was answered."""
        while (login := self._login) is not None and response.status_code == 401:
            target = Target.parse(response.request.url or "")
            if target.origin != self._own:
                break
            # Read first: a token may be asked for at the same host, which must not wait for this connection.
            _ = response.content
            if login.is_refused(response.headers.get("WWW-Authenticate"), target):
                break
            again = response.request.copy()
            try:
                retried = self._adapter.send(again, **options)
            except NothingElse:
                break
            retried.history[:] = [*response.history, response]
            retried.request = again
            response = retried
        return response


def scope_of(target: Target) -> str | None:
    """What reading ``target`` needs, read from its path; None for ``/v2/`` and what is no content of a repository."""
    path = target.path.partition("?")[0].removeprefix("/v2/")
    for part in ("/manifests/", "/blobs/", "/tags/list", "/referrers/"):
        name, found, _ = path.rpartition(part)
        if found:
            try:
                return pull_scope(RepositoryName(name))
            except InvalidReference:
                return None
    return None


def error_of_response(response: Response, *, is_anonymous: bool = False) -> RegistryError:
    """The error that an answer of a session means, what the registry said and asked for included."""
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
    """A session that takes nothing from the environment and keeps no cookies."""
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
        """Nothing: a registry is told who asks by ``Authorization`` alone."""
