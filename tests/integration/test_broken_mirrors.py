"""A fleet of thirty mirrors, ten of them broken in ten ways: the others are synced in order, each says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.memory_registry import HELD, NO_RESPONSE, MemoryRegistry, document, refusal
from support.mirrors import Fleet, names, small_repository
from support.syncing import Installation

COUNT = 30
#: The broken mirror, the outcome that is expected, whether a repeat may help, and what its error says.
BROKEN = {
    "gone": ("failed", False, "correct url and upstream_name, or remove the mirror"),
    "refused": ("failed", False, "give it a connection (conn_id) whose user may read it"),
    "limited_for_an_hour": ("throttled", True, "it is tried again in 1 h"),
    "unavailable": ("failed", True, "the next run tries again"),
    "silent": ("failed", True, "ask who operates the registry"),
    "filtered": ("failed", False, "correct its filters"),
    "guarded": ("stopped", False, "airflow registry-sync run approve 'second'"),
    "moved_elsewhere": ("failed", False, "say replace_upstream"),
    "too_large": ("failed", False, "max_total_bytes"),
    "unreadable": ("held", False, "the next sync tries again"),
}
PLACES = dict(zip(BROKEN, range(1, COUNT, 3), strict=True))


def name_of(way: str) -> str:
    return names(COUNT)[PLACES[way]]


@pytest.fixture
def fleet(here: Installation) -> Iterator[Fleet]:
    """Synced once while all was well; then ten break, and every mirror has a new tag to fetch."""
    with MemoryRegistry() as registry, MemoryRegistry() as other:
        fleet = Fleet(here, registry, names(COUNT)).fill(tags=3)
        assert str(fleet.sync("first")) == f"{COUNT} changed"
        for number, name in enumerate(names(COUNT)):
            registry.add(name, small_repository(1000 + number, tags=2))
        break_ten(fleet, other)
        registry.reset_counts()
        yield fleet


def break_ten(fleet: Fleet, other: MemoryRegistry) -> None:
    registry, remotes = fleet.registry, fleet.here.database.remotes
    for way, response in {
        "gone": refusal(404, "NAME_UNKNOWN"),
        "limited_for_an_hour": refusal(429, "TOOMANYREQUESTS", retry_after_seconds=3600),
        "unavailable": refusal(503, "UNAVAILABLE"),
        "silent": NO_RESPONSE,
        "refused": refusal(401, "UNAUTHORIZED", has_challenge=True),
    }.items():
        registry.on("GET", "tags", "", response, repository=name_of(way))
    fleet.options[name_of("filtered")] = {"include_tags": ("9.*",)}
    registry.serve(name_of("guarded"), small_repository(PLACES["guarded"], tags=1))
    guarded = remotes.by_name(name_of("guarded"))
    remotes.change(guarded.id, lambda spec: replace(spec, max_removed_share=0.1))
    fleet.urls[name_of("moved_elsewhere")] = other.url
    fleet.options[name_of("too_large")] = {"max_total_bytes": 1}
    moved = small_repository(1000 + PLACES["unreadable"], tags=2).tags["1.0"]
    for reference in ("1.0", moved):
        registry.on("GET", "manifest", reference, document("{}"), repository=name_of("unreadable"))


def test_ten_broken_mirrors_hurt_none_of_the_others_and_each_says_what_to_do(fleet: Fleet) -> None:
    late = names(COUNT)[0]
    limit = refusal(429, "TOOMANYREQUESTS", retry_after_seconds=60)
    fleet.registry.on("GET", "tags", "", limit, HELD, repository=late)
    synced = fleet.sync("second")
    for way, (outcome, is_temporary, text) in BROKEN.items():
        result = fleet.result(synced, name_of(way))
        assert (way, result.outcome.value, result.is_temporary) == (way, outcome, is_temporary), result.error
        assert text in str(result.error), way
    broken = {name_of(way) for way in BROKEN}
    healthy = [name for name in names(COUNT) if name not in broken]
    assert {fleet.result(synced, name).outcome.value for name in healthy} == {"changed"}
    assert {fleet.result(synced, name).version_number for name in healthy} == {2}
    listed = [request.repository for request in fleet.registry.log().requests if request.kind == "tags"]
    assert [name for name in listed if name in healthy] == [late, *healthy[1:], late], "one a minute later"
    assert fleet.pauses[0] == 60
    assert synced.wait_seconds == 3600, "only the one that is limited for an hour is waited for, without a slot"
    assert str(synced).startswith("20 changed, 1 held, 1 stopped, 1 throttled, 7 failed: ")


def test_a_repeat_tries_the_broken_alone_and_those_that_were_mended_are_synced(fleet: Fleet) -> None:
    fleet.sync("second")
    fleet.registry.reset_counts()
    for way in ("gone", "refused", "limited_for_an_hour", "unavailable", "silent"):
        fleet.registry.on("GET", "tags", "", HELD, repository=name_of(way))
    again = fleet.sync("second")
    touched = {request.repository for request in fleet.registry.log().requests}
    assert touched <= {name_of(way) for way in BROKEN if way not in ("unreadable", "moved_elsewhere")}
    assert str(again).startswith("25 changed, 1 held, 1 stopped, 3 failed: ")
