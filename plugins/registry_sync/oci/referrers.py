"""What refers to a manifest: signatures, attestations, bills of material.

Follows the distribution specification, "Listing Referrers". A registry without the API is read by its fallback tag. An
outage is an error and never means that there is nothing, nor does a refusal: a mirror would drop signatures.
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
#: So many subjects with odd answers and none with an index mean that an API that was there is hidden now.
MAX_DOUBTED = 4
ACCEPT = {"Accept": media_types.OCI_INDEX}
#: Answers to the first page that are looked at: whatever is no outage says something of the API.
_LASTING = frozenset(range(200, 600)) - TEMPORARY_STATUSES


class _NotTheApi(Exception):
    """The first page is something else than an image index."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class _Page:
    """One page, its ``Link``, and where it came from."""

    listed: Manifest
    link: str | None
    target: Target


class ReferrersReader:
    """Lists referrers.

    Which repositories lack the API is remembered as long as the client lives, and which are not told of it, too.
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
        """What the registry says refers to ``subject``, each once; whoever fetches one checks its own subject.

        Raises :class:`PaginationError`, :class:`ReferrersUnavailable` and what requests raise; a missing API or tag is
        no error.
        """
        found = self.list_by_api(repository, subject)
        return self._by_tag(repository, subject) if found is None else found

    def list_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """What the referrers API says, each once, of any artifact type; None when the registry has no such API.

        A registry that was found to have none, or not to tell, is not asked again for that repository. Where the API
        ``is_known`` from before, an odd answer raises :class:`ReferrersUnavailable` for its subject, unless others were
        listed: it may be of that subject alone. After :data:`MAX_DOUBTED` of them the registry is not asked again.
        Whoever reads the fallback tags from a listing needs no request for them. Raises as :meth:`list` does.
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
        """What an answer that is no index means: no API, or where there was one for others, nothing of that subject."""
        host = self._requester.target("/").origin.netloc
        with self._lock:
            if repository not in self._with_api:
                if not is_known:
                    self._without_api.add(repository)
                    return None
                raise self._hidden(repository, subject, status)
        if status == 400:  # of a kind that nothing can refer to
            return ()
        raise ReferrersUnavailable(
            f"{host} lists referrers of other manifests of {repository}, and answers {status} for those of {subject}",
            host=host,
            repository=repository,
            status=status,
        )

    def _hidden(self, repository: RepositoryName, subject: Digest, status: int) -> ReferrersUnavailable:
        host = self._requester.target("/").origin.netloc
        error = ReferrersUnavailable(
            f"what refers to manifests of {repository} cannot be looked up: {host} answers {status} as if it had no "
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
            if response.sent_on_by is None and _is_refusal(response):
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
            return self._requester.ask("GET", target, request_context, ACCEPT, read, accepted=_LASTING)
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
        """A page after the first, which named it: where something else answers, nothing is known of the rest.

        It never means that the manifest is missing. Raises :class:`ReferrersUnavailable`, and as :meth:`list` does.
        """

        def read(response: Response) -> _Page:
            if response.status != 200 or not _is_index(response):
                host = response.target.origin.netloc
                text = f"{host} breaks off the referrers of {request_context} with something else ({response.status})"
                response.discard()
                raise _unavailable(response.protocol_error(text), request_context)
            return self._read_page(response)

        try:
            return self._requester.ask("GET", target, request_context, ACCEPT, read, accepted=_LASTING)
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
            raise response.protocol_error(f"{host} lists referrers unreadably: {problem}") from None
        if codes := parse_error_body(data)[0]:
            raise response.protocol_error(f"{host} answers 200 with errors for referrers", codes=codes)
        return _Page(index, response.header("Link"), response.target)

    def _by_tag(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            index = self._manifests.get(repository, fallback_tag(subject))
        except NotFound as problem:
            if problem.kind == "repository":
                raise
            return ()
        # Some registries read such a tag as the digest and answer with the subject itself.
        return () if index.digest == subject else index.children


def _is_index(response: Response) -> bool:
    return media_types.normalise(response.header("Content-Type")) == media_types.OCI_INDEX


def _is_refusal(response: Response) -> bool:
    """Whether the registry itself says that it does not tell this reader.

    Without a challenge, after one was answered, 401 is how some say that there is no such path.
    """
    return response.status == 403 or (response.status == 401 and response.header("WWW-Authenticate") is not None)


def _unavailable(problem: RegistrySyncError, request_context: RequestContext) -> ReferrersUnavailable:
    known = problem if isinstance(problem, RegistryError) else None
    return ReferrersUnavailable(
        f"what refers to manifests of {request_context.repository} cannot be looked up: {problem.message}",
        host=known.host if known else "",
        repository=request_context.repository,
        method="GET",
        url=known.url if known else None,
        status=known.status if known else None,
        codes=known.codes if known else (),
        redirected_by=problem.redirected_by,
    )


def artifact_type_of(manifest: Manifest) -> str | None:
    """What kind of artifact a referrer is: its own type, of images the config's, of indexes none."""
    return manifest.artifact_type or (manifest.config.media_type if manifest.config is not None else None)
