"""One blob that is not stored, asked for at servers of two hosts: PostgreSQL and an object store are all they share.

A host is a folder for temporary files of its own: no server sees what one of another host has downloaded so far.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import fsspec
import pytest
import requests

from registry_sync.db.database import Database
from registry_sync.hooks.stores import open_blob_store
from support.hostile_registry import wait_until
from support.images import Blob
from support.object_store import s3_server
from support.postgres import running_postgres
from support.pull_server import PullServer
from support.syncing import Installation
from support.upstreams import Upstream, path_of

_CLIENTS = 50


@dataclass(frozen=True)
class Hosts:
    """``near`` are two servers of one host, ``far`` is one of another; they serve what ``upstream`` has."""

    upstream: Upstream
    near: tuple[PullServer, PullServer]
    far: PullServer

    @property
    def servers(self) -> tuple[PullServer, ...]:
        return (*self.near, self.far)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        s3 = stack.enter_context(s3_server())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setitem(fsspec.config.conf, "s3", s3.options)
        url, conn = f"s3://{s3.new_bucket()}/blobs", postgres.make_database("hosts")
        database = stack.enter_context(Database.connect(conn))
        database.upgrade()
        store = open_blob_store(url, spool_folder=folder / "spool")
        upstream = stack.enter_context(Upstream(Installation(database, store)))

        def server(name: str, host: str) -> PullServer:
            (folder / name).mkdir()
            (folder / host).mkdir(exist_ok=True)
            environment = {**s3.environment, "TMPDIR": str(folder / host)}
            options = {"sql_alchemy_conn": conn, "blob_store": url}
            return stack.enter_context(PullServer(folder / name, environment=environment, **options))

        yield Hosts(upstream, (server("one", "near"), server("two", "near")), server("three", "far"))


@pytest.fixture
def hosts(running: Hosts) -> Iterator[Hosts]:
    """Nothing is stored before, and nothing under way after a test."""
    yield running
    found = running.upstream
    for blob in (found.large, found.small):
        assert not found.asked(blob) or wait_until(lambda blob=blob: found.is_stored(blob), 30)
        found.answer(blob, found.whole(blob))
        found.here.store.delete(blob.digest)
    found.registry.requests.clear()


def _pull(server: PullServer, blob: Blob) -> bytes:
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(server.url + path_of(blob.digest), timeout=60)
        response.raise_for_status()
        return response.content


@pytest.mark.parametrize("size", ["large", "small"])
def test_fifty_clients_of_two_hosts_are_one_request(hosts: Hosts, size: str) -> None:
    upstream, release = hosts.upstream, threading.Event()
    blob: Blob = getattr(upstream, size)
    upstream.answer(blob, upstream.whole(blob, after=release, first=blob.size_bytes // 2))
    with ThreadPoolExecutor(_CLIENTS) as clients:
        bodies = [clients.submit(_pull, hosts.servers[number % 3], blob) for number in range(_CLIENTS)]
        assert wait_until(lambda: len(upstream.asked(blob)) == 1, 30)
        threading.Timer(0.5, release.set).start()
        assert {body.result() for body in bodies} == {blob.data}
    assert len(upstream.asked(blob)) == 1
    assert wait_until(lambda: upstream.is_stored(blob))


def test_the_host_that_downloads_is_lost(hosts: Hosts) -> None:
    """The others see its claim stand still and download; nobody has wrong bytes, and the next pull is right."""
    upstream, release = hosts.upstream, threading.Event()
    blob = upstream.large
    upstream.answer(blob, upstream.whole(blob, after=release, first=blob.size_bytes // 2), upstream.whole(blob))
    first = requests.get(hosts.far.url + path_of(blob.digest), stream=True, timeout=60)
    assert first.raw.read(1000) == blob.data[:1000]
    with ThreadPoolExecutor(20) as clients:
        bodies = [clients.submit(_pull, hosts.near[number % 2], blob) for number in range(20)]
        for worker in hosts.far.processes()[1:]:
            worker.kill()
        assert {body.result() for body in bodies} == {blob.data}
    with pytest.raises(Exception, match=r"IncompleteRead|reset|broken"):
        first.raw.read()
    first.close()
    release.set()
    assert len(upstream.asked(blob)) == 2
    assert wait_until(lambda: upstream.is_stored(blob))

    def is_right() -> bool:
        try:
            return _pull(hosts.far, blob) == blob.data
        except requests.RequestException:
            return False

    assert wait_until(is_right, 30), "the worker is started again"
    assert len(upstream.asked(blob)) == 2
