"""What a registry is told about who asks. Values only; where they may be sent is decided in ``realm``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field


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
