"""Many mirrors in one task: their order, a result for each, and what a repeat leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.errors import BlobStoreFull, ConfigurationError
from registry_sync.sync.mirror_tasks import MirrorTask
from registry_sync.sync.sync_mirrors import LONGEST_PAUSE_SECONDS, ROUNDS
from support.dying import die, status_of_fork, was_killed
from support.memory_registry import HELD, MemoryRegistry, refusal
from support.mirrors import Fleet, names, small_repository
from support.ready_databases import RenewedDatabase
from support.statements import executed_statements
from support.syncing import Installation


@pytest.fixture(scope="module")
def renewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedDatabase]:
    database = RenewedDatabase(tmp_path_factory.mktemp("fleet") / "registry_sync.db")
    yield database
    database.close()


@pytest.fixture
def fleet(renewed: RenewedDatabase, tmp_path: Path) -> Iterator[Fleet]:
    here = Installation.on(renewed.renewed(), tmp_path)
    with MemoryRegistry() as registry:
        yield Fleet(here, registry, names(5)).fill()


def listed(fleet: Fleet) -> list[str]:
    """The repositories whose tags were listed, in order."""
    return [request.repository for request in fleet.registry.log().requests if request.kind == "tags"]


def test_each_mirror_has_a_version_and_a_result_and_then_nothing_changes(fleet: Fleet) -> None:
    synced = fleet.sync(concurrency=3)
    assert set(fleet.outcomes(synced).values()) == {"changed"}
    assert str(synced) == "5 changed"
    first = synced.results[0]
    assert (first.repository, first.version_number, first.position) == ("team/app-000", 1, 0)
    assert (first.request_count, first.error) == (1 + 3 + 3 + 4, None)
    assert first.received_bytes > 300
    assert fleet.here.database.runs.get(str(first.sync_run_id)).state is RunState.COMPLETED
    again = fleet.sync("run-2")
    assert str(again) == "5 unchanged"
    assert {one.version_number for one in again.results} == {1}
    assert {one.request_count for one in again.results} == {1 + 3}


def test_the_most_important_come_first_and_then_those_declared_first(fleet: Fleet) -> None:
    fleet.priorities = {"team/app-003": 10, "team/app-004": 10, "team/app-001": -1}
    fleet.sync()
    assert listed(fleet) == ["team/app-003", "team/app-004", "team/app-000", "team/app-002", "team/app-001"]


def test_a_mirror_that_fails_hurts_no_other_and_a_repeat_tries_it_alone(fleet: Fleet) -> None:
    fleet.registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository="team/app-001")
    synced = fleet.sync()
    assert str(synced) == "4 changed, 1 failed: team/app-001"
    failed = fleet.result(synced, "team/app-001")
    assert str(failed.error).startswith("NotFound: ")
    assert not failed.is_temporary
    assert fleet.pauses == [], "what no repeat mends is not repeated in the task"
    fleet.registry.reset_counts()
    fleet.registry.on("GET", "tags", "", HELD, repository="team/app-001")
    again = fleet.sync()
    assert listed(fleet) == ["team/app-001"]
    assert str(again) == "5 changed"
    assert fleet.result(again, "team/app-001").try_count == 2


def test_a_temporary_failure_is_tried_again_when_all_others_had_their_turn(fleet: Fleet) -> None:
    fleet.registry.on("GET", "tags", "", refusal(503, "UNAVAILABLE"), HELD, repository="team/app-000")
    synced = fleet.sync()
    assert str(synced) == "5 changed"
    assert listed(fleet)[-1] == "team/app-000"
    assert fleet.pauses == [5.0]


def test_one_that_stays_unavailable_fails_after_some_tries_and_may_be_tried_later(fleet: Fleet) -> None:
    fleet.registry.on("GET", "tags", "", refusal(503, "UNAVAILABLE"), repository="team/app-000")
    synced = fleet.sync()
    assert listed(fleet).count("team/app-000") == ROUNDS
    failed = fleet.result(synced, "team/app-000")
    assert (failed.outcome, failed.is_temporary) == (MirrorOutcome.FAILED, True)
    assert synced.wait_seconds is None, "a registry that is away does not say for how long"


def test_a_registry_that_limits_one_mirror_for_a_minute_delays_that_one_alone(fleet: Fleet) -> None:
    limit = refusal(429, "TOOMANYREQUESTS", retry_after_seconds=LONGEST_PAUSE_SECONDS)
    fleet.registry.on("GET", "tags", "", limit, HELD, repository="team/app-000")
    synced = fleet.sync()
    assert str(synced) == "5 changed"
    assert listed(fleet) == [*names(5), "team/app-000"]
    assert fleet.pauses == [LONGEST_PAUSE_SECONDS]


def test_a_longer_limit_is_waited_for_without_the_task(fleet: Fleet) -> None:
    limit = refusal(429, "TOOMANYREQUESTS", retry_after_seconds=3600)
    fleet.registry.on("GET", "tags", "", limit, HELD, repository="team/app-002")
    synced = fleet.sync()
    assert str(synced) == "4 changed, 1 throttled: team/app-002"
    assert synced.wait_seconds == 3600
    assert "tried again in 1 h" in str(fleet.result(synced, "team/app-002").error)
    assert str(fleet.sync()) == "5 changed"


def test_a_limit_that_leads_nowhere_is_not_waited_for_without_end(fleet: Fleet) -> None:
    limit = refusal(429, "TOOMANYREQUESTS", retry_after_seconds=3600)
    fleet.registry.on("GET", "tags", "", limit, repository="team/app-002")
    assert fleet.sync().wait_seconds == 3600
    again = fleet.sync()
    assert again.wait_seconds is None, "no mirror succeeded, and the registry refused this one itself"
    assert again.results[2].is_temporary


def stop(fleet: Fleet, name: str, **guard: float) -> None:
    """Two of the three tags of a mirror are gone, and it allows fewer, or by its ``guard`` fewer left."""
    fleet.sync()
    fleet.registry.serve(name, small_repository(1, tags=1))
    remote = fleet.here.database.remotes.by_name(name)
    fleet.here.database.remotes.change(remote.id, lambda spec: replace(spec, **(guard or {"max_removed_share": 0.3})))


@pytest.mark.parametrize(
    ("guard", "error"),
    [({"max_removed_share": 0.3}, "TooManyRemovals"), ({"max_removed_share": 1.0, "min_tags": 2}, "TooFewTags")],
)
def test_removals_beyond_the_limit_stop_one_mirror_and_its_error_says_how_to_approve(
    fleet: Fleet, guard: dict[str, float], error: str
) -> None:
    stop(fleet, "team/app-001", **guard)
    synced = fleet.sync("run-2")
    assert str(synced) == "4 unchanged, 1 stopped: team/app-001"
    stopped = fleet.result(synced, "team/app-001")
    assert str(stopped.error).startswith(f"{error}: ")
    assert "registry-sync run approve 'run-2' --dag-id 'fleet' --task 'sync_mirrors:team/app-001'" in str(stopped.error)
    run = fleet.here.database.runs.by_key(MirrorTask("fleet", "run-2", "sync_mirrors").key("team/app-001"))
    fleet.here.database.runs.approve_removals(run.id, "ana", seen=run.refused_removals)
    fleet.registry.reset_counts()
    approved = fleet.sync("run-2")
    assert str(approved) == "4 unchanged, 1 changed"
    assert fleet.result(approved, "team/app-001").version_number == 2
    assert listed(fleet) == [], "what was fetched for the stopped sync is committed"


def test_a_stopped_mirror_that_nobody_approved_is_stopped_again(fleet: Fleet) -> None:
    stop(fleet, "team/app-001")
    fleet.sync("run-2")
    again = fleet.sync("run-2")
    assert fleet.result(again, "team/app-001").outcome is MirrorOutcome.STOPPED


def test_tags_that_cannot_be_delivered_are_held_on_the_last_try(fleet: Fleet) -> None:
    fleet.registry.on("GET", "manifest", "1.0", refusal(503, "UNAVAILABLE"), repository="team/app-004")
    digest = small_repository(4, tags=3).tags["1.0"]
    fleet.registry.on("GET", "manifest", digest, refusal(503, "UNAVAILABLE"), repository="team/app-004")
    synced = fleet.sync(is_last_try=True)
    held = fleet.result(synced, "team/app-004")
    assert (held.outcome, held.held_count, held.version_number) == (MirrorOutcome.HELD, 1, 1)
    assert "tag 1.0 is held: ServerUnavailable" in str(held.error)
    assert held.outcome.is_success


def test_a_large_mirror_is_handed_over_and_counts_as_done(fleet: Fleet) -> None:
    given: list[SyncRun] = []

    def hand_over(run: SyncRun) -> str:
        given.append(run)
        return f"other-{run.repository_name}"

    large = small_repository(77, tags=1)
    fleet.registry.serve("team/app-003", large)
    synced = fleet.sync(min_shard_bytes=1, hand_over=hand_over)
    assert {run.repository_name for run in given} == set(names(5)), "with this bound each has more than two shards"
    one = fleet.result(synced, "team/app-003")
    assert (one.outcome, one.handed_over_to) == (MirrorOutcome.HANDED_OVER, "other-team/app-003")
    run = fleet.here.database.runs.get(str(one.sync_run_id))
    assert (run.state, "other-team/app-003" in str(run.error)) == (RunState.CANCELED, True)
    assert str(fleet.sync(min_shard_bytes=1, hand_over=hand_over)) == "5 handed over"
    assert len(given) == 5


def test_one_that_cannot_be_handed_over_is_synced_here(fleet: Fleet) -> None:
    assert str(fleet.sync(min_shard_bytes=1)) == "5 changed"


def test_a_defect_is_the_result_of_one_mirror(fleet: Fleet) -> None:
    def broken() -> object:
        raise ZeroDivisionError("by zero")

    fleet.registry.on("GET", "tags", "", broken, repository="team/app-002")  # type: ignore[arg-type]
    synced = fleet.sync()
    assert str(synced) == "4 changed, 1 failed: team/app-002"
    assert "a defect of registry-sync, ZeroDivisionError" in str(fleet.result(synced, "team/app-002").error)


def test_what_every_mirror_would_meet_stops_the_task_and_keeps_what_is_done(fleet: Fleet) -> None:
    def full() -> object:
        raise BlobStoreFull("no space left")

    fleet.registry.on("GET", "tags", "", full, repository="team/app-002")  # type: ignore[arg-type]
    with pytest.raises(BlobStoreFull):
        fleet.sync()
    known = fleet.here.database.mirror_results.of_task("fleet", "run-1", "sync_mirrors")
    assert {"team/app-000", "team/app-001"} <= known.keys()
    assert "team/app-002" not in known
    fleet.registry.reset_counts()
    fleet.registry.on("GET", "tags", "", HELD, repository="team/app-002")
    assert str(fleet.sync()) == "5 changed"
    assert "team/app-000" not in listed(fleet)


@pytest.mark.slow
def test_a_process_that_dies_leaves_what_was_done_and_the_next_try_continues(fleet: Fleet) -> None:
    fleet.registry.on("GET", "tags", "", die, repository="team/app-003")  # type: ignore[arg-type]
    fleet.here.database.close()
    assert was_killed(status_of_fork(fleet.sync))
    known = fleet.here.database.mirror_results.of_task("fleet", "run-1", "sync_mirrors")
    assert list(known) == names(3)
    fleet.registry.on("GET", "tags", "", HELD, repository="team/app-003")
    assert str(fleet.sync()) == "5 changed"
    assert listed(fleet) == ["team/app-003", "team/app-004"]


def test_a_process_that_dies_between_version_and_result_makes_no_second_version(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.repositories = names(1)
    with monkeypatch.context() as patched:
        patched.setattr(type(fleet.here.database.mirror_results), "record", lambda *_given: die())
        fleet.here.database.close()
        assert was_killed(status_of_fork(fleet.sync))
    synced = fleet.sync()
    assert (str(synced), synced.results[0].version_number) == ("1 unchanged", 1)


def test_two_mirrors_of_one_repository_are_refused_before_anything_is_done(fleet: Fleet) -> None:
    fleet.repositories = [*names(2), "team/app-000"]
    with pytest.raises(ConfigurationError, match=r"two mirrors have the repository 'team/app-000'"):
        fleet.sync()
    assert listed(fleet) == []


def test_the_scope_of_a_sync_fits_its_column_however_long_the_name(fleet: Fleet) -> None:
    task = MirrorTask("fleet", "run-1", "sync_mirrors")
    one, other = (task.key("a" * 254 + end) for end in "xy")
    assert len(one.scope) == len(other.scope) == 250
    assert one.scope != other.scope


#: Statements and transactions of a task with one unchanged mirror, with those that begin them.
MOST_STATEMENTS = 30


def test_an_unchanged_mirror_costs_few_statements_and_none_more_for_its_past(fleet: Fleet) -> None:
    fleet.repositories = names(1)
    fleet.sync("run-1")
    counts = []
    for number in range(2, 8):
        with executed_statements() as statements:
            fleet.sync(f"run-{number}")
        counts.append(len(statements))
    assert max(counts) <= MOST_STATEMENTS
    assert len(set(counts)) == 1
