"""Bearer tokens: requested from a token service, and kept until shortly before they expire.

Both protocols are supported (distribution's token and OAuth2 documentation): GET with Basic for a password, POST for an
identity token. Nothing is kept outside the instance, so that two connections never share a token.
"""

from __future__ import annotations

import base64
import itertools
import math
import re
import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from registry_sync.errors import (
    AuthenticationFailed,
    RealmRefused,
    RedirectRefused,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)
from registry_sync.oci.auth.challenges import canonical_scopes
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.error_mapping import RequestContext, error_of
from registry_sync.oci.http.options import Clock
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.responses import Response
from registry_sync.oci.http.transport import REDIRECT_STATUSES, Transport

CLIENT_ID = "registry-sync"
MAX_RESPONSE_BYTES = 128 * 1024
SHORTEST_LIFE_SECONDS = 60.0
LONGEST_LIFE_SECONDS = 24 * 3600.0
SMALLEST_MARGIN_SECONDS = 5.0
MAX_ANONYMOUS_REDIRECTS = 3
#: A token that is sent later than this after its receipt waited in this process, and may have expired meanwhile.
LATE_SECONDS = 0.25
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class TokenRequest:
    """A request for a token: the token service, the service and scopes it is for, and the credentials."""

    realm: Target
    service: str | None
    scopes: tuple[str, ...]
    credentials: Credentials = field(repr=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for requests that one token serves."""
        return self.realm, self.service, self.credentials, canonical_scopes(self.scopes)


@dataclass(frozen=True)
class Token:
    """A token, used until ``used_until``; by its stated life it expires at ``expires_at`` (monotonic seconds).

    ``started`` is the tick at which its exchange started; newer tokens have larger ones.
    """

    text: str = field(repr=False)
    started: int = 0
    received_at: float = 0.0
    used_until: float = 0.0
    expires_at: float = math.inf


class TokenStore:
    """Tokens of one registry. Threads that require the same token wait for one exchange and share its result."""

    def __init__(self, transport: Transport, clock: Clock, on_secret: Callable[[str], None]) -> None:
        self._transport = transport
        self.clock = clock
        self._on_secret = on_secret
        self._ticks = itertools.count(1)
        self._lock = threading.Lock()
        self._exchange_locks: dict[tuple[Any, ...], threading.Lock] = {}
        self._tokens: dict[tuple[Any, ...], Token] = {}
        self._refusals: dict[tuple[Any, ...], RegistryError] = {}
        self._refresh_tokens: dict[tuple[Target, Credentials], str] = {}

    def tick(self) -> int:
        """A number larger than all before it: it orders exchanges and refusals, however coarse the clock."""
        return next(self._ticks)

    def get(self, request: TokenRequest, *, after: int = 0, turn: Callable[[], object] = lambda: None) -> Token:
        """A token for ``request`` whose exchange started after the tick ``after``.

        After waiting for another thread's exchange, ``turn`` is called before the token is used: otherwise many threads
        would start their requests at once.

        Raises :class:`AuthenticationFailed`, :class:`RealmRefused`, :class:`RepositoryUnavailable` and what the
        transport raises. Nothing is retried here: the caller retries the whole request. A final refusal is remembered
        and not requested again: repeated failed logins lock accounts.
        """
        key = request.key
        if (token := self._kept(key, after)) is not None:
            return token
        with self._lock:
            exchange_lock = self._exchange_locks.setdefault(key, threading.Lock())
        if not exchange_lock.acquire(blocking=False):
            with exchange_lock:
                pass
            turn()
            if (token := self._kept(key, after)) is not None:
                return token
            exchange_lock.acquire()
        try:
            return self._kept(key, after) or self._exchange_once(request)
        finally:
            exchange_lock.release()

    def reject(self, token: Token) -> None:
        """Drops ``token``, which the registry did not accept; a later one stays, even with the same text."""
        with self._lock:
            for key, kept in list(self._tokens.items()):
                if kept.text == token.text and kept.started <= token.started:
                    del self._tokens[key]

    def may_have_expired(self, token: Token, sent_at: float) -> bool:
        """Whether ``token``, sent at ``sent_at`` and refused just now, can have expired in transit.

        It can when it waited in this process, or when its stated life has ended.
        """
        return sent_at - token.received_at >= LATE_SECONDS or self.clock.monotonic() >= token.expires_at

    def _kept(self, key: tuple[Any, ...], after: int) -> Token | None:
        token = self._tokens.get(key)
        return token if token and token.started > after and token.used_until > self.clock.monotonic() else None

    def _exchange_once(self, request: TokenRequest) -> Token:
        key = request.key
        if (refusal := self._refusals.get(key)) is not None:
            raise copy(refusal)
        try:
            token = self._exchange(request)
        except RegistryError as problem:
            if not problem.is_temporary:
                self._refusals[key] = copy(problem)
            raise
        self._tokens[key] = token
        return token

    def _exchange(self, request: TokenRequest) -> Token:
        started, started_at = self.tick(), self.clock.monotonic()
        response = self._send_request(request)
        if response.status != 200:
            raise self._refused(response, request)
        document = response.read_json(MAX_RESPONSE_BYTES, "token response")
        text = document.get("token") or document.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise response.protocol_error(f"{request.realm.origin.netloc} responds without a usable token")
        self._on_secret(text)
        refresh = document.get("refresh_token")
        if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) and request.credentials.identity_token:
            self._on_secret(refresh)
            self._refresh_tokens[request.realm, request.credentials] = refresh
        life = token_life_seconds(document, self.clock.now())
        return Token(
            text,
            started,
            received_at=self.clock.monotonic(),
            used_until=started_at + life - max(SMALLEST_MARGIN_SECONDS, life / 10),
            expires_at=started_at + (_stated_life_seconds(document) or math.inf),
        )

    def _send_request(self, request: TokenRequest) -> Response:
        credentials = request.credentials
        if not credentials.identity_token:
            return self._get(request, credentials.basic if credentials.has_password else None)
        response = self._post(request)
        if response.status in (404, 405) and credentials.username:
            response.discard()
            pair = f"{credentials.username}:{credentials.identity_token}".encode()
            return self._get(request, f"Basic {base64.b64encode(pair).decode('ascii')}")
        return response

    def _get(self, request: TokenRequest, authorization: str | None) -> Response:
        query = [("scope", scope) for scope in request.scopes]
        if request.service is not None:
            query.insert(0, ("service", request.service))
        query.append(("client_id", CLIENT_ID))
        if authorization is not None and request.credentials.username:
            query.append(("account", request.credentials.username))
        path = request.realm.path
        joined = f"{path}{'&' if '?' in path else '?'}{urlencode(query)}"
        target = request.realm._replace(path=joined)
        if authorization is not None:
            return self._without_redirect("GET", target, {"Authorization": authorization})
        return self._anonymous(target)

    def _post(self, request: TokenRequest) -> Response:
        refresh = self._refresh_tokens.get((request.realm, request.credentials), request.credentials.identity_token)
        form = {
            "grant_type": "refresh_token",
            "refresh_token": refresh or "",
            "client_id": CLIENT_ID,
            "scope": " ".join(request.scopes),
        }
        if request.service is not None:
            form["service"] = request.service
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._without_redirect("POST", request.realm, headers, urlencode(form).encode())

    def _without_redirect(
        self, method: str, target: Target, headers: dict[str, str], body: bytes | None = None
    ) -> Response:
        response = self._send(method, target, headers, body)
        if response.status in REDIRECT_STATUSES:
            response.discard()
            raise RealmRefused(
                f"{target.origin.netloc} redirects a request that carries credentials", host=target.origin.netloc
            )
        return response

    def _anonymous(self, target: Target) -> Response:
        for _ in range(MAX_ANONYMOUS_REDIRECTS + 1):
            response = self._send("GET", target, {})
            if response.status not in REDIRECT_STATUSES:
                return response
            location = response.header("Location") or ""
            response.discard()
            try:
                following = Target.parse(location, relative_to=target)
            except ValueError as problem:
                raise RealmRefused(f"a token service redirects to an unusable URL: {problem}") from None
            if following.origin.scheme == "http" and target.origin.scheme == "https":
                raise RealmRefused("a token service redirects from https to http", host=target.origin.netloc)
            target = following
        raise RealmRefused("a token service redirects too often", host=target.origin.netloc)

    def _send(self, method: str, target: Target, headers: dict[str, str], body: bytes | None = None) -> Response:
        try:
            return self._transport.send(method, target, {"Accept": "application/json", **headers}, body=body)
        except RedirectRefused as problem:
            raise RealmRefused(f"no token is requested there: {problem}", host=target.origin.netloc) from problem
        except RegistrySyncError as problem:
            if target.origin == self._transport.own:
                raise
            own = self._transport.own.netloc
            raise problem.with_message(f"{problem.message}; {own} uses it as its token service") from problem

    def _refused(self, response: Response, request: TokenRequest) -> RegistryError:
        secrets = (*request.credentials.secrets(), *self._refresh_tokens.values())
        error = error_of(
            response,
            RequestContext("token", subject=" ".join(request.scopes)),
            is_anonymous=request.credentials.is_anonymous,
            now=self.clock.now(),
            scrub=lambda text: scrubbed(text, secrets),
        )
        host = request.realm.origin.netloc
        if error.is_temporary or error.status not in (400, 401, 403):
            return error
        context: dict[str, Any] = {
            "host": host,
            "method": response.method,
            "url": request.realm.url,
            "status": error.status,
        }
        if request.credentials.is_anonymous:
            return RepositoryUnavailable(
                f"{host} issues no token to anonymous readers ({error.status}): the repository requires credentials or "
                "does not exist",
                codes=error.codes,
                **context,
            )
        return AuthenticationFailed(
            f"{host} rejects the credentials of the connection ({error.status}): {error.message}",
            codes=error.codes,
            **context,
        )


def scrubbed(text: str, secrets: tuple[str, ...]) -> str:
    """``text`` without any of ``secrets``."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def token_life_seconds(document: dict[str, Any], now: float) -> float:
    """The life of a token from its receipt, between a minute and a day.

    ``issued_at`` may only shorten it, and is ignored where the token would have expired: then a clock is wrong.
    """
    stated = _stated_life_seconds(document)
    life = min(LONGEST_LIFE_SECONDS, stated) if stated >= SHORTEST_LIFE_SECONDS else SHORTEST_LIFE_SECONDS
    issued_at = document.get("issued_at")
    if isinstance(issued_at, str):
        try:
            age = now - datetime.fromisoformat(re.sub(r"\.[0-9]+", "", issued_at).replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError):
            return life
        if 0 < age < life - SHORTEST_LIFE_SECONDS:
            return life - age
    return life


def _stated_life_seconds(document: dict[str, Any]) -> float:
    """The ``expires_in`` of a token response; 0 when it is absent or no positive number."""
    try:
        stated = float(document.get("expires_in") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return stated if stated > 0 else 0.0
