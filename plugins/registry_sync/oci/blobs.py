"""Downloads of blobs, streamed as raw bytes into a writer and resumed where they broke off (RFC 9110 section 14).

Follows the distribution specification, "Pulling blobs".

The writer knows which bytes are present and verifies size and digest; this module decides which request comes next.
Each attempt starts at the registry, because a redirect's signed URL can expire before a long download ends. A
``Range`` that is refused is sent once more and then omitted, so that an incomplete file never blocks its blob.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import (
    ContentError,
    DigestMismatch,
    LimitExceeded,
    NotFound,
    ProtocolError,
    RangeInvalid,
    RedirectRefused,
    RegistryError,
    RegistrySyncError,
    ServerUnavailable,
    SizeMismatch,
    TruncatedBody,
    UnsupportedDigest,
)
from registry_sync.oci.http.error_mapping import RequestContext
from registry_sync.oci.http.options import ClientOptions, Clock
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.requester import Requester
from registry_sync.oci.http.responses import DECODABLE, Response, decoded

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


def continues(response: Response, offset: int, size_bytes: int) -> bool:
    """Whether a 206 is a single range, from ``offset`` to the end of ``size_bytes``."""
    match = _CONTENT_RANGE.fullmatch((response.header("Content-Range") or "").strip())
    if match is None:
        return False
    first, last, total = int(match[1]), int(match[2]), match[3]
    return first == offset and last == size_bytes - 1 and (total is None or int(total) == size_bytes)


def strong_etag(response: Response) -> str | None:
    """The entity tag for ``If-Range``; None when the response has none, or a weak one."""
    value = (response.header("ETag") or "").strip()
    return value if _STRONG_ETAG.fullmatch(value) else None


ACCEPTED = frozenset({200, 206, 416})
#: What counts as progress between two attempts; attempts without progress are limited.
PROGRESS_BYTES = 1024 * 1024
PROGRESS_SECONDS = 60.0
MAX_ATTEMPTS_PER_BLOB = 50
MAX_FOREIGN_URLS = 5
#: Statuses by which storage hosts say that a signed URL has expired.
_EXPIRED = frozenset({400, 401, 403, 410})


#: Temporary statuses that concern the server, not the ``Range``.
_BUSY = frozenset({429, 503})


class _RangeRefused(Exception):
    """The response to a request with ``Range`` suggests that the request succeeds without it."""


class BlobDestination(Protocol):
    """Where a blob is written; the blob store documents what each method guarantees."""

    @property
    def offset(self) -> int: ...
    def write(self, chunk: bytes | memoryview, /) -> None: ...
    def restart(self) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...


def write_known_bytes(blob: Descriptor, writer: BlobDestination) -> bool:
    """Writes and commits the bytes of ``blob`` if its descriptor tells them; whether it does.

    Raises :class:`UnsupportedDigest` for a blob that cannot be verified, wherever its bytes come from.
    """
    if not blob.digest.is_verifiable:
        raise UnsupportedDigest(f"blob {blob.digest} cannot be verified here", digest=blob.digest)
    known = blob.known_bytes
    if known is None:
        return False
    if writer.offset:
        writer.restart()
    writer.write(known)
    writer.commit()
    return True


class BlobFetcher:
    """Fetches blobs of one registry."""

    def __init__(self, requester: Requester, options: ClientOptions, clock: Clock) -> None:
        self.requester = requester
        self.options = options
        self.clock = clock

    def fetch(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        """Downloads ``blob`` into ``writer`` and commits it; returns the number of bytes received.

        Raises :class:`NotFound`, :class:`SizeMismatch`, :class:`DigestMismatch`, :class:`TruncatedBody` without
        progress, :class:`UnsupportedDigest`, and the errors of requests and of the writer.
        """
        if write_known_bytes(blob, writer):
            return 0
        registry = self.requester.target(f"/v2/{repository}/blobs/{blob.digest}")
        request_context = RequestContext("blob", repository, blob.digest)
        try:
            return _Download(self, registry, request_context, blob=blob, writer=writer).run()
        except NotFound:
            if not (blob.urls and self.options.follow_foreign_urls):
                raise
        return self._fetch_foreign(blob, writer)

    def _fetch_foreign(self, blob: Descriptor, writer: BlobDestination) -> int:
        """Downloads from the first URL that serves it. The manifest's author set the URLs: no credentials are sent."""
        request_context = RequestContext("blob", subject=blob.digest)
        failure: RegistrySyncError | None = None
        for url in blob.urls[:MAX_FOREIGN_URLS]:
            try:
                target = foreign_target(url, self.requester.target("/").origin.scheme)
                return _Download(self, target, request_context, blob=blob, writer=writer).run()
            except (RegistryError, ContentError) as problem:  # noqa: PERF203 - the loop is about errors
                failure = problem
        raise failure or NotFound(f"no host has blob {blob.digest}", kind="blob")


def foreign_target(url: str, registry_scheme: str) -> Target:
    """The target of a descriptor's URL. Raises :class:`RedirectRefused` unless it is http(s), and for https to http."""
    try:
        target = Target.parse(url)
    except ValueError as problem:
        raise RedirectRefused(f"a blob's URL cannot be used: {problem}") from None
    if target.origin.scheme == "http" and registry_scheme == "https":
        raise RedirectRefused(f"a blob's URL is plain http at {target.origin}", host=target.origin.netloc)
    return target


def _refuses_range(problem: RegistryError, *, is_storage: bool) -> bool:
    """Whether the refusal may concern the ``Range`` alone.

    From storage any status may; from the registry itself, any but those that deny access.
    """
    if problem.status is None or problem.is_temporary:
        return False
    return is_storage or (isinstance(problem, ProtocolError) and problem.status >= 400)


@dataclass
class _Attempts:
    """Counts of attempts, in all and since the last progress."""

    total: int = 0
    since_progress: int = 0
    offset: int = 0
    progressed_at: float = 0.0


class _Download:
    """The download of one blob. ``received`` counts bytes from the network, discarded ones included."""

    def __init__(
        self,
        fetcher: BlobFetcher,
        target: Target,
        request_context: RequestContext,
        *,
        blob: Descriptor,
        writer: BlobDestination,
    ) -> None:
        self._requester = fetcher.requester
        self._options = fetcher.options
        self._clock = fetcher.clock
        self._blob = blob
        self._writer = writer
        self._target = target
        self._request_context = request_context
        self._etag: str | None = None
        self._encodings: tuple[str, ...] = ()
        self._is_decoding = False
        self._refused_range_count = 0
        self._has_sent_range = self._has_continued = False
        self._is_rangeless = False
        self._is_last = False
        self.received = 0

    def run(self) -> int:
        attempts = _Attempts(offset=self._writer.offset, progressed_at=self._clock.monotonic())
        started = self._clock.monotonic()
        self._requester.retry.await_pause()
        mismatches = 0
        while True:
            try:
                self._attempt()
                return self.received
            except (DigestMismatch, SizeMismatch, LimitExceeded) as problem:  # noqa: PERF203 - the loop is about errors
                mismatches += 1
                if not self._may_start_again(problem, mismatches):
                    raise
                self._writer.restart()
            except _RangeRefused:
                self._requester.usage.add("retry_count")
            except RegistrySyncError as problem:
                if self._is_last or not problem.is_temporary:
                    raise
                try:
                    started = self._wait(problem, attempts, started)
                except RegistrySyncError:
                    if not self._may_omit_range(problem):
                        raise
                    self._is_rangeless = True

    def _may_omit_range(self, problem: RegistrySyncError) -> bool:
        """Whether requests with ``Range`` achieved nothing, and not because the server is busy."""
        is_busy = isinstance(problem, RegistryError) and problem.status in _BUSY
        return self._has_sent_range and not (is_busy or self._is_rangeless or self._has_continued)

    def _wait(self, problem: RegistrySyncError, attempts: _Attempts, started: float) -> float:
        """Waits before the next attempt, or raises ``problem``; returns when the current row of failures started."""
        now = self._clock.monotonic()
        attempts.total += 1
        gained = self._writer.offset - attempts.offset
        if gained >= PROGRESS_BYTES or (gained > 0 and now - attempts.progressed_at >= PROGRESS_SECONDS):
            attempts.since_progress, attempts.offset, attempts.progressed_at, started = 0, self._writer.offset, now, now
        attempts.since_progress += 1
        if attempts.since_progress >= self._options.max_attempts or attempts.total >= MAX_ATTEMPTS_PER_BLOB:
            raise problem
        self._requester.retry.wait_after(problem, attempts.since_progress, started)
        return started

    def _may_start_again(self, problem: ContentError, mismatches: int) -> bool:
        """Once unchanged, for damage in transit; once with decoding, when the response claims an encoding."""
        if isinstance(problem, LimitExceeded) and not self._is_decoding:
            return False
        if self._encodings and not self._is_decoding:
            if len(self._encodings) == 1 and self._encodings[0] in DECODABLE:
                self._is_decoding = True
                return True
            return False
        return mismatches == 1

    def _attempt(self) -> None:
        offset, size = self._writer.offset, self._blob.size_bytes
        if offset == size and size:
            self._writer.commit()
            return
        if self._is_decoding and offset:
            self._writer.restart()
            offset = 0
        with self._requester.slot():
            self._receive(offset)
        self._writer.commit()

    def _receive(self, offset: int) -> None:
        response = self._request(0 if self._is_rangeless else offset)
        if response.status == 416:
            response.discard()
            if offset and not self._is_rangeless:
                self._is_rangeless = True
                raise _RangeRefused
            raise RangeInvalid(f"{self._host} cannot continue blob {self._blob.digest}", digest=self._blob.digest)
        # A download from zero is tried once: if it breaks off, the task's next try continues it.
        self._is_last = self._is_rangeless
        self._align(response, offset)
        self._etag = strong_etag(response) or self._etag
        self._encodings = response.content_encodings
        self._check_length(response)
        self._stream(response)

    def _request(self, offset: int) -> Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and self._etag:
            headers["If-Range"] = self._etag
        self._has_sent_range |= bool(offset)
        self._requester.usage.add("blob_get_count")
        try:
            return self._requester.send_once("GET", self._target, self._request_context, headers, accepted=ACCEPTED)
        except NotFound:
            raise
        except RegistryError as problem:
            is_storage = problem.redirected_by is not None or self._target.origin != self._requester.target("/").origin
            if offset and _refuses_range(problem, is_storage=is_storage):
                self._refused_range_count += 1
                self._is_rangeless = self._refused_range_count > 1
                raise _RangeRefused from problem
            if problem.status in _EXPIRED and problem.redirected_by is not None:
                raise ServerUnavailable(
                    f"{problem.host} no longer serves the URL that {self._host} redirected to ({problem.status})",
                    host=problem.host,
                    repository=problem.repository,
                    status=problem.status,
                ) from problem
            raise

    def _align(self, response: Response, offset: int) -> None:
        """Sets the writer to where the body starts. Raises :class:`RangeInvalid` after restarting the writer."""
        is_continued = (
            response.status == 206
            and bool(offset)
            and not self._is_rangeless
            and continues(response, offset, self._blob.size_bytes)
        )
        self._has_continued |= is_continued
        if is_continued:
            self._refused_range_count = 0
        elif response.status == 200 and offset:
            self._writer.restart()
        elif response.status == 206:
            response.discard()
            self._etag = None
            self._writer.restart()
            raise RangeInvalid(
                f"{self._host} sends another range of blob {self._blob.digest} than was requested",
                digest=self._blob.digest,
            )

    def _check_length(self, response: Response) -> None:
        declared = response.content_length
        missing = self._blob.size_bytes - self._writer.offset
        if declared is None or declared == missing or self._is_decoding:
            return
        response.discard()
        raise SizeMismatch(
            f"{response.target.origin.netloc} declares {declared} bytes where blob {self._blob.digest} has {missing}",
            digest=self._blob.digest,
            expected=missing,
            got=declared,
        )

    def _stream(self, response: Response) -> None:
        """Writes the body. Stops at one byte too many; raises :class:`TruncatedBody` at one too few."""
        chunks: Iterator[bytes] = self._counted(response)
        if self._is_decoding and self._encodings:
            chunks = decoded(chunks, self._encodings[0], self._blob.size_bytes)
        room = self._blob.size_bytes - self._writer.offset
        try:
            for chunk in chunks:
                room -= len(chunk)
                if room < 0:
                    raise self._too_long(response, -room)  # noqa: TRY301 - the connection is released below
                self._writer.write(chunk)
        except zlib.error:
            raise DigestMismatch(
                f"blob {self._blob.digest} is neither the bytes received nor their decoded form",
                digest=self._blob.digest,
            ) from None
        except BaseException:
            response.abandon()
            raise
        if room and self._encodings and not self._is_decoding:
            raise SizeMismatch(
                f"{response.target.origin.netloc} sends blob {self._blob.digest} encoded", digest=self._blob.digest
            )
        if room:
            raise TruncatedBody(
                f"{response.target.origin.netloc} ended blob {self._blob.digest} {room} bytes early",
                digest=self._blob.digest,
            )

    def _too_long(self, response: Response, surplus: int) -> SizeMismatch:
        size = self._blob.size_bytes
        return SizeMismatch(
            f"{response.target.origin.netloc} sends more than the {size} bytes of blob {self._blob.digest}",
            digest=self._blob.digest,
            expected=size,
            got=size + surplus,
        )

    def _counted(self, response: Response) -> Iterator[bytes]:
        """The chunks of the body, counted."""
        for chunk in response.chunks():
            self.received += len(chunk)
            self._requester.usage.add("received_bytes", len(chunk))
            yield chunk

    @property
    def _host(self) -> str:
        return self._target.origin.netloc
