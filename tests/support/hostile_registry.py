"""A scripted registry on a raw socket, for behaviour that no real one has: it sends exactly the scripted bytes.

Responses are laid down per method and path; several are given one after another and the last stays. Every request is
kept as it arrived, so that a test can say what was sent, and what was not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from registry_sync.domain.references import RegistryUrl


@dataclass(frozen=True)
class Request:
    """One request: ``target`` is the request line's, header names are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The value of a header, repeated ones joined; None when it was not sent."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None


@dataclass(frozen=True)
class Raw:
    """Pieces to send as they are: bytes, or what to wait for: seconds, or an event.

    The connection closes after them when ``closes``. A response to HEAD ends with its headers unless ``is_exact``.
    """

    pieces: tuple[bytes | float | threading.Event, ...]
    closes: bool = True
    is_exact: bool = False


def reply(
    status: int = 200,
    body: bytes | str = b"",
    headers: Iterable[tuple[str, str]] = (),
    *,
    length: int | None = -1,
    content_type: str | None = "application/json",
    cut: bool = False,
) -> Raw:
    """A well-formed response. ``length`` None leaves Content-Length out and ends the body by closing; a number may lie.

    ``cut`` closes the connection after the body, whatever the length says.
    """
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Said"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length is not None:
        lines.append(f"Content-Length: {len(data) if length == -1 else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return Raw((head, data), closes=cut or length is None)


def json_reply(document: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Raw:
    """A JSON document as a response."""
    return reply(status, json.dumps(document).encode(), headers)


def errors_reply(status: int, code: str, message: str = "", headers: Iterable[tuple[str, str]] = ()) -> Raw:
    """An error in the shape of the distribution specification."""
    return json_reply({"errors": [{"code": code, "message": message, "detail": None}]}, status, headers)


def paged(
    path: str, names: Sequence[str], size: int, page: Callable[[Sequence[str], str | None], Raw], *, links: bool = True
) -> Callable[[Request], Raw]:
    """An honest registry that gives at most ``size`` of ``names`` a page; ``page`` makes one, with the next target."""

    def response(request: Request) -> Raw:
        query = parse_qs(request.query)
        start = names.index(query["last"][0]) + 1 if "last" in query else 0
        part = names[start : start + size]
        more = start + size < len(names)
        return page(part, f"{path}?last={part[-1]}&n={size}" if more and links else None)

    return response


Answer = Raw | Callable[[Request], Raw]


class HostileRegistry:
    """Runs between ``with`` and its end. Requests without a scripted response get ``otherwise``, or 404 with no body.

    ``certificate`` (paths of chain and key) makes it speak TLS. ``host`` is a loopback address, so that two of them
    are two hosts.
    """

    def __init__(
        self,
        certificate: tuple[str, str] | None = None,
        *,
        host: str = "127.0.0.1",
        otherwise: Callable[[Request], Raw] | None = None,
    ) -> None:
        self.host = host
        self.requests: list[Request] = []
        self._otherwise = otherwise
        self.connection_count = 0
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0), backlog=128)
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def base(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.netloc}"

    @property
    def url(self) -> RegistryUrl:
        return RegistryUrl.parse(self.base)

    def on(self, method: str, path: str, *responses: Answer) -> None:
        """Scripts responses for ``method`` and ``path``, which has no query."""
        self._answers[method, path] = list(responses)

    def on_everything(self, response: Raw) -> None:
        """Responds to every request so from now on, whatever was scripted."""
        self._answers.clear()
        self._otherwise = lambda _request: response

    def asked(self, method: str | None = None, path: str | None = None) -> list[Request]:
        """The requests so far, of a method and path if given."""
        with self._lock:
            return [
                request
                for request in self.requests
                if method in (None, request.method) and path in (None, request.path)
            ]

    def stop_accepting(self) -> None:
        """Refuses connections from now on; those that are open stay."""
        self._listener.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> HostileRegistry:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            waiting = list(self._open)
        for connection in waiting:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connection_count += 1
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                plain, connection = connection, self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, connection.makefile("rb") as stream:
                while (request := _read_request(stream)) is not None:
                    response = self._answer_for(request)
                    self._send(connection, response, request)
                    if response.closes:
                        return
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _answer_for(self, request: Request) -> Raw:
        with self._lock:
            self.requests.append(request)
            responses = self._answers.get((request.method, request.path))
            response: Answer = self._otherwise or reply(404, content_type=None)
            if responses:
                response = responses.pop(0) if len(responses) > 1 else responses[0]
        return response if isinstance(response, Raw) else response(request)

    def _send(self, connection: socket.socket, response: Raw, request: Request) -> None:
        for piece in response.pieces:
            if isinstance(piece, float):
                self._is_stopped.wait(piece)
            elif isinstance(piece, threading.Event):
                while not piece.wait(0.05) and not self._is_stopped.is_set():
                    pass
            elif request.method == "HEAD" and not response.is_exact:
                connection.sendall(b"".join(piece.partition(b"\r\n\r\n")[:2]))
                return
            else:
                connection.sendall(piece)


def _read_request(stream: Any) -> Request | None:
    line = stream.readline(65536).decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = []
    while header := stream.readline(65536).decode("latin-1").rstrip("\r\n"):
        name, _, value = header.partition(":")
        headers.append((name.strip().lower(), value.strip()))
    length = int(dict(headers).get("content-length", "0"))
    return Request(method, target, tuple(headers), stream.read(length) if length else b"")


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 5.0) -> bool:
    """Whether ``condition`` came true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
