"""Manifests by tag and by digest, and the sizes of layers that a schema 1 manifest does not state.

The digest of a manifest is the hash of its bytes. The digest that a registry declares is a hint, and is compared.

Follows the distribution specification, "Pulling manifests" and "Checking if content exists in the registry".
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, ManifestLimits, read_manifest
from registry_sync.domain.media_types import ACCEPTED_MANIFEST_TYPES, SCHEMA1_TYPES, normalise
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import (
    DigestMismatch,
    InvalidManifest,
    InvalidReference,
    LimitExceeded,
    NotFound,
    ProtocolError,
    RegistryError,
    SizeMismatch,
)
from registry_sync.oci.http.error_mapping import RequestContext, parse_error_body
from registry_sync.oci.http.many_heads import HeadsLeft, StartedRequest
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.rate_limits import Pull, PullLimit
from registry_sync.oci.http.received import JoinedHeaders
from registry_sync.oci.http.requester import Requester
from registry_sync.oci.http.responses import DECODABLE, Response, decoded, web_page

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ManifestHead:
    """What a registry says about a manifest: a hint whether it changed, never its identity.

    ``digest`` is None when it is absent or unreadable, ``size_bytes`` when it is absent.
    """

    digest: Digest | None
    media_type: str
    size_bytes: int | None


class ManifestReader:
    """Reads manifests of one registry."""

    def __init__(self, requester: Requester, options: ClientOptions, pulls: PullLimit) -> None:
        self._requester = requester
        self._limits = options.limits
        self._is_strict = options.strict_digest_header
        self._pulls = pulls
        self._reads_schema1 = options.allow_schema1
        accepted = (*ACCEPTED_MANIFEST_TYPES, *(sorted(SCHEMA1_TYPES) if options.allow_schema1 else ()))
        self._accept = {"Accept": ", ".join(accepted)}

    def head_many(
        self,
        repository: RepositoryName,
        tags: Sequence[TagName],
        done: Callable[[TagName, Digest], None],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft:
        """Calls ``done`` with the digest of each tag that one thread can request, at most ``most`` at once.

        Returns what is left to :meth:`head`, started or not. Raises what ``done`` and ``most`` raise.
        """
        usage, place, request = self._requester.usage, f"/v2/{repository}/manifests/", self._pulls.request()
        header = dict[str, str].get  # of names that are in lower case already

        def respond(name: str, headers: JoinedHeaders) -> bool:
            digest = _digest(header(headers, "docker-content-digest"))
            content_type = header(headers, "content-type")
            if digest is None or "warning" in headers or (content_type and web_page(b"", content_type) is not None):
                return False
            if "ratelimit-remaining" in headers:
                self._record(headers.get, request)
            usage.record_status(200)
            usage.add("head_count")
            done(cast("TagName", name), digest)
            return True

        target, context = self._requester.target(place), RequestContext("manifest", repository)
        return self._requester.send_heads(target, tags, context, self._accept, respond, most=most)

    def head(
        self, repository: RepositoryName, reference: TagName | Digest, started: StartedRequest | None = None
    ) -> ManifestHead:
        """What the registry says about the manifest. Raises :class:`NotFound` and what requests raise.

        ``started`` is what :meth:`head_many` has left of it, to go on from.

        A refusal after a redirect decides nothing, because the URL may be signed for GET alone, and 403 may refuse HEAD
        alone: the manifest is then fetched, the response to GET decides, and the bytes are hashed.
        """
        target = self._requester.target(f"/v2/{repository}/manifests/{reference}")
        request_context, request = RequestContext("manifest", repository, reference), self._pulls.request()
        try:
            response = self._requester.send("HEAD", target, request_context, self._accept, _released, started=started)
        except RegistryError as problem:
            if problem.is_temporary or not (problem.status == 403 or _is_refused_after_redirect(problem)):
                raise
            try:
                manifest = self.get(repository, reference)
            except RegistryError:
                self._requester.usage.add("manifest_get_count")
                raise
            return ManifestHead(manifest.digest, manifest.media_type, len(manifest.data))
        finally:
            self._requester.usage.add("head_count")
        self._record(response.header, request)
        content_type = response.header("Content-Type")
        if content_type is not None and web_page(b"", content_type) is not None:
            raise self._page_error(response, "a web page", repository, reference)
        return ManifestHead(declared_digest(response), normalise(content_type), response.content_length)

    def get(
        self, repository: RepositoryName, reference: TagName | Digest, expected: Descriptor | None = None
    ) -> Manifest:
        """The manifest, verified; fetched once more when its bytes do not match what was requested.

        Raises :class:`NotFound`, every error of :func:`~registry_sync.domain.manifest_documents.read_manifest`, and
        what requests raise.
        """
        try:
            return self._get(repository, reference, expected)
        except (DigestMismatch, SizeMismatch):
            return self._get(repository, reference, expected)

    def _get(self, repository: RepositoryName, reference: TagName | Digest, expected: Descriptor | None) -> Manifest:
        wanted = reference if isinstance(reference, Digest) else None
        with self._pulls.pull(partial(self._query_remaining, repository, reference)) as pull:
            response, data = self._receive(repository, reference, pull)
        try:
            manifest = read_manifest(
                data,
                content_type=response.header("Content-Type"),
                expected=expected,
                digest=wanted,
                limits=self._limits,
                schema1_size_of=partial(self._layer_size_bytes, repository) if self._reads_schema1 else None,
            )
        except (InvalidManifest, DigestMismatch):
            if codes := parse_error_body(data)[0]:
                host = response.target.origin.netloc
                raise response.protocol_error(
                    f"{host} responds 200 with errors for manifest {reference} of {repository}", codes=codes
                ) from None
            if (page := web_page(data, response.header("Content-Type"))) is not None:
                raise self._page_error(response, page, repository, reference) from None
            raise
        if expected is not None and len(data) != expected.size_bytes:
            raise SizeMismatch(
                f"manifest {manifest.digest} has {len(data)} bytes and its descriptor says {expected.size_bytes}",
                digest=manifest.digest,
                expected=expected.size_bytes,
                got=len(data),
            )
        self._compare_declared(response, manifest, is_by_digest=wanted is not None)
        return manifest

    @staticmethod
    def _page_error(
        response: Response, page: str, repository: RepositoryName, reference: TagName | Digest
    ) -> ProtocolError:
        host = response.target.origin.netloc
        message = f"{host} responds with {page} in place of manifest {reference} of {repository}"
        return response.protocol_error(message, is_web_page=True)

    def _receive(self, repository: RepositoryName, reference: TagName | Digest, pull: Pull) -> tuple[Response, bytes]:
        """The response and its unchecked document.

        A refusal after a redirect is followed by one more request to the registry, which may sign another URL.
        """

        def read(response: Response) -> tuple[Response, bytes]:
            self._requester.usage.add("manifest_get_count")
            self._record(response.header, pull)
            data = read_document(response, self._limits)
            self._requester.usage.add("received_bytes", len(data))
            return response, data

        target = self._requester.target(f"/v2/{repository}/manifests/{reference}")
        request_context = RequestContext("manifest", repository, reference)
        try:
            return self._requester.send("GET", target, request_context, self._accept, read)
        except RegistryError as problem:
            is_missing = isinstance(problem, NotFound) and problem.codes
            if problem.is_temporary or is_missing or not _is_refused_after_redirect(problem):
                raise
        try:
            return self._requester.send("GET", target, request_context, self._accept, read)
        except NotFound as problem:
            if problem.codes or not _is_refused_after_redirect(problem):
                raise
            # A 404 of the storage behind a registry does not mean that the registry has no such manifest.
            raise ProtocolError(
                problem.message,
                host=problem.host,
                repository=repository,
                url=problem.url,
                status=404,
                redirected_by=problem.redirected_by,
            ) from problem

    def _layer_size_bytes(self, repository: RepositoryName, layer: Digest) -> int:
        return layer_size_bytes(self._requester, repository, layer, self._limits.blob_bytes)

    def _compare_declared(self, response: Response, manifest: Manifest, *, is_by_digest: bool) -> None:
        declared = declared_digest(response)
        if declared is None or declared.algorithm != manifest.digest.algorithm or declared == manifest.digest:
            return
        message = (
            f"{response.target.origin.netloc} declares {declared} for a manifest whose bytes are {manifest.digest}"
        )
        if is_by_digest and self._is_strict:
            raise DigestMismatch(message, digest=manifest.digest, got=declared)
        log.warning("%s; the digest of the bytes is used", message)

    def _query_remaining(self, repository: RepositoryName, reference: TagName | Digest) -> None:
        """Reads the remaining pulls with a HEAD, which does not count as one; the manifest need not exist."""
        target = self._requester.target(f"/v2/{repository}/manifests/{reference}")
        request_context, request = RequestContext("manifest", repository, reference), self._pulls.request()
        self._requester.usage.add("head_count")
        response = self._requester.send("HEAD", target, request_context, self._accept, _released)
        self._record(response.header, request)

    def _record(self, header: Callable[[str], str | None], request: Pull) -> None:
        self._requester.usage.record_rate_limit(header)
        self._pulls.record(header, request)


def _is_refused_after_redirect(problem: RegistryError) -> bool:
    """Whether the error is the response of a host that the registry redirected to."""
    return problem.status is not None and problem.redirected_by is not None


def declared_digest(response: Response) -> Digest | None:
    """The ``Docker-Content-Digest`` of a response; None when it is absent or no digest."""
    return _digest(response.header("Docker-Content-Digest"))


def _digest(value: str | None) -> Digest | None:
    try:
        return Digest(value.strip()) if value else None
    except InvalidReference:
        return None


def read_document(response: Response, limits: ManifestLimits) -> bytes:
    """The bytes of a manifest; decoded by ``Content-Encoding`` unless the bytes as sent are JSON already."""
    data = response.read(limits.manifest_bytes, "manifest")
    encodings = response.content_encodings
    if not encodings:
        return data
    if data.lstrip().startswith(b"{"):
        return data
    if len(encodings) > 1 or encodings[0] not in DECODABLE:
        raise response.protocol_error(
            f"{response.target.origin.netloc} encodes a manifest with {encodings[0][:20]!r}, which was not requested"
        )
    try:
        return b"".join(decoded([data], encodings[0], limits.manifest_bytes))
    except zlib.error:
        return data


def _released(response: Response) -> Response:
    response.discard()
    return response


def layer_size_bytes(requester: Requester, repository: RepositoryName, layer: Digest, most_bytes: int) -> int:
    """The size by HEAD, or by a GET whose body is not read where HEAD gives none.

    Raises :class:`InvalidManifest` when the registry lacks the layer, :class:`LimitExceeded`, :class:`ProtocolError`,
    and what requests raise.
    """
    request_context = RequestContext("blob", repository, layer)
    target = requester.target(f"/v2/{repository}/blobs/{layer}")
    requester.usage.add("head_count")
    try:
        try:
            size = requester.send("HEAD", target, request_context, {}, _declared)
        except NotFound:
            raise
        except RegistryError as problem:
            # A URL that is signed for GET alone refuses HEAD.
            if problem.is_temporary:
                raise
            size = None
        if size is None:
            size = requester.send("GET", target, request_context, {}, _declared)
    except NotFound as problem:
        raise InvalidManifest(
            f"{problem.host} lacks layer {layer}, so that its size is unknown", digest=layer
        ) from problem
    if size is None:
        host = target.origin.netloc
        raise ProtocolError(
            f"{host} does not state the size of layer {layer}", host=host, repository=repository, url=target.url
        )
    if size > most_bytes:
        raise LimitExceeded(f"layer {layer} has more than {most_bytes} bytes", digest=layer, limit="blob_bytes")
    return size


def _declared(response: Response) -> int | None:
    response.discard()
    return response.content_length
