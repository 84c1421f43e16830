"""Who may pull what: robots' secrets, and the signed tokens that clients get for them.

The dialect is that of the token specification (distribution, "Token Authentication Specification"): a request without
a token is answered with a challenge, its ``realm`` gives a token for the scopes that the login allows, and public
repositories can be pulled with a token that nobody had to log in for. A client that sends Basic at once is served too.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from registry_sync.db.database import Database
from registry_sync.domain.serving import PublishedVersion, Robot
from registry_sync.serve.lookups import Lookups
from registry_sync.serve.replies import PullError

ISSUER = "registry-sync"
#: How long a token can be used, in seconds; a robot that is revoked pulls no longer than this.
TOKEN_SECONDS = 300
_SCOPE = re.compile(r"repository:(?P<name>[^:]{1,255}):(?P<actions>[a-z,*]+)")
_MOST_SCOPES = 20
_NOBODY = base64.b64encode(b":").decode()


@dataclass(frozen=True)
class PullLogin:
    """Whose request it is: a robot, or nobody. ``names`` are those that its token is good for, None without a token."""

    robot: Robot | None = None
    subject: str = ""
    names: frozenset[str] | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody logged in for it: a token may be had without."""
        return self.robot is None and not self.subject


class Access:
    """Judges requests by what they carry. ``service`` is how this server calls itself in tokens."""

    def __init__(self, database: Database, lookups: Lookups, service: str) -> None:
        self._database = database
        self._lookups = lookups
        self._service = service
        self._key: bytes | None = None

    async def login(self, headers: Mapping[str, str]) -> PullLogin | None:
        """Who asks; None for nobody in particular. Raises :class:`PullError` with 401 for what cannot be accepted."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() == "bearer":
            return self._of_token(value.strip(), await self._signing_key())
        if scheme.lower() == "basic":
            # Some clients send Basic with an empty name and secret when they have none (RFC 7617 section 2).
            if value.strip() == _NOBODY:
                return None
            return PullLogin(robot=await self._robot(value.strip()))
        raise PullError(401, "UNAUTHORIZED", "log in with Basic or with a token of this server")

    def may_pull(self, login: PullLogin | None, version: PublishedVersion | None, name: str) -> bool:
        """Whether the request may see what ``name`` stands for; what is missing may be seen by nobody."""
        if version is None:
            return False
        if not version.is_private:
            return True
        if login is None:
            return False
        if login.names is not None:
            return name in login.names
        return login.robot is not None and login.robot.may_pull(version.name)

    async def token(self, headers: Mapping[str, str], scopes: Sequence[str]) -> dict[str, Any]:
        """The document of a token for those of ``scopes`` that the login may have (token specification)."""
        login = await self.login(headers)
        robot = login.robot if login is not None else None
        access = []
        for scope in list(scopes)[:_MOST_SCOPES]:
            found = _SCOPE.fullmatch(scope)
            if found is None or not {"pull", "*"} & set(found["actions"].split(",")):
                continue
            version = await self._lookups.published(found["name"])
            if self.may_pull(PullLogin(robot=robot), version, found["name"]):
                access.append({"type": "repository", "name": found["name"], "actions": ["pull"]})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": self._service,
            "sub": robot.name if robot else "",
            "iat": now,
            "nbf": now - 5,
            "exp": now + TOKEN_SECONDS,
            "access": access,
        }
        token = jwt.encode(claims, await self._signing_key(), algorithm="HS256")
        issued_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return {"token": token, "access_token": token, "expires_in": TOKEN_SECONDS, "issued_at": issued_at}

    def challenge(self, origin: str, name: str | None, error: str | None = None) -> PullError:
        """What a request is answered with that needs a (better) token."""
        value = f'Bearer realm="{origin}/v2/token",service="{self._service}"'
        if name is not None:
            value += f',scope="repository:{name}:pull"'
        if error is not None:
            value += f',error="{error}"'
        return PullError(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": value})

    async def _signing_key(self) -> bytes:
        if self._key is None:
            self._key = await self._lookups.run(self._database.robots.signing_key)
        return self._key

    async def _robot(self, value: str) -> Robot:
        try:
            name, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name, colon, secret = "", "", ""
        robot = (
            await self._lookups.run(lambda: self._database.robots.authenticate(name[:255], secret[:255]))
            if colon
            else None
        )
        if robot is None:
            raise PullError(401, "UNAUTHORIZED", "wrong name or secret, or it has expired")
        return robot

    def _of_token(self, token: str, key: bytes) -> PullLogin:
        try:
            claims = jwt.decode(token, key, algorithms=["HS256"], audience=self._service, issuer=ISSUER)
        except jwt.PyJWTError:
            raise PullError(401, "UNAUTHORIZED", "the token is not one of this server, or has expired") from None
        names = {entry["name"] for entry in claims.get("access", ()) if "pull" in entry.get("actions", ())}
        return PullLogin(subject=claims["sub"], names=frozenset(names))
