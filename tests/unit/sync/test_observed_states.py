"""The states that a mirror is in, as people are notified of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.mirror_states import MirrorState, NotifiedOf, StateMessage
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import RepositorySpec
from registry_sync.sync.observed_states import NEWS_FOR, observed_states
from support.memory_registry import MemoryRegistry, refusal
from support.mirrors import Fleet, names, small_repository
from support.syncing import Installation

APP = names(1)[0]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    here = Installation.embedded(tmp_path)
    with MemoryRegistry() as registry:
        yield Fleet(here, registry, [APP]).fill()
    here.database.close()


def kinds(states: list[MirrorState]) -> list[str]:
    return [state.kind.value for state in states]


def test_a_mirror_that_never_had_a_repository_has_only_failed(fleet: Fleet) -> None:
    database, error = fleet.here.database, "NotFound: gone"
    states = observed_states(
        database, APP, utc_now(), outcome=MirrorOutcome.FAILED, error=error, freshness=timedelta(1)
    )
    assert states == [MirrorState(APP, NotifiedOf.FAILED, "NotFound", "NotFound: gone")]


def test_a_version_is_news_for_some_hours_and_a_later_one_has_another_fingerprint(fleet: Fleet) -> None:
    database = fleet.here.database
    fleet.sync("run-1")
    (changed,) = observed_states(database, APP, utc_now(), outcome=MirrorOutcome.CHANGED)
    assert (changed.fingerprint, changed.is_news) == ("1", True)
    assert changed.detail == "version 1: 3 tags added: 1.0 added, 1.1 added, 1.2 added"
    fleet.registry.serve(APP, small_repository(0, tags=2, moved=1))
    fleet.sync("run-2")
    (moved,) = observed_states(database, APP, utc_now(), outcome=MirrorOutcome.CHANGED)
    assert (moved.fingerprint, moved.detail) == (
        "2",
        "version 2: 1 tag moved, 1 tag removed: 1.0 moved, 1.2 removed",
    )
    (old,) = observed_states(database, APP, utc_now() + NEWS_FOR * 2, outcome=MirrorOutcome.UNCHANGED)
    assert not old.is_news


def test_held_tags_are_a_state_until_a_version_without_them(fleet: Fleet) -> None:
    database = fleet.here.database
    fleet.sync("run-1")
    moved = small_repository(0, tags=3, moved=2)
    fleet.registry.serve(APP, moved)
    for reference in ("1.0", moved.tags["1.0"]):
        fleet.registry.on("GET", "manifest", reference, refusal(503, "UNAVAILABLE"))
    fleet.sync("run-2", is_last_try=True)
    found = observed_states(database, APP, utc_now(), outcome=MirrorOutcome.HELD)
    assert kinds(found) == ["changed", "held"]
    assert found[1].detail.startswith("1 tag held in version 2: 1.0: ")


def test_one_is_stale_by_the_age_of_its_last_success_whether_that_changed_anything_or_not(fleet: Fleet) -> None:
    database, day = fleet.here.database, timedelta(days=1)

    def stale_at(age: timedelta) -> list[MirrorState]:
        found = observed_states(database, APP, utc_now() + age, outcome=MirrorOutcome.FAILED, error="x", freshness=day)
        return [state for state in found if state.kind is NotifiedOf.STALE]

    fleet.sync("run-1")
    assert stale_at(timedelta(hours=23)) == []
    (stale,) = stale_at(timedelta(hours=25))
    assert "the last successful sync ended 1 d 1 h ago, and 1 d is promised" in stale.detail
    assert stale_at(timedelta(hours=30))[0].fingerprint == stale.fingerprint
    fleet.sync("run-2")
    assert stale_at(timedelta(hours=25))[0].fingerprint != stale.fingerprint


def test_a_message_about_many_states_is_bounded_and_counts_them() -> None:
    states = [MirrorState(f"team/app-{n}", NotifiedOf.FAILED, "NotFound", "gone " * 500) for n in range(300)]
    message = StateMessage.of([*states, MirrorState("team/app", NotifiedOf.HELD, "1", "1.0")])
    assert message.subject == "registry-sync: 301 states of mirrors: 1 held, 300 failed"
    assert len(message.text) < 20_000
    assert message.text.endswith("and 251 more: airflow registry-sync fleet status")


def test_one_that_never_succeeded_is_stale_by_the_run_whose_deadline_passed(fleet: Fleet) -> None:
    """Its repository is made by that run, a little after it was queued."""
    database, day = fleet.here.database, timedelta(days=1)
    database.repositories.create(RepositorySpec(APP))
    now = utc_now() + day - timedelta(seconds=1)
    failed, queued_at = MirrorOutcome.FAILED, utc_now() - timedelta(seconds=10)
    assert kinds(observed_states(database, APP, now, outcome=failed, freshness=day)) == ["failed"]
    found = observed_states(database, APP, now, outcome=failed, freshness=day, since=queued_at)
    assert kinds(found) == ["failed", "stale"]
