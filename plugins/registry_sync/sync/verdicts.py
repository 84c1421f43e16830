"""The consequence of an error: the whole run stops, the task is retried, or only some tags are held.

A blocked image and a closed repository both give 401 or 403. A missing entry of an index and a deleted repository can
both give 404 with the same code. One HEAD of other content distinguishes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
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
    """``FATAL`` stops the task, ``RETRY`` has the task retried, ``HOLD`` affects only the tags concerned."""

    FATAL = "fatal"
    RETRY = "retry"
    HOLD = "hold"


#: Errors of a registry that affect every other request too; :class:`Refusals` has turned those that concern one
#: manifest or blob alone into other errors before.
_MEET_EVERY_REQUEST = (
    AuthenticationFailed,
    ChallengeInvalid,
    ConfigurationError,
    NotARegistry,
    RealmRefused,
    RepositoryUnavailable,
)


def verdict(error: RegistrySyncError, *, is_last_try: bool) -> Verdict:
    """The consequence of ``error``, which occurred while one manifest or blob was fetched.

    On the last try of a task a registry's temporary failure becomes a hold, so that one image that a registry cannot
    deliver does not keep the others from being synced. Errors of the database, the blob store and the settings never
    hold a tag.
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
#: How many other references are requested before the whole repository is considered refused.
MAX_PROBES = 3


@dataclass
class Refusals:
    """The refusals that one stage receives; used by one thread. ``others`` are references served before."""

    client: RegistryReader
    remote: RemoteSpec
    others: Callable[[], Iterable[Reference]] = tuple
    _served: Reference | None = None
    _is_closed: bool = False

    def record_served(self, reference: Reference) -> None:
        """Records a reference that was served; it is requested first when another one is refused."""
        self._served = reference

    def settled(self, error: RegistrySyncError, of: Reference) -> RegistrySyncError:
        """``error`` as an error of ``of`` alone where other content of the repository is served, else unchanged.

        Raises a temporary error that occurs during that check.
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
        """Whether it may concern one reference or all. Refusals of a token service concern all."""
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
