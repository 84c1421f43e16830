"""Watched tags: what a move looks like, and how many requests the watch sends for how many tags."""

from __future__ import annotations

import json

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName, TagFilter, TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.sync.watch_tags import (
    CONFIRM_SECONDS,
    FIRST_PAUSE_SECONDS,
    Known,
    Observation,
    TagWatch,
    WatchedChange,
    WatchedTags,
    compare,
)
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry, refusal
from support.syncing import new_client

APP = RepositoryName("team/app")
A, B = Digest.of(b"a"), Digest.of(b"b")


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def content(names: list[str], image: str = "a") -> RepositoryContent:
    build = ContentBuilder(seed=7)
    digests = {text: build.image([build.blob(10)]) for text in ("a", "b")}
    for name in names:
        build.tag(name, digests[image])
    return build.content()


def move(registry: MemoryRegistry, *names: str) -> None:
    registry.add(APP, content(list(names), "b"))


def watch(
    registry: MemoryRegistry, clock: FakeTime, budget: int = 10_000, **options: object
) -> tuple[TagWatch, list[str]]:
    remote = RemoteSpec.parse(name="watched", url=registry.url, upstream_name=APP)
    lines: list[str] = []
    client = new_client(remote, max_attempts=1, **options)
    return TagWatch(client, requests_per_turn=budget, report=lines.append, clock=clock), lines


NAMES = [f"build-{number:03}" for number in range(500)]
ALL = {APP: [WatchedTags(TagFilter.parse(NAMES))]}


# -- what changed -------------------------------------------------------------------------------------------------


def seen(digests: dict[str, Digest], gone: tuple[str, ...] = (), listed: tuple[str, ...] | None = None) -> Observation:
    names = None if listed is None else frozenset(map(TagName, listed))
    return Observation({TagName(n): d for n, d in digests.items()}, frozenset(map(TagName, gone)), names)


@pytest.mark.parametrize(
    ("known", "observed", "changes", "now"),
    [
        ({}, seen({"a": A}), [], {"a": A}),
        ({"a": A}, seen({"a": A}), [], {"a": A}),
        ({"a": A}, seen({"a": B}), [("a", A, B)], {"a": B}),
        ({"a": A}, seen({"b": B}), [], {"a": A, "b": B}),
        ({"a": None}, seen({"a": A}), [("a", None, A)], {"a": A}),
        ({"a": A}, seen({}, gone=("a",)), [("a", A, None)], {"a": None}),
        ({"a": None}, seen({}, gone=("a",)), [], {"a": None}),
        ({}, seen({}, gone=("a",)), [], {"a": None}),
        ({"a": A}, seen({"other": B}, gone=("others",)), [], {"a": A}),
        ({"a": ""}, seen({"a": A}), [], {"a": A}),
        ({"a": A, "b": None}, seen({"a": A}, gone=("b",), listed=("a", "c")), [], {"a": A, "b": None}),
    ],
)
def test_a_named_tag_changes_when_it_moves_appears_or_goes(
    known: Known, observed: Observation, changes: list[tuple[str, str, str]], now: Known
) -> None:
    found, known_now = compare(known, observed, TagFilter.parse(["a", "b"]))
    assert [(change.name, change.before, change.after) for change in found] == changes
    assert known_now == now


@pytest.mark.parametrize(
    ("known", "observed", "changes", "now"),
    [
        ({}, seen({"1.0": A}, listed=("1.0", "1.1", "x")), [], {"1.0": A, "1.1": ""}),
        ({"1.0": A, "1.1": ""}, seen({"1.1": B}, listed=("1.0", "1.1")), [], {"1.0": A, "1.1": B}),
        ({"1.0": A}, seen({"1.0": A, "1.1": B}, listed=("1.0", "1.1")), [("1.1", None, B)], {"1.0": A, "1.1": B}),
        ({"1.0": A}, seen({"1.0": A}, listed=("1.0", "1.2")), [("1.2", None, "")], {"1.0": A, "1.2": ""}),
        ({"1.0": A, "1.1": B}, seen({"1.0": A}, listed=("1.0",)), [("1.1", B, None)], {"1.0": A}),
    ],
)
def test_with_a_glob_a_new_name_is_a_change_and_so_is_one_that_is_gone(
    known: Known, observed: Observation, changes: list[tuple[str, str, str]], now: Known
) -> None:
    found, known_now = compare(known, observed, TagFilter.parse(["1.*"]))
    assert found == tuple(WatchedChange(*change) for change in changes)
    assert known_now == now


# -- requests -----------------------------------------------------------------------------------------------------


def test_500_tags_cost_one_request_each_where_a_registry_lists_no_digests() -> None:
    registry, clock = MemoryRegistry(), FakeTime()
    registry.serve(APP, content(NAMES))
    watching, _ = watch(registry, clock)
    for _ in range(2):
        registry.reset_counts()
        found = watching.turn(ALL)[APP]
        assert len(found.digests) == 500
        assert registry.log().manifest_head_count == 500


def test_500_tags_cost_a_request_for_a_hundred_where_a_registry_lists_digests() -> None:
    registry, clock = MemoryRegistry(has_digest_api=True), FakeTime()
    registry.serve(APP, content(NAMES))
    watching, _ = watch(registry, clock)
    before = watching.turn(ALL)[APP].digests
    assert len(before) == 500
    assert (registry.log().manifest_head_count, len(registry.log().requests)) == (0, 5)
    registry.reset_counts()
    move(registry, "build-007")
    found = watching.turn(ALL)[APP].digests
    assert [name for name in found if found[name] != before[name]] == ["build-007"]
    assert (registry.log().manifest_head_count, len(registry.log().requests)) == (1, 6), "the move is confirmed"


def test_500_tags_cost_the_pages_of_the_listing_where_that_has_digests() -> None:
    registry, clock = MemoryRegistry(lists_digests=True), FakeTime()
    registry.serve(APP, content(NAMES))
    watching, _ = watch(registry, clock)
    tags = {APP: [WatchedTags(TagFilter.parse(["build-*"]))]}
    watching.turn(tags)
    assert len(registry.log().requests) == 1
    registry.reset_counts()
    move(registry, "build-007", "build-500")
    assert len(watching.turn(tags)[APP].listed or ()) == 501
    assert registry.log().manifest_head_count == 1


def test_a_budget_is_kept_and_every_tag_has_its_turn() -> None:
    registry, clock = MemoryRegistry(), FakeTime()
    registry.serve(APP, content(NAMES))
    watching, _ = watch(registry, clock, budget=120)
    looked_at: dict[str, int] = {}
    for _ in range(5):
        registry.reset_counts()
        for name in watching.turn(ALL)[APP].digests:
            looked_at[name] = looked_at.get(name, 0) + 1
        assert registry.log().manifest_head_count <= 120
    assert looked_at == dict.fromkeys(NAMES, 1)


def test_a_list_that_does_not_show_a_move_hides_it_for_an_hour_at_most() -> None:
    registry, clock = MemoryRegistry(has_digest_api=True), FakeTime()
    registry.serve(APP, content(NAMES))
    watching, _ = watch(registry, clock)
    before = watching.turn(ALL)[APP].digests
    registry.freeze_digests()
    move(registry, "build-007")
    assert watching.turn(ALL)[APP].digests == before
    clock.now += CONFIRM_SECONDS
    found = watching.turn(ALL)[APP].digests
    assert [name for name in found if found[name] != before[name]] == ["build-007"]
    assert watching.turn(ALL)[APP].digests == found, "the old list does not take it back"


def test_what_was_known_before_a_restart_is_no_request_where_a_list_shows_it() -> None:
    registry, clock = MemoryRegistry(has_digest_api=True), FakeTime()
    registry.serve(APP, content(NAMES))
    known = {str(name): str(digest) for name, digest in watch(registry, clock)[0].turn(ALL)[APP].digests.items()}
    json.dumps(known)
    move(registry, "build-007")
    registry.reset_counts()
    found = watch(registry, clock)[0].turn({APP: [WatchedTags(TagFilter.parse(NAMES), known)]})[APP]
    assert [change.name for change in compare(known, found, TagFilter.parse(NAMES))[0]] == ["build-007"]
    assert registry.log().manifest_head_count == 1


def test_a_registry_that_asks_to_wait_is_left_as_long_as_it_says() -> None:
    registry, clock = MemoryRegistry(), FakeTime()
    registry.serve(APP, content(["latest"]))
    watching, lines = watch(registry, clock)
    registry.on("HEAD", "manifest", "latest", refusal(429, retry_after_seconds=120))
    tags = {APP: [WatchedTags(TagFilter.parse(["latest"]))]}
    assert watching.turn(tags) == {}
    assert "team/app are looked at again in 120 s: RateLimited" in lines[0]
    registry.forget("manifest")
    registry.reset_counts()
    clock.now += 119
    assert watching.turn(tags) == {}
    assert not registry.log().requests
    clock.now += 1
    assert len(watch(registry, clock)[0].turn(tags)[APP].digests) == 1


def test_one_repository_that_cannot_be_read_is_left_longer_each_time_and_keeps_no_other_waiting() -> None:
    registry, clock = MemoryRegistry(), FakeTime()
    other = RepositoryName("team/other")
    registry.serve(other, content(["latest"]))
    registry.on("HEAD", "manifest", "broken", refusal(503))
    watching, lines = watch(registry, clock)
    both = {APP: [WatchedTags(TagFilter.parse(["broken"]))], other: [WatchedTags(TagFilter.parse(["latest"]))]}
    for pause in (FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS):
        lines.clear()
        assert list(watching.turn(both)) == [other]
        assert f"team/app are looked at again in {pause:.0f} s" in lines[0]
        assert list(watching.turn(both)) == [other]
        assert len(lines) == 1
        clock.now += pause


def test_a_tag_that_does_not_exist_is_seen_as_such() -> None:
    registry, clock = MemoryRegistry(), FakeTime()
    registry.serve(APP, content(["latest"]))
    watching, _ = watch(registry, clock)
    found = watching.turn({APP: [WatchedTags(TagFilter.parse(["latest", "next"]))]})[APP]
    assert (sorted(found.digests), sorted(found.gone)) == (["latest"], ["next"])
