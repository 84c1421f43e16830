"""How many requests a client has under way at once, at registries that are far away, and that allow only so many."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from registry_sync.sync.parallel import for_each, requests_at_once
from support.delaying_proxy import DelayingProxy
from support.hostile_registry import Raw, Request, errors_reply
from support.images import ContentBuilder
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry

NAME = "team/app"


def registry(tag_count: int) -> MemoryRegistry:
    build, memory = ContentBuilder(seed=31), MemoryRegistry()
    image = build.image([build.blob(100)])
    for number in range(tag_count):
        build.tag(f"v{number}", image)
    memory.add(NAME, build.content())
    return memory


def head_all(url: str, tag_count: int, most: int = 64) -> int:
    """How many HEADs were served, of those that a listing sends."""
    served: list[TagName] = []

    def failed(_tag: TagName, error: Exception) -> None:
        raise error

    remote = RemoteSpec("far", RegistryUrl.parse(url), RepositoryName(NAME), download_concurrency=most)
    with RegistryClient(remote.url, None, ClientOptions(concurrency=most, longest_wait_seconds=1)) as client:
        for_each(
            lambda tag: client.head_manifest(remote.upstream, tag),
            [TagName(f"v{number}") for number in range(tag_count)],
            threads=requests_at_once(client, remote),
            done=lambda tag, _head: served.append(tag),
            failed=failed,
        )
    return len(set(served))


@pytest.mark.parametrize(("tag_count", "most", "least_seen"), [(200, 64, 21), (20, 5, 5)])
def test_more_requests_are_under_way_at_a_registry_that_is_far_away(tag_count: int, most: int, least_seen: int) -> None:
    with over_http(registry(tag_count)) as server, DelayingProxy(server.port, round_trip_seconds=0.25) as proxy:
        assert head_all(f"http://{proxy.netloc}", tag_count, most) == tag_count
    assert least_seen <= proxy.most_waiting <= most
    assert proxy.connection_count <= most


class Strict:
    """Refuses a request while it works on ``allowed`` others; ``refused`` are the numbers of those that it refused."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._lock = threading.Lock()
        self._at_work = self._count = 0
        self.refused: list[int] = []

    def around(self, _request: Request, respond: Any) -> Raw:
        with self._lock:
            self._count += 1
            if self._at_work >= self._allowed:
                self.refused.append(self._count)
                return errors_reply(429, "TOOMANYREQUESTS")
            self._at_work += 1
        time.sleep(0.01)
        response: Raw = respond()
        with self._lock:
            self._at_work -= 1
        return response


def test_a_registry_that_refuses_more_at_once_is_not_asked_for_as_many_again() -> None:
    strict, tag_count = Strict(allowed=12), 80
    with over_http(registry(tag_count), strict.around) as server:
        assert head_all(f"http://127.0.0.1:{server.port}", tag_count) == tag_count
    assert strict.refused, "the first requests are more than it allows"
    assert max(strict.refused) <= tag_count // 2, "later ones are not"
