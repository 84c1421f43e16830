"""Connection pools that connect only to checked addresses and send request targets byte for byte.

Requests without a body, which nearly all are, are sent without what urllib3 does for bodies, and their responses are
read by :mod:`registry_sync.oci.http.received`.
"""

from __future__ import annotations

import functools
import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import certifi
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPResponse, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.util import Timeout, parse_url

from registry_sync.errors import ConfigurationError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.origins import AddressGate, Origin
from registry_sync.oci.http.received import PunctualResponse, WholeResponse, first_response

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
    _is_plain = False
    _lines: _HeaderBlock | None = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        if self.sock is None:  # so that the time of a response is not that of a connection
            self.connect()
        _report_sent(headers)
        self._is_plain = _is_plain(method, body, headers)
        if self._is_plain:
            _send_plain(self, method, headers.target or url, headers)
            return
        super().request(method, getattr(headers, "target", "") or url, body=body, headers=headers, **options)
        _forget_query(self, url)

    def getresponse(self) -> Any:
        return _plain_response(self) if self._is_plain else super().getresponse()


class _SecureConnection(HTTPSConnection):
    response_class = PunctualResponse
    _is_plain = False
    _lines: _HeaderBlock | None = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        _report_sent(headers)
        self._is_plain = _is_plain(method, body, headers)
        try:
            if self._is_plain:
                _send_plain(self, method, headers.target or url, headers)
                return
            super().request(method, getattr(headers, "target", "") or url, body=body, headers=headers, **options)
        except ssl.SSLEOFError:
            # A server that refuses a client's certificate sends an alert and closes; read the alert.
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.recv(1)
            raise
        _forget_query(self, url)

    def getresponse(self) -> Any:
        return _plain_response(self) if self._is_plain else super().getresponse()


def _is_plain(method: str, body: Any, headers: Any) -> bool:
    """Whether the request has no body, so that nothing of urllib3's about bodies is needed to send it."""
    return method in ("GET", "HEAD") and body is None and isinstance(headers, TargetHeaders)


#: Headers, and their lines as Python has checked and written them.
_HeaderBlock = tuple[tuple[tuple[str, str], ...], list[bytes]]


def _send_plain(connection: Any, method: str, target: str, headers: TargetHeaders) -> None:
    """Sends a request without a body by Python's own methods. ``headers`` have all but ``Host``.

    Their lines are written once for requests in a row that have the same.
    """
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)
    plain = http.client.HTTPConnection
    plain.putrequest(connection, method, target, skip_accept_encoding=True)
    written, given = connection._buffer, tuple(headers.items())  # noqa: SLF001  joined when they are sent
    if connection._lines is not None and connection._lines[0] == given:  # noqa: SLF001
        written.extend(connection._lines[1])  # noqa: SLF001
    else:
        count = len(written)
        for name, value in given:
            plain.putheader(connection, name, value)
        connection._lines = given, written[count:]  # noqa: SLF001
    plain.endheaders(connection)


def _plain_response(connection: Any) -> WholeResponse | HTTPResponse:
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)
    connection.response_class = first_response
    try:
        received: Any = http.client.HTTPConnection.getresponse(connection)
    finally:
        del connection.response_class
    if isinstance(received, WholeResponse):
        return received
    method = received._method  # noqa: SLF001
    if method == "HEAD":
        return WholeResponse.without_body(received)
    return HTTPResponse(
        received,
        HTTPHeaderDict(received.headers.items()),
        received.status,
        received.version,
        f"HTTP/{received.version / 10}",
        received.reason,
        preload_content=False,
        decode_content=False,
        original_response=received,
        request_method=method,
    )


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


class OpeningConnections:
    """Connections of a pool that are opened beside the caller, one in each of ``places``, given back to it when open.

    ``left_count`` are not open yet, ``opened_count`` are. A place whose connection fails stays empty: the request that
    needs one meets the failure itself. None is begun before ``head_start_seconds``, so that what the caller does next
    does not wait for all of their threads.
    """

    def __init__(self, pool: HTTPConnectionPool, places: list[Any], head_start_seconds: float = 0.0) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self.left_count, self.opened_count = len(places), 0
        if head_start_seconds and places:
            self._start(self._begin, places, head_start_seconds)
        else:
            self._begin(places, 0.0)

    def wait(self, seconds: float) -> None:
        """Waits until one more is open or has failed, and no longer than that."""
        with self._changed:
            if self.left_count:
                self._changed.wait(seconds)

    def _begin(self, places: list[Any], after_seconds: float) -> None:
        if after_seconds:
            time.sleep(after_seconds)
        for place in places:
            self._start(self._open, place)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Does ``work`` in a thread; here where the system allows no more of them."""
        try:
            threading.Thread(target=work, args=arguments, name="connect", daemon=True).start()
        except RuntimeError:
            work(*arguments)

    def _open(self, place: Any) -> None:
        pool = self._pool
        connection: Any = None
        try:
            if pool.pool is not None:  # closed meanwhile
                connection = pool._new_conn() if place is None else place  # noqa: SLF001  as urllib3's requests
                connection.connect()
                connection.timeout = pool.timeout.read_timeout
                connection.sock.settimeout(connection.timeout)
        except (HTTPError, OSError, ValueError):
            if connection is not None:
                connection.close()
            connection = None
        finally:
            put_back(pool, connection)
            with self._changed:
                self.left_count -= 1
                self.opened_count += connection is not None
                self._changed.notify_all()


def take_open(pool: HTTPConnectionPool) -> tuple[Any, bool]:
    """A connection of the pool that is open and free, or None; then whether it has a place for one more.

    Those that are open are mostly above the places that are empty, but not always: another thread has one opened, or
    gives back a place whose connection was closed, at any time.
    """
    queued: Any = pool.pool
    if queued is None:  # the pool was closed
        return None, False
    with queued.mutex:
        places = queued.queue
        for at in reversed(range(len(places))):
            if places[at] is not None and places[at].sock is not None:
                return places.pop(at), True
        return None, bool(places)


def put_back(pool: HTTPConnectionPool, connection: Any) -> None:
    """Gives a place back to the pool with its connection, None for none; closes that where the pool was closed."""
    pool._put_conn(connection)  # noqa: SLF001  as urllib3's own responses
    if pool.pool is None and connection is not None:
        connection.close()


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

    def open_more(
        self, origin: Origin, count: int, most: int, *, head_start_seconds: float = 0.0
    ) -> OpeningConnections:
        """Opens ``count`` more connections to ``origin`` beside the caller, as long as fewer than ``most`` are in use.

        No connection is opened through a proxy. See :class:`OpeningConnections`.
        """
        pool = self.pool(origin)
        places = [] if self.is_proxied else self._empty_places(pool, count, most)
        return OpeningConnections(pool, places, head_start_seconds)

    @staticmethod
    def _empty_places(pool: HTTPConnectionPool, count: int, most: int) -> list[Any]:
        """At most ``count`` places of a pool that have no open connection; taken at once, as one is open soon."""
        queued: Any = pool.pool
        found: list[Any] = []
        if queued is None:
            return found
        # A place that is not in the queue has a connection that is in use, or is being opened.
        most -= queued.maxsize - sum(one is None or one.sock is None for one in list(queued.queue))
        while len(found) < min(count, most):
            try:
                connection = queued.get(block=False)
            except queue.Empty:
                break
            if connection is not None and connection.sock is not None:  # those that are free are on top
                put_back(pool, connection)
                break
            found.append(connection)
        return found

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
    pair = options.client_certificate if is_own else None
    try:
        if bundle is None and pair is None:
            return _public_tls_context(is_verified=options.verify is not False)
        context = _new_tls_context(bundle if bundle and is_own else certifi.where(), options.verify is not False)
        if bundle and not is_own:
            context.load_verify_locations(cafile=bundle)
        if pair:
            context.load_cert_chain(*((pair,) if isinstance(pair, str) else pair))
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(
            f"the CA or client certificate cannot be read: {getattr(problem, 'reason', None) or problem}"
        ) from problem
    return context


@functools.cache
def _public_tls_context(*, is_verified: bool) -> ssl.SSLContext:
    """One for all clients of this process, that knows the public CAs: to read those takes ten milliseconds."""
    return _new_tls_context(certifi.where(), is_verified)


def _new_tls_context(bundle: str, is_verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=bundle)
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
