"""Logins of Airflow's users: names and passwords are checked by Airflow, whichever auth manager it has.

Airflow gives a user a token for its API, with which our REST API acts for them, and says whether the user may read what
is mirrored. A password is kept nowhere, and a token for a short time, by :class:`RememberedLogins`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import httpx
from cachetools import LRUCache, TTLCache

from registry_sync.domain.serving import User

T = TypeVar("T")
#: Gives something of the user of a name and a password; None when Airflow accepts them not. Raises
#: :class:`LoginUnavailable`.
Login: TypeAlias = Callable[[str, str], Awaitable[T | None]]
UserLogin: TypeAlias = Login[User]

#: How long the answer to one login is used for the next ones, in seconds.
REMEMBERED_SECONDS = 60
#: Logins that are remembered at a time, and those that are known to have been right.
_REMEMBERED, _KNOWN = 1_000, 10_000
_CONCURRENT = 8
_TIMEOUT_SECONDS = 10.0
_TOKEN_PATH = "/auth/token"  # noqa: S105 - a path
_READ_PATH = "/pulp/api/v3/distributions/docker/docker/?limit=1"


class LoginUnavailable(Exception):
    """Airflow cannot be asked who a user is."""


class AirflowLogins:
    """Asks the Airflow API server at ``url``, a few logins at a time. ``transport`` is another way to it than HTTP."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._transport = transport
        self._trusted = ssl.create_default_context()
        self._slots = asyncio.Semaphore(_CONCURRENT)

    async def __call__(self, name: str, password: str) -> User | None:
        async with self._slots, self._client() as client:
            token = await self._token(client, name, password)
            if token is None:
                return None
            headers = {"Authorization": f"Bearer {token}"}
            response = await self._ask(client, "GET", _READ_PATH, headers=headers)
            if response.status_code not in (200, 403):
                raise self._unusable(_READ_PATH, response)
            return User(name, is_reader=response.status_code == 200)

    async def token(self, name: str, password: str) -> str | None:
        """A token of Airflow's API for the user; None when the login is wrong. Raises :class:`LoginUnavailable`."""
        async with self._slots, self._client() as client:
            return await self._token(client, name, password)

    def _client(self) -> httpx.AsyncClient:
        # No proxy and no password file of the environment: the address is ours.
        return httpx.AsyncClient(
            transport=self._transport, verify=self._trusted, timeout=_TIMEOUT_SECONDS, trust_env=False
        )

    async def _token(self, client: httpx.AsyncClient, name: str, password: str) -> str | None:
        given = {"username": name, "password": password}
        response = await self._ask(client, "POST", _TOKEN_PATH, json=given)
        if response.status_code in (400, 401, 403, 422):
            return None
        token = _token_of(response)
        if response.status_code not in (200, 201) or token is None:
            raise self._unusable(_TOKEN_PATH, response)
        return token

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **options: object) -> httpx.Response:
        try:
            return await client.request(method, self._url + path, **options)  # type: ignore[arg-type]
        except httpx.HTTPError as problem:
            raise LoginUnavailable(f"Airflow at {self._url}{path}: {type(problem).__name__}: {problem}") from None

    def _unusable(self, path: str, response: httpx.Response) -> LoginUnavailable:
        return LoginUnavailable(f"Airflow at {self._url}{path} answered with {response.status_code}")


def _token_of(response: httpx.Response) -> str | None:
    try:
        document = response.json()
    except ValueError:
        return None
    token = document.get("access_token") if isinstance(document, dict) else None
    return token if isinstance(token, str) else None


class RememberedLogins(Generic[T]):
    """``login`` asked rarely: right logins are remembered for a short time, and equal ones at once are one.

    What is kept of a password is a keyed hash whose key never leaves the process.
    """

    def __init__(self, login: Login[T], seconds: float = REMEMBERED_SECONDS) -> None:
        self._login = login
        self._key = secrets.token_bytes(32)
        self._users: TTLCache[bytes, T] = TTLCache(_REMEMBERED, seconds)
        self._known: LRUCache[bytes, bool] = LRUCache(_KNOWN)
        self._asked: dict[bytes, asyncio.Task[T | None]] = {}

    def remembered(self, name: str, password: str) -> T | None:
        """What ``login`` gave, if the same login was right a short time ago."""
        return self._users.get(self._fingerprint(name, password))

    def is_known(self, name: str, password: str) -> bool:
        """Whether this very login was once right: nobody is guessing."""
        return self._fingerprint(name, password) in self._known

    async def __call__(self, name: str, password: str) -> T | None:
        """What ``login`` gives; None when the login is wrong. Raises :class:`LoginUnavailable`."""
        fingerprint = self._fingerprint(name, password)
        task = self._asked.get(fingerprint)
        if task is None:
            task = self._asked[fingerprint] = asyncio.create_task(self._ask(fingerprint, name, password))
            task.add_done_callback(lambda ended: self._end(fingerprint, ended))
        # A client that goes away does not end what others wait for.
        return await asyncio.shield(task)

    def _end(self, fingerprint: bytes, ended: asyncio.Task[T | None]) -> None:
        del self._asked[fingerprint]
        if not ended.cancelled():
            ended.exception()  # looked at, should nobody wait any more

    async def _ask(self, fingerprint: bytes, name: str, password: str) -> T | None:
        user = await self._login(name, password)
        if user is None:
            self._known.pop(fingerprint, None)
        else:
            self._users[fingerprint] = user
            self._known[fingerprint] = True
        return user

    def _fingerprint(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
