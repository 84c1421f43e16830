"""A pull server over what was really synced."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
import requests

from registry_sync.domain.serving import DistributionSpec
from registry_sync.hooks.stores import open_blob_store
from support.filling import place
from support.images import Blob, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.object_store import S3Server, s3_server
from support.pull_server import PullClient, PullServer, ThreadedPullServer
from support.ready_databases import ready_database
from support.registry import RegistryServer
from support.shapes import every_kind, signed_application
from support.signatures import with_fallback_tags
from support.syncing import Installation, new_client


@dataclass(frozen=True)
class Served:
    """Serves ``kinds`` and ``signed`` to everybody, and the first as ``team/private`` to the ``robot``."""

    server: PullClient
    here: Installation
    kinds: RepositoryContent
    signed: RepositoryContent
    robot: tuple[str, str]


@pytest.fixture(scope="module", params=[PullServer, ThreadedPullServer], ids=["granian", "uvicorn"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two repositories under three base paths."""
    folder = tmp_path_factory.mktemp("served")
    kinds, signed = every_kind(seed=31), with_fallback_tags(signed_application(seed=32))
    here = Installation.embedded(folder)
    with RegistryServer(folder / "upstream") as upstream:
        for name, content in (("kinds", kinds), ("signed", signed)):
            place(upstream, name, content)
            here.sync(name, upstream.url, name)
    database = here.database
    for base_path, name, is_private in (("kinds", "kinds", False), ("signed", "signed", False)):
        spec = DistributionSpec(base_path, base_path, database.repositories.by_name(name).id, is_private=is_private)
        database.distributions.create(spec)
    private = database.repositories.by_name("kinds")
    database.distributions.create(DistributionSpec("private", "team/private", private.id))
    _, secret = database.robots.create("ci", ["team/*"])
    is_threaded = request.param is ThreadedPullServer
    with ThreadedPullServer(here, new_client) if is_threaded else request.param(folder) as server:
        yield Served(server, here, kinds, signed, ("ci", secret))
    database.close()


@pytest.fixture(scope="session")
def clients_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where container clients keep what they know."""
    return tmp_path_factory.mktemp("clients")


@dataclass(frozen=True)
class Published:
    """``content`` is served to everybody as ``public``, and as ``team/private`` to the ``robot``."""

    content: RepositoryContent
    robot: tuple[str, str]

    @property
    def blob(self) -> Blob:
        """The largest one."""
        return max(self.content.blobs.values(), key=lambda blob: blob.size_bytes)


def publish(here: Installation) -> Published:
    """Syncs one image of each kind into ``here``, and distributes them."""
    content = every_kind(seed=51)
    with MemoryRegistry() as upstream:
        upstream.add("app", content)
        here.sync("app", upstream.url, "app")
    repository = here.database.repositories.by_name("app")
    here.database.distributions.create(DistributionSpec("public", "public", repository.id, is_private=False))
    here.database.distributions.create(DistributionSpec("private", "team/private", repository.id))
    _, secret = here.database.robots.create("ci", ["team/*"])
    return Published(content, ("ci", secret))


@dataclass(frozen=True)
class Redirecting(Published):
    """``server`` redirects to signed URLs of ``s3``."""

    server: PullServer
    s3: S3Server
    here: Installation

    @contextmanager
    def recorded(self, folder: Path) -> Iterator[list[str]]:
        """What the object store is asked meanwhile, as one text; it is written in ``folder``, which is entered."""
        recorder, texts = f"{self.s3.endpoint}/moto-api/recorder", list[str]()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # the S3 server writes what it records there
            for step in ("reset", "start"):
                requests.post(f"{recorder}/{step}-recording", timeout=10)
            try:
                yield texts
            finally:
                requests.post(f"{recorder}/stop-recording", timeout=10)
            texts.append(requests.get(f"{recorder}/download-recording", timeout=10).text)


@pytest.fixture(scope="module")
def redirecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redirecting]:
    """A pull server over an object store, which sends the bytes."""
    folder = tmp_path_factory.mktemp("redirecting")
    with s3_server() as s3, pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", s3.options)
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        url = f"s3://{s3.new_bucket()}/some/prefix"
        database = ready_database(folder / "registry_sync.db")
        here = Installation(database, open_blob_store(url, spool_folder=folder / "spool"))
        published = publish(here)
        options = {"blob_store": url, "blob_delivery": "redirect", "signed_url_seconds": 60}
        with PullServer(folder, **options) as server:
            yield Redirecting(published.content, published.robot, server, s3, here)
        database.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as a thousand connections take whose both sides are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    if before[0] != resource.RLIM_INFINITY and before[0] < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
