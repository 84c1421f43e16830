"""The ``Authorization`` of each request, as the registry's challenges request it.

No credentials are sent before a challenge. A challenge is remembered for later requests, so that each repository costs
one exchange and no request that fails first; until the registry has responded once, requests wait for the one that is
under way, which brings it. Another process may begin with what this one learned. The authorization is read just before
a request leaves, and one 401 does not yet refuse the request: see :class:`Login`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from registry_sync.errors import AuthenticationFailed, ChallengeInvalid, RegistryError, ServerUnavailable
from registry_sync.oci.auth.challenges import Challenge, parse_challenges, scopes_to_request
from registry_sync.oci.auth.credentials import Credentials, RealmPolicy, ReportedCredentials
from registry_sync.oci.auth.tokens import Token, TokenRequest, TokenStore
from registry_sync.oci.http.origins import Target

MAX_SENDS = 3
_NOTHING_TO_LEARN = nullcontext()


@dataclass(frozen=True)
class SelectedChallenge:
    """The challenge to respond to, the target that sent it, and whether Basic was offered beside Bearer."""

    challenge: Challenge
    sent_by: Target
    has_basic_too: bool = False

    @property
    def scheme(self) -> str:
        return self.challenge.scheme

    def document(self) -> dict[str, Any]:
        """What another process needs to respond to it, as JSON; nothing of it is secret."""
        of_token = ("realm", "service", "scope")
        parameters = {name: text for name, text in self.challenge.parameters.items() if name in of_token}
        sent_by = self.sent_by.url.partition("?")[0]
        return {"scheme": self.scheme, **parameters, "sent_by": sent_by, "has_basic_too": self.has_basic_too}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> SelectedChallenge:
        """The challenge of :meth:`document`. Raises :class:`ValueError` for a URL that is none."""
        parameters = {name: document[name] for name in ("realm", "service", "scope") if name in document}
        sent_by = Target.parse(document["sent_by"])
        return cls(Challenge(document["scheme"], parameters), sent_by, has_basic_too=document["has_basic_too"])


@dataclass(frozen=True)
class Authorization:
    """The header of a request, None for none; ``token`` is the token in it, None where it has credentials."""

    header: str | None = field(default=None, repr=False)
    token: Token | None = None


class NoAuthorizationLeft(Exception):
    """The registry has refused every authorization that is available."""


class Authenticator:
    """Authorization for one registry.

    ``source`` returns the credentials, ``probe`` the challenge of ``/v2/``, or None, and its target.
    """

    def __init__(
        self,
        source: ReportedCredentials,
        tokens: TokenStore,
        policy: RealmPolicy,
        probe: Callable[[], tuple[str | None, Target]],
    ) -> None:
        self._source = source
        self._tokens = tokens
        self._policy = policy
        self._probe = probe
        self._selected: SelectedChallenge | None = None
        #: What another process learned.
        self._handed_on: SelectedChallenge | None = None
        self._first = threading.Lock()
        self._responded = threading.Event()

    @property
    def selected(self) -> SelectedChallenge | None:
        """The challenge selected last, None before the first one."""
        return self._selected

    @property
    def has_learned(self) -> bool:
        """Whether requests wait for no other to bring a challenge: see :meth:`discovery`."""
        return self._responded.is_set() or bool(self._source().registry_token)

    @property
    def sends_no_password(self) -> bool:
        """Whether the registry is known to request nothing, or tokens alone: no request carries a password to it."""
        is_known, selected = self._responded.is_set() and not self._source().registry_token, self._selected
        return is_known and (selected is None or (selected.scheme == "bearer" and not selected.has_basic_too))

    @property
    def is_anonymous(self) -> bool:
        """Whether the connection has no credentials."""
        return self._source().is_anonymous

    def learned(self) -> dict[str, Any] | None:
        """What the registry's responses taught, for :meth:`begin_with`: empty where it requests nothing.

        None before its first response.
        """
        if not self._responded.is_set():
            return None
        return {} if self._selected is None else self._selected.document()

    def begin_with(self, learned: Mapping[str, Any] | None) -> None:
        """Begins with what another process learned; None for nothing. What cannot be read counts as nothing.

        It says where a token may come from, and not that it may: that is checked as for any challenge. Where no token
        comes from there, the registry is asked again.
        """
        if learned is None or self._responded.is_set():
            return
        try:
            self._selected = self._handed_on = SelectedChallenge.of_document(learned) if learned else None
        except (KeyError, ValueError):
            return
        self._responded.set()

    def discovery(self) -> AbstractContextManager[None]:
        """Surrounds a request and what its response teaches: until there was one, one after the other passes.

        Otherwise each thread that starts would be refused for itself. A ready-made token needs no challenge.
        """
        if self._responded.is_set() or self._source().registry_token:
            return _NOTHING_TO_LEARN
        return self._first_discovery()

    @contextmanager
    def _first_discovery(self) -> Iterator[None]:
        self._first.acquire()
        if self._responded.is_set():
            self._first.release()
            yield
            return
        try:
            yield
        finally:
            # Also after a failure: threads that wait for a host that is down must not do so one after the other.
            self._responded.set()
            self._first.release()

    def login(self, scope: str | None, *, is_aside: bool = False) -> Login:
        """The authorization of one request with ``scope``, None for a request that requires none.

        A challenge to a request that ``is_aside``, of another API of the registry, is not used for other requests.
        """
        return Login(self, self._tokens, scope, is_aside=is_aside)

    def password(self) -> str | None:
        """The ``Authorization`` with the connection's password, for the registry's own host; None without one.

        Raises :class:`RealmRefused` where it would travel unencrypted.
        """
        credentials = self._source()
        if not credentials.has_password:
            return None
        self._policy.check_basic()
        return credentials.basic

    def authorization(
        self,
        scope: str | None,
        *,
        selected: SelectedChallenge | None = None,
        after: int = 0,
        turn: Callable[[], object],
    ) -> Authorization:
        """The authorization for ``scope``: by ``selected``, else by the challenge selected last, else none.

        ``after`` and ``turn`` as in :meth:`TokenStore.get`. Raises what that raises, and :class:`RealmRefused`.
        """
        credentials = self._source()
        if credentials.registry_token:
            self._policy.check_basic()
            return Authorization(_as_sent(credentials))
        if (selected := selected or self._selected) is None:
            return Authorization()
        try:
            return self._respond(selected, credentials, scope, after, turn)
        except RegistryError:
            if selected is not self._handed_on:
                raise
        # The registry may ask for something else by now. A refusal of the same token is not requested again.
        if self._selected is selected:
            self._selected = None
        return Authorization()

    def learn(
        self, header: str | None, sent_by: Target, refused: Authorization, *, is_aside: bool = False
    ) -> SelectedChallenge | None:
        """Selects a challenge of a 401 whose ``WWW-Authenticate`` is ``header``; None for a ready-made token.

        With ``is_aside`` it is not used for other requests. ``refused`` is not used again: its token is dropped, and
        its credentials are renewed where the source can.
        Raises :class:`ChallengeInvalid`.
        """
        if refused.token is not None:
            self._tokens.reject(refused.token)
        credentials = self._source()
        if refused.header is not None and refused.header == _as_sent(credentials):
            credentials = self._source.renew(credentials)
        if credentials.registry_token:
            return None
        if header is None:
            header, sent_by = self._probe()
        selected = select_challenge(header, sent_by, credentials)
        before = self._selected
        if refused.header is None and selected.has_basic_too and before is not None and before.scheme == "basic":
            selected = before  # another thread found meanwhile that the token service does not work
        if not is_aside:
            self._selected = selected
        return selected

    def realm_host(self) -> str | None:
        """The host of the token service, None when the registry requests no tokens."""
        if self._selected is None or self._selected.scheme != "bearer":
            return None
        return Target.parse(self._selected.challenge.realm, relative_to=self._selected.sent_by).origin.netloc

    def secrets(self) -> tuple[str, ...]:
        """The texts that must appear in no message."""
        return self._source().secrets()

    def _respond(
        self,
        selected: SelectedChallenge,
        credentials: Credentials,
        scope: str | None,
        after: int,
        turn: Callable[[], object],
    ) -> Authorization:
        if selected.scheme == "basic":
            return self._basic(credentials)
        challenge = selected.challenge
        request = TokenRequest(
            realm=self._policy.check(challenge.realm, selected.sent_by, has_secret=not credentials.is_anonymous),
            service=challenge.service,
            scopes=scopes_to_request(challenge.scope, scope),
            credentials=credentials,
        )
        try:
            token = self._token(request, after, turn)
        except AuthenticationFailed:
            raise
        except RegistryError as problem:
            is_broken = problem.status == 404 or (problem.status or 0) >= 500
            if selected.has_basic_too and credentials.has_password and is_broken:
                self._selected = SelectedChallenge(Challenge("basic"), selected.sent_by)
                return self._basic(credentials)
            raise
        return Authorization(f"Bearer {token.text}", token)

    def _token(self, request: TokenRequest, after: int, turn: Callable[[], object]) -> Token:
        """The token. Refused credentials are tried once only, unless their source has others."""
        try:
            return self._tokens.get(request, after=after, turn=turn)
        except AuthenticationFailed:
            others = self._source.renew(request.credentials)
            if others == request.credentials:
                raise
            return self._tokens.get(replace(request, credentials=others), after=after, turn=turn)

    def _basic(self, credentials: Credentials) -> Authorization:
        if not credentials.has_password:
            return Authorization()
        self._policy.check_basic()
        return Authorization(credentials.basic)


class Login:
    """The authorization of one request, over all of its sends: three at most, with two exchanges of its own.

    A 401 refuses the request only when the exchange of the token that was sent started after the previous 401. Any
    other token, fetched for an earlier request or by another thread, may have expired in transit and is replaced.
    Where credentials are sent directly, a 401 refuses the request when the source has no others.
    """

    def __init__(
        self, authenticator: Authenticator, tokens: TokenStore, scope: str | None, *, is_aside: bool = False
    ) -> None:
        self._authenticator = authenticator
        self._tokens = tokens
        self._is_aside = is_aside
        self.scope = scope
        self._selected: SelectedChallenge | None = None
        self._refused_count = 0
        self._refused_at = 0
        self._refused = Authorization()
        self._sent = Authorization()
        self._sent_at = 0.0

    def authorization(self, turn: Callable[[], object] = lambda: None) -> str | None:
        """The header to send now, None for none. Call it at the request's turn; ``turn`` waits for another turn.

        Raises :class:`NoAuthorizationLeft` after a 401 when nothing else can be sent, and what exchanges raise.
        """
        if not self._refused_count:
            self._sent = self._authenticator.authorization(self.scope, turn=turn)
            return self._sent.header
        # The second send uses a token that another thread fetched meanwhile; the third decides.
        after = self._refused_at if self._refused_count > 1 else 0
        authorization = self._authenticator.authorization(self.scope, selected=self._selected, after=after, turn=turn)
        if authorization.header in (None, self._refused.header):
            raise NoAuthorizationLeft
        self._sent = authorization
        return authorization.header

    def record_sent(self) -> None:
        """Records when the request was sent; call it just before."""
        self._sent_at = self._tokens.clock.monotonic()

    def of_another(self, sent_at: float) -> Login:
        """That of another request, sent at ``sent_at`` with the authorization that this one gave, and not refused."""
        other = self._authenticator.login(self.scope, is_aside=self._is_aside)
        other._sent, other._sent_at = self._sent, sent_at  # noqa: SLF001  it is one of this class
        return other

    def is_refused(self, header: str | None, sent_by: Target) -> bool:
        """Whether a 401 with this ``WWW-Authenticate`` is final; otherwise the request is sent again.

        Raises :class:`ServerUnavailable` where the token waited in this process and may have expired meanwhile, and as
        :meth:`Authenticator.learn`.
        """
        previous, self._refused_at = self._refused_at, self._tokens.tick()
        self._refused_count += 1
        self._refused, token = self._sent, self._sent.token
        is_new = previous and token is not None and token.started > previous
        if is_new or self._refused_count == MAX_SENDS:
            if token is not None and self._tokens.may_have_expired(token, self._sent_at):
                self._tokens.reject(token)
                host = sent_by.origin.netloc
                raise ServerUnavailable(
                    f"a token for {host} expired before the request arrived; another one is requested",
                    host=host,
                    status=401,
                )
            return True
        if header is not None or self._selected is None:
            self._selected = self._authenticator.learn(header, sent_by, self._refused, is_aside=self._is_aside)
        elif token is not None:
            self._tokens.reject(token)
        return False


class FixedAuthorization:
    """A header that is sent as it is, once, in place of a :class:`Login`; None for none."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def authorization(self, _turn: Callable[[], object]) -> str | None:
        """The header."""
        return self._header

    def record_sent(self) -> None:
        """Nothing expires."""


def _as_sent(credentials: Credentials) -> str | None:
    """The ``Authorization`` with ``credentials`` themselves; None for credentials that only serve to get a token."""
    if credentials.registry_token:
        return f"Bearer {credentials.registry_token}"
    return credentials.basic if credentials.has_password else None


def select_challenge(header: str | None, sent_by: Target, credentials: Credentials) -> SelectedChallenge:
    """Bearer where it can be used, else Basic with a password. Raises :class:`ChallengeInvalid`."""
    host = sent_by.origin.netloc
    if not header:
        raise ChallengeInvalid(f"{host} responds 401 and does not say how to authenticate", host=host, status=401)
    try:
        challenges = parse_challenges(header)
    except ChallengeInvalid as problem:
        raise ChallengeInvalid(
            f"{host} requests authentication in a form that cannot be read: {problem}", host=host
        ) from None
    basic = next((challenge for challenge in challenges if challenge.scheme == "basic"), None)
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.realm:
            return SelectedChallenge(challenge, sent_by, has_basic_too=basic is not None)
    if basic is not None and (credentials.has_password or credentials.is_anonymous):
        return SelectedChallenge(basic, sent_by)
    offered = ", ".join(dict.fromkeys(challenge.scheme[:20] for challenge in challenges)) or "nothing"
    raise ChallengeInvalid(
        f"{host} offers {offered}; a usable Bearer challenge, or Basic with a password, is required",
        host=host,
        status=401,
    )
