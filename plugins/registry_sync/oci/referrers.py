"""What refers to a manifest: signatures, attestations, bills of material.

Follows the distribution specification, "Listing Referrers". A registry without the API is read by its fallback tag. An
outage is an error and never means that there is nothing: a mirror would drop signatures.
"""

from __future__ import annotations

import threading

from registry_sync.domain import media_types
from registry_sync.domain.companions import fallback_tag
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Descriptor, Manifest, ManifestLimits, read_manifest
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import ChallengeInvalid, ContentError, NotFound, PaginationError, RegistryError
from registry_sync.oci.answer_errors import Occasion, parse_error_body, read_error_body
from registry_sync.oci.answers import Answer
from registry_sync.oci.links import next_page
from registry_sync.oci.manifests import ManifestReader, read_document
from registry_sync.oci.options import ClientOptions
from registry_sync.oci.origins import Target
from registry_sync.oci.requester import Requester

MAX_PAGES = 100
ACCEPT = {"Accept": media_types.OCI_INDEX}
#: A 401 is looked at too: without a challenge, after one was answered, it is how some say that there is no such path.
ACCEPTED = frozenset({200, 401})
#: By these, registries say that they do not have the API; all others are errors.
UNSUPPORTED_STATUSES = frozenset({400, 404, 405, 406, 501})


class _NotTheApi(Exception):
    """Status 200 with something that is no image index, or 401 and nothing that could be answered."""


class ReferrersReader:
    """Lists referrers; which repositories lack the API is remembered as long as the client lives."""

    def __init__(self, requester: Requester, manifests: ManifestReader, options: ClientOptions) -> None:
        self._requester = requester
        self._manifests = manifests
        self._limits: ManifestLimits = options.limits
        self._lock = threading.Lock()
        self._without_api: set[RepositoryName] = set()

    def list(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """What the registry says refers to ``subject``, each once; whoever fetches one checks its own subject.

        Raises :class:`PaginationError` and what requests raise; a missing API or tag is no error.
        """
        found = self.list_by_api(repository, subject)
        return self._by_tag(repository, subject) if found is None else found

    def list_by_api(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...] | None:
        """What the referrers API says, each once, of any artifact type; None when the registry has no such API.

        A registry that was found to have none is not asked again for that repository. Whoever reads the fallback tags
        from a listing needs no request for them. Raises as :meth:`list` does.
        """
        if repository in self._without_api:
            return None
        found = self._by_api(repository, subject)
        if found is None:
            with self._lock:
                self._without_api.add(repository)
        return found

    def _by_api(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...] | None:
        """None when the registry does not have the API."""
        first = self._requester.target(f"/v2/{repository}/referrers/{subject}")
        target: Target | None = first
        occasion = Occasion("manifest", repository, subject)
        found: dict[Digest, Descriptor] = {}
        visited: set[str] = set()

        def read(answer: Answer) -> tuple[Manifest, Target | None]:
            return self._read_page(answer, occasion)

        try:
            while target is not None:
                if target.url in visited or len(visited) >= MAX_PAGES:
                    raise PaginationError(
                        f"{target.origin.netloc} repeats the referrers of {subject}",
                        host=target.origin.netloc,
                        repository=repository,
                    )
                visited.add(target.url)
                page, target = self._requester.ask("GET", target, occasion, ACCEPT, read, accepted=ACCEPTED)
                found.update((child.digest, child) for child in page.children)
        except (_NotTheApi, ChallengeInvalid):
            return None
        except RegistryError as problem:
            if problem.status in UNSUPPORTED_STATUSES and problem.url == first.url and len(visited) == 1:
                return None
            raise
        return tuple(found.values())

    def _read_page(self, answer: Answer, occasion: Occasion) -> tuple[Manifest, Target | None]:
        if answer.status == 401:
            if answer.header("WWW-Authenticate") is None and answer.target.origin == self._requester.target("/").origin:
                raise _NotTheApi
            raise self._requester.unauthorized(answer, occasion, read_error_body(answer)[0])
        if media_types.normalise(answer.header("Content-Type")) != media_types.OCI_INDEX:
            raise _NotTheApi
        following = next_page(answer.header("Link"), answer.target)
        data = read_document(answer, self._limits)
        try:
            page = read_manifest(data, content_type=media_types.OCI_INDEX, limits=self._limits)
        except ContentError as problem:
            raise answer.protocol_error(
                f"{answer.target.origin.netloc} lists referrers unreadably: {problem}"
            ) from None
        if codes := parse_error_body(data)[0]:
            host = answer.target.origin.netloc
            raise answer.protocol_error(f"{host} answers 200 with errors for referrers", codes=codes)
        return page, following

    def _by_tag(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        try:
            index = self._manifests.get(repository, fallback_tag(subject))
        except NotFound as problem:
            if problem.kind == "repository":
                raise
            return ()
        # Some registries read such a tag as the digest and answer with the subject itself.
        return () if index.digest == subject else index.children


def artifact_type_of(manifest: Manifest) -> str | None:
    """What kind of artifact a referrer is: its own type, of images the config's, of indexes none."""
    return manifest.artifact_type or (manifest.config.media_type if manifest.config is not None else None)
