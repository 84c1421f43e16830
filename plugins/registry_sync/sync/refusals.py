"""Whether a refusal is of one manifest or blob, or of all: found out by asking for something that was served.

A scanner blocks one image, and a repository is closed: both are 401 or 403. An entry of an index is missing, and a
repository is gone: both can be 404 with the same code. What follows differs, so one HEAD tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ChallengeInvalid,
    NotFound,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)
from registry_sync.sync.ports import RegistryClient

Reference = TagName | Digest
#: How many other things are asked for before everything is taken to be refused.
MAX_PROBES = 3


@dataclass
class Refusals:
    """The refusals that one stage meets; used by one thread. ``others`` are references that the registry had before."""

    client: RegistryClient
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
        passing: RegistrySyncError | None = None
        for _, other in zip(range(MAX_PROBES), candidates, strict=False):
            try:
                self.client.head_manifest(self.remote.upstream, other)
            except RegistrySyncError as problem:  # noqa: PERF203 - three at most
                passing = problem if problem.is_temporary else passing
            else:
                return True
        if passing is not None:
            raise passing
        return False
