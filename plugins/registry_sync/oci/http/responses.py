"""Responses of a server: status, headers and body as raw bytes, and the limits on how slow it may be.

The HTTP library never decodes a body: digests are over the bytes as sent, and a wrong ``Content-Encoding`` must not
change them. Encoded bodies are decoded here, within a size limit.

A socket's timeout limits only the silence between two bytes, so that a server could block a worker for ever with a byte
now and then. So the throughput of the body is limited too, and the time to the end of the headers
(:mod:`registry_sync.oci.http.connections`).
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import ssl
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.exceptions import ProtocolError as BrokenConnection

from registry_sync.domain.remote import FIRST_CONCURRENCY
from registry_sync.errors import (
    TEMPORARY_STATUSES,
    AuthenticationFailed,
    ConfigurationError,
    LimitExceeded,
    ProtocolError,
    RegistrySyncError,
    ServerUnavailable,
    TruncatedBody,
    UntrustedCertificate,
)
from registry_sync.oci.http.options import Clock
from registry_sync.oci.http.origins import Target

if TYPE_CHECKING:
    from registry_sync.oci.http.received import WholeResponse


@dataclass(frozen=True)
class Pace:
    """The lowest throughput of a body: ``minimum_bytes_per_second`` over each ``window_seconds`` of waiting."""

    window_seconds: float
    minimum_bytes_per_second: float
    clock: Clock

    def watch(self) -> PaceWatch:
        """A watch over one body."""
        return PaceWatch(self)


class PaceWatch:
    """Measures the bytes received and the time spent waiting; the time of the reader itself is not counted."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waited_seconds = 0.0
        self._seen_bytes = 0
        self._wait_started_at = 0.0

    def start_wait(self) -> None:
        """Call it before waiting."""
        self._wait_started_at = self._pace.clock.monotonic()

    def end_wait(self, size_bytes: int) -> bool:
        """Call it after waiting; False when the throughput of a window was too low."""
        self._waited_seconds += self._pace.clock.monotonic() - self._wait_started_at
        self._seen_bytes += size_bytes
        if self._waited_seconds < self._pace.window_seconds:
            return True
        is_enough = self._seen_bytes >= self._pace.minimum_bytes_per_second * self._waited_seconds
        self._waited_seconds, self._seen_bytes = 0.0, 0
        return is_enough


#: What a body is read by, while few are; all together never hold more than as many as a client begins with.
READ_BYTES = 1024 * 1024
#: Pieces of a body are joined up to this size, so that consumers handle few large chunks.
CHUNK_BYTES = 256 * 1024
#: A body no longer than this is read to its end, because that is cheaper than a new connection.
DRAIN_BYTES = 16 * 1024
PROXY_AUTHENTICATION_REQUIRED = 407
#: The start of a web page and its title, which is searched in the first ``MAX_PAGE_BYTES``.
_PAGE = re.compile(r"\s*<(?:!doctype html|html|head|body|title|h1|p|center)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
MAX_PAGE_BYTES = 16 * 1024
MAX_TITLE_LENGTH = 100
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})\b.*", re.DOTALL)
#: OpenSSL's reasons for alerts about a client's certificate (RFC 8446 section 6.2).
_CERTIFICATE_ALERTS = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)


#: OpenSSL's reasons for a response that is not TLS; which one depends on its version.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


def read_bytes(body_count: int) -> int:
    """What each of so many bodies at once is read by."""
    return READ_BYTES * FIRST_CONCURRENCY // max(FIRST_CONCURRENCY, body_count)


class Response:
    """The response to one request. Read it to the end, or call :meth:`discard`.

    ``redirected_by`` is the host whose redirects led to ``target``, None for the requested target itself.
    ``authorization_bytes`` is the length of the request's ``Authorization``, 0 without one.
    """

    __slots__ = (
        "_pace",
        "_read_bytes",
        "_response",
        "authorization_bytes",
        "method",
        "redirected_by",
        "status",
        "target",
    )

    def __init__(
        self,
        response: BaseHTTPResponse | WholeResponse,
        method: str,
        target: Target,
        pace: Pace,
        *,
        read_bytes: int = READ_BYTES,
    ) -> None:
        self._response = response
        self._read_bytes = read_bytes
        self._pace = pace
        self.method = method
        self.target = target
        self.status = response.status
        self.redirected_by: str | None = None
        self.authorization_bytes = 0

    def header(self, name: str) -> str | None:
        """The value of a header, None when absent; repeated headers are joined by ``", "``."""
        return self._response.headers.get(name)

    @property
    def content_encodings(self) -> tuple[str, ...]:
        """The declared encodings of the body, in the order applied; empty for plain bytes."""
        value = self.header("Content-Encoding")
        if not value:
            return ()
        return tuple(part for item in value.split(",") if (part := item.strip().lower()) not in ("", "identity"))

    @property
    def content_length(self) -> int | None:
        """The declared number of bytes, None when absent or unreadable."""
        value = (self.header("Content-Length") or "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None

    def chunks(self) -> Iterator[bytes]:
        """The body, in chunks of some hundred kilobytes. Received bytes are yielded before an error is raised.

        Raises :class:`TruncatedBody` when it ends early, :class:`ServerUnavailable` when it stalls or is too slow.
        """
        watch = self._pace.watch()
        pieces: list[bytes] = []
        gathered = 0
        failure: RegistrySyncError | None = None
        while True:
            watch.start_wait()
            try:
                piece = self._response.read1(self._read_bytes, decode_content=False)
            except (HTTPError, OSError, ValueError) as problem:
                failure = converted(problem, self.method, self.target)
                break
            if not piece:
                break
            pieces.append(piece)
            gathered += len(piece)
            if not watch.end_wait(len(piece)):
                host = self.target.origin.netloc
                failure = ServerUnavailable(f"{host} sends a body too slowly", host=host, method=self.method)
                break
            if gathered >= CHUNK_BYTES:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces, gathered = [], 0
        if pieces:
            yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if failure is not None:
            self.abandon()
            raise failure
        self._response.release_conn()

    def read(self, limit: int, what: str) -> bytes:
        """The whole body of at most ``limit`` bytes.

        Raises :class:`LimitExceeded`, with ``what`` in its message, and as :meth:`chunks` does.
        """
        declared = self.content_length
        if declared is not None and declared > limit:
            self.abandon()
            raise LimitExceeded(f"{what} of {self.target.origin.netloc} is larger than {limit} bytes", limit=what)
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                self.abandon()
                raise LimitExceeded(f"{what} of {self.target.origin.netloc} is larger than {limit} bytes", limit=what)
        if declared is not None and len(data) < declared:
            raise TruncatedBody(f"{what} of {self.target.origin.netloc} ended after {len(data)} of {declared} bytes")
        return bytes(data)

    def read_json(self, limit: int, what: str) -> dict[str, Any]:
        """The body as a JSON object. Raises :class:`ProtocolError` when it is not one, and as :meth:`read` does."""
        document = self.read_json_value(limit, what)
        if not isinstance(document, dict):
            raise self.protocol_error(f"{what} of {self.target.origin.netloc} is not a JSON object")
        return document

    def read_json_value(self, limit: int, what: str) -> dict[str, Any] | list[Any]:
        """The body as a JSON object or array. Raises as :meth:`read_json`."""
        data = self.read(limit, what)
        try:
            document = json.loads(data.decode("utf-8"), object_pairs_hook=_unambiguous)
        except (ValueError, RecursionError):
            document = None
        if not data and self.content_length is None:
            raise TruncatedBody(f"{what} of {self.target.origin.netloc} is empty")
        if not isinstance(document, dict | list):
            if (page := web_page(data, self.header("Content-Type"))) is not None:
                raise self.protocol_error(
                    f"{self.target.origin.netloc} responds with {page} in place of its {what}", is_web_page=True
                )
            raise self.protocol_error(f"{what} of {self.target.origin.netloc} is not a JSON object")
        return document

    @property
    def age_seconds(self) -> int:
        """How long a cache has kept the response (RFC 9111 section 5.1); 0 without an ``Age`` that can be read."""
        value = (self.header("Age") or "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0

    def protocol_error(self, message: str, **context: Any) -> ProtocolError:
        """An error with the context of this request."""
        return ProtocolError(
            message,
            host=self.target.origin.netloc,
            method=self.method,
            url=self.target.url,
            status=self.status,
            redirected_by=self.redirected_by,
            **context,
        )

    def discard(self) -> None:
        """Releases the connection: kept when little or no body is unread, closed otherwise. Safe to repeat."""
        length = 0 if self.method == "HEAD" or self.status in (204, 304) else self.content_length
        if length is not None and length <= DRAIN_BYTES:
            # An empty body is read too: a connection that is released with an open response fails the next request.
            with contextlib.suppress(HTTPError, OSError, ValueError):
                self._response.read(DRAIN_BYTES, decode_content=False)
        else:
            self._response.close()
        self._response.release_conn()

    def abandon(self) -> None:
        """Closes the connection, whatever is unread. Safe to repeat."""
        self._response.close()
        self._response.release_conn()


def web_page(data: bytes, content_type: str | None) -> str | None:
    """A description of a body that is a web page, with its title; None for any other body."""
    start = data[:MAX_PAGE_BYTES].decode("utf-8", "replace")
    is_page = "html" in (content_type or "").lower() or _PAGE.match(start)
    if not is_page or start.lstrip()[:1] == "{":
        return None
    title = _TITLE.search(start)
    words = " ".join(html.unescape(title[1]).split()) if title else ""
    shown = "".join(character for character in words if character.isprintable())[:MAX_TITLE_LENGTH]
    return f"a web page ({shown!r})" if shown else "a web page"


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON document. Raises :class:`ValueError` for a repeated name, which is ambiguous."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name is repeated")
    return document


def converted(  # noqa: PLR0911 - a table with one row for each kind of failure
    problem: Exception, method: str, target: Target
) -> RegistrySyncError:
    """The error for an exception of the HTTP library or the operating system."""
    host = target.origin.netloc
    context: dict[str, Any] = {"host": host, "method": method, "url": target.url}
    if isinstance(problem, IncompleteRead) or _cause(problem, IncompleteRead):
        return TruncatedBody(f"{host} ended a body early")
    if isinstance(problem, (SSLError, ProxyError)) and _is_untrusted(problem):
        whose = f"the proxy before {host}" if isinstance(problem, ProxyError) else host
        return UntrustedCertificate(
            f"the TLS certificate of {whose} is not trusted ({_reason(problem)}); "
            "configure the CA that signed it, or disable verification for this remote",
            **context,
        )
    if isinstance(problem, (SSLError, ProxyError)) and _speaks_plain_http(problem):
        if isinstance(problem, ProxyError):
            return ConfigurationError(f"the proxy before {host} does not speak TLS; write its URL with http://")
        return ProtocolError(
            f"{host} speaks plain http where https was expected: use its https port, or write http:// if the registry "
            "is meant to be read without TLS",
            **context,
        )
    if isinstance(problem, ProxyError):
        status = _tunnel_status(problem)
        if status is not None and status not in TEMPORARY_STATUSES:
            return proxy_refusal(status, host)
        return ServerUnavailable(f"the proxy before {host} does not connect: {_reason(problem)}", **context)
    if isinstance(problem, SSLError) and (alert := _refused_certificate(problem)) is not None:
        return AuthenticationFailed(
            f"{host} does not accept the client certificate, or requires one ({alert}); set it in the connection, as "
            "client_certificate with client_private_key",
            **context,
        )
    if isinstance(problem, NameResolutionError):
        return ServerUnavailable(f"the name {target.origin.host} cannot be resolved", **context)
    if isinstance(problem, (ConnectTimeoutError, NewConnectionError)):
        return ServerUnavailable(f"no connection to {host}: {_reason(problem)}", **context)
    if isinstance(problem, ReadTimeoutError):
        return ServerUnavailable(f"{host} did not respond in time", **context)
    if isinstance(problem, (BrokenConnection, SSLError, OSError)) and not _is_nonsense(problem):
        return ServerUnavailable(f"the connection to {host} broke: {_reason(problem)}", **context)
    return ProtocolError(f"{host} does not respond in HTTP: {_reason(problem)}", **context)


def proxy_refusal(status: int, host: str) -> ConfigurationError:
    """The error for a proxy that responds ``status`` in place of the registry."""
    if status in (401, PROXY_AUTHENTICATION_REQUIRED):  # some send 401 for wrong and 407 for missing credentials
        return ConfigurationError(
            f"the proxy before {host} requires a user name and password, or refuses the given ones ({status}); "
            "write them into its URL, http://user:password@proxy.example:3128, special characters percent-encoded"
        )
    return ConfigurationError(
        f"the proxy does not allow connections to {host} ({status}); its operator must allow them"
    )


def _tunnel_status(problem: BaseException) -> int | None:
    """The status by which a proxy refused a tunnel; the standard library has it in the message only."""
    found = (_TUNNEL.fullmatch(str(cause)) for cause in _causes(problem) if isinstance(cause, OSError))
    return next((int(match[1]) for match in found if match), None)


def _refused_certificate(problem: BaseException) -> str | None:
    """The alert by which a server refuses a client's certificate, as OpenSSL names it; None for other failures."""
    alerts = (cause.reason for cause in _causes(problem) if isinstance(cause, ssl.SSLError))
    return next((alert for alert in alerts if alert in _CERTIFICATE_ALERTS), None)


def _causes(problem: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException] = [problem]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting.extend(item for item in (*current.args, current.__cause__) if isinstance(item, BaseException))


def _cause(problem: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(problem))


def _is_untrusted(problem: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(problem))


def _speaks_plain_http(problem: BaseException) -> bool:
    """Whether the server responded to the TLS handshake with something else."""
    reasons = (cause.reason for cause in _causes(problem) if isinstance(cause, ssl.SSLError))
    return any(reason in _NO_TLS for reason in reasons)


def _is_nonsense(problem: BaseException) -> bool:
    from http.client import BadStatusLine, LineTooLong, RemoteDisconnected

    return any(
        isinstance(cause, (BadStatusLine, LineTooLong)) and not isinstance(cause, RemoteDisconnected)
        for cause in _causes(problem)
    )


def _reason(problem: BaseException) -> str:
    innermost = list(_causes(problem))[-1]
    text = str(innermost) or type(innermost).__name__
    return "".join(character if character.isprintable() else " " for character in text)[:200]


DECODABLE = frozenset({"gzip", "x-gzip", "deflate"})
_STEP_BYTES = 1024 * 1024


def decoded(chunks: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """The decoded bytes of ``chunks``, in pieces, at most ``limit`` in all.

    Raises :class:`LimitExceeded`, :class:`TruncatedBody` when the data ends early, and ``zlib.error`` for other data.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32 if encoding != "deflate" else zlib.MAX_WBITS)
    given = 0
    for chunk in chunks:
        waiting = chunk
        while waiting and not decoder.eof:
            piece = decoder.decompress(waiting, _STEP_BYTES)
            waiting = decoder.unconsumed_tail
            given += len(piece)
            if given > limit:
                raise LimitExceeded(f"a body decodes to more than {limit} bytes", limit="decoded body")
            if piece:
                yield piece
    if not decoder.eof:
        raise TruncatedBody("an encoded body ended early")
