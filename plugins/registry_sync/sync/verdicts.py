"""What an error means for a sync: the whole run stops, the task is tried again, or only some tags are hurt."""

from __future__ import annotations

from enum import Enum

from registry_sync.errors import (
    AuthenticationFailed,
    ChallengeInvalid,
    ConfigurationError,
    ContentError,
    NotARegistry,
    RealmRefused,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)


class Verdict(Enum):
    """``FATAL`` stops the task, ``RETRY`` lets the task be tried again, ``HOLD`` hurts only the tags concerned."""

    FATAL = "fatal"
    RETRY = "retry"
    HOLD = "hold"


#: Errors of a registry that will meet every other request too; what is of one manifest or blob alone is told from
#: them by :mod:`registry_sync.sync.refusals` before.
_MEET_EVERY_REQUEST = (
    AuthenticationFailed,
    ChallengeInvalid,
    ConfigurationError,
    NotARegistry,
    RealmRefused,
    RepositoryUnavailable,
)


def verdict(error: RegistrySyncError, *, is_last_try: bool) -> Verdict:
    """What ``error``, met while one manifest or blob was fetched, means.

    On the last try of a task a registry's temporary failure becomes a hold, so that one image that a registry
    cannot deliver does not keep the others from being synced. Errors of the database, the blob store and the
    settings are never held against a tag.
    """
    if isinstance(error, _MEET_EVERY_REQUEST) or not isinstance(error, RegistryError | ContentError):
        return Verdict.FATAL
    if error.is_temporary and not is_last_try:
        return Verdict.RETRY
    return Verdict.HOLD


def reason(error: RegistrySyncError) -> str:
    """One line for people, with the kind of error first."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
