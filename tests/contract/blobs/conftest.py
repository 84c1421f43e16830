"""The stores that the suite runs on: local files, fsspec's own local files, memory, and S3 as moto serves it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import requests
from moto.server import ThreadedMotoServer

from registry_sync.blobs import BlobStore
from support.blob_stores import KINDS, Place


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty store of each kind."""
    kind: str = request.param
    environment: dict[str, str] = {}
    if kind == "s3":
        endpoint = request.getfixturevalue("s3_endpoint")
        options = {"endpoint_url": endpoint, "key": "testing", "secret": "testing"}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        environment = {f"FSSPEC_S3_{name.upper()}": value for name, value in options.items()}
        bucket = f"blobs-{uuid.uuid4().hex}"
        requests.put(f"{endpoint}/{bucket}", timeout=10).raise_for_status()
    urls = {
        "local": f"file://{tmp_path}/blobs",
        "fsspec": f"local://{tmp_path}/blobs",
        "memory": f"memory://{uuid.uuid4().hex}",
        "s3": f"s3://{bucket}/some/prefix" if kind == "s3" else "",
    }
    return Place(kind, urls[kind], tmp_path / "spool", environment)


@pytest.fixture
def store(place: Place) -> BlobStore:
    """The store itself."""
    return place.open()
