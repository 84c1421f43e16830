"""Who a client is to its registry: the ``Authorization`` of each request, learnt from the registry's challenges.

Nothing is sent before it is asked for. What a challenge taught is used for later requests at once, so that each
repository costs one exchange and no request that fails first. What a request is sent with is read at the last moment,
and a 401 means no more than that this was not good enough: see :class:`Login`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from registry_sync.errors import AuthenticationFailed, ChallengeInvalid, RegistryError, ServerUnavailable
from registry_sync.oci.auth.challenges import Challenge, parse_challenges, scopes_to_ask
from registry_sync.oci.auth.credentials import Credentials, RealmPolicy, ToldCredentials
from registry_sync.oci.auth.tokens import Token, TokenRequest, TokenStore
from registry_sync.oci.http.origins import Target

MAX_SENDS = 3


@dataclass(frozen=True)
class ChosenChallenge:
    """The challenge that is answered, and whether Basic was offered beside Bearer."""

    challenge: Challenge
    asked_at: Target
    has_basic_too: bool = False

    @property
    def scheme(self) -> str:
        return self.challenge.scheme


@dataclass(frozen=True)
class Authorization:
    """What a request is sent with: the header, None for none; ``token`` is in it unless credentials themselves are."""

    header: str | None = field(default=None, repr=False)
    token: Token | None = None


class NothingElse(Exception):
    """There is nothing to send a request with that the registry has not refused."""


class Authenticator:
    """Authorization for one registry. ``source`` gives the credentials; ``probe`` the challenge of ``/v2/`` or None."""

    def __init__(
        self,
        source: ToldCredentials,
        tokens: TokenStore,
        policy: RealmPolicy,
        probe: Callable[[], tuple[str | None, Target]],
    ) -> None:
        self._source = source
        self._tokens = tokens
        self._policy = policy
        self._probe = probe
        self._choice: ChosenChallenge | None = None

    @property
    def choice(self) -> ChosenChallenge | None:
        """What the registry asked for last, None before it asked."""
        return self._choice

    @property
    def is_anonymous(self) -> bool:
        """Whether the connection has no credentials."""
        return self._source().is_anonymous

    def login(self, scope: str | None) -> Login:
        """For one request that needs ``scope``, None for one that needs none."""
        return Login(self, self._tokens, scope)

    def authorization(
        self, scope: str | None, *, choice: ChosenChallenge | None = None, after: int = 0, turn: Callable[[], object]
    ) -> Authorization:
        """For a request that needs ``scope``: by ``choice``, or as the registry asked for last, or nothing.

        ``after`` and ``turn`` as :meth:`TokenStore.get`, which may be asked; raises what that raises, and
        :class:`RealmRefused`.
        """
        credentials = self._source()
        if credentials.registry_token:
            self._policy.check_basic()
            return Authorization(_as_sent(credentials))
        if (choice := choice or self._choice) is None:
            return Authorization()
        return self._answer(choice, credentials, scope, after, turn)

    def learn(self, header: str | None, asked_at: Target, refused: Authorization) -> ChosenChallenge | None:
        """What to answer a 401 with, whose ``WWW-Authenticate`` is ``header``; None for a ready-made token.

        ``refused`` is not used again: a token is forgotten, and credentials are made anew where that can be. Raises
        :class:`ChallengeInvalid`.
        """
        if refused.token is not None:
            self._tokens.reject(refused.token)
        credentials = self._source()
        if refused.header is not None and refused.header == _as_sent(credentials):
            credentials = self._source.renew(credentials)
        if credentials.registry_token:
            return None
        if header is None:
            header, asked_at = self._probe()
        choice = choose(header, asked_at, credentials)
        learnt = self._choice
        if refused.header is None and choice.has_basic_too and learnt is not None and learnt.scheme == "basic":
            choice = learnt  # another thread found meanwhile that the token service does not work
        self._choice = choice
        return choice

    def realm_host(self) -> str | None:
        """The host that tokens come from, None when the registry asked for none."""
        if self._choice is None or self._choice.scheme != "bearer":
            return None
        return Target.parse(self._choice.challenge.realm, relative_to=self._choice.asked_at).origin.netloc

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return self._source().secrets()

    def _answer(
        self,
        choice: ChosenChallenge,
        credentials: Credentials,
        scope: str | None,
        after: int,
        turn: Callable[[], object],
    ) -> Authorization:
        if choice.scheme == "basic":
            return self._basic(credentials)
        request = TokenRequest(
            realm=self._policy.check(choice.challenge.realm, choice.asked_at, has_secret=not credentials.is_anonymous),
            service=choice.challenge.service,
            scopes=scopes_to_ask(choice.challenge.scope, scope),
            credentials=credentials,
        )
        try:
            token = self._token(request, after, turn)
        except AuthenticationFailed:
            raise
        except RegistryError as problem:
            is_broken = problem.status == 404 or (problem.status or 0) >= 500
            if choice.has_basic_too and credentials.has_password and is_broken:
                self._choice = ChosenChallenge(Challenge("basic"), choice.asked_at)
                return self._basic(credentials)
            raise
        return Authorization(f"Bearer {token.text}", token)

    def _token(self, request: TokenRequest, after: int, turn: Callable[[], object]) -> Token:
        """The token of the exchange. Refused credentials are tried once only, unless their source has others."""
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

    A 401 refuses the request only when the exchange of the token that it was sent with began after the 401 before. Any
    other token, fetched for an earlier request or by another thread, may have ended on its way, and another one is had.
    Credentials that are sent as they are refuse it when no others can be made.
    """

    def __init__(self, authenticator: Authenticator, tokens: TokenStore, scope: str | None) -> None:
        self._authenticator = authenticator
        self._tokens = tokens
        self.scope = scope
        self._choice: ChosenChallenge | None = None
        self._refused_count = 0
        self._refused_at = 0
        self._refused = Authorization()
        self._sent = Authorization()
        self._sent_at = 0.0

    def authorization(self, turn: Callable[[], object] = lambda: None) -> str | None:
        """The header to send now, None for none; to be read when the request has its turn, ``turn`` gives another.

        Raises :class:`NothingElse` after a 401 when all there is was refused, and what exchanges raise.
        """
        if not self._refused_count:
            self._sent = self._authenticator.authorization(self.scope, turn=turn)
            return self._sent.header
        # The second send takes what another thread has fetched meanwhile; the third decides.
        after = self._refused_at if self._refused_count > 1 else 0
        authorization = self._authenticator.authorization(self.scope, choice=self._choice, after=after, turn=turn)
        if authorization.header in (None, self._refused.header):
            raise NothingElse
        self._sent = authorization
        return authorization.header

    def note_sent(self) -> None:
        """To be called when the request leaves."""
        self._sent_at = self._tokens.clock.monotonic()

    def is_refused(self, header: str | None, asked_at: Target) -> bool:
        """Whether a 401, with this ``WWW-Authenticate``, says that the request may not be made; else it is sent again.

        Raises :class:`ServerUnavailable` where the token waited here and may have ended by that, and as
        :meth:`Authenticator.learn`.
        """
        previous, self._refused_at = self._refused_at, self._tokens.tick()
        self._refused_count += 1
        self._refused, token = self._sent, self._sent.token
        is_new = previous and token is not None and token.began > previous
        if is_new or self._refused_count == MAX_SENDS:
            if token is not None and self._tokens.may_have_ended(token, self._sent_at):
                self._tokens.reject(token)
                host = asked_at.origin.netloc
                raise ServerUnavailable(
                    f"a token for {host} came to its end before the request reached it; it is asked for again",
                    host=host,
                    status=401,
                )
            return True
        if header is not None or self._choice is None:
            self._choice = self._authenticator.learn(header, asked_at, self._refused)
        elif token is not None:
            self._tokens.reject(token)
        return False


def _as_sent(credentials: Credentials) -> str | None:
    """The ``Authorization`` by which ``credentials`` themselves go to a registry; None when only a token would."""
    if credentials.registry_token:
        return f"Bearer {credentials.registry_token}"
    return credentials.basic if credentials.has_password else None


def choose(header: str | None, asked_at: Target, credentials: Credentials) -> ChosenChallenge:
    """Bearer where it can be used, else Basic where there is a password. Raises :class:`ChallengeInvalid`."""
    host = asked_at.origin.netloc
    if not header:
        raise ChallengeInvalid(f"{host} answers 401 and does not say how to authenticate", host=host, status=401)
    try:
        challenges = parse_challenges(header)
    except ChallengeInvalid as problem:
        raise ChallengeInvalid(
            f"{host} asks for authentication in a way that cannot be read: {problem}", host=host
        ) from None
    basic = next((challenge for challenge in challenges if challenge.scheme == "basic"), None)
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.realm:
            return ChosenChallenge(challenge, asked_at, has_basic_too=basic is not None)
    if basic is not None and (credentials.has_password or credentials.is_anonymous):
        return ChosenChallenge(basic, asked_at)
    offered = ", ".join(dict.fromkeys(challenge.scheme[:20] for challenge in challenges)) or "nothing"
    raise ChallengeInvalid(
        f"{host} offers {offered}; a usable Bearer challenge, or Basic with a password, is needed",
        host=host,
        status=401,
    )
