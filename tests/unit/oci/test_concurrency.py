"""How many requests are under way at once, against models of registries in a time of their own."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pytest
from urllib3 import HTTPResponse

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.oci.http.concurrency import FORGIVEN_AFTER_SECONDS, Concurrency, SentRequest
from registry_sync.oci.http.options import SYSTEM_CLOCK
from support.hostile_registry import reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter

ROUND_TRIP_SECONDS = 0.08
#: A little more than a round trip, which is added up in floating point.
ONE_ROUND_TRIP_SECONDS = 1.01 * ROUND_TRIP_SECONDS


@dataclass
class Model:
    """A registry and a client with work without end: a request takes ``seconds(requests under way, time)``.

    ``refuses`` says of as many under way, and the time, whether the next is refused, which takes a round trip. ``most``
    is the largest number that was under way, ``served_at`` and ``refused_at`` are the times of responses.
    """

    time: FakeTime
    concurrency: Concurrency
    seconds: Callable[[int, float], float] = lambda _count, _time: ROUND_TRIP_SECONDS
    refuses: Callable[[int, float], bool] = lambda _count, _time: False
    kind: str = "HEAD"
    most: int = 0
    served_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    _began_at: float = field(init=False)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _under_way: list[tuple[float, int, SentRequest, ExitStack, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began_at = self.time.elapsed

    @property
    def elapsed(self) -> float:
        return self.time.elapsed - self._began_at

    def run(self, until_seconds: float) -> None:
        while self.elapsed < until_seconds:
            while len(self._under_way) < self.concurrency.limit:
                self._send()
            self.most = max(self.most, len(self._under_way))
            ends_at, _, request, slot, is_refused = heapq.heappop(self._under_way)
            self.time.elapsed = max(self.time.elapsed, ends_at)
            if is_refused:
                self.refused_at.append(self.elapsed)
                self.concurrency.record_refusal(request)
            else:
                self.served_at.append(self.elapsed)
                self.concurrency.record_response(request)
            slot.close()

    def _send(self) -> None:
        slot = ExitStack()
        slot.enter_context(self.concurrency.slot())
        under_way = sum(not item[4] for item in self._under_way)
        is_refused = self.refuses(under_way, self.elapsed)
        took = ROUND_TRIP_SECONDS if is_refused else self.seconds(under_way + 1, self.elapsed)
        request = self.concurrency.send(self.kind)
        entry = (self.time.elapsed + took, next(self._order), request, slot, is_refused)
        heapq.heappush(self._under_way, entry)

    def served_between(self, begin: float, end: float) -> int:
        return sum(begin <= at < end for at in self.served_at)


def model(time: FakeTime, most: int = 64, **parts: Callable[[int, float], float]) -> Model:
    return Model(time, Concurrency(most, time.clock), **parts)  # type: ignore[arg-type]


def busy_above(count: int) -> Callable[[int, float], float]:
    """A registry that works on so many at once, so that more requests only wait for each other."""
    return lambda under_way, _time: ROUND_TRIP_SECONDS * max(1.0, under_way / count)


def test_a_registry_that_is_only_far_away_gets_three_times_as_many_within_a_second(fake_time: FakeTime) -> None:
    far = model(fake_time)
    far.run(2)
    assert far.concurrency.limit == 64
    assert far.most == 64
    assert far.served_between(1, 2) >= 3 * 20 / ROUND_TRIP_SECONDS


def test_the_first_responses_count_so_that_few_requests_take_few_round_trips(fake_time: FakeTime) -> None:
    far = model(fake_time)
    far.run(2 * ONE_ROUND_TRIP_SECONDS)
    assert far.served_between(0, 2 * ONE_ROUND_TRIP_SECONDS) >= 60, "twenty, and then twice as many"


@pytest.mark.parametrize("most", [1, 5, 20, 30])
def test_there_are_never_more_than_allowed(fake_time: FakeTime, most: int) -> None:
    bound = model(fake_time, most)
    bound.run(5)
    assert bound.most == most


def test_a_registry_that_gets_slower_by_more_requests_gets_no_more_of_them(fake_time: FakeTime) -> None:
    busy = model(fake_time, seconds=busy_above(20))
    busy.run(10)
    assert busy.most <= 40, "one round of twice as many shows it"
    assert busy.served_between(0, 10) >= 0.95 * 10 * 20 / ROUND_TRIP_SECONDS, "it serves all that it can"
    busy.most = 0
    busy.run(60)
    assert busy.most <= 20 * 1.75


def test_a_registry_that_gets_slower_by_itself_gets_as_few_as_in_the_beginning(fake_time: FakeTime) -> None:
    slower = model(fake_time, seconds=lambda _count, time: ROUND_TRIP_SECONDS if time < 5 else 0.4)
    slower.run(5)
    assert slower.concurrency.limit == 64
    slower.run(12)
    assert slower.concurrency.limit == 20


def test_one_pause_of_all_requests_is_no_slower_registry(fake_time: FakeTime) -> None:
    paused = model(fake_time, seconds=lambda _count, time: 1.0 if 5 < time < 5.05 else ROUND_TRIP_SECONDS)
    paused.run(20)
    assert paused.concurrency.limit == 64
    assert paused.served_between(8, 9) >= 3 * 20 / ROUND_TRIP_SECONDS


@pytest.mark.parametrize("allowed", [25, 30, 50])
def test_a_number_that_was_refused_is_not_reached_again(fake_time: FakeTime, allowed: int) -> None:
    strict = model(fake_time, refuses=lambda count, _time: count >= allowed)
    strict.run(60)
    assert strict.refused_at, "its limit is below ours"
    assert max(strict.refused_at) - min(strict.refused_at) <= ONE_ROUND_TRIP_SECONDS, (
        "all had been sent before the first"
    )
    assert allowed // 2 <= strict.concurrency.limit < allowed


@pytest.mark.slow
def test_what_was_refused_from_the_beginning_is_tried_again_ever_more_rarely(fake_time: FakeTime) -> None:
    strict = model(fake_time, refuses=lambda count, _time: count >= 10, seconds=lambda _count, _time: 1.0)
    strict.run(0.9 * FORGIVEN_AFTER_SECONDS)
    assert max(strict.refused_at) <= 2 * ONE_ROUND_TRIP_SECONDS
    assert 5 <= strict.concurrency.limit < 10
    strict.run(7200)
    times = [at for before, at in itertools.pairwise([-100.0, *strict.refused_at]) if at - before > 1]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) <= 7
    assert gaps == sorted(gaps)


def test_an_outage_leaves_no_trace_after_it(fake_time: FakeTime) -> None:
    outage = model(fake_time, refuses=lambda _count, time: 5 < time < 8)
    outage.run(8)
    assert outage.concurrency.limit == 1
    outage.run(20)
    assert outage.concurrency.limit >= 20


def test_kinds_of_requests_are_compared_each_with_itself(fake_time: FakeTime) -> None:
    """Blobs take a registry four times as long as HEADs: it has not become slower."""
    mixed = model(fake_time)
    mixed.run(2)
    mixed.kind, mixed.seconds = "GET blobs", lambda _count, _time: 4 * ROUND_TRIP_SECONDS
    mixed.run(10)
    assert mixed.concurrency.limit == 64


def test_idle_threads_are_no_reason_for_more(fake_time: FakeTime) -> None:
    concurrency = Concurrency(64, fake_time.clock)
    for _ in range(100):
        with concurrency.slot():
            request = concurrency.send("HEAD")
            fake_time.elapsed += ROUND_TRIP_SECONDS
            concurrency.record_response(request)
    assert concurrency.limit == 20


def test_a_request_waits_for_the_end_of_another() -> None:
    concurrency = Concurrency(1, FakeTime().clock)
    has_slot = threading.Event()

    def second() -> None:
        with concurrency.slot():
            has_slot.set()

    thread = threading.Thread(target=second)
    with concurrency.slot():
        thread.start()
        assert not has_slot.wait(0.05)
    assert has_slot.wait(10)
    thread.join()


@pytest.mark.parametrize(("count", "read_mib"), [(1, 1.0), (20, 1.0), (64, 20 / 64)])
def test_more_bodies_at_once_are_read_by_less_each(
    registry, client_of, monkeypatch: pytest.MonkeyPatch, count: int, read_mib: float
) -> None:
    asked: list[int | None] = []
    read1 = HTTPResponse.read1

    def noted(self: HTTPResponse, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        asked.append(amt)
        return read1(self, amt, decode_content)

    monkeypatch.setattr(HTTPResponse, "read1", noted)
    data = bytes(100_000)
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    registry.on("GET", f"/v2/{REPOSITORY}/blobs/{blob.digest}", reply(200, data))
    client = client_of(registry, concurrency=64)
    monkeypatch.setattr(client._transport, "concurrency", Concurrency(64, SYSTEM_CLOCK, first=count))
    client.fetch_blob(REPOSITORY, blob, MemoryWriter(blob))
    assert set(asked) == {int(read_mib * 1024 * 1024)}


class Paced:
    """Requests of one kind, as many as may be under way at once, that each take 50 ms; of ``clock`` alone."""

    def __init__(self, fake_time: FakeTime) -> None:
        self.time, self.concurrency = fake_time, Concurrency(64, fake_time.clock)

    def send(self, count: int | None = None, *, served_count: int = 1000) -> None:
        """Sends ``count`` together, or as many as are allowed; all after the first ``served_count`` are refused."""
        with ExitStack() as slots:
            for _ in range(count or self.concurrency.limit):
                slots.enter_context(self.concurrency.slot())
            sent = [self.concurrency.send("HEAD manifests") for _ in range(count or self.concurrency.limit)]
            self.time.elapsed += 0.05
            for request in sent[:served_count]:
                self.concurrency.record_response(request)
            for request in sent[served_count:]:
                self.concurrency.record_refusal(request)
        self.time.elapsed += 0.5

    def limits(self, round_count: int) -> list[int]:
        """How many may be under way after each of so many times that all that are allowed were served."""
        found: list[int] = []
        for _ in range(round_count):
            self.send()
            found.append(self.concurrency.limit)
        return found


def test_a_request_that_is_refused_although_it_is_alone_says_nothing_of_requests_at_once(fake_time: FakeTime) -> None:
    paced = Paced(fake_time)
    paced.send(1, served_count=0)
    assert paced.concurrency.limit == 1
    assert max(paced.limits(40)) > 20, "the number recovers within some dozens of requests"


def test_an_outage_is_no_limit_of_requests_at_once(fake_time: FakeTime) -> None:
    paced = Paced(fake_time)
    for _ in range(6):
        paced.send(served_count=0)
    assert paced.concurrency.limit == 1
    assert max(paced.limits(40)) > 20


def test_a_limit_of_requests_at_once_is_kept_to_once_it_is_found(fake_time: FakeTime) -> None:
    paced = Paced(fake_time)
    while paced.concurrency.limit > 6:
        paced.send(served_count=6)
    found = paced.limits(100)
    assert 3 <= found[-1] <= 7, "three quarters of what was refused last"
    assert fake_time.elapsed < 1000 + 120, "and this is before it is tried again"


# -- what another client has found ------------------------------------------------------------------------------------


def found_by(registry: Model, seconds: float = 5) -> RegistryPace | None:
    registry.run(seconds)
    return registry.concurrency.pace()


def nearby(_count: int, _time: float) -> float:
    """What a request takes, of which each second sees 500 one after the other."""
    return 0.002


def next_model(time: FakeTime, pace: RegistryPace | None, most: int = 64, **parts: Any) -> Model:
    """The same registry and the client of the next sync."""
    found = model(time, most, **parts)
    found.concurrency.begin_with(pace)
    return found


def test_the_next_client_begins_with_what_one_has_found_of_a_registry_that_is_far_away(fake_time: FakeTime) -> None:
    pace = found_by(model(fake_time))
    assert pace is not None
    assert (pace.at_once, pace.usual_seconds.keys()) == (64, {"HEAD"})
    following = next_model(fake_time, pace)
    following.run(0.9 * ROUND_TRIP_SECONDS)
    assert following.most == 64, "before the first response"
    assert following.concurrency.pace() == pace, "nothing speaks against it"


def test_never_more_than_its_own_user_allows(fake_time: FakeTime) -> None:
    following = next_model(fake_time, found_by(model(fake_time)), most=30)
    following.run(2)
    assert following.most == 30
    assert next_model(fake_time, found_by(model(fake_time)), most=10).concurrency.limit == 10


def test_a_registry_nearby_is_not_remembered(fake_time: FakeTime) -> None:
    assert found_by(model(fake_time, seconds=nearby), 1) is None


def test_a_number_that_no_round_was_served_at_is_not_remembered(fake_time: FakeTime) -> None:
    far = model(fake_time)
    far.run(1.5 * ROUND_TRIP_SECONDS)
    assert far.concurrency.limit == 40
    assert far.concurrency.pace() is None, "twenty were served, with which everyone begins"


def test_a_registry_that_has_become_slower_gets_fewer_again_and_fewer_are_remembered(fake_time: FakeTime) -> None:
    pace = found_by(model(fake_time))
    busy = next_model(fake_time, pace, seconds=busy_above(20))
    busy.run(10)
    assert busy.concurrency.limit <= 40, "although it was never faster for this client"
    left = busy.concurrency.pace()
    assert left is None or left.at_once <= 40


def test_a_registry_that_has_come_nearer_is_forgotten(fake_time: FakeTime) -> None:
    pace = found_by(model(fake_time))
    assert found_by(next_model(fake_time, pace, seconds=nearby), 1) is None


@pytest.mark.parametrize("allowed", [25, 40])
def test_a_new_limit_is_exceeded_by_one_client_and_the_next_begins_with_few(fake_time: FakeTime, allowed: int) -> None:
    pace = found_by(model(fake_time))
    strict = next_model(fake_time, pace, refuses=lambda count, _time: count >= allowed)
    strict.run(0.9 * ROUND_TRIP_SECONDS)
    assert strict.most == 64
    left = found_by(strict, 60)
    assert max(strict.refused_at) < 60
    assert sum(at > 10 * ROUND_TRIP_SECONDS for at in strict.refused_at) <= 2 * 64, "not reached again and again"
    assert left is not None
    assert left.at_once == 0
    assert left.next_for(61, left.found_at) is None


def test_a_refusal_is_passed_on_to_the_tasks_that_follow_until_the_sync_ends(fake_time: FakeTime) -> None:
    refused = RegistryPace(0, datetime(2026, 12, 1, tzinfo=timezone.utc))
    following = next_model(fake_time, refused)
    assert following.concurrency.limit == 20
    assert found_by(following) == refused


def test_nothing_found_is_nothing_to_begin_with(fake_time: FakeTime) -> None:
    assert next_model(fake_time, None).concurrency.limit == 20
