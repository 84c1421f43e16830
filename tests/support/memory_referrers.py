"""The referrers API of a registry in memory, as a client reads it: page by page, and with a memory of what it found.

As the real client it tells a registry without the API from one that hides it for a time, or refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, ManifestLimits, read_manifest
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import TEMPORARY_STATUSES, ProtocolError, ReferrersUnavailable, RegistryError
from registry_sync.oci.http.error_mapping import RequestContext
from registry_sync.oci.referrers import MAX_DOUBTED
from support.memory_registry import MemoryRequest, MemoryResponse

T = TypeVar("T")
_LASTING = frozenset(range(200, 600)) - TEMPORARY_STATUSES


class _Requests(Protocol):
    """How a client sends requests, and makes errors of responses."""

    def ask(
        self,
        request: MemoryRequest,
        context: RequestContext,
        read: Callable[[MemoryResponse], T],
        accepted: frozenset[int] = ...,
    ) -> T: ...

    def error(self, request: MemoryRequest, response: MemoryResponse, context: RequestContext) -> RegistryError: ...

    def protocol_error(self, request: MemoryRequest, message: str, status: int = ...) -> ProtocolError: ...


@dataclass
class _Knowledge:
    """What a client has found out of the referrers API of one repository."""

    has_api: bool | None = None
    refusal: ReferrersUnavailable | None = None
    doubted: set[Digest] = field(default_factory=set)


class MemoryReferrers:
    """Lists referrers for one client, by whose requests it reads; safe to share between threads."""

    def __init__(self, client: _Requests, host: str, limits: ManifestLimits) -> None:
        self._client = client
        self._host = host
        self._limits = limits
        self._knowledge: dict[str, _Knowledge] = {}
        self._lock = threading.Lock()

    def found(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """What refers to ``subject``, None where there is no API; ``is_known`` says that a recent sync found it."""
        with self._lock:
            known = self._knowledge.setdefault(repository, _Knowledge())
        if known.has_api is False:
            return None
        if known.refusal is not None:
            raise known.refusal.with_message(known.refusal.message)
        try:
            return self._list(repository, subject, known)
        except ReferrersUnavailable as problem:
            with self._lock:
                if not known.has_api:
                    known.refusal = problem
            raise
        except _NotTheApi as problem:
            return self._without(repository, subject, known, problem.status, is_known=is_known)

    def _list(self, repository: RepositoryName, subject: Digest, known: _Knowledge) -> tuple[Descriptor, ...]:
        context = RequestContext("manifest", repository, subject)
        found: dict[Digest, Descriptor] = {}
        last, has_more = None, True
        while has_more:
            request = MemoryRequest("GET", "referrers", repository, subject, last=last)
            response = self._client.ask(request, context, lambda response: response, _LASTING)
            if response.status in (401, 403) and last is None and (response.status == 403 or response.has_challenge):
                raise self._unavailable(self._client.error(request, response, context), repository)
            if response.status != 200 or response.media_type != media_types.OCI_INDEX:
                if last is None:
                    raise _NotTheApi(response.status)
                said = f"{self._host} breaks off the list of referrers of {context} ({response.status})"
                raise self._unavailable(self._client.protocol_error(request, said, response.status), repository)
            known.has_api = True
            index = read_manifest(response.data, content_type=media_types.OCI_INDEX, limits=self._limits)
            found.update((child.digest, child) for child in index.children)
            last, has_more = str(len(found)), response.has_more
        return tuple(found.values())

    def _without(
        self, repository: RepositoryName, subject: Digest, known: _Knowledge, status: int, *, is_known: bool
    ) -> tuple[Descriptor, ...] | None:
        host = self._host
        with self._lock:
            if not known.has_api and not is_known:
                known.has_api = False
                return None
            if not known.has_api:
                error = ReferrersUnavailable(
                    f"the referrers of manifests of {repository} cannot be listed: {host} responds {status} as if it "
                    "had no referrers API, which it had in a recent sync",
                    host=host,
                    repository=repository,
                    status=status,
                )
                known.doubted.add(subject)
                if len(known.doubted) >= MAX_DOUBTED:
                    known.refusal = error
                raise error
        if status == 400:
            return ()
        raise ReferrersUnavailable(
            f"{host} lists referrers of other manifests of {repository}, and responds {status} for those of {subject}",
            host=host,
            repository=repository,
            status=status,
        )

    @staticmethod
    def _unavailable(problem: RegistryError, repository: RepositoryName) -> ReferrersUnavailable:
        return ReferrersUnavailable(
            f"the referrers of manifests of {repository} cannot be listed: {problem.message}",
            host=problem.host,
            repository=repository,
            method="GET",
            url=problem.url,
            status=problem.status,
            codes=problem.codes,
        )


class _NotTheApi(Exception):
    """The first page is something else than an image index."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
