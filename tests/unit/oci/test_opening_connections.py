"""Connections that are opened beside a caller: as many as may be, and none is left behind."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool

from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.connections import OpeningConnections, take_open
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply
from support.oci import READY, REPOSITORY, TAGS

FAR = RegistryPace(40, datetime(2026, 12, 1, tzinfo=timezone.utc), {"HEAD manifests": 0.08}, 30)
NEAR = RegistryPace(40, FAR.found_at, {"HEAD manifests": 0.001}, 30)


def has(registry: HostileRegistry, count: int) -> bool:
    """Whether there are so many connections within some time, and no more.

    Of many one less: the request that follows opens its own, unless its thread was so late that one is open by then.
    """
    until, least = time.monotonic() + 5, max(1, count - 1)
    while registry.connection_count < least and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    return least <= registry.connection_count <= count


def has_opened(registry: HostileRegistry, client: RegistryClient, count: int = 30) -> bool:
    """Whether so many are open when a list of tags has come, which was requested meanwhile."""
    responds = threading.Event()

    def wait(_request: Request) -> Raw:
        responds.wait(5)
        return json_reply({"tags": ["a"]})

    registry.on("GET", TAGS, wait)
    client.open_connections(count)
    listing = threading.Thread(target=client.list_tags, args=(REPOSITORY,))
    listing.start()
    found = has(registry, count)
    responds.set()
    listing.join()
    assert [request.path for request in registry.requests] == [TAGS], "nothing else is requested"
    return found


@pytest.mark.parametrize(
    ("count", "concurrency", "opens"), [(30, 64, 30), (200, 64, 40), (30, 5, 5), (1, 64, 1), (0, 64, 1)]
)
def test_as_many_as_are_needed_and_may_be_with_that_of_the_request_that_follows(
    registry, client_of, count: int, concurrency: int, opens: int
) -> None:
    client = client_of(registry, READY, concurrency=concurrency)
    client.begin_at(FAR)
    registry.on("GET", TAGS, json_reply({"tags": ["a"]}))
    client.open_connections(count)
    client.list_tags(REPOSITORY)
    assert has(registry, opens)


def test_they_are_opened_while_the_request_that_follows_is_under_way(registry, client_of) -> None:
    client = client_of(registry, READY)
    client.begin_at(FAR)
    assert has_opened(registry, client)


@pytest.mark.parametrize(
    ("pace", "options"),
    [(None, {}), (NEAR, {}), (FAR, {"requests_per_second": 10})],
    ids=["of which nothing is known", "nearby", "whose requests wait for their turns"],
)
def test_none_are_opened_to_a_registry(registry, client_of, pace: RegistryPace | None, options: dict[str, Any]) -> None:
    client = client_of(registry, READY, **options)
    client.begin_at(pace)
    client.open_connections(30)
    registry.on("GET", TAGS, json_reply({"tags": ["a"]}))
    client.list_tags(REPOSITORY)
    assert has(registry, 1)


def test_a_host_that_is_down_is_reported_by_the_request_that_needs_it(registry, client_of) -> None:
    registry.stop_accepting()
    client = client_of(registry, READY, max_attempts=1)
    client.begin_at(FAR)
    client.open_connections(30)
    with pytest.raises(Exception, match="refused"):
        client.list_tags(REPOSITORY)
    pool: Any = client._transport.pools.pool(client._transport.own)
    until = time.monotonic() + 5
    while pool.pool.qsize() < pool.pool.maxsize and time.monotonic() < until:
        time.sleep(0.01)
    assert pool.pool.qsize() == pool.pool.maxsize, "every place was given back"


class _Late:
    """A connection that is opened when it may."""

    sock: Any = None
    timeout: float | None = None

    def __init__(self) -> None:
        self.may_open, self.is_closed = threading.Event(), False

    def connect(self) -> None:
        self.may_open.wait(5)
        self.sock = self

    def settimeout(self, _seconds: float | None) -> None:
        """As of a socket."""

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("is_closed", [True, False])
def test_one_that_is_open_only_after_its_pool_was_closed_is_closed(is_closed: bool) -> None:
    pool, late = HTTPConnectionPool("registry.example", maxsize=1, block=True), _Late()
    places: Any = pool.pool
    places.get()
    opening = OpeningConnections(pool, [late])
    if is_closed:
        pool.close()
    late.may_open.set()
    opening.wait(5)
    assert (opening.left_count, opening.opened_count) == (0, 1)
    assert late.is_closed is is_closed
    if not is_closed:
        assert places.get() is late


def test_an_open_one_is_found_below_a_place_that_another_thread_has_just_given_back() -> None:
    pool, one = HTTPConnectionPool("registry.example", maxsize=3, block=True), _Late()
    places: Any = pool.pool
    assert take_open(pool) == (None, True)
    one.sock = one
    places.get()
    places.get()
    for place in (one, None):
        places.put(place)
    assert take_open(pool) == (one, True)
    assert take_open(pool) == (None, True)
    places.get()
    places.get()
    assert take_open(pool) == (None, False), "all are in use"
    pool.close()
    assert take_open(pool) == (None, False)
