"""Bearer tokens: asking a token service for one, and keeping it until shortly before it ends.

Both dialects are spoken (distribution's token and OAuth2 documentation): GET with Basic for a password, POST for an
identity token. Nothing is kept outside of the instance, so that two connections never share a token.
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
from registry_sync.oci.http.usage import Usage

CLIENT_ID = "registry-sync"
MAX_RESPONSE_BYTES = 128 * 1024
SHORTEST_LIFE_SECONDS = 60.0
LONGEST_LIFE_SECONDS = 24 * 3600.0
SMALLEST_MARGIN_SECONDS = 5.0
MAX_ANONYMOUS_REDIRECTS = 3
#: What a token is sent later than this after its receipt waited here, and may have ended meanwhile.
LATE_SECONDS = 0.25
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class TokenRequest:
    """What a token is asked for: from whom, for which service and scopes, as whom."""

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
    """A token, believed until ``ends_at``; by the service's own word it may be over at ``over_at`` (monotonic seconds).

    ``began`` is the tick at which its exchange began: what is newer has the larger one.
    """

    text: str = field(repr=False)
    began: int = 0
    received_at: float = 0.0
    ends_at: float = 0.0
    over_at: float = math.inf


class TokenStore:
    """Tokens of one registry. Threads that need the same token wait for one exchange and share its result."""

    def __init__(self, transport: Transport, clock: Clock, usage: Usage, on_secret: Callable[[str], None]) -> None:
        self._transport = transport
        self.clock = clock
        self._usage = usage
        self._on_secret = on_secret
        self._ticks = itertools.count(1)
        self._lock = threading.Lock()
        self._exchange_locks: dict[tuple[Any, ...], threading.Lock] = {}
        self._tokens: dict[tuple[Any, ...], Token] = {}
        self._refusals: dict[tuple[Any, ...], RegistryError] = {}
        self._refresh_tokens: dict[tuple[Target, Credentials], str] = {}

    def tick(self) -> int:
        """A number larger than all before it: it orders exchanges and refusals however coarse a clock is."""
        return next(self._ticks)

    def get(self, request: TokenRequest, *, after: int = 0, turn: Callable[[], object] = lambda: None) -> Token:
        """A token for ``request`` whose exchange began after the tick ``after``.

        Who waited for the exchange of another thread calls ``turn`` before it takes the token: many of them would else
        begin their requests at once.

        Raises :class:`AuthenticationFailed`, :class:`RealmRefused`, :class:`RepositoryUnavailable` and what the
        transport raises. Nothing is tried again here: whoever needs the token tries the whole request again. A
        refusal that is final is remembered and not asked for again: bad logins lock accounts.
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
        """Forgets ``token``, which the registry did not accept; one that was had later stays, whatever its text."""
        with self._lock:
            for key, kept in list(self._tokens.items()):
                if kept.text == token.text and kept.began <= token.began:
                    del self._tokens[key]

    def may_have_ended(self, token: Token, sent_at: float) -> bool:
        """Whether ``token``, sent at ``sent_at`` and refused just now, can have ended on its way.

        It can when it waited here, or when it is over by what its service said of it.
        """
        return sent_at - token.received_at >= LATE_SECONDS or self.clock.monotonic() >= token.over_at

    def _kept(self, key: tuple[Any, ...], after: int) -> Token | None:
        token = self._tokens.get(key)
        return token if token and token.began > after and token.ends_at > self.clock.monotonic() else None

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
        began, began_at = self.tick(), self.clock.monotonic()
        response = self._ask(request)
        if response.status != 200:
            raise self._refused(response, request)
        document = response.read_json(MAX_RESPONSE_BYTES, "token answer")
        text = document.get("token") or document.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise response.protocol_error(f"{request.realm.origin.netloc} answers without a usable token")
        self._on_secret(text)
        self._usage.add("token_exchange_count")
        refresh = document.get("refresh_token")
        if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) and request.credentials.identity_token:
            self._on_secret(refresh)
            self._refresh_tokens[request.realm, request.credentials] = refresh
        life = token_life_seconds(document, self.clock.now())
        return Token(
            text,
            began,
            received_at=self.clock.monotonic(),
            ends_at=began_at + life - max(SMALLEST_MARGIN_SECONDS, life / 10),
            over_at=began_at + (_stated_life_seconds(document) or math.inf),
        )

    def _ask(self, request: TokenRequest) -> Response:
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
                raise RealmRefused(f"a token service redirects to nowhere: {problem}") from None
            if following.origin.scheme == "http" and target.origin.scheme == "https":
                raise RealmRefused("a token service redirects from https to http", host=target.origin.netloc)
            target = following
        raise RealmRefused("a token service redirects too often", host=target.origin.netloc)

    def _send(self, method: str, target: Target, headers: dict[str, str], body: bytes | None = None) -> Response:
        try:
            return self._transport.send(method, target, {"Accept": "application/json", **headers}, body=body)
        except RedirectRefused as problem:
            raise RealmRefused(f"no token is asked for there: {problem}", host=target.origin.netloc) from problem
        except RegistrySyncError as problem:
            if target.origin == self._transport.own:
                raise
            own = self._transport.own.netloc
            raise problem.with_message(f"{problem.message}; {own} takes its tokens from there") from problem

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
                f"{host} gives no token to anonymous readers ({error.status}): the repository needs credentials or "
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
    """How long a token lives from its receipt, between a minute and a day.

    ``issued_at`` may only shorten that, and not by so much that the token would be over: then a clock is wrong.
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
    """What a token service says of the life of its token; 0 when it says nothing, or no positive number."""
    try:
        stated = float(document.get("expires_in") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return stated if stated > 0 else 0.0
