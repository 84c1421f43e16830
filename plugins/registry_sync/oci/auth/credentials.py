"""Credentials, their sources, and the hosts that may receive them.

A challenge comes from the registry, or from an attacker who controls it: it must not be able to send a stored password
to an arbitrary host (CVE-2020-15157 and similar).
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from registry_sync.domain.known_registries import known_registry
from registry_sync.errors import RealmRefused, RegistrySyncError
from registry_sync.oci.http.options import SYSTEM_CLOCK, Clock
from registry_sync.oci.http.origins import Origin, Target

#: Minted credentials younger than this are not replaced: newer ones would be refused as well.
YOUNGEST_REPLACED_SECONDS = 60.0


@dataclass(frozen=True)
class Credentials:
    """One identity at one registry; all None is anonymous.

    ``username`` and ``password`` serve Basic and the exchange for a token; ``registry_token`` is a ready-made bearer
    token; ``identity_token`` is an OAuth2 refresh token. ``repr`` shows no secret.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def has_password(self) -> bool:
        """Whether Basic can be used; an empty password is none."""
        return bool(self.username and self.password)

    @property
    def is_anonymous(self) -> bool:
        """Whether no identity is given."""
        return not (self.has_password or self.registry_token or self.identity_token)

    @property
    def basic(self) -> str:
        """The ``Authorization`` value of Basic, in UTF-8 (RFC 7617)."""
        pair = f"{self.username or ''}:{self.password or ''}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"

    def secrets(self) -> tuple[str, ...]:
        """Every secret text, including the Basic pair as it is sent."""
        named = (self.password, self.registry_token, self.identity_token)
        sent = (self.basic.partition(" ")[2],) if self.has_password else ()
        return tuple(text for text in named if text) + sent


ANONYMOUS = Credentials()

#: Returns the current credentials; called before each exchange, so that short-lived ones can be renewed.
CredentialSource = Callable[[], Credentials]


@dataclass(frozen=True)
class Minted:
    """Credentials issued by a service, valid for ``life_seconds`` from now."""

    credentials: Credentials
    life_seconds: float


class MintedCredentials:
    """A source of credentials issued by ``mint``: kept, and renewed before they expire or once they are refused.

    Safe to share between threads, which wait for one minting. When minting fails while the old credentials are still
    valid, they stay in use and minting is retried a minute later.
    """

    def __init__(self, mint: Callable[[], Minted], clock: Clock = SYSTEM_CLOCK) -> None:
        self._mint = mint
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Credentials | None = None
        self._minted_at = self._renew_at = self._expires_at = float("-inf")

    def __call__(self) -> Credentials:
        """Valid credentials. Raises what ``mint`` raises."""
        with self._lock:
            if self._held is None or self._clock.monotonic() >= self._renew_at:
                return self._make(self._held)
            return self._held

    def renew(self, rejected: Credentials) -> Credentials:
        """Credentials other than ``rejected``, which a registry refused; the same when they were issued just now."""
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
            if fallback is None or now >= self._expires_at:
                raise
            self._renew_at = min(self._expires_at, now + YOUNGEST_REPLACED_SECONDS)
            return fallback
        life = max(YOUNGEST_REPLACED_SECONDS, minted.life_seconds)
        self._held, self._minted_at = minted.credentials, now
        self._expires_at, self._renew_at = now + life, now + life * 0.9
        return minted.credentials


class ReportedCredentials:
    """A source over fixed credentials or another source that passes each secret to ``on_secret`` before its use."""

    def __init__(
        self, given: Credentials | CredentialSource | MintedCredentials | None, on_secret: Callable[[str], None]
    ) -> None:
        self._given = given or ANONYMOUS
        self._on_secret = on_secret
        self._reported: set[Credentials] = set()

    def __call__(self) -> Credentials:
        """The current credentials."""
        return self._report(self._given() if callable(self._given) else self._given)

    def renew(self, rejected: Credentials) -> Credentials:
        """Credentials other than ``rejected`` where the source can issue others; else the current ones."""
        if isinstance(self._given, MintedCredentials):
            return self._report(self._given.renew(rejected))
        return self()

    def _report(self, credentials: Credentials) -> Credentials:
        if credentials not in self._reported:
            for secret in credentials.secrets():
                self._on_secret(secret)
            self._reported.add(credentials)
        return credentials


class RealmPolicy:
    """The policy of one registry, ``own``; ``trusted_hosts`` are exact ``host`` or ``host:port`` of its connection."""

    def __init__(self, own: Origin, trusted_hosts: frozenset[str], *, allow_insecure: bool) -> None:
        self._own = own
        self._trusted = trusted_hosts | known_registry(own.netloc).token_hosts
        self._allow_insecure = allow_insecure

    def check(self, realm: str, sent_by: Target, *, has_secret: bool) -> Target:
        """The token service at ``realm``. Raises :class:`RealmRefused`.

        A relative realm is resolved against ``sent_by``, the target of the request, and must be the registry itself.
        """
        if "#" in realm:
            raise self._refusal(realm, "it has a fragment")
        is_relative = "://" not in realm
        try:
            target = Target.parse(realm, relative_to=sent_by)
        except ValueError as problem:
            raise self._refusal(realm, str(problem)) from None
        if is_relative and target.origin != self._own:
            raise self._refusal(realm, "it is relative and leaves the registry")
        if target.origin.scheme == "http" and self._own.scheme != "http":
            raise self._refusal(
                realm, "it is plain http while the registry is https; its operator must set an https realm"
            )
        if has_secret:
            self._check_secret(target)
        return target

    def check_basic(self) -> None:
        """Checks that a password may be sent to the registry itself. Raises :class:`RealmRefused`."""
        if self._own.scheme == "http" and not self._allow_insecure:
            raise RealmRefused(
                f"{self._own.netloc} requests a password over plain http; use https, or set "
                "allow_insecure_credentials on the connection if this network is trusted",
                host=self._own.netloc,
            )

    def _check_secret(self, target: Target) -> None:
        origin = target.origin
        if origin.scheme == "http" and not self._allow_insecure:
            raise self._refusal(
                target.url,
                "credentials would travel over plain http; use https, or set allow_insecure_credentials on the "
                "connection if this network is trusted",
            )
        if origin != self._own and not origin.is_named_by(self._trusted):
            raise self._refusal(
                target.url,
                f"the credentials are for the registry; if {origin.netloc} belongs to it, add it to "
                "trusted_realm_hosts of the connection",
            )

    def _refusal(self, realm: str, reason: str) -> RealmRefused:
        try:
            shown = Target.parse(realm).origin.netloc
        except ValueError:
            shown = "a realm that is no URL"
        return RealmRefused(
            f"{self._own.netloc} refers to {shown} for a token, and that is refused: {reason}", host=self._own.netloc
        )
