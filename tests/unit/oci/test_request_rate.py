"""Requests to the registry itself are spaced evenly, whatever threads ask; other hosts are not slowed down."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import TagName
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import Clock
from registry_sync.oci.http.rate_limits import RequestRate
from support.hostile_registry import errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter

pytestmark = pytest.mark.rule("A9.8")
TAGS = f"/v2/{REPOSITORY}/tags/list"


def test_turns_are_an_interval_apart_and_nothing_is_saved_up(fake_time: FakeTime) -> None:
    rate = RequestRate(4, fake_time.clock)
    started = fake_time.elapsed
    turns = []
    for _ in range(5):
        rate.wait()
        turns.append(fake_time.elapsed - started)
    assert turns == [0, 0.25, 0.5, 0.75, 1.0]
    fake_time.elapsed += 100
    for _ in range(3):
        rate.wait()
        turns.append(fake_time.elapsed - started)
    assert turns[5:] == [101, 101.25, 101.5]


def test_time_that_passes_by_itself_counts(fake_time: FakeTime) -> None:
    rate = RequestRate(2, fake_time.clock)
    rate.wait()
    fake_time.elapsed += 0.4
    rate.wait()
    assert fake_time.sleeps == [pytest.approx(0.1)]


def test_without_a_limit_nobody_waits(fake_time: FakeTime) -> None:
    rate = RequestRate(None, fake_time.clock)
    for _ in range(1000):
        rate.wait()
    assert fake_time.sleeps == []


def test_threads_share_the_turns() -> None:
    """Each thread sleeps until its own turn, although no time passes meanwhile."""
    sleeps: list[float] = []
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            sleeps.append(seconds)

    rate = RequestRate(10, Clock(monotonic=lambda: 0.0, sleep=sleep))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            pool.submit(rate.wait)
    assert sorted(sleeps) == pytest.approx([number / 10 for number in range(1, 50)])


def test_every_request_to_the_registry_takes_a_turn(registry, client_of, fake_time: FakeTime) -> None:
    registry.on("GET", TAGS, errors_reply(500, "X"), json_reply({"tags": ["a"]}))
    registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/a", reply(200))
    client = client_of(registry, requests_per_second=0.1)
    started = fake_time.elapsed
    client.list_tags(REPOSITORY)
    client.head_manifest(REPOSITORY, TagName("a"))
    client.session().get(f"{registry.base}{TAGS}", timeout=5)
    assert len(registry.requests) == 4, "a retry is a request"
    assert fake_time.elapsed - started == pytest.approx(30)


def test_a_token_service_on_the_registry_takes_turns(registry, client_of, fake_time: FakeTime) -> None:
    challenge = errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')])
    registry.on("GET", TAGS, challenge, json_reply({"tags": []}))
    registry.on("GET", "/token", json_reply({"token": "t"}))
    started = fake_time.elapsed
    client_of(registry, requests_per_second=0.5).list_tags(REPOSITORY)
    assert len(registry.requests) == 3
    assert fake_time.elapsed - started == pytest.approx(4)


def test_token_services_and_storage_on_other_hosts_are_not_slowed_down(
    registry, other_host, client_of, fake_time: FakeTime
) -> None:
    data = b"x" * 100
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    path = f"/v2/{REPOSITORY}/blobs/{blob.digest}"
    challenge = errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{other_host.base}/token"')])
    registry.on("GET", path, challenge, reply(307, headers=[("Location", f"{other_host.base}/blob")]))
    other_host.on("GET", "/token", json_reply({"token": "t"}))
    other_host.on("GET", "/blob", reply(200, data))
    started = fake_time.elapsed
    client = client_of(
        registry,
        Credentials("alice", "secret"),
        requests_per_second=0.1,
        trusted_realm_hosts=frozenset({other_host.netloc}),
    )
    client.fetch_blob(REPOSITORY, blob, MemoryWriter(blob))
    assert (len(registry.requests), len(other_host.requests)) == (2, 2)
    assert fake_time.elapsed - started == pytest.approx(10), "one interval, between the two to the registry"
