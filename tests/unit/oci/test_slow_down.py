"""After a 429 or 503 all threads of a client send fewer requests, and slowly more again."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.errors import RateLimited, RegistrySyncError, ServerUnavailable
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions, Clock
from registry_sync.oci.http.rate_limits import RequestRate
from registry_sync.sync.parallel import for_each
from support.hostile_registry import Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime, SharedTime

pytestmark = pytest.mark.rule("A9.13")
TAGS = f"/v2/{REPOSITORY}/tags/list"
THREADS = 20


class Bucket:
    """A registry's limiter: ``capacity`` tokens, refilled at ``per_second``; counts what it takes and refuses."""

    def __init__(self, clock: Clock, capacity: float = 10, per_second: float = 20) -> None:
        self._clock = clock
        self._capacity, self._per_second = capacity, per_second
        self._left, self._at = capacity, clock.monotonic()
        self._lock = threading.Lock()
        self.counts: Counter[bool] = Counter()

    def takes(self) -> bool:
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._capacity, self._left + (now - self._at) * self._per_second)
            self._at = now
            is_taken = self._left >= 1
            self._left -= is_taken
            self.counts[is_taken] += 1
            return is_taken


def head_all(client: RegistryClient, time: SharedTime, count: int) -> dict[TagName, Digest | None]:
    heads: dict[TagName, Digest | None] = {}

    def head(tag: TagName) -> Digest | None:
        with time.at_work():
            return client.head_manifest(REPOSITORY, tag).digest

    def failed(_tag: TagName, problem: RegistrySyncError) -> None:
        raise problem

    for_each(
        head,
        [TagName(f"v{number}") for number in range(count)],
        threads=THREADS,
        done=heads.__setitem__,
        failed=failed,
    )
    return heads


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
def test_a_bucket_of_10_refilled_at_20_a_second_gives_400_tags_in_one_go(registry, status: int) -> None:
    """The clock is the client's and the registry's."""
    time = SharedTime()
    bucket = Bucket(time.clock)
    digest = ("Docker-Content-Digest", str(Digest.of(b"x")))

    def response(_request: Request) -> Raw:
        return reply(200, b"", [digest]) if bucket.takes() else reply(status)

    for number in range(400):
        registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/v{number}", response)
    options = ClientOptions(concurrency=THREADS)
    with RegistryClient(registry.url, None, options, clock=time.clock) as client:
        heads = head_all(client, time, 400)
    assert len(heads) == 400
    assert bucket.counts[True] == 400, "no HEAD that was answered is sent again"
    assert bucket.counts[False] < 80


def turns(rate: RequestRate, fake_time: FakeTime, count: int) -> list[float]:
    """How long each of ``count`` turns is after the one before it."""
    moments = [rate.wait() for _ in range(count + 1)]
    return [later - earlier for earlier, later in pairwise(moments)]


def test_the_rate_at_which_requests_were_made_is_halved(fake_time: FakeTime) -> None:
    rate = RequestRate(None, fake_time.clock, threads=4)
    for _ in range(40):
        asked_at = rate.wait()
        fake_time.elapsed += 0.01
    assert rate.slow_down(asked_at) == pytest.approx(20)
    assert turns(rate, fake_time, 3) == pytest.approx([1 / 20] * 3, rel=0.02)
    assert rate.slow_down(rate.wait()) == pytest.approx(10, rel=0.3), "and again"


def test_threads_that_have_only_started_are_taken_to_do_more_in_a_second(fake_time: FakeTime) -> None:
    rate = RequestRate(None, fake_time.clock, threads=20)
    assert rate.slow_down(rate.wait()) == 10


def test_what_was_requested_before_the_last_halving_says_nothing_of_it(fake_time: FakeTime) -> None:
    rate = RequestRate(None, fake_time.clock, threads=20)
    under_way = [rate.wait() for _ in range(20)]
    fake_time.elapsed += 0.1
    assert [rate.slow_down(asked_at) is not None for asked_at in under_way] == [True, *[False] * 19]


def test_it_recovers_in_eight_seconds_and_is_released_in_the_end(fake_time: FakeTime) -> None:
    rate = RequestRate(None, fake_time.clock, threads=20)
    rate.slow_down(rate.wait())
    gaps = []
    for seconds in (4, 4, 40, 15):
        gaps.append(turns(rate, fake_time, 1)[0])
        fake_time.elapsed += seconds
    assert gaps == pytest.approx([1 / 10, 1 / 14, 1 / 18, 1 / 18], rel=0.05)
    assert turns(rate, fake_time, 1)[0] == pytest.approx(1 / (18 + 3), rel=0.1), "after a minute it is tried again"
    fake_time.elapsed += 100
    assert turns(rate, fake_time, 10) == [0] * 10


def test_a_limit_in_time_is_not_exceeded_again_within_a_minute(fake_time: FakeTime) -> None:
    """Of a registry that allows fifteen requests in any second, and is asked again after one."""
    rate = RequestRate(None, fake_time.clock, threads=10)
    served: list[float] = []
    refused: list[float] = []
    while fake_time.elapsed < 1060:
        at = rate.wait()
        if sum(one > at - 1 for one in served) < 15:
            served.append(at)
        else:
            refused.append(at)
            rate.slow_down(at)
            fake_time.sleep(1)
    assert len(refused) == 1
    assert len(served) > 12 * 50


def test_what_is_configured_is_the_most_in_any_case(fake_time: FakeTime) -> None:
    rate = RequestRate(4, fake_time.clock, threads=20)
    rate.slow_down(rate.wait())
    assert turns(rate, fake_time, 3) == [0.25] * 3
    fake_time.elapsed += 1000
    assert turns(rate, fake_time, 3) == [0.25] * 3


def test_no_request_waits_longer_than_twenty_seconds_for_its_turn_however_often_it_is_halved(
    fake_time: FakeTime,
) -> None:
    rate = RequestRate(None, fake_time.clock, threads=20)
    for _ in range(20):
        halved = rate.slow_down(rate.wait())
    assert halved == 1


def test_threads_that_wait_for_their_turn_take_it_anew_when_the_rate_is_halved() -> None:
    """Else as many as are waiting would still come at the rate that was too much."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            assert rate.slow_down(0.0) is not None

    rate = RequestRate(10, Clock(monotonic=lambda: 0.0, sleep=sleep), threads=2)
    rate.wait()
    rate.wait()
    assert slept == [pytest.approx(0.1), pytest.approx(1.0)]


def test_the_client_its_session_and_storage_slow_the_same_requests(
    registry, other_host, client_of, fake_time: FakeTime
) -> None:
    def interval(client: RegistryClient) -> float:
        return client._requester._transport.rate._adapted(fake_time.elapsed) or 0.0

    registry.on("GET", TAGS, errors_reply(429, "X"), json_reply({"tags": []}))
    listing = client_of(registry)
    listing.list_tags(REPOSITORY)
    assert 10 <= interval(listing) < 15
    registry.on("GET", TAGS, errors_reply(503, "X"))
    asking = client_of(registry)
    asking.session().get(f"{registry.base}{TAGS}", timeout=5)
    assert interval(asking) == 10
    registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/a", reply(307, headers=[("Location", f"{other_host.base}/a")]))
    other_host.on("HEAD", "/a", reply(503), reply(200))
    sent_on = client_of(registry)
    sent_on.head_manifest(REPOSITORY, TagName("a"))
    assert 10 <= interval(sent_on) < 15


def test_nothing_slows_a_client_that_is_served_or_gets_another_error(registry, client_of) -> None:
    registry.on("GET", TAGS, errors_reply(500, "X"), errors_reply(502, "X"), json_reply({"tags": ["a"]}))
    client = client_of(registry)
    client.list_tags(REPOSITORY)
    assert client._requester._transport.rate._excessive_rate is None


@pytest.mark.rule("A9.5")
@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, ServerUnavailable)])
def test_a_long_wait_that_one_thread_was_notified_holds_for_all(
    registry, client_of, fake_time: FakeTime, status: int, error: type[RegistrySyncError]
) -> None:
    registry.on("GET", TAGS, reply(status, headers=[("Retry-After", "120")]), json_reply({"tags": ["v1"]}))
    client = client_of(registry)
    waits = []
    for _ in range(3):
        with pytest.raises(error) as raised:
            client.list_tags(REPOSITORY)
        waits.append(raised.value.retry_after_seconds)
        fake_time.elapsed += 40
    assert waits == [120, 80, 40]
    assert len(registry.requests) == 1
    assert client.list_tags(REPOSITORY).tags == ("v1",)
