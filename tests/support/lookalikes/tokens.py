"""Who is let in: challenges, the token service, and what of both a request must show."""

from __future__ import annotations

import base64
import itertools
import threading
from dataclasses import dataclass
from urllib.parse import parse_qs

from support.hostile_registry import Raw, Request, errors_reply, json_reply, reply
from support.lookalikes.quirks import PASSWORD, Habit, LookAlike
from support.lookalikes.witness import Witness

Header = tuple[str, str]


@dataclass(frozen=True)
class Exchange:
    """One token that was given, for these scopes."""

    token: str
    scopes: tuple[str, ...]


class Gate:
    """The door of one look-alike. ``realm`` is the URL of its token service.

    ``basic`` is the ``Authorization`` with its password. ``token_request_count`` is the number of its requests,
    ``exchanges`` the issued tokens.
    """

    def __init__(self, kind: LookAlike, realm: str, witness: Witness) -> None:
        self.exchanges: list[Exchange] = []
        self.token_request_count = 0
        self._kind = kind
        self._auth = kind.auth
        self._realm = realm
        self._witness = witness
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._bearer_count = 0
        pair = f"{self._auth.username}:{PASSWORD}".encode()
        self.basic = f"Basic {base64.b64encode(pair).decode()}"

    # -- at the registry -----------------------------------------------------------------------------------------

    def admits(self, request: Request, repository: str | None) -> bool:
        """Whether a request may read ``repository``, or ``/v2/`` (None)."""
        authorization = request.header("authorization")
        if authorization is None:
            return False
        if authorization == self.basic:
            if not self._takes_basic:
                self._witness.note("a password sent to a registry that asks for tokens")
            return self._takes_basic
        return self.admits_actions(request, repository, "pull")

    def admits_actions(self, request: Request, repository: str | None, actions: str) -> bool:
        """The same by a token, for other ``actions`` than to pull."""
        authorization = request.header("authorization") or ""
        scope = f"repository:{repository}:{actions}"
        with self._lock:
            known = [exchange for exchange in self.exchanges if authorization == f"Bearer {exchange.token}"]
            if not known:
                self._witness.note(f"an Authorization that was not given here: {authorization.partition(' ')[0]}")
                return False
            is_good = repository is None or any(scope in exchange.scopes for exchange in known)
            self._bearer_count += is_good
            return is_good and not self._is_worn_out and not self._is_revoked(known[0])

    def challenge(self, repository: str | None, *, error: str | None = None) -> Raw:
        """The 401 that asks to come back with a name, or with a better one."""
        headers: list[Header] = []
        if repository is None or not self._auth.asks_at_ping_only:
            schemes = ("Basic",) if self._is_worn_out else self._auth.schemes
            if self._is_worn_out:
                self._witness.met(Habit.WANTS_BASIC_LATER)
            headers = [("WWW-Authenticate", self._challenge(scheme, repository, error)) for scheme in schemes]
        else:
            self._witness.met(Habit.REFUSES_SILENTLY)
        return errors_reply(
            401, "UNAUTHORIZED", "authentication required", [*headers, ("Set-Cookie", "seen=1; Path=/")]
        )

    def _challenge(self, scheme: str, repository: str | None, error: str | None) -> str:
        if scheme == "Basic":
            return f'Basic realm="{self._kind.name}"'
        parts = [f'realm="{self._realm}"', f'service="{self._auth.service}"']
        if repository is not None and self._auth.names_scope:
            parts.append(f'scope="repository:{repository}:pull"')
        elif repository is not None:
            self._witness.met(Habit.TELLS_NO_SCOPE)
        if error is not None:
            parts.append(f'error="{error}"')
        return f"Bearer {','.join(parts)}"

    def _is_revoked(self, exchange: Exchange) -> bool:
        limit = self._auth.first_token_requests
        if limit is None or self._bearer_count <= limit or exchange is not self.exchanges[0]:
            return False
        self._witness.met(Habit.REVOKES_A_TOKEN)
        return True

    @property
    def _is_worn_out(self) -> bool:
        return self._auth.bearer_requests is not None and self._bearer_count > self._auth.bearer_requests

    @property
    def _takes_basic(self) -> bool:
        return "Basic" in self._auth.schemes or self._is_worn_out

    # -- at the token service ------------------------------------------------------------------------------------

    def exchange(self, request: Request) -> Raw:
        """The token service's response."""
        with self._lock:
            self.token_request_count += 1
        if self._auth.exchange_status != 200:
            self._witness.met(Habit.HAS_NO_TOKENS)
            return reply(self._auth.exchange_status, b"no tokens here", content_type="text/plain")
        authorization = request.header("authorization")
        if authorization not in (None, self.basic):
            self._witness.note("something else than the password sent to the token service")
            return errors_reply(401, "UNAUTHORIZED")
        if authorization is None and not self._auth.takes_anonymous:
            return errors_reply(401, "UNAUTHORIZED")
        query = parse_qs(request.query)
        for name, expected in parse_qs(self._realm.partition("?")[2]).items():
            if query.get(name) != expected:
                self._witness.note(f"the realm's own {name} was lost")
        if query.get("service") != [self._auth.service]:
            self._witness.note(f"a token for the service {query.get('service')}")
        scopes = tuple(query.get("scope", ()))
        for scope in scopes:
            if not (scope.startswith("repository:") and scope.endswith((":pull", ":metadata_read"))):
                self._witness.note(f"a token for more than reading: {scope}")
        with self._lock:
            given = Exchange(f"{self._kind.name}.{next(self._numbers)}.0123456789abcdef", scopes)
            self.exchanges.append(given)
        self._witness.met(Habit.GIVES_TOKENS)
        return json_reply({self._auth.token_field: given.token, "expires_in": 300})
