"""The stores that the suite runs on: local files, fsspec's own local files, memory, and S3 as moto serves it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from registry_sync.blobs.store import BlobStore
from support.blob_stores import KINDS, Place
from support.object_store import S3Server, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server on a free port."""
    with s3_server() as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty store of each kind; what is kept in memory goes with the test."""
    kind: str = request.param
    environment: dict[str, str] = {}
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        monkeypatch.setitem(fsspec.config.conf, "s3", server.options)
        environment = server.environment
        bucket = server.new_bucket()
    urls = {
        "local": f"file://{tmp_path}/blobs",
        "fsspec": f"local://{tmp_path}/blobs",
        "memory": f"memory://{uuid.uuid4().hex}",
        "s3": f"s3://{bucket}/some/prefix" if kind == "s3" else "",
    }
    yield Place(kind, urls[kind], tmp_path / "spool", environment)
    if kind == "s3":
        server.forget()
    if kind == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(place: Place) -> BlobStore:
    """The store itself."""
    return place.open()
