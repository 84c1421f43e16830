"""An S3 server for tests, as moto serves it, and buckets in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class S3Server:
    """A running server. ``options`` are what s3fs needs to reach it."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint_url": self.endpoint, "key": "testing", "secret": "testing"}

    @property
    def environment(self) -> dict[str, str]:
        """The options, as another process finds them."""
        return {f"FSSPEC_S3_{name.upper()}": value for name, value in self.options.items()}

    def new_bucket(self) -> str:
        """The name of a bucket that is empty."""
        bucket = f"blobs-{uuid.uuid4().hex}"
        requests.put(f"{self.endpoint}/{bucket}", timeout=10).raise_for_status()
        return bucket


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
