"""Who a client is to its registry: the ``Authorization`` of each request, learnt from the registry's challenges.

Nothing is sent before it is asked for. What a challenge taught is used for later requests at once, so that each
repository costs one exchange and no request that fails first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from registry_sync.errors import AuthenticationFailed, ChallengeInvalid, RegistryError
from registry_sync.oci.challenge import Challenge, parse_challenges
from registry_sync.oci.credentials import Credentials, ToldCredentials
from registry_sync.oci.origins import Target
from registry_sync.oci.realm import RealmPolicy
from registry_sync.oci.scopes import scopes_to_ask
from registry_sync.oci.tokens import TokenRequest, TokenStore


@dataclass(frozen=True)
class Choice:
    """The challenge that is answered, and whether Basic was offered beside Bearer."""

    challenge: Challenge
    asked_at: Target
    has_basic_too: bool = False

    @property
    def scheme(self) -> str:
        return self.challenge.scheme


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
        self._choice: Choice | None = None

    @property
    def choice(self) -> Choice | None:
        """What the registry asked for last, None before it asked."""
        return self._choice

    @property
    def is_anonymous(self) -> bool:
        """Whether the connection has no credentials."""
        return self._source().is_anonymous

    def authorization(self, scope: str | None) -> str | None:
        """The header for a request that needs ``scope``; None while the registry has not asked for any."""
        credentials = self._source()
        if credentials.registry_token:
            self._policy.check_basic()
            return f"Bearer {credentials.registry_token}"
        if self._choice is None:
            return None
        return self._answer(self._choice, credentials, scope, rejected=None)

    def renew(self, header: str | None, asked_at: Target, scope: str | None, used: str | None) -> str | None:
        """The header with which to repeat a request that got a 401; None when repeating cannot help.

        ``header`` is its ``WWW-Authenticate``, ``used`` what it was sent with. Raises :class:`ChallengeInvalid`,
        :class:`RealmRefused` and :class:`AuthenticationFailed`.
        """
        credentials = self._source()
        if used is not None and used == _as_sent(credentials):
            credentials = self._source.renew(credentials)
        if credentials.registry_token:
            renewed = _as_sent(credentials)
            return None if renewed == used else renewed
        if header is None:
            header, asked_at = self._probe()
        choice = choose(header, asked_at, credentials)
        learnt = self._choice
        if used is None and choice.has_basic_too and learnt is not None and learnt.scheme == "basic":
            choice = learnt  # another thread found meanwhile that the token service does not work
        self._choice = choice
        renewed = self._answer(choice, credentials, scope, rejected=used)
        return None if renewed == used else renewed

    def realm_host(self) -> str | None:
        """The host that tokens come from, None when the registry asked for none."""
        if self._choice is None or self._choice.scheme != "bearer":
            return None
        return Target.parse(self._choice.challenge.realm, relative_to=self._choice.asked_at).origin.netloc

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return self._source().secrets()

    def _answer(
        self, choice: Choice, credentials: Credentials, scope: str | None, *, rejected: str | None
    ) -> str | None:
        if choice.scheme == "basic":
            return self._basic(credentials)
        request = TokenRequest(
            realm=self._policy.check(choice.challenge.realm, choice.asked_at, has_secret=not credentials.is_anonymous),
            service=choice.challenge.service,
            scopes=scopes_to_ask(choice.challenge.scope, scope),
            credentials=credentials,
        )
        try:
            token = self._token(request, rejected)
        except AuthenticationFailed:
            raise
        except RegistryError as problem:
            is_broken = problem.status == 404 or (problem.status or 0) >= 500
            if choice.has_basic_too and credentials.has_password and is_broken:
                self._choice = Choice(Challenge("basic"), choice.asked_at)
                return self._basic(credentials)
            raise
        return f"Bearer {token}"

    def _token(self, request: TokenRequest, rejected: str | None) -> str:
        """The token of the exchange. Refused credentials are tried once only, unless their source has others."""
        refused = (rejected or "").removeprefix("Bearer ")
        try:
            return self._tokens.get(request, rejected=refused)
        except AuthenticationFailed:
            others = self._source.renew(request.credentials)
            if others == request.credentials:
                raise
            return self._tokens.get(replace(request, credentials=others), rejected=refused)

    def _basic(self, credentials: Credentials) -> str | None:
        if not credentials.has_password:
            return None
        self._policy.check_basic()
        return credentials.basic


def _as_sent(credentials: Credentials) -> str | None:
    """The ``Authorization`` by which ``credentials`` themselves go to a registry; None when only a token would."""
    if credentials.registry_token:
        return f"Bearer {credentials.registry_token}"
    return credentials.basic if credentials.has_password else None


def choose(header: str | None, asked_at: Target, credentials: Credentials) -> Choice:
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
            return Choice(challenge, asked_at, has_basic_too=basic is not None)
    if basic is not None and (credentials.has_password or credentials.is_anonymous):
        return Choice(basic, asked_at)
    offered = ", ".join(dict.fromkeys(challenge.scheme[:20] for challenge in challenges)) or "nothing"
    raise ChallengeInvalid(
        f"{host} offers {offered}; a usable Bearer challenge, or Basic with a password, is needed",
        host=host,
        status=401,
    )
