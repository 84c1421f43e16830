"""An S3 server with the deviations of S3-compatible stores: moto's, behind a proxy that changes its responses."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from support.certificates import ServerCertificate
from support.object_store import S3Server, allow_short_parts, forget_clients, remember_modules

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: What says that a body is framed; without it a server takes the framing for bytes of the object.
_FRAMING_HEADERS = ("HTTP_CONTENT_ENCODING", "HTTP_X_AMZ_DECODED_CONTENT_LENGTH", "HTTP_X_AMZ_TRAILER")


@dataclass
class Refusal:
    """A response to requests of ``method`` whose path and query contain ``text``, ``count`` times (None: always)."""

    method: str
    text: str
    status: int
    code: str
    count: int | None = None

    def meets(self, method: str, target: str) -> bool:
        return method == self.method and self.text in target and self.count != 0


@dataclass
class HostileObjectStore:
    """What the server does: ``requests`` are those it was sent, ``keeps_framing`` stores bodies as they come."""

    application: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
    keeps_framing: bool = False
    refusals: list[Refusal] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def refuse(self, method: str, text: str, status: int, code: str, count: int | None = None) -> Refusal:
        """Responds to such requests with an error from now on."""
        refusal = Refusal(method, text, status, code, count)
        self.refusals.append(refusal)
        return refusal

    def reset(self) -> None:
        """A well-behaved server again."""
        self.keeps_framing = False
        self.refusals.clear()
        self.requests.clear()

    def count(self, method: str, text: str = "") -> int:
        """How many such requests were sent."""
        return sum(request.startswith(f"{method} ") and text in request for request in self.requests)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        target = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        self.requests.append(f"{method} {target}")
        for refusal in self.refusals:
            if refusal.meets(method, target):
                refusal.count = None if refusal.count is None else refusal.count - 1
                if method in ("PUT", "POST"):
                    _body(environ)
                return _refused(refusal, start)
        if self.keeps_framing and environ.get("HTTP_X_AMZ_TRAILER"):
            body = _body(environ)
            for name in _FRAMING_HEADERS:
                environ.pop(name, None)
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ |= {
                "HTTP_X_AMZ_CONTENT_SHA256": "UNSIGNED-PAYLOAD",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }
        return self.application(environ, start)


def _body(environ: WSGIEnvironment) -> bytes:
    """All of it; a request that has none is not waited for."""
    if environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _refused(refusal: Refusal, start: StartResponse) -> Iterable[bytes]:
    text = f"<Error><Code>{refusal.code}</Code><Message>refused by the test</Message></Error>"
    body = b"" if refusal.method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    start(f"{refusal.status} Refused", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def hostile_object_store(certificate: ServerCertificate) -> Iterator[tuple[HostileObjectStore, S3Server]]:
    """The server on a free port, without deviations until a test adds some."""
    allow_short_parts()
    remember_modules()
    store = HostileObjectStore(DomainDispatcherApplication(create_backend_app))
    pair = (str(certificate.chain_path), str(certificate.key_path))
    server = make_server("127.0.0.1", 0, store, True, request_handler=MotoRequestHandler, ssl_context=pair)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store, S3Server(f"https://127.0.0.1:{server.server_port}", str(certificate.ca_path))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        forget_clients()
