"""What a registry is told about who asks. Where that may be sent is decided in ``realm``."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from registry_sync.errors import RegistrySyncError
from registry_sync.oci.clock import SYSTEM_CLOCK, Clock

#: Minted credentials are not replaced when they are younger than this: newer ones would be refused as well.
YOUNGEST_REPLACED_SECONDS = 60.0


@dataclass(frozen=True)
class Credentials:
    """One identity at one registry; all None is anonymous.

    ``username`` and ``password`` serve Basic and the exchange for a token; ``registry_token`` is a bearer token
    that is used as it is; ``identity_token`` is an OAuth2 refresh token. No secret is shown by ``repr``.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def has_password(self) -> bool:
        """Whether there is what Basic needs. An empty password is none."""
        return bool(self.username and self.password)

    @property
    def is_anonymous(self) -> bool:
        """Whether nothing here identifies anyone."""
        return not (self.has_password or self.registry_token or self.identity_token)

    @property
    def basic(self) -> str:
        """The ``Authorization`` value of Basic, in UTF-8 (RFC 7617)."""
        pair = f"{self.username or ''}:{self.password or ''}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    def secrets(self) -> tuple[str, ...]:
        """Every text in here that must not be shown, the Basic pair as it is sent included."""
        named = (self.password, self.registry_token, self.identity_token)
        sent = (self.basic.partition(" ")[2],) if self.has_password else ()
        return tuple(text for text in named if text) + sent


ANONYMOUS = Credentials()

#: Gives the credentials of this moment; called before each exchange, so that short-lived ones can be made anew.
CredentialSource = Callable[[], Credentials]


@dataclass(frozen=True)
class Minted:
    """Credentials that a service made for us, good for ``life_seconds`` from now."""

    credentials: Credentials
    life_seconds: float


class MintedCredentials:
    """A source of credentials that ``mint`` makes: kept, and made anew before they end or once they are refused.

    Safe to share between threads; those that need new ones wait for one minting. When minting fails while the old
    ones are still good, they are used on and it is tried again a minute later.
    """

    def __init__(self, mint: Callable[[], Minted], clock: Clock = SYSTEM_CLOCK) -> None:
        self._mint = mint
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Credentials | None = None
        self._minted_at = self._renew_at = self._ends_at = float("-inf")

    def __call__(self) -> Credentials:
        """Credentials that are good for a while. Raises what ``mint`` raises."""
        with self._lock:
            if self._held is None or self._clock.monotonic() >= self._renew_at:
                return self._make(self._held)
            return self._held

    def renew(self, rejected: Credentials) -> Credentials:
        """Others than ``rejected``, which a registry refused; the same when they were made only just now."""
        with self._lock:
            age = self._clock.monotonic() - self._minted_at
            if self._held is None or (self._held == rejected and age >= YOUNGEST_REPLACED_SECONDS):
                return self._make(None)
            return self._held

    def _make(self, fallback: Credentials | None) -> Credentials:
        now = self._clock.monotonic()
        try:
            minted = self._mint()
        except RegistrySyncError:
            if fallback is None or now >= self._ends_at:
                raise
            self._renew_at = min(self._ends_at, now + YOUNGEST_REPLACED_SECONDS)
            return fallback
        life = max(YOUNGEST_REPLACED_SECONDS, minted.life_seconds)
        self._held, self._minted_at = minted.credentials, now
        self._ends_at, self._renew_at = now + life, now + life * 0.9
        return minted.credentials


class ToldCredentials:
    """A source over fixed credentials or another source; each secret is told to ``on_secret`` before it is used."""

    def __init__(
        self, given: Credentials | CredentialSource | MintedCredentials | None, on_secret: Callable[[str], None]
    ) -> None:
        self._given = given or ANONYMOUS
        self._on_secret = on_secret
        self._told: set[Credentials] = set()

    def __call__(self) -> Credentials:
        """The credentials of this moment."""
        return self._tell(self._given() if callable(self._given) else self._given)

    def renew(self, rejected: Credentials) -> Credentials:
        """Others than ``rejected`` where the source can make others; else what it gives now."""
        if isinstance(self._given, MintedCredentials):
            return self._tell(self._given.renew(rejected))
        return self()

    def _tell(self, credentials: Credentials) -> Credentials:
        if credentials not in self._told:
            for secret in credentials.secrets():
                self._on_secret(secret)
            self._told.add(credentials)
        return credentials
