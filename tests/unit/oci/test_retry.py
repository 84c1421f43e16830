"""Waiting: as long as the registry asks, as short as it can be, and never for ever."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.errors import NotFound, RateLimited, RegistryError, ServerUnavailable, TruncatedBody
from registry_sync.oci.http.error_mapping import parse_retry_after
from registry_sync.oci.http.options import ClientOptions
from registry_sync.oci.http.rate_limits import Usage
from registry_sync.oci.http.requester import Pause, Retry, backoff_seconds
from support.hostile_registry import json_reply, reply
from support.oci import REPOSITORY, FakeTime

NOW = 1_800_000_000.0
TAGS = f"/v2/{REPOSITORY}/tags/list"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        ("0", None),
        ("-5", None),
        ("1.5", 1.5),
        ("soon", None),
        ("7, 7", None),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), None),
        (formatdate(NOW + 200_000, usegmt=True), None),
        ("86400", 86400),
        ("99999", None),
        (str(int(NOW) + 120), 120),
        (str(int(NOW) - 120), None),
        (str(int(NOW) + 90_000), None),
        ("9" * 12, None),
        ("9" * 40, None),
    ],
)
def test_a9_05_retry_after_is_seconds_a_date_or_nothing(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_a9_05_any_text_gives_nothing_or_at_most_a_day(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 < seconds <= 86400


@pytest.mark.slow
@given(st.integers(1, 60))
def test_a9_04_backoff_is_jittered_and_bounded(number: int) -> None:
    assert 0 <= backoff_seconds(number) <= 15


def retry(fake_time: FakeTime, **options: float) -> Retry:
    return Retry(ClientOptions(**options), fake_time.clock, Usage())  # type: ignore[arg-type]


def failing(*problems: Exception):  # type: ignore[no-untyped-def]
    waiting = list(problems)

    def attempt() -> str:
        if waiting:
            raise waiting.pop(0)
        return "done"

    return attempt


def test_a9_04_temporary_errors_are_tried_again_and_others_are_not(fake_time: FakeTime) -> None:
    assert retry(fake_time).run(failing(ServerUnavailable("x"), TruncatedBody("y"))) == "done"
    with pytest.raises(NotFound):
        retry(fake_time).run(failing(NotFound("x")))
    assert len(fake_time.sleeps) == 2


def test_a9_04_attempts_come_to_an_end(fake_time: FakeTime) -> None:
    with pytest.raises(ServerUnavailable):
        retry(fake_time, max_attempts=3).run(failing(*[ServerUnavailable("x")] * 9))
    assert len(fake_time.sleeps) == 2


def test_a9_04_a_wait_of_our_own_never_ends_the_attempts(fake_time: FakeTime) -> None:
    """What is drawn by lot decides how long is waited, and not how often a request is sent."""
    short = retry(fake_time, longest_wait_seconds=0.01, max_attempts=9)
    assert short.run(failing(*[ServerUnavailable("x", status=503)] * 8)) == "done"
    assert len(fake_time.sleeps) == 8
    assert max(fake_time.sleeps) <= 0.01


def test_a9_04_the_time_for_retries_comes_to_an_end(fake_time: FakeTime) -> None:
    slow = [ServerUnavailable("x", retry_after_seconds=15.0)] * 9
    with pytest.raises(ServerUnavailable):
        retry(fake_time, retry_budget_seconds=40, max_attempts=9).run(failing(*slow))
    assert fake_time.sleeps == [15, 15]


def test_a9_05_a_long_wait_is_raised_at_once_with_its_length(fake_time: FakeTime) -> None:
    with pytest.raises(RateLimited) as raised:
        retry(fake_time).run(failing(RateLimited("x", retry_after_seconds=21600)))
    assert raised.value.retry_after_seconds == 21600
    assert fake_time.sleeps == []


def test_a9_05_what_one_thread_is_notified_holds_for_all(fake_time: FakeTime) -> None:
    """After a 429 no thread sends a request before the delay has passed."""
    slept: list[float] = []

    def clock_sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            limited.await_pause()
        fake_time.sleep(seconds)

    clock = type(fake_time.clock)(monotonic=fake_time.clock.monotonic, sleep=clock_sleep)
    limited = Retry(ClientOptions(), clock, Usage())
    limited.run(failing(RateLimited("x", retry_after_seconds=10.0)))
    assert slept == [10, 10]


def test_a9_05_a_pause_holds_for_all_clients_that_share_it_and_says_that_nothing_was_asked(
    fake_time: FakeTime,
) -> None:
    pause = Pause(fake_time.clock)
    one, other = (Retry(ClientOptions(), fake_time.clock, Usage(), pause) for _ in range(2))
    with pytest.raises(RateLimited) as first:
        one.run(failing(RateLimited("x", retry_after_seconds=3600, status=429)))
    with pytest.raises(RateLimited) as second:
        other.run(lambda: pytest.fail("it was asked"))
    assert (first.value.is_repeated, second.value.is_repeated) == (False, True)
    assert second.value.retry_after_seconds == 3600


def test_a9_05_after_a_long_wait_was_raised_nothing_is_requested_until_it_ends(
    registry, client_of, fake_time: FakeTime
) -> None:
    """A shard of a thousand manifests does not collect a thousand refusals."""
    registry.on("GET", TAGS, reply(429, headers=[("Retry-After", "120")]), json_reply({"tags": ["v1"]}))
    client = client_of(registry)
    waits = []
    for _ in range(3):
        with pytest.raises(RateLimited) as raised:
            client.list_tags(REPOSITORY)
        waits.append(raised.value.retry_after_seconds)
        fake_time.elapsed += 40
    assert waits == [120, 80, 40]
    assert len(registry.requests) == 1
    assert client.list_tags(REPOSITORY).tags == ("v1",)
    assert fake_time.sleeps == []


@pytest.mark.parametrize("status", [400, 405, 410, 501, 505])
def test_a9_04_other_statuses_are_not_tried_again(registry, client_of, fake_time: FakeTime, status: int) -> None:
    registry.on("GET", TAGS, reply(status))
    with pytest.raises(RegistryError) as raised:
        client_of(registry).list_tags(REPOSITORY)
    assert not raised.value.is_temporary
    assert fake_time.sleeps == []


def test_a9_05_the_registrys_own_wait_is_kept(registry, client_of, fake_time: FakeTime) -> None:
    registry.on("GET", TAGS, reply(429, headers=[("Retry-After", "3")]), json_reply({"tags": []}))
    client_of(registry).list_tags(REPOSITORY)
    assert fake_time.sleeps == [3]


def test_a9_07_a_limit_reported_in_plain_text_is_a_limit(registry, client_of, fake_time: FakeTime) -> None:
    registry.on(
        "GET", TAGS, reply(429, b"Too Many Requests (HAP429).", [("Retry-After", "3600")], content_type="text/plain")
    )
    with pytest.raises(RateLimited, match="HAP429") as raised:
        client_of(registry).list_tags(REPOSITORY)
    assert raised.value.retry_after_seconds == 3600
    assert fake_time.sleeps == []
