"""The reader of a registry in memory: gives, raises and counts what the real client does, without HTTP and waits.

Errors are made by the client's own table, retries counted by its own :class:`~registry_sync.oci.http.requester.Retry`
in a time that passes at once, manifests read by the domain: what is written again here is what lies between.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence, Set
from datetime import datetime, timezone
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.manifest_documents import Descriptor, Manifest, read_manifest
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName, fallback_tag
from registry_sync.errors import (
    AuthenticationFailed,
    ChallengeInvalid,
    ContentError,
    DigestMismatch,
    InvalidManifest,
    InvalidReference,
    NotFound,
    PaginationError,
    ProtocolError,
    RedirectRefused,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
    ServerUnavailable,
    SizeMismatch,
    TruncatedBody,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.blobs import PROGRESS_BYTES, BlobDestination, write_known_bytes
from registry_sync.oci.http.error_mapping import (
    Refusal,
    RequestContext,
    error_of_refusal,
    printable,
    unavailable_message,
)
from registry_sync.oci.http.many_heads import HeadsLeft, StartedRequest
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import Origin, Target
from registry_sync.oci.http.rate_limits import Usage
from registry_sync.oci.http.requester import Retry
from registry_sync.oci.manifests import ManifestHead
from registry_sync.oci.tag_digests import DigestPairs, TagDigests, add_digests_of_images
from registry_sync.oci.tags import TagListing
from support.memory_digest_list import MemoryDigestList
from support.memory_referrers import MemoryReferrers
from support.memory_registry import MemoryRegistry, MemoryRequest, MemoryResponse, running_at
from support.oci import FakeTime

T = TypeVar("T")
_FOREIGN = re.compile(r"(?P<registry>https?://[^/]+)/v2/(?P<repository>.+)/blobs/[^/]+")
_PATHS = {
    "tags": "tags/list",
    "digests": "digests",
    "manifest": "manifests/",
    "blob": "blobs/",
    "referrers": "referrers/",
}


class _PageVanished(Exception):
    """404 of a page after the first."""


class MemoryClient:
    """Reads from ``registry``; safe to share between threads. Uses the ``options`` that do not concern the network."""

    def __init__(
        self, registry: MemoryRegistry, credentials: Credentials | None = None, options: ClientOptions | None = None
    ) -> None:
        self.usage = Usage()
        self.options = options or ClientOptions()
        self._registry = registry
        self._credentials = credentials
        self._origin = Origin.of(RegistryUrl.parse(registry.url))
        self._clock = FakeTime().clock
        self._retry = Retry(self.options, self._clock, self.usage)
        self._digests = MemoryDigestList(self._digest_page, self.usage, self.options, self._origin.netloc)
        self._referrers = MemoryReferrers(self, self._origin.netloc, self.options.limits)

    def __enter__(self) -> MemoryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    @property
    def is_anonymous(self) -> bool:
        """Whether it has no credentials."""
        return self._credentials is None

    # -- tags ----------------------------------------------------------------------------------------------------

    @property
    def requests_at_once(self) -> int:
        """As many as the options allow."""
        return self.options.concurrency

    def list_tags(self, repository: RepositoryName) -> TagListing:
        """All tags, page by page; a page that disappears starts the listing again, once."""
        try:
            return self._list_tags(repository)
        except _PageVanished:
            try:
                return self._list_tags(repository)
            except _PageVanished as problem:
                raise PaginationError(
                    f"the tags of {repository} change faster than they can be listed: a page disappeared twice",
                    repository=repository,
                ) from problem

    def _list_tags(self, repository: RepositoryName) -> TagListing:
        listed_at = datetime.now(timezone.utc)
        tags: set[TagName] = set()
        pairs = DigestPairs()
        skipped: dict[str, None] = {}
        last, page_count, has_more = None, 0, True
        while has_more:
            document, has_more = self._tag_page(repository, last)
            names: list[Any] = document["tags"]
            if self.options.digest_list is not DigestList.OFF:
                add_digests_of_images(pairs, document)
            page_count += 1
            before = len(tags) + len(skipped)
            for name in names:
                try:
                    tags.add(TagName(name))
                except InvalidReference:  # noqa: PERF203 - one bad name must not cost the others
                    skipped[printable(str(name)[:128])] = None
            if last is not None and names and len(tags) + len(skipped) == before:
                raise self._pagination_error(repository, "repeats a page")
            last = str(names[-1]) if names else last
        names_in_order = tuple(sorted(tags))
        return TagListing(
            names_in_order, tuple(skipped), listed_at, page_count, pairs.digests, listed_at, pairs.pushed_at
        )

    def _tag_page(self, repository: RepositoryName, last: str | None) -> tuple[dict[str, Any], bool]:
        request = MemoryRequest("GET", "tags", repository, last=last)

        def read(response: MemoryResponse) -> tuple[dict[str, Any], bool]:
            host = self._origin.netloc
            try:
                document = json.loads(self._whole(response).decode())
            except ValueError:
                raise self.protocol_error(request, f"tag list of {host} is not a JSON object") from None
            if "tags" not in document:
                raise self.protocol_error(request, f"{host} sends a tag list without the field tags")
            return document, response.has_more

        try:
            page = self.ask(request, RequestContext("repository", repository), read)
        except NotFound as problem:
            if last is None:
                raise
            raise _PageVanished from problem
        except ProtocolError as problem:
            if last is None or problem.status == 200:
                raise
            said = f"does not serve ({problem.status}) a page that it linked to"
            raise self._pagination_error(repository, said) from problem
        self.usage.add("tag_page_count")
        return page

    @property
    def may_list_digests(self) -> bool:
        """Whether the registry has another API, or the options name it."""
        chosen = self.options.digest_list
        return chosen is not DigestList.OFF and (chosen is DigestList.QUAY or self._registry.has_digest_api)

    def list_tag_digests(
        self, repository: RepositoryName, tags: Set[TagName], *, most_requests: int
    ) -> TagDigests | None:
        """The digests of all tags by the registry's other API, where it has one or the options name it."""
        if not self.may_list_digests:
            return None
        return self._digests.read(repository, tags, most_requests)

    def _digest_page(self, request: MemoryRequest) -> bytes:
        response = self._ask_once(request, RequestContext("repository", request.repository), frozenset({200}))
        return self._whole(response)

    def _pagination_error(self, repository: RepositoryName, said: str) -> PaginationError:
        host = self._origin.netloc
        return PaginationError(
            f"the tags of {repository} cannot be listed: {host} {said}", repository=repository, host=host
        )

    # -- manifests -----------------------------------------------------------------------------------------------

    def head_manifests(
        self,
        repository: RepositoryName,
        tags: Sequence[TagName],
        done: Callable[[TagName, Digest], None],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft:
        """All of them are left to :meth:`head_manifest`."""
        return HeadsLeft(waiting=deque(tags))

    def head_manifest(
        self,
        repository: RepositoryName,
        reference: TagName | Digest,
        *,
        started: StartedRequest | None = None,
    ) -> ManifestHead:
        """What the registry says of a manifest; where it refuses HEAD by 403, the manifest itself is fetched."""
        request = MemoryRequest("HEAD", "manifest", repository, reference)
        try:
            response = self.ask(request, RequestContext("manifest", repository, reference), lambda response: response)
        except RegistryError as problem:
            if problem.status != 403:
                raise
            try:
                manifest = self.get_manifest(repository, reference)
            except RegistryError:
                self.usage.add("manifest_get_count")
                raise
            return ManifestHead(manifest.digest, manifest.media_type, len(manifest.data))
        finally:
            self.usage.add("head_count")
        return ManifestHead(response.digest, media_types.normalise(response.media_type), len(response.data))

    def get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, expected: Descriptor | None = None
    ) -> Manifest:
        """The manifest, verified; fetched once more when its bytes are not what was requested."""
        try:
            return self._get_manifest(repository, reference, expected)
        except (DigestMismatch, SizeMismatch):
            return self._get_manifest(repository, reference, expected)

    def _get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, expected: Descriptor | None
    ) -> Manifest:
        wanted = reference if isinstance(reference, Digest) else None
        response, data = self.ask(
            MemoryRequest("GET", "manifest", repository, reference),
            RequestContext("manifest", repository, reference),
            self._receive,
        )
        manifest = read_manifest(
            data,
            content_type=response.media_type,
            expected=expected,
            digest=wanted,
            limits=self.options.limits,
            schema1_size_of=partial(self._layer_size_bytes, repository) if self.options.allow_schema1 else None,
        )
        if expected is not None and len(data) != expected.size_bytes:
            raise SizeMismatch(
                f"manifest {manifest.digest} has {len(data)} bytes and its descriptor says {expected.size_bytes}",
                digest=manifest.digest,
                expected=expected.size_bytes,
                got=len(data),
            )
        if wanted is not None and response.digest not in (None, manifest.digest) and self.options.strict_digest_header:
            message = f"{self._origin.netloc} declares {response.digest} for a manifest whose bytes are {wanted}"
            raise DigestMismatch(message, digest=wanted, got=response.digest or "")
        return manifest

    def _receive(self, response: MemoryResponse) -> tuple[MemoryResponse, bytes]:
        self.usage.add("manifest_get_count")
        data = self._whole(response)
        self.usage.add("received_bytes", len(data))
        return response, data

    def _layer_size_bytes(self, repository: RepositoryName, layer: Digest) -> int:
        self.usage.add("head_count")
        request = MemoryRequest("HEAD", "blob", repository, layer)
        try:
            return self.ask(request, RequestContext("blob", repository, layer), lambda response: len(response.data))
        except NotFound as problem:
            message = f"{self._origin.netloc} lacks layer {layer}, so that its size is unknown"
            raise InvalidManifest(message, digest=layer) from problem

    # -- blobs ---------------------------------------------------------------------------------------------------

    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        """Brings ``blob`` into ``writer``, from where that stands, and commits it; gives the bytes received."""
        if write_known_bytes(blob, writer):
            return 0
        try:
            return self.download(repository, blob, writer)
        except NotFound:
            if not (blob.urls and self.options.follow_foreign_urls):
                raise
        return self._fetch_foreign(blob, writer)

    def _fetch_foreign(self, blob: Descriptor, writer: BlobDestination) -> int:
        """From the first of its URLs that gives it, each that of a blob in another registry in memory."""
        failure: RegistrySyncError | None = None
        for url in blob.urls:
            place = _FOREIGN.fullmatch(url)
            registry = running_at(place["registry"]) if place else None
            if place is None or registry is None:
                failure = RedirectRefused("a blob is said to be where nothing is fetched from")
                continue
            elsewhere = MemoryClient(registry, None, self.options)
            elsewhere.usage = self.usage
            try:
                return elsewhere.download(RepositoryName(place["repository"]), blob, writer)
            except (RegistryError, ContentError) as problem:
                failure = problem
        raise failure or NotFound(f"nobody has blob {blob.digest}", kind="blob")

    def download(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        """Reads ``blob`` from this registry, resumed where it broke off; returns the bytes received."""
        received = failure_count = 0
        offset, started, is_repeated = writer.offset, self._clock.monotonic(), False
        while True:
            try:
                if not (writer.offset == blob.size_bytes and blob.size_bytes):
                    response = self._request_blob(repository, blob, writer)
                    received += len(response.data[: response.breaks_after])
                    self._write(response, blob, writer)
                writer.commit()
                return received
            except (DigestMismatch, SizeMismatch):  # noqa: PERF203 - the loop is about errors
                if is_repeated:
                    raise
                is_repeated = True
                writer.restart()
            except RegistrySyncError as problem:
                if not problem.is_temporary:
                    raise
                if writer.offset - offset >= PROGRESS_BYTES:
                    failure_count, offset, started = 0, writer.offset, self._clock.monotonic()
                failure_count += 1
                if failure_count >= self.options.max_attempts:
                    raise
                self._retry.wait_after(problem, failure_count, started)

    def _request_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> MemoryResponse:
        """The rest of ``blob``, or all of it with the writer at its start."""
        self.usage.add("blob_get_count")
        request = MemoryRequest("GET", "blob", repository, blob.digest, offset=writer.offset)
        response = self._ask_once(request, RequestContext("blob", repository, blob.digest), frozenset({200, 206}))
        if response.status == 200 and writer.offset:
            writer.restart()
        missing = blob.size_bytes - writer.offset
        if len(response.data) != missing:
            raise SizeMismatch(
                f"{self._origin.netloc} declares {len(response.data)} bytes where blob {blob.digest} has {missing}",
                digest=blob.digest,
                expected=missing,
                got=len(response.data),
            )
        return response

    def _write(self, response: MemoryResponse, blob: Descriptor, writer: BlobDestination) -> None:
        arrived = response.data[: response.breaks_after]
        self.usage.add("received_bytes", len(arrived))
        if arrived:
            writer.write(arrived)
        if len(arrived) < len(response.data):
            raise TruncatedBody(f"{self._origin.netloc} ended a body early")

    # -- referrers -----------------------------------------------------------------------------------------------

    def list_referrers(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to ``subject`` by the API, or by the fallback tag where there is no API."""
        found = self.list_referrers_by_api(repository, subject)
        if found is not None:
            return found
        try:
            index = self.get_manifest(repository, fallback_tag(subject))
        except NotFound as problem:
            if problem.kind == "repository":
                raise
            return ()
        return () if index.digest == subject else index.children

    def list_referrers_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """The same by the API alone, None where there is none; what was found out of it is remembered."""
        found: tuple[Descriptor, ...] | None = self._referrers.found(repository, subject, is_known=is_known)
        return found

    # -- requests ------------------------------------------------------------------------------------------------

    def ask(
        self,
        request: MemoryRequest,
        context: RequestContext,
        read: Callable[[MemoryResponse], T],
        accepted: frozenset[int] = frozenset({200}),
    ) -> T:
        """The result of ``read`` on the response; requested again after temporary errors."""
        return self._retry.run(lambda: read(self._ask_once(request, context, accepted)))

    def _ask_once(self, request: MemoryRequest, context: RequestContext, accepted: frozenset[int]) -> MemoryResponse:
        response = self._registry.respond(request, self._credentials)
        if response.status not in accepted:
            raise self.error(request, response, context)
        return response

    def error(self, request: MemoryRequest, response: MemoryResponse, context: RequestContext) -> RegistryError:
        target, host = self._target(request), self._origin.netloc
        if response.status == 0:
            return ServerUnavailable(f"the connection to {host} broke", host=host, method=request.method)
        if response.status == 401 and not response.has_challenge:
            return ChallengeInvalid(f"{host} responds 401 and does not say how to authenticate", host=host, status=401)
        context_of_error: dict[str, Any] = {
            "host": host,
            "repository": request.repository,
            "method": request.method,
            "url": target.url,
            "status": 401,
            "codes": response.codes,
        }
        if response.status == 401 and self.is_anonymous:
            message = unavailable_message(host, context, 401, "", is_anonymous=True)
            return RepositoryUnavailable(message, **context_of_error)
        if response.status == 401:
            return AuthenticationFailed(
                f"{host} rejects the credentials of the connection for {context}: they are wrong or do not reach it, "
                "or it does not exist there",
                **context_of_error,
            )
        wait, codes = response.retry_after_seconds, response.codes
        refused = Refusal(target, request.method, response.status, codes, response.message, wait)
        return error_of_refusal(refused, context, is_anonymous=self.is_anonymous)

    def protocol_error(self, request: MemoryRequest, message: str, status: int = 200) -> ProtocolError:
        host, url = self._origin.netloc, self._target(request).url
        return ProtocolError(message, host=host, method=request.method, url=url, status=status)

    def _whole(self, response: MemoryResponse) -> bytes:
        """A body that is read at once."""
        if response.breaks_after is not None and response.breaks_after < len(response.data):
            raise TruncatedBody(f"{self._origin.netloc} ended a body early")
        return response.data

    def _target(self, request: MemoryRequest) -> Target:
        return Target(self._origin, f"/v2/{request.repository}/{_PATHS[request.kind]}{request.reference}")
