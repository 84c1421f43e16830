"""Who may pull what: robots' secrets, users' passwords, and the signed tokens that clients get for them.

The dialect is that of the token specification (distribution, "Token Authentication Specification"): a request without
a token is answered with a challenge, its ``realm`` gives a token for the scopes that the login allows, and public
repositories can be pulled with a token that nobody had to log in for. A client that sends Basic at once is served too.

A robot's secret is random and cannot be guessed, so a right one is accepted however often others fail. A user's
password is compared only while few have failed, or when this very login was right before.
"""

from __future__ import annotations

import base64
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cachetools import LRUCache

from registry_sync.db.database import Database
from registry_sync.domain.serving import PublishedVersion, Robot, User, is_robot_secret
from registry_sync.serve.lookups import Lookups
from registry_sync.serve.replies import PullError, unavailable
from registry_sync.users.airflow_logins import LoginUnavailable, UserLogin
from registry_sync.users.checked_logins import CheckedLogins, read_basic
from registry_sync.users.shared_limits import LoginLimits, SharedFailures, TooManyFailedLogins

_log = logging.getLogger(__name__)
ISSUER = "registry-sync"
#: How long a token can be used, in seconds; a robot that is revoked pulls no longer than this.
TOKEN_SECONDS = 300
_SCOPE = re.compile(r"repository:(?P<name>[^:]{1,255}):(?P<actions>[a-z,*]+)")
_MOST_SCOPES = 20
_NOBODY = base64.b64encode(b":").decode()
_REMEMBERED_TOKENS = 1_000
_NEEDED: Any = {"require": ["exp", "sub"]}
_WRONG = "wrong name or password, or it has expired"
_ROBOT, _USER = "robot", "user"


@dataclass(frozen=True)
class PullLogin:
    """Whose request it is.

    ``account`` is ``robot:NAME`` or ``user:NAME``, empty for a token that nobody logged in for. ``owner`` is known of a
    request with Basic. Of one with a token, ``names`` are those that it is good for and ``refused`` those that it was
    asked for in vain; ``is_reader`` is whether it is a user's who may read everything.
    """

    account: str = ""
    owner: Robot | User | None = None
    names: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    is_reader: bool = False

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody logged in for it: a token may be had without."""
        return not self.account


class Access:
    """Judges requests by what they carry. ``service`` is how this server calls itself in tokens.

    ``users`` checks the logins of Airflow's users; without it only robots log in.
    """

    def __init__(self, database: Database, lookups: Lookups, service: str, users: UserLogin | None = None) -> None:
        self._database = database
        self._lookups = lookups
        self._service = service
        self._limits = LoginLimits(SharedFailures(lambda: database.login_failures, lookups.run))
        self._users = None if users is None else CheckedLogins(users, self._limits)
        self._key: bytes | None = None
        #: Tokens that were found right, until when they are.
        self._tokens: LRUCache[str, tuple[PullLogin, float]] = LRUCache(_REMEMBERED_TOKENS)

    async def login(self, headers: Mapping[str, str], address: str) -> PullLogin | None:
        """Who asks; None for nobody in particular.

        Raises :class:`PullError`: 401 for what cannot be accepted, 429 after too many of these, and 503 when Airflow
        cannot be asked.
        """
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() == "bearer":
            return await self._of_token(value.strip())
        if scheme.lower() == "basic":
            # Some clients send Basic with an empty name and secret when they have none (RFC 7617 section 2).
            if value.strip() == _NOBODY:
                return None
            name, password = _name_and_password(value.strip())
            if self._users is not None and not is_robot_secret(password):
                return PullLogin(f"{_USER}:{name}", await self._user(self._users, name, password, address))
            return PullLogin(f"{_ROBOT}:{name}", await self._robot(name, password, address))
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
        return login.owner is not None and login.owner.may_pull(version.name)

    async def reader(self, login: PullLogin | None) -> Robot | User | None:
        """Whose base paths are listed; of a robot those that it may pull now, whatever its token was asked for."""
        if login is None or login.owner is not None:
            return login.owner if login is not None else None
        kind, _, name = login.account.partition(":")
        if kind == _ROBOT:
            return await self._lookups.run(lambda: self._database.robots.by_name(name))
        return User(name, login.is_reader) if kind == _USER else None

    async def token(self, headers: Mapping[str, str], scopes: Sequence[str], address: str) -> dict[str, Any]:
        """The document of a token for those of ``scopes`` that the login may have (token specification)."""
        login = await self.login(headers, address)
        owner = login.owner if login is not None else None  # none of a token, which would renew itself for ever
        access = []
        for scope in list(scopes)[:_MOST_SCOPES]:
            found = _SCOPE.fullmatch(scope)
            if found is None or not {"pull", "*"} & set(found["actions"].split(",")):
                continue
            version = await self._lookups.published(found["name"])
            may_pull = self.may_pull(PullLogin(owner=owner), version, found["name"])
            access.append({"type": "repository", "name": found["name"], "actions": ["pull"] if may_pull else []})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": self._service,
            "sub": login.account if login is not None and owner is not None else "",
            "iat": now,
            "nbf": now - 5,
            "exp": now + TOKEN_SECONDS,
            "access": access,
        }
        if isinstance(owner, User):
            claims["reader"] = owner.is_reader
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

    async def _robot(self, name: str, secret: str, address: str) -> Robot:
        robot = await self._lookups.run(lambda: self._database.robots.authenticate(name, secret))
        if robot is None:
            try:
                await self._limits.admit(f"{_ROBOT}:{name}", address)
            except TooManyFailedLogins as problem:
                raise _too_many(problem) from None
            await self._limits.failed(f"{_ROBOT}:{name}", address)
            raise PullError(401, "UNAUTHORIZED", _WRONG)
        return robot

    async def _user(self, users: CheckedLogins[User], name: str, password: str, address: str) -> User:
        try:
            user = await users(name, password, address)
        except TooManyFailedLogins as problem:
            raise _too_many(problem) from None
        except LoginUnavailable as problem:
            _log.error("the login of the user %r cannot be checked: %s", name, problem)
            message = "users cannot log in now; try again"
            raise unavailable(message, 10) from None
        if user is None:
            raise PullError(401, "UNAUTHORIZED", _WRONG)
        return user

    async def _of_token(self, token: str) -> PullLogin:
        remembered = self._tokens.get(token)
        if remembered is not None and time.time() < remembered[1]:
            return remembered[0]
        key = await self._signing_key()
        try:
            claims = jwt.decode(
                token, key, algorithms=["HS256"], audience=self._service, issuer=ISSUER, options=_NEEDED
            )
        except jwt.PyJWTError:
            raise PullError(401, "UNAUTHORIZED", "the token is not one of this server, or has expired") from None
        given = {entry["name"]: "pull" in entry.get("actions", ()) for entry in claims.get("access", ())}
        login = PullLogin(
            claims["sub"],
            names=frozenset(name for name, is_given in given.items() if is_given),
            refused=frozenset(name for name, is_given in given.items() if not is_given),
            is_reader=claims.get("reader", False),
        )
        self._tokens[token] = login, float(claims["exp"])
        return login


def _name_and_password(value: str) -> tuple[str, str]:
    """Of the value of Basic. Raises :class:`PullError` for one that cannot be read."""
    login = read_basic(value)
    if login is None:
        raise PullError(401, "UNAUTHORIZED", _WRONG)
    return login


def _too_many(problem: TooManyFailedLogins) -> PullError:
    return PullError(429, "TOOMANYREQUESTS", str(problem), {"Retry-After": str(math.ceil(problem.wait_seconds))})
