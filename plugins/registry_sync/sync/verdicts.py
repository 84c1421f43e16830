"""What an error means for a sync: the whole run stops, the task is tried again, or only some tags are hurt.

A scanner blocks one image, and a repository is closed: both are 401 or 403. An entry of an index is missing, and a
repository is gone: both can be 404 with the same code. What follows differs, so one HEAD tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ChallengeInvalid,
    ConfigurationError,
    ContentError,
    NotARegistry,
    NotFound,
    RealmRefused,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)

if TYPE_CHECKING:
    from registry_sync.oci.client import RegistryReader


class Verdict(Enum):
    """``FATAL`` stops the task, ``RETRY`` lets the task be tried again, ``HOLD`` hurts only the tags concerned."""

    FATAL = "fatal"
    RETRY = "retry"
    HOLD = "hold"


#: Errors of a registry that will meet every other request too; what is of one manifest or blob alone is told from
#: them by :mod:`registry_sync.sync.verdicts` before.
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


Reference = TagName | Digest
#: How many other things are asked for before everything is taken to be refused.
MAX_PROBES = 3


@dataclass
class Refusals:
    """The refusals that one stage meets; used by one thread. ``others`` are references that the registry had before."""

    client: RegistryReader
    remote: RemoteSpec
    others: Callable[[], Iterable[Reference]] = tuple
    _served: Reference | None = None
    _is_closed: bool = False

    def note_served(self, reference: Reference) -> None:
        """Notes what was just served; it is asked for first when something is refused."""
        self._served = reference

    def settled(self, error: RegistrySyncError, of: Reference) -> RegistrySyncError:
        """``error`` as it is meant: of ``of`` alone where something else of the repository is served, else unchanged.

        Raises a temporary error that was met while finding that out.
        """
        if self._is_closed or not isinstance(error, RegistryError) or not self._is_doubtful(error):
            return error
        if not self._is_served(of):
            self._is_closed = True
            return error
        message = f"{error.message}; others of the repository are served"
        context: dict[str, Any] = {
            "host": error.host,
            "repository": error.repository,
            "method": error.method,
            "url": error.url,
            "status": error.status,
            "codes": error.codes,
        }
        return NotFound(message, **context) if isinstance(error, NotFound) else AccessDenied(message, **context)

    def _is_doubtful(self, error: RegistryError) -> bool:
        """Whether it may be of one or of all. What a token service refuses is of all."""
        if isinstance(error, NotFound):
            return error.kind == "repository"
        if isinstance(error, ChallengeInvalid):
            return error.status == 401
        is_refusal = isinstance(error, AuthenticationFailed | RepositoryUnavailable) and error.status in (401, 403)
        return is_refusal and f"/v2/{self.remote.upstream}/" in (error.url or "")

    def _is_served(self, of: Reference) -> bool:
        known = [] if self._served is None else [self._served]
        candidates = (other for other in dict.fromkeys((*known, *self.others())) if other != of)
        transient: RegistrySyncError | None = None
        for _, other in zip(range(MAX_PROBES), candidates, strict=False):
            try:
                self.client.head_manifest(self.remote.upstream, other)
            except RegistrySyncError as problem:  # noqa: PERF203 - three at most
                transient = problem if problem.is_temporary else transient
            else:
                return True
        if transient is not None:
            raise transient
        return False
