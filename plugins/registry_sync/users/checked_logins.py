"""Logins of Airflow's users as a server takes them: read from Basic, remembered, and refused after many failures.

Whatever is wrong with a login is one response: no caller can tell an unknown user from a wrong password.
"""

from __future__ import annotations

import base64
import binascii
from typing import Generic, TypeVar

from registry_sync.users.airflow_logins import Login, LoginUnavailable, RememberedLogins
from registry_sync.users.shared_limits import LoginLimits

T = TypeVar("T")
#: The most characters of a name and of a password.
MOST_CHARACTERS = 255
_KIND = "user"


def read_basic(value: str) -> tuple[str, str] | None:
    """Name and password of the value of Basic (RFC 7617); None for one that cannot be those of anybody."""
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or not name or not password or max(len(name), len(password)) > MOST_CHARACTERS:
        return None
    return name, password


class CheckedLogins(Generic[T]):
    """``login`` asked rarely, and not at all while too many have failed.

    A login that was right before in this process is no guess, and counts towards no limit.
    """

    def __init__(self, login: Login[T], limits: LoginLimits) -> None:
        self._logins = RememberedLogins(login)
        self._limits = limits

    async def __call__(self, name: str, password: str, address: str) -> T | None:
        """What ``login`` gives; None when it is wrong.

        Raises :class:`TooManyFailedLogins`, and :class:`LoginUnavailable` when Airflow cannot be asked, which is no
        failure of the user's.
        """
        remembered = self._logins.remembered(name, password)
        if remembered is not None:
            return remembered
        account, is_counted = f"{_KIND}:{name}", not self._logins.is_known(name, password)
        if not is_counted:
            return await self._logins(name, password)
        await self._limits.admit(account, address)
        try:
            found = await self._logins(name, password)
        except LoginUnavailable:
            self._limits.forgive(account, address)
            raise
        if found is None:
            await self._limits.failed(account, address)
        else:
            self._limits.forgive(account, address)
        return found
