"""The referrers of a manifest: signatures, attestations, bills of material.

Follows the distribution specification, "Listing Referrers". A registry without the API is read by the fallback tag. An
outage or a refusal is an error and never an empty list: a mirror would drop signatures.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, ManifestLimits, read_manifest
from registry_sync.domain.references import RepositoryName, fallback_tag
from registry_sync.errors import (
    TEMPORARY_STATUSES,
    ChallengeInvalid,
    ContentError,
    NotFound,
    PaginationError,
    RedirectRefused,
    ReferrersUnavailable,
    RegistryError,
    RegistrySyncError,
)
from registry_sync.oci.http.error_mapping import RequestContext, parse_error_body, read_error_body
from registry_sync.oci.http.link_headers import next_page
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.requester import Requester
from registry_sync.oci.http.responses import Response
from registry_sync.oci.manifests import ManifestReader, read_document

MAX_PAGES = 100
#: After this many subjects with unexpected responses and none with an index, a known API counts as unavailable.
MAX_DOUBTED = 4
ACCEPT = {"Accept": media_types.OCI_INDEX}
#: Statuses of the first page that are examined: any that is not an outage says something about the API.
_LASTING = frozenset(range(200, 600)) - TEMPORARY_STATUSES


class _NotTheApi(Exception):
    """The first page is not an image index."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class _Page:
    """One page, its ``Link`` and its target."""

    listed: Manifest
    link: str | None
    target: Target


class ReferrersReader:
    """Lists referrers.

    Remembers, as long as the client lives, which repositories lack the API and which refuse it.
    """

    def __init__(self, requester: Requester, manifests: ManifestReader, options: ClientOptions) -> None:
        self._requester = requester
        self._manifests = manifests
        self._limits: ManifestLimits = options.limits
        self._lock = threading.Lock()
        self._with_api: set[RepositoryName] = set()
        self._without_api: set[RepositoryName] = set()
        self._refusals: dict[RepositoryName, ReferrersUnavailable] = {}
        self._doubted: dict[RepositoryName, set[Digest]] = {}

    def list(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """The referrers that the registry lists for ``subject``, each once; their ``subject`` fields are not checked.

        Raises :class:`PaginationError`, :class:`ReferrersUnavailable` and what requests raise; a missing API or tag is
        no error.
        """
        found = self.list_by_api(repository, subject)
        return self._by_tag(repository, subject) if found is None else found

    def list_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """The referrers by the API, each once, of any artifact type; None when the registry has no such API.

        A registry without the API, or that refuses it, is not queried again for that repository. Where ``is_known``
        says that an earlier sync found the API, an unexpected response raises :class:`ReferrersUnavailable` for its
        subject alone; after :data:`MAX_DOUBTED` of them the registry is not queried again. No fallback tag is
        requested. Raises as :meth:`list` does.
        """
        if repository in self._without_api:
            return None
        if (refusal := self._refusals.get(repository)) is not None:
            raise refusal.with_message(refusal.message)
        try:
            found = self._by_api(repository, subject)
        except _NotTheApi as problem:
            return self._without(repository, subject, problem.status, is_known=is_known)
        except ReferrersUnavailable as problem:
            with self._lock:
                if repository not in self._with_api:
                    self._refusals[repository] = problem
            raise
        return found

    def _without(
        self, repository: RepositoryName, subject: Digest, status: int, *, is_known: bool
    ) -> tuple[Descriptor, ...] | None:
        """The meaning of a response that is no index: no API, or where others were listed, none for this subject."""
        host = self._requester.target("/").origin.netloc
        with self._lock:
            if repository not in self._with_api:
                if not is_known:
                    self._without_api.add(repository)
                    return None
                raise self._hidden(repository, subject, status)
        if status == 400:  # a manifest type that cannot be a subject
            return ()
        raise ReferrersUnavailable(
            f"{host} lists referrers of other manifests of {repository}, and responds {status} for those of {subject}",
            host=host,
            repository=repository,
            status=status,
        )

    def _hidden(self, repository: RepositoryName, subject: Digest, status: int) -> ReferrersUnavailable:
        host = self._requester.target("/").origin.netloc
        error = ReferrersUnavailable(
            f"the referrers of manifests of {repository} cannot be listed: {host} responds {status} as if it had no "
            "referrers API, which it had in a recent sync",
            host=host,
            repository=repository,
            status=status,
        )
        doubted = self._doubted.setdefault(repository, set())
        doubted.add(subject)
        if len(doubted) >= MAX_DOUBTED:
            self._refusals[repository] = error
        return error

    def _by_api(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """Raises :class:`_NotTheApi` when the registry does not have it."""
        target: Target | None = self._requester.target(f"/v2/{repository}/referrers/{subject}")
        request_context = RequestContext("manifest", repository, subject)
        found: dict[Digest, Descriptor] = {}
        visited: set[str] = set()
        while target is not None:
            if target.url in visited or len(visited) >= MAX_PAGES:
                raise PaginationError(
                    f"{target.origin.netloc} repeats the referrers of {subject}",
                    host=target.origin.netloc,
                    repository=repository,
                )
            visited.add(target.url)
            if len(visited) == 1:
                page = self._first(target, request_context)
                with self._lock:
                    self._with_api.add(repository)
            else:
                page = self._later(target, request_context)
            found.update((child.digest, child) for child in page.listed.children)
            try:
                target = next_page(page.link, page.target)
            except RedirectRefused as problem:
                raise _unavailable(problem, request_context) from problem
        return tuple(found.values())

    def _first(self, target: Target, request_context: RequestContext) -> _Page:
        """The first page. Raises :class:`_NotTheApi`, :class:`ReferrersUnavailable`, and as :meth:`list` does."""

        def read(response: Response) -> _Page:
            if response.redirected_by is None and _is_refusal(response):
                if response.status == 401:
                    raise _unavailable(
                        self._requester.unauthorized(response, request_context, read_error_body(response)[0]),
                        request_context,
                    )
                raise _unavailable(self._requester.error(response, request_context), request_context)
            if response.status != 200 or not _is_index(response):
                response.discard()
                raise _NotTheApi(response.status)
            return self._read_page(response)

        try:
            return self._requester.send("GET", target, request_context, ACCEPT, read, accepted=_LASTING)
        except ChallengeInvalid:
            raise _NotTheApi(401) from None
        except RegistrySyncError as problem:
            status = problem.status if isinstance(problem, RegistryError) else None
            if isinstance(problem, RedirectRefused) or (problem.redirected_by is not None and status is None):
                raise _unavailable(problem, request_context) from problem
            if isinstance(problem, RegistryError) and status is not None and 300 <= status < 400:
                raise _NotTheApi(status) from problem
            raise

    def _later(self, target: Target, request_context: RequestContext) -> _Page:
        """A page that the one before links to. A failure never means that the manifest is missing.

        Raises :class:`ReferrersUnavailable`, and as :meth:`list` does.
        """

        def read(response: Response) -> _Page:
            if response.status != 200 or not _is_index(response):
                host = response.target.origin.netloc
                text = f"{host} breaks off the list of referrers of {request_context} ({response.status})"
                response.discard()
                raise _unavailable(response.protocol_error(text), request_context)
            return self._read_page(response)

        try:
            return self._requester.send("GET", target, request_context, ACCEPT, read, accepted=_LASTING)
        except (ChallengeInvalid, RedirectRefused) as problem:
            raise _unavailable(problem, request_context) from problem
        except RegistryError as problem:
            is_redirect = problem.status is not None and 300 <= problem.status < 400
            if is_redirect or (problem.redirected_by is not None and problem.status is None):
                raise _unavailable(problem, request_context) from problem
            raise

    def _read_page(self, response: Response) -> _Page:
        host = response.target.origin.netloc
        data = read_document(response, self._limits)
        try:
            index = read_manifest(data, content_type=media_types.OCI_INDEX, limits=self._limits)
        except ContentError as problem:
            raise response.protocol_error(f"{host} sends a list of referrers that cannot be read: {problem}") from None
        if codes := parse_error_body(data)[0]:
            raise response.protocol_error(f"{host} responds 200 with errors for referrers", codes=codes)
        return _Page(index, response.header("Link"), response.target)

    def _by_tag(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            index = self._manifests.get(repository, fallback_tag(subject))
        except NotFound as problem:
            if problem.kind == "repository":
                raise
            return ()
        # Some registries read such a tag as the digest and respond with the subject itself.
        return () if index.digest == subject else index.children


def _is_index(response: Response) -> bool:
    return media_types.normalise(response.header("Content-Type")) == media_types.OCI_INDEX


def _is_refusal(response: Response) -> bool:
    """Whether the registry itself denies this reader the list.

    After authentication, some registries respond 401 without a challenge for a path that does not exist.
    """
    return response.status == 403 or (response.status == 401 and response.header("WWW-Authenticate") is not None)


def _unavailable(problem: RegistrySyncError, request_context: RequestContext) -> ReferrersUnavailable:
    known = problem if isinstance(problem, RegistryError) else None
    return ReferrersUnavailable(
        f"the referrers of manifests of {request_context.repository} cannot be listed: {problem.message}",
        host=known.host if known else "",
        repository=request_context.repository,
        method="GET",
        url=known.url if known else None,
        status=known.status if known else None,
        codes=known.codes if known else (),
        redirected_by=problem.redirected_by,
    )


def artifact_type_of(manifest: Manifest) -> str | None:
    """The artifact type of a referrer: its own, of images the config's media type, of indexes None."""
    return manifest.artifact_type or (manifest.config.media_type if manifest.config is not None else None)
