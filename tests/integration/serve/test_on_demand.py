"""Blobs that are not stored, pulled: what clients get, what the upstream is asked, and what is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import urllib3

from registry_sync.serve import on_demand
from registry_sync.serve.downloads import HELD_BYTES
from registry_sync.serve.pull_api import PullApp
from support.hostile_registry import Raw, errors_reply, reply, wait_until
from support.pull_server import ThreadedPullServer
from support.rest_api import served
from support.small_disks import CAN_MOUNT, memory_disk
from support.syncing import Installation, new_client
from support.upstreams import NAME, Upstream, damaged, path_of

Pull = Callable[..., requests.Response]


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with Upstream(tmp_path) as found:
        yield found


@pytest.fixture
def server(upstream: Upstream) -> Iterator[ThreadedPullServer]:
    with ThreadedPullServer(upstream.here, new_client) as running:
        yield running


def test_the_first_pull_fetches_and_the_next_ones_do_not(upstream: Upstream, server: ThreadedPullServer) -> None:
    for blob in (upstream.large, upstream.small):
        first, second = (server.ask("GET", path_of(blob.digest)) for _ in range(2))
        assert first.content == second.content == blob.data
        assert {**first.headers, "date": ""} == {**second.headers, "date": ""}
        assert len(upstream.asked(blob)) == 1
        assert wait_until(lambda blob=blob: upstream.is_stored(blob))
        record = upstream.here.database.blob_checks.records([blob.digest])[blob.digest]
        assert wait_until(lambda blob=blob: upstream.here.database.contents.blob(blob.digest).stored_at is not None)
        assert record.fault is None


def test_a_head_asks_nobody(upstream: Upstream, server: ThreadedPullServer) -> None:
    response = server.ask("HEAD", path_of(upstream.large.digest))
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(upstream.large.size_bytes))
    assert upstream.asked(upstream.large) == []


def test_many_clients_are_one_request_and_all_have_the_bytes(upstream: Upstream, server: ThreadedPullServer) -> None:
    release = threading.Event()
    upstream.answer(upstream.large, upstream.whole(upstream.large, after=release, first=HELD_BYTES * 2))
    with ThreadPoolExecutor(20) as clients:
        bodies = [
            clients.submit(requests.get, server.url + path_of(upstream.large.digest), timeout=30) for _ in range(20)
        ]
        assert wait_until(lambda: len(upstream.asked(upstream.large)) == 1)
        release.set()
        assert {body.result().content for body in bodies} == {upstream.large.data}
    assert len(upstream.asked(upstream.large)) == 1


def test_a_client_that_goes_away_stops_nobody(upstream: Upstream, server: ThreadedPullServer) -> None:
    release, blob = threading.Event(), upstream.large
    upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 4))
    leaving, staying = (requests.get(server.url + path_of(blob.digest), stream=True, timeout=30) for _ in range(2))
    assert leaving.raw.read(1000) == blob.data[:1000]
    assert staying.raw.read(1000) == blob.data[:1000]
    leaving.close()
    release.set()
    assert staying.raw.read() == blob.data[1000:]
    assert wait_until(lambda: upstream.is_stored(blob))
    assert len(upstream.asked(blob)) == 1


def test_what_everybody_left_is_stored_all_the_same(upstream: Upstream, server: ThreadedPullServer) -> None:
    release, blob = threading.Event(), upstream.large
    upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 4))
    with requests.get(server.url + path_of(blob.digest), stream=True, timeout=30) as leaving:
        assert leaving.raw.read(1000) == blob.data[:1000]
    release.set()
    assert wait_until(lambda: upstream.is_stored(blob))


@pytest.mark.parametrize("cut_at", [1000, HELD_BYTES * 20])
def test_a_body_that_is_cut_is_resumed(upstream: Upstream, server: ThreadedPullServer, cut_at: int) -> None:
    blob = upstream.large
    cut = reply(200, blob.data[:cut_at], length=blob.size_bytes, cut=True)
    upstream.answer(blob, cut, upstream.whole(blob))
    assert server.ask("GET", path_of(blob.digest)).content == blob.data
    assert [request.header("range") for request in upstream.asked(blob)] == [None, f"bytes={cut_at}-"]


def test_a_body_that_can_only_be_sent_whole_is_compared_with_what_was_sent(
    upstream: Upstream, server: ThreadedPullServer
) -> None:
    blob, whole = upstream.large, reply(200, upstream.large.data)
    cut = reply(200, blob.data[: HELD_BYTES * 20], length=blob.size_bytes, cut=True)
    upstream.answer(blob, cut, whole)
    assert server.ask("GET", path_of(blob.digest)).content == blob.data


def _pulled_while_it_comes(upstream: Upstream, server: ThreadedPullServer, instead: bytes) -> None:
    """A client that has the first bytes when the others turn out wrong; it must not get them all."""
    blob, release = upstream.large, threading.Event()
    wrong = upstream.whole(blob, after=release, first=HELD_BYTES * 4, instead=instead)
    upstream.answer(blob, wrong, upstream.whole(blob))
    response = requests.get(server.url + path_of(blob.digest), stream=True, timeout=30)
    assert response.raw.read(1000) == instead[:1000]
    release.set()
    with pytest.raises(urllib3.exceptions.HTTPError):
        response.raw.read()


def test_wrong_bytes_never_make_a_whole_body(upstream: Upstream, server: ThreadedPullServer) -> None:
    blob, release = upstream.large, threading.Event()
    upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 4, instead=damaged(blob)))
    response = requests.get(server.url + path_of(blob.digest), stream=True, timeout=30)
    assert response.raw.read(1000) == blob.data[:1000]
    release.set()
    with pytest.raises(urllib3.exceptions.HTTPError):
        response.raw.read()
    said = f"blob {blob.digest} cannot be fetched from {upstream.registry.netloc}/{NAME}: "
    assert wait_until(lambda: said in server.log)
    assert not upstream.is_stored(blob)
    assert wait_until(lambda: not upstream.here.store.resumable_path(blob.digest).exists())


def test_a_small_blob_that_is_wrong_is_an_error_from_the_start(upstream: Upstream, server: ThreadedPullServer) -> None:
    upstream.answer(upstream.small, reply(200, damaged(upstream.small)))
    response = server.ask("GET", path_of(upstream.small.digest))
    assert (response.status_code, response.json()["errors"][0]["code"]) == (502, "UNAVAILABLE")
    assert not upstream.is_stored(upstream.small)


@pytest.mark.parametrize("position", [10, -1])
def test_a_body_that_was_wrong_once_is_right_for_who_comes_next(
    upstream: Upstream, server: ThreadedPullServer, position: int
) -> None:
    blob = upstream.large
    _pulled_while_it_comes(upstream, server, damaged(blob, position))
    assert wait_until(lambda: upstream.is_stored(blob))
    assert server.ask("GET", path_of(blob.digest)).content == blob.data


@pytest.mark.parametrize(
    ("first", "last"), [(0, 9), (5, HELD_BYTES * 8), (HELD_BYTES * 30, HELD_BYTES * 31), (7, None)]
)
def test_a_range_starts_the_whole_download(
    upstream: Upstream, server: ThreadedPullServer, first: int, last: int | None
) -> None:
    blob = upstream.large
    asked = {"Range": f"bytes={first}-{'' if last is None else last}"}
    response = server.ask("GET", path_of(blob.digest), asked)
    assert response.status_code == 206
    assert response.content == (blob.data[first:] if last is None else blob.data[first : last + 1])
    assert wait_until(lambda: upstream.is_stored(blob))
    assert [request.header("range") for request in upstream.asked(blob)] == [None]


def test_streamed_content_is_fetched_at_each_pull_and_not_kept(tmp_path: Path) -> None:
    with Upstream(tmp_path, policy="streamed") as upstream, ThreadedPullServer(upstream.here, new_client) as server:
        for blob in (upstream.large, upstream.small):
            for number in range(1, 3):
                assert server.ask("GET", path_of(blob.digest)).content == blob.data
                assert len(upstream.asked(blob)) == number
        asked = {"Range": "bytes=100-200000"}
        assert server.ask("GET", path_of(upstream.large.digest), asked).content == upstream.large.data[100:200001]
        assert list(upstream.here.store.digests()) == []
        assert not upstream.here.store.resumable_path(upstream.large.digest).exists()


def test_streamed_bytes_that_are_wrong_end_the_connection(tmp_path: Path) -> None:
    with Upstream(tmp_path, policy="streamed") as upstream, ThreadedPullServer(upstream.here, new_client) as server:
        upstream.answer(upstream.large, reply(200, damaged(upstream.large)))
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            _ = server.ask("GET", path_of(upstream.large.digest)).content


@pytest.mark.parametrize(
    ("answer", "status", "code", "wait"),
    [
        (errors_reply(503, "UNAVAILABLE"), 503, "UNAVAILABLE", "10"),
        (errors_reply(429, "TOOMANYREQUESTS", headers=[("Retry-After", "77")]), 503, "UNAVAILABLE", "77"),
        (errors_reply(403, "DENIED"), 502, "UNAVAILABLE", "60"),
        (errors_reply(404, "BLOB_UNKNOWN"), 404, "BLOB_UNKNOWN", None),
    ],
)
def test_an_upstream_that_refuses_is_a_clear_error(
    upstream: Upstream, server: ThreadedPullServer, answer: Raw, status: int, code: str, wait: str | None
) -> None:
    upstream.answer(upstream.large, answer)
    for _ in range(2):  # the second time without asking
        response = server.ask("GET", path_of(upstream.large.digest))
        assert (response.status_code, response.headers.get("Retry-After")) == (status, wait)
        assert [error["code"] for error in response.json()["errors"]] == [code]
    assert len(upstream.asked(upstream.large)) <= 2
    assert upstream.registry.netloc not in response.text


def test_what_is_held_is_served_while_the_upstream_is_down(upstream: Upstream, server: ThreadedPullServer) -> None:
    assert server.ask("GET", path_of(upstream.large.digest)).content == upstream.large.data
    assert wait_until(lambda: upstream.is_stored(upstream.large))
    upstream.registry.__exit__(None, None, None)
    assert server.ask("GET", path_of(upstream.large.digest)).content == upstream.large.data
    response = server.ask("GET", path_of(upstream.small.digest))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")


@pytest.mark.parametrize("left", [0, 100])
def test_a_lost_or_shortened_blob_is_fetched_again(tmp_path: Path, left: int) -> None:
    with Upstream(tmp_path, policy="immediate") as upstream, ThreadedPullServer(upstream.here, new_client) as server:
        before = len(upstream.asked(upstream.large))
        path = Path(str(upstream.here.store.path(upstream.large.digest)))  # type: ignore[attr-defined]
        path.write_bytes(upstream.large.data[:left])
        assert upstream.here.store.delete(upstream.small.digest)
        for blob in (upstream.large, upstream.small):
            assert server.ask("GET", path_of(blob.digest)).content == blob.data
            assert wait_until(lambda blob=blob: upstream.is_stored(blob))
        assert len(upstream.asked(upstream.large)) == before + 1


@pytest.mark.skipif(not CAN_MOUNT, reason="only root may mount")
@pytest.mark.parametrize("free", [0, 1024 * 1024])
def test_clients_get_their_bytes_though_the_disk_is_full(tmp_path: Path, free: int) -> None:
    with memory_disk(tmp_path / "disk", 6 * 1024 * 1024) as disk, Upstream(tmp_path) as upstream:
        here = Installation.on(upstream.here.database, disk)
        (disk / "blobs").mkdir()
        (disk / "else").write_bytes(b"x" * (6 * 1024 * 1024 - 64 * 1024 - free))
        with ThreadedPullServer(here, new_client) as server, ThreadPoolExecutor(4) as clients:
            url = server.url + path_of(upstream.large.digest)
            bodies = list(clients.map(lambda _: requests.get(url, timeout=60).content, range(4)))
            assert bodies == [upstream.large.data] * 4
            assert "cannot be stored" in server.log
            assert not here.store.has(upstream.large.digest)
            (disk / "else").unlink()
            assert requests.get(url, timeout=60).content == upstream.large.data
            assert wait_until(lambda: here.store.has(upstream.large.digest))


def test_what_happened_is_counted(upstream: Upstream) -> None:
    counts: Counter[str] = Counter()

    def count(event: str, amount: int) -> None:
        counts[event] += amount

    here = upstream.here
    app = PullApp(here.database, here.store, open_client=new_client, count_on_demand=count)
    upstream.answer(upstream.small, errors_reply(404, "BLOB_UNKNOWN"))
    with served(app) as url:
        for _ in range(2):
            assert requests.get(url + path_of(upstream.large.digest), timeout=30).content == upstream.large.data
            assert wait_until(lambda: upstream.is_stored(upstream.large))
        assert requests.get(url + path_of(upstream.small.digest), timeout=30).status_code == 404
    assert counts == {"miss": 2, "fetch": 2, "failure": 1, "bytes": upstream.large.size_bytes}


def test_a_download_of_its_own_needs_a_free_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held up by its client, so nobody waits for it."""
    monkeypatch.setattr("registry_sync.serve.on_demand.MOST_STREAMED", 1)
    release = threading.Event()
    with Upstream(tmp_path, policy="streamed") as upstream, ThreadedPullServer(upstream.here, new_client) as server:
        blob = upstream.large
        upstream.answer(blob, upstream.whole(blob, after=release, first=HELD_BYTES * 4))
        first = requests.get(server.url + path_of(blob.digest), stream=True, timeout=30)
        second = server.ask("GET", path_of(blob.digest))
        assert (second.status_code, second.headers["Retry-After"]) == (503, "10")
        release.set()
        assert first.raw.read() == blob.data


def test_a_blob_that_another_process_has_claimed_and_not_begun_is_waited_for_a_while_only(
    upstream: Upstream, server: ThreadedPullServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sync does, which claims two hundred blobs and begins twenty."""
    monkeypatch.setattr(on_demand, "UNSEEN_SECONDS", 0.3)
    blobs = (upstream.large, upstream.small)

    def holders() -> list[str]:
        found = upstream.here.database.download_claims.of_others([blob.digest for blob in blobs], "nobody")
        return [found[blob.digest].holder for blob in blobs]

    with upstream.here.database.held_claims() as of_a_sync:
        assert of_a_sync.take_all(blob.digest for blob in blobs) == set()
        held = holders()
        for blob in blobs:
            assert server.ask("GET", path_of(blob.digest)).content == blob.data
            assert wait_until(lambda blob=blob: upstream.is_stored(blob))
        assert holders() == held, "the claims are the other's still"
