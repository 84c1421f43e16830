"""A floor of pulls is left over, however many threads pull, in this run and in the next."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.errors import NotFound, RateLimited, RegistrySyncError, ServerUnavailable
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.rate_limits import SHARED_STALE_SECONDS, STALE_SECONDS
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, reply
from support.oci import REPOSITORY, FakeTime

pytestmark = pytest.mark.rule("A9.6")
INDEX = "application/vnd.oci.image.index.v1+json"
DOCUMENTS = {
    Digest.of(data): data
    for data in (
        b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"number":"%d"}}' % (INDEX.encode(), number)
        for number in range(100)
    )
}
DIGESTS = list(DOCUMENTS)


class Hub:
    """Counts GETs of manifests, and reports with each response how many remain; HEADs are free."""

    def __init__(self, registry: HostileRegistry, left: int, *, tells_by_head: bool = True) -> None:
        self.left = left
        self.pull_count = 0
        self.tells_by_head = tells_by_head
        self._registry = registry
        self._lock = threading.Lock()
        self._delays = random.Random(5)
        for digest in DIGESTS:
            registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", self.give)
            registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/{digest}", self.head)

    def head(self, request: Request) -> Raw:
        return reply(200, b"", self.headers() if self.tells_by_head else ())

    def give(self, request: Request) -> Raw:
        with self._lock:
            self.left -= 1
            self.pull_count += 1
            headers, delay = self.headers(), self._delays.uniform(0, 0.01)
        time.sleep(delay)
        data = DOCUMENTS[Digest(request.path.rpartition("/")[2])]
        return reply(200, data, headers, content_type=INDEX)

    def headers(self) -> list[tuple[str, str]]:
        return [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", f"{self.left};w=21600")]

    @property
    def head_count(self) -> int:
        return len(self._registry.asked("HEAD"))


def pull_all(client: RegistryClient, threads: int = 20) -> list[RegistrySyncError]:
    """The errors of pulling every manifest."""

    def pull(digest: Digest) -> RegistrySyncError | None:
        try:
            client.get_manifest(REPOSITORY, digest)
        except RegistrySyncError as problem:
            return problem
        return None

    with ThreadPoolExecutor(threads) as pool:
        return [problem for problem in pool.map(pull, DIGESTS) if problem is not None]


@pytest.mark.parametrize("tells_by_head", [True, False], ids=["by HEAD", "by GET alone"])
def test_twenty_threads_stop_at_the_floor_in_this_run_and_in_the_next(registry, client_of, tells_by_head: bool) -> None:
    hub = Hub(registry, 60, tells_by_head=tells_by_head)
    problems = pull_all(client_of(registry, rate_limit_floor=40))
    assert (hub.pull_count, hub.left) == (20, 40)
    assert {type(problem) for problem in problems} == {RateLimited}
    assert len(problems) == 80
    assert {problem.retry_after_seconds for problem in problems if isinstance(problem, RateLimited)} == {21600}
    assert hub.head_count == 1, "what is left is asked for once, for free"
    if tells_by_head:
        assert len(pull_all(client_of(registry, rate_limit_floor=40))) == 100
        assert (hub.pull_count, hub.left, hub.head_count) == (20, 40, 2)


@pytest.mark.slow
def test_without_a_floor_nothing_is_requested_before_and_all_is_pulled(registry, client_of) -> None:
    hub = Hub(registry, 60)
    assert pull_all(client_of(registry)) == []
    assert (hub.pull_count, hub.head_count) == (100, 0)


def test_a_registry_without_limits_is_requested_once(registry, client_of) -> None:
    hub = Hub(registry, 60)
    hub.headers = list  # type: ignore[method-assign]
    assert pull_all(client_of(registry, rate_limit_floor=40)) == []
    assert (hub.pull_count, hub.head_count) == (100, 1)


def test_one_of_several_tasks_takes_its_part_of_what_is_left(registry, client_of) -> None:
    """The others are given theirs: with a hundred left above the floor, no more than 24 are under way at a time."""
    hub = Hub(registry, 140)
    under_way: set[str] = set()
    most = 0

    def counted(request: Request) -> Raw:
        nonlocal most
        under_way.add(request.path)
        most = max(most, len(under_way))
        response = hub.give(request)
        under_way.remove(request.path)
        return response

    for digest in DIGESTS:
        registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", counted)
    client = client_of(registry, rate_limit_floor=40, rate_limit_sharers=4, concurrency=50)
    assert {type(problem) for problem in pull_all(client, 50)} == {RateLimited}
    assert 1 < most <= 24
    assert hub.left == 46, "the next would need that four more and three for what the others began stay above 40"


def test_a_task_that_did_not_pull_for_a_while_queries_what_the_others_left(
    registry, client_of, fake_time: FakeTime
) -> None:
    hub = Hub(registry, 100)
    resting, draining = (client_of(registry, rate_limit_floor=40, rate_limit_sharers=2) for _ in range(2))
    resting.get_manifest(REPOSITORY, DIGESTS[0])
    pull_all(draining)
    assert hub.left == 42
    fake_time.elapsed += 2 * SHARED_STALE_SECONDS
    pull_all(resting)
    assert hub.left == 42
    assert hub.head_count == 3


def test_several_tasks_pass_the_floor_by_no_more_than_the_others_have_under_way(registry, client_of) -> None:
    """The worst case: one client gets no report while the other pulls, and then starts all its pulls at once."""
    hub, threads = Hub(registry, 100), 20
    late, draining = (client_of(registry, rate_limit_floor=40, rate_limit_sharers=2) for _ in range(2))
    late.get_manifest(REPOSITORY, DIGESTS[0])
    pull_all(draining, threads)
    all_under_way = threading.Barrier(threads)

    def answered_together(request: Request) -> Raw:
        response = hub.give(request)
        all_under_way.wait(10)
        return response

    for digest in DIGESTS:
        registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", answered_together)
    pull_all(late, threads)
    assert hub.left == 40 - (2 - 1) * (threads - 2)


@pytest.mark.parametrize("refusal", [403, 404, 405])
def test_where_a_head_says_nothing_the_first_pull_goes_alone(registry, client_of, refusal: int) -> None:
    hub = Hub(registry, 43)
    for digest in DIGESTS:
        registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/{digest}", reply(refusal))
    pull_all(client_of(registry, rate_limit_floor=40))
    assert (hub.pull_count, hub.left) == (3, 40)


def test_when_what_is_left_cannot_be_requested_now_nothing_is_pulled(registry, client_of) -> None:
    hub = Hub(registry, 60)
    for digest in DIGESTS:
        registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/{digest}", reply(503))
    client = client_of(registry, rate_limit_floor=40, max_attempts=1)
    with pytest.raises(ServerUnavailable):
        client.get_manifest(REPOSITORY, DIGESTS[0])
    assert hub.pull_count == 0
    registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/{DIGESTS[0]}", hub.head)
    client.get_manifest(REPOSITORY, DIGESTS[0])
    assert hub.pull_count == 1


def test_a_response_without_a_limit_counts_as_a_pull(registry, client_of) -> None:
    hub = Hub(registry, 42)
    client = client_of(registry, rate_limit_floor=40)
    for digest in DIGESTS[:2]:
        registry.on("GET", f"/v2/{REPOSITORY}/manifests/{digest}", errors_reply(404, "MANIFEST_UNKNOWN"))
        with pytest.raises(NotFound):
            client.get_manifest(REPOSITORY, digest)
    with pytest.raises(RateLimited):
        client.get_manifest(REPOSITORY, DIGESTS[2])
    assert hub.pull_count == 0


def test_what_was_reported_long_ago_is_requested_again(registry, client_of, fake_time: FakeTime) -> None:
    """Others have pulled meanwhile, or the window has expired."""
    hub = Hub(registry, 42)
    client = client_of(registry, rate_limit_floor=40)
    client.get_manifest(REPOSITORY, DIGESTS[0])
    hub.left = 40
    fake_time.elapsed += STALE_SECONDS + 1
    with pytest.raises(RateLimited):
        client.get_manifest(REPOSITORY, DIGESTS[1])
    hub.left = 100
    fake_time.elapsed += STALE_SECONDS + 1
    client.get_manifest(REPOSITORY, DIGESTS[1])
    assert (hub.pull_count, hub.head_count) == (2, 3)


def test_responses_in_another_order_than_given_raise_nothing_again(registry, client_of) -> None:
    """The one that was given first arrives last, and says of more than is left by then."""
    hub = Hub(registry, 43)
    client = client_of(registry, rate_limit_floor=40)
    first_is_given, second_arrived = threading.Event(), threading.Event()

    def late(request: Request) -> Raw:
        response = hub.give(request)
        first_is_given.set()
        assert second_arrived.wait(5)
        return response

    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{DIGESTS[0]}", late)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get_manifest, REPOSITORY, DIGESTS[0])
        assert first_is_given.wait(5)
        client.get_manifest(REPOSITORY, DIGESTS[1])
        second_arrived.set()
        first.result(5)
    client.get_manifest(REPOSITORY, DIGESTS[2])
    with pytest.raises(RateLimited):
        client.get_manifest(REPOSITORY, DIGESTS[3])
    assert hub.left == 40
