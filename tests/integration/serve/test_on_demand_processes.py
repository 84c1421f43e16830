"""One blob that is not stored, asked for at several servers at once: processes as users run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
import requests

from registry_sync.serve.downloads import HELD_BYTES
from support.hostile_registry import wait_until
from support.images import Blob
from support.pull_server import PullServer
from support.upstreams import Upstream, path_of

_SERVERS = 3


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, list[PullServer]]]:
    """An upstream, and servers that share a database and a store."""
    folder = tmp_path_factory.mktemp("on-demand")
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream(folder))
        servers = [stack.enter_context(PullServer(folder)) for _ in range(_SERVERS)]
        yield upstream, servers


@pytest.fixture
def upstream(running: tuple[Upstream, list[PullServer]]) -> Iterator[Upstream]:
    """Nothing is stored before, and nothing under way after a test."""
    found = running[0]
    yield found
    for blob in (found.large, found.small):
        assert not found.asked(blob) or wait_until(lambda blob=blob: found.is_stored(blob), 30)
        found.answer(blob, found.whole(blob))
        found.here.store.delete(blob.digest)
    found.registry.requests.clear()


@pytest.fixture
def servers(running: tuple[Upstream, list[PullServer]]) -> list[PullServer]:
    return running[1]


def _pull(server: PullServer, blob: Blob) -> bytes:
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(server.url + path_of(blob.digest), timeout=60)
        response.raise_for_status()
        return response.content


def _pull_all(clients: ThreadPoolExecutor, servers: list[PullServer], blob: Blob, count: int) -> list[Future[bytes]]:
    return [clients.submit(_pull, servers[number % len(servers)], blob) for number in range(count)]


@pytest.mark.parametrize("size", ["large", "small"])
def test_fifty_clients_of_three_processes_are_one_request(
    upstream: Upstream, servers: list[PullServer], size: str
) -> None:
    blob: Blob = getattr(upstream, size)
    release = threading.Event()
    upstream.answer(blob, upstream.whole(blob, after=release, first=blob.size_bytes // 2))
    with ThreadPoolExecutor(50) as clients:
        bodies = _pull_all(clients, servers, blob, 50)
        assert wait_until(lambda: len(upstream.asked(blob)) == 1, 30)
        threading.Timer(0.5, release.set).start()
        assert {body.result() for body in bodies} == {blob.data}
    assert len(upstream.asked(blob)) == 1
    assert wait_until(lambda: upstream.is_stored(blob))


def test_other_processes_send_what_one_has_downloaded_so_far(upstream: Upstream, servers: list[PullServer]) -> None:
    blob, release = upstream.large, threading.Event()
    upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 10))
    responses = [requests.get(server.url + path_of(blob.digest), stream=True, timeout=60) for server in servers]
    assert [response.raw.read(HELD_BYTES * 5) for response in responses] == [blob.data[: HELD_BYTES * 5]] * _SERVERS
    release.set()
    assert [response.raw.read() for response in responses] == [blob.data[HELD_BYTES * 5 :]] * _SERVERS
    assert len(upstream.asked(blob)) == 1


def _workers(server: PullServer) -> list[psutil.Process]:
    assert server._process is not None
    return psutil.Process(server._process.pid).children(recursive=True)


def test_the_process_that_downloads_is_killed(upstream: Upstream, servers: list[PullServer]) -> None:
    """The others resume what it had; who was pulling from it has no whole body, and the next pull is right."""
    blob, release = upstream.large, threading.Event()
    upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 10), upstream.whole(blob))
    first = requests.get(servers[0].url + path_of(blob.digest), stream=True, timeout=60)
    assert first.raw.read(1000) == blob.data[:1000]
    with ThreadPoolExecutor(20) as clients:
        bodies = _pull_all(clients, servers[1:], blob, 20)
        for worker in _workers(servers[0]):
            worker.kill()
        assert {body.result() for body in bodies} == {blob.data}
    with pytest.raises(Exception, match=r"IncompleteRead|reset|broken"):
        first.raw.read()
    release.set()
    assert len(upstream.asked(blob)) == 2
    assert upstream.asked(blob)[1].header("range") == f"bytes={HELD_BYTES * 10}-"
    assert wait_until(lambda: upstream.is_stored(blob))

    def is_right() -> bool:
        try:
            return _pull(servers[0], blob) == blob.data
        except requests.RequestException:
            return False

    assert wait_until(is_right, 30), "the worker is started again"
