"""Connection pools that connect only to checked addresses and send request targets byte for byte.

Status line and headers of a response are read here, within a time: Python's own reader limits the silence between two
bytes, so that a server could send headers for ever; and its parser is one of e-mails. What comes in the form of the
specification is split at the colon; anything else is left to that parser.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse, LineTooLong, UnknownProtocol, parse_headers
from typing import Any
from urllib.parse import unquote

import certifi
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.util import Timeout, parse_url

from registry_sync.errors import ConfigurationError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import AddressGate, Origin

#: Keep-alive probes after a minute of silence keep long transfers open through firewalls that drop idle connections.
_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
]


#: Python's own bounds of a header line, and of the number of lines.
MAX_LINE_BYTES, MAX_HEADERS = 65536, 100


class _Received(io.RawIOBase):
    """The bytes of a socket; an error after ``deadline`` (monotonic seconds), None for no deadline.

    While ``is_in_headers``, the end of the bytes is an error too: incomplete headers are invalid.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self.deadline: float | None = None
        self.is_in_headers = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError("the headers of a response take too long")
        count = self._raw.readinto(buffer)
        if count == 0 and self.is_in_headers:
            raise ConnectionResetError("the connection ended before the headers of the response")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PlainHeaders(HTTPMessage):
    """Headers of which each is one line in the form of the specification, as most are: nothing is left to interpret.

    Gives what Python's own parser gives for them, without that parser, which is made for e-mails and takes a third of
    the time of a request.
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self._pairs = self._headers = pairs

    def items(self) -> list[tuple[str, str]]:
        return list(self._pairs)

    def get(self, name: str, failobj: Any = None) -> Any:
        wanted = name.lower()
        return next((value for found, value in self._pairs if found.lower() == wanted), failobj)


#: RFC 9112 section 5, without the obsolete folding of a value over several lines (section 5.2).
_PLAIN_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_PLAIN_HEADERS = re.compile(rb"(?:%s\r\n)*\r\n" % _PLAIN_HEADER.pattern)


def _read_headers(received: io.BufferedReader) -> HTTPMessage:
    """The headers up to the empty line. Raises as Python's parser for too many or too long ones, and has its result."""
    lines: list[bytes] = []
    while True:
        line = received.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise LineTooLong("header line")
        lines.append(line)
        if len(lines) > MAX_HEADERS:
            raise HTTPException(f"got more than {MAX_HEADERS} headers")
        if line in (b"\r\n", b"\n", b""):
            break
    block = b"".join(lines)
    if not _PLAIN_HEADERS.fullmatch(block):
        return parse_headers(io.BytesIO(block))
    pairs = (line.split(":", 1) for line in block.decode("iso-8859-1").split("\r\n")[:-2])
    return _PlainHeaders([(name, value.lstrip(" \t")) for name, value in pairs])


class PunctualResponse(HTTPResponse):
    """A response whose complete status line and headers must arrive within the socket's timeout."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._timeout_seconds = sock.gettimeout()
        self._received = _Received(self.fp.detach())
        self.fp = io.BufferedReader(self._received)

    def begin(self) -> None:
        """As Python's, but for the parser of headers. Raises what that raises."""
        if self._timeout_seconds is not None:
            self._received.deadline = time.monotonic() + self._timeout_seconds
        self._received.is_in_headers = True
        version, status, reason = self._read_status()  # type: ignore[attr-defined]
        while status == HTTPStatus.CONTINUE:
            _read_headers(self.fp)
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
        self.code = self.status = status
        self.reason = reason.strip()
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = _read_headers(self.fp)
        self._received.is_in_headers = False
        self._received.deadline = None
        self._delimit_body()

    def _delimit_body(self) -> None:
        """Determines by the headers where the body ends (RFC 9112 section 6.3)."""
        self.chunked = (self.headers.get("transfer-encoding") or "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        self.length = None
        if not self.chunked:
            with contextlib.suppress(ValueError):
                declared = int(self.headers.get("content-length") or "")
                self.length = declared if declared >= 0 else None
        is_empty = self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) or 100 <= self.status < 200
        if is_empty or self._method == "HEAD":  # type: ignore[attr-defined]
            self.length = 0
        if not self.chunked and self.length is None:
            self.will_close = True


#: A value of a header over several lines, with the white space around each end.
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")


class JoinedHeaders(dict[str, str]):
    """Headers by their names in lower case, repeated ones joined by ``", "``; :meth:`get` takes any case."""

    @classmethod
    def of(cls, message: HTTPMessage) -> JoinedHeaders:
        """Those of a response."""
        found = cls()
        for name, value in message.items():
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        if not isinstance(message, _PlainHeaders):
            found.update({key: _FOLD.sub(" ", value) for key, value in found.items()})
        return found

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


#: So many lines of headers are remembered, none that is longer: responses of a registry differ in few.
_MOST_KNOWN_LINES, _LONGEST_KNOWN_LINE = 256, 256


class HeaderLines:
    """Reads headers of many responses of one registry; lines that have come before are not read again."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, str]] = {}

    def read(self, response: bytes) -> JoinedHeaders | None:
        """The headers of a whole response without a body; None unless they are in the form of the specification."""
        lines, known, found = response.split(b"\r\n"), self._known, JoinedHeaders()
        if lines[-2:] != [b"", b""] or len(lines) - 3 >= MAX_HEADERS:
            return None
        for line in lines[1:-2]:
            pair = known.get(line)
            if pair is None:
                if not _PLAIN_HEADER.fullmatch(line):
                    return None
                name, _, value = line.decode("iso-8859-1").partition(":")
                pair = name.lower(), value.lstrip(" \t")
                if len(known) >= _MOST_KNOWN_LINES:
                    known.clear()
                if len(line) <= _LONGEST_KNOWN_LINE:
                    known[line] = pair
            key, text = pair
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found


class EmptyResponse:
    """A response to HEAD, with what urllib3's pools and :class:`Response` use of a response.

    It has no body, so that its connection is free for the next request as soon as it is released.
    """

    length_remaining = 0

    def __init__(self, received: HTTPResponse) -> None:
        self.status = received.status
        self.version_string = f"HTTP/{received.version / 10}"
        self.headers = JoinedHeaders.of(received.headers)
        self.retries: Any = None
        # Set by the pool that the response came from.
        self._connection: Any = None
        self._pool: Any = None
        received.close()

    def read(self, _amount: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: ARG002
        return b""

    read1 = read

    def close(self) -> None:
        """Closes the connection, unless it was released."""
        if self._connection is not None:
            self._connection.close()

    def release_conn(self) -> None:
        """Gives the connection back to its pool. Safe to repeat."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._put_conn(connection)  # noqa: SLF001  as urllib3's own responses


class TargetHeaders(dict[str, str]):
    """Headers that also carry the target of the request line, which urllib3 would otherwise normalise.

    ``on_send`` is called when the request has a connection and is sent.
    """

    target: str = ""
    on_send: Callable[[], None] | None = None

    def copy(self) -> TargetHeaders:
        result = TargetHeaders(self)
        result.target, result.on_send = self.target, self.on_send
        return result


class _Connection(HTTPConnection):
    response_class = PunctualResponse
    _is_head = False

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        if self.sock is None:  # so that the time of a response is not that of a connection
            self.connect()
        _report_sent(headers)
        self._is_head = _is_head(method, body, headers)
        if self._is_head:
            _send_head(self, headers.target or url, headers)
            return
        super().request(method, getattr(headers, "target", "") or url, body=body, headers=headers, **options)
        _forget_query(self, url)

    def getresponse(self) -> Any:
        return _response_to_head(self) if self._is_head else super().getresponse()


class _SecureConnection(HTTPSConnection):
    response_class = PunctualResponse
    _is_head = False

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        _report_sent(headers)
        self._is_head = _is_head(method, body, headers)
        try:
            if self._is_head:
                _send_head(self, headers.target or url, headers)
                return
            super().request(method, getattr(headers, "target", "") or url, body=body, headers=headers, **options)
        except ssl.SSLEOFError:
            # A server that refuses a client's certificate sends an alert and closes; read the alert.
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.recv(1)
            raise
        _forget_query(self, url)

    def getresponse(self) -> Any:
        return _response_to_head(self) if self._is_head else super().getresponse()


def _is_head(method: str, body: Any, headers: Any) -> bool:
    """Whether neither the request nor its response has a body, so that nothing of urllib3's about bodies is needed."""
    return method == "HEAD" and body is None and isinstance(headers, TargetHeaders)


def _send_head(connection: HTTPConnection, target: str, headers: TargetHeaders) -> None:
    """Sends a HEAD by Python's own methods. ``headers`` have all but ``Host``."""
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)
    plain = http.client.HTTPConnection
    plain.putrequest(connection, "HEAD", target, skip_accept_encoding=True)
    for name, value in headers.items():
        plain.putheader(connection, name, value)
    plain.endheaders(connection)


def _response_to_head(connection: HTTPConnection) -> EmptyResponse:
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)
    return EmptyResponse(http.client.HTTPConnection.getresponse(connection))


def _report_sent(headers: Any) -> None:
    on_send = getattr(headers, "on_send", None)
    if on_send is not None:
        on_send()


def _forget_query(connection: Any, url: str) -> None:
    """Gives urllib3 only ``url`` for its log: queries can be signatures."""
    if connection._response_options is not None:  # noqa: SLF001 - it is stored nowhere else
        connection._response_options = connection._response_options._replace(request_url=url)  # noqa: SLF001


def _connect_checked(connection: HTTPConnection, gate: AddressGate, connect: Any) -> socket.socket:
    name = connection._dns_host  # noqa: SLF001 - the name that urllib3 connects to
    try:
        addresses = gate.resolve(name, connection.port or 0)
    except socket.gaierror as problem:
        raise NameResolutionError(name, connection, problem) from problem
    failure: NewConnectionError | None = None
    try:
        for address in addresses:
            connection._dns_host = address  # noqa: SLF001 - the checked address, so that no second lookup happens
            try:
                return connect()  # type: ignore[no-any-return]
            except NewConnectionError as problem:
                failure = problem
    finally:
        connection._dns_host = name  # noqa: SLF001 - certificates and Host use the name
    raise failure or NewConnectionError(connection, f"{name} has no address")


class _GatedConnection(_Connection):
    def __init__(self, *args: Any, gate: AddressGate, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate

    def _new_conn(self) -> socket.socket:
        return _connect_checked(self, self._gate, super()._new_conn)


class _GatedSecureConnection(_SecureConnection):
    def __init__(self, *args: Any, gate: AddressGate, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate = gate

    def _new_conn(self) -> socket.socket:
        return _connect_checked(self, self._gate, super()._new_conn)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


def _connect_unwarned(_pool: HTTPSConnectionPool, conn: Any) -> None:
    """Connects early, as urllib3 does, without its warning: the user disabled certificate verification."""
    if conn.is_closed:
        conn.connect()


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
    _validate_conn = _connect_unwarned


class _GatedPool(HTTPConnectionPool):
    ConnectionCls = _GatedConnection


class _GatedSecurePool(HTTPSConnectionPool):
    ConnectionCls = _GatedSecureConnection
    _validate_conn = _connect_unwarned


class ConnectionPools:
    """One pool per origin, shared by all threads, with at most ``options.concurrency`` connections each."""

    def __init__(self, own: Origin, options: ClientOptions, gate: AddressGate) -> None:
        self._own = own
        self._options = options
        self._gate = gate
        self._pools: dict[Origin, HTTPConnectionPool] = {}
        self._own_proxy = self._foreign_proxy = None
        if options.proxy_url:
            self._own_proxy = self._proxy(options.proxy_url, _tls_context(options, is_own=True))
            self._foreign_proxy = self._proxy(options.proxy_url, _tls_context(options, is_own=False))
        self._own_tls = _tls_context(options, is_own=True) if own.scheme == "https" else None
        # Created now when it reads files, which may be deleted soon; else at the first request to another host.
        has_files = isinstance(options.verify, str)
        self._foreign_tls = _tls_context(options, is_own=False) if has_files else None

    @property
    def is_proxied(self) -> bool:
        """Whether a proxy resolves the names."""
        return self._own_proxy is not None

    def pool(self, origin: Origin) -> HTTPConnectionPool:
        """The pool of connections to ``origin``."""
        found = self._pools.get(origin)
        return found if found is not None else self._pools.setdefault(origin, self._open(origin))

    def close(self) -> None:
        """Closes idle connections; connections in use close when their requests end."""
        while self._pools:
            self._pools.popitem()[1].close()

    def _open(self, origin: Origin) -> HTTPConnectionPool:
        proxy = self._own_proxy if origin == self._own else self._foreign_proxy
        if proxy is not None:
            return proxy.connection_from_host(origin.host, origin.port, origin.scheme)
        if origin.scheme == "http":
            return _GatedPool(origin.host, origin.port, gate=self._gate, **self._common())
        if origin != self._own and self._foreign_tls is None:
            self._foreign_tls = _tls_context(self._options, is_own=False)
        tls = self._own_tls if origin == self._own else self._foreign_tls
        return _GatedSecurePool(origin.host, origin.port, gate=self._gate, ssl_context=tls, **self._common())

    def _common(self) -> dict[str, Any]:
        timeout = Timeout(connect=self._options.connect_timeout_seconds, read=self._options.read_timeout_seconds)
        return {
            "maxsize": self._options.concurrency,
            "block": True,
            "timeout": timeout,
            "socket_options": _SOCKET_OPTIONS,
        }

    def _proxy(self, url: str, tls: ssl.SSLContext) -> ProxyManager:
        try:
            parts = parse_url(url)
        except ValueError:  # its message repeats the URL, with the password in it
            raise ConfigurationError("the proxy is not a URL such as http://proxy.example:3128") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ConfigurationError("the proxy is not an http or https URL such as http://proxy.example:3128")
        username, _, password = (parts.auth or "").partition(":")
        login = Credentials(unquote(username), unquote(password))
        headers = {"Proxy-Authorization": login.basic} if parts.auth else None
        bare = parts._replace(auth=None).url
        # The proxy is not the registry: it gets no client certificate.
        before = _tls_context(self._options, is_own=False) if parts.scheme == "https" else None
        manager = ProxyManager(bare, proxy_headers=headers, ssl_context=tls, proxy_ssl_context=before, **self._common())
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager


def _tls_context(options: ClientOptions, *, is_own: bool) -> ssl.SSLContext:
    """TLS 1.2 or later. The registry is verified by the configured CA alone, other hosts by the public CAs as well."""
    bundle = options.verify if isinstance(options.verify, str) else None
    try:
        context = ssl.create_default_context(cafile=bundle if bundle and is_own else certifi.where())
        if bundle and not is_own:
            context.load_verify_locations(cafile=bundle)
        if options.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.client_certificate and is_own:
            paths = options.client_certificate
            context.load_cert_chain(*((paths,) if isinstance(paths, str) else paths))
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(
            f"the CA or client certificate cannot be read: {getattr(problem, 'reason', None) or problem}"
        ) from problem
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
