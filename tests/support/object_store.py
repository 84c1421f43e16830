"""An S3 server for tests, as moto serves it, and buckets in it."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import fsspec
import requests
from moto import backends
from moto.s3 import models
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: How long what is joined must be, but for the last.
LEAST_PART_BYTES = 64 * 1024


@dataclass(frozen=True)
class S3Server:
    """A running server. ``options`` are those with which s3fs reaches it."""

    endpoint: str
    ca_path: str = ""

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"endpoint_url": self.endpoint, "key": "testing", "secret": "testing"}
        if self.ca_path:
            options["client_kwargs"] = {"verify": self.ca_path}
        return options

    @property
    def environment(self) -> dict[str, str]:
        """The options, as another process finds them."""
        return {f"FSSPEC_S3_{name.upper()}": value for name, value in self.options.items()}

    def new_bucket(self) -> str:
        """The name of a bucket that is empty."""
        bucket = f"blobs-{uuid.uuid4().hex}"
        self._send("PUT", bucket)
        return bucket

    def forget(self) -> None:
        """Removes every bucket; the server keeps what is in them in memory."""
        self._send("POST", "moto-api/reset")

    def _send(self, method: str, path: str) -> None:
        with requests.Session() as session:
            session.trust_env = False  # whatever proxy a test has set
            response = session.request(method, f"{self.endpoint}/{path}", timeout=10, verify=self.ca_path or True)
        response.raise_for_status()


def allow_short_parts() -> None:
    """Lets the servers of this process join objects that are shorter than S3's 5 MiB, so that tests move less."""
    vars(models)["S3_UPLOAD_PART_MIN_SIZE"] = LEAST_PART_BYTES


def remember_modules() -> None:
    """Lets the servers of this process look once which services moto has: they do for every request."""
    vars(backends)["list_of_moto_modules"] = functools.cache(lambda: tuple(_list_of_moto_modules()))


_list_of_moto_modules = backends.list_of_moto_modules


def forget_clients() -> None:
    """Lets go of the clients of servers that are gone: fsspec keeps each, with its 10 MB of models, for good."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _one_at_a_time(application: WSGIApplication) -> WSGIApplication:
    """``application`` as a client sees it, for one request after the other.

    Who writes an object closes the file of what was there before, which moto may be reading for another request.
    """
    lock = Lock()

    def call(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        with lock, closing(application(environ, start)) as response:  # type: ignore[type-var]  # werkzeug's has a close
            return list(response)

    return call


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server on a free port."""
    allow_short_parts()
    remember_modules()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    assert server._server is not None
    server._server.app = _one_at_a_time(server._server.app)
    host, port = server.get_host_and_port()
    running = S3Server(f"http://{host}:{port}")
    try:
        yield running
    finally:
        running.forget()
        server.stop()
        forget_clients()
