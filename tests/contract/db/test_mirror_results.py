"""Results of the mirrors of fleets, on both databases."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from registry_sync.db.database import Database
from registry_sync.db.runs.fleet_results import KEPT
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest
from support.statements import planned_statements

_NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
RESULT = MirrorResult(
    dag_id="fleet",
    run_id="run-1",
    task_id="sync_mirrors",
    repository="team/app",
    position=3,
    outcome=MirrorOutcome.CHANGED,
    started_at=_NOON,
    finished_at=_NOON + timedelta(seconds=2),
    priority=-1,
    version_number=7,
    seconds=1.75,
    request_count=12,
    received_bytes=5_000_000_000,
    sync_run_id="fcf03266-f0e4-4497-8434-0fe9d94c8053",
)
FAILED = replace(RESULT, repository="team/web", outcome=MirrorOutcome.FAILED, error="no \x00 space", position=4)


def shown(database: Database, **filters: object) -> list[tuple[str, str]]:
    page = database.mirror_results.page(PageRequest(), **filters)  # type: ignore[arg-type]
    return [(result.repository, result.run_id) for result in page.items]


def test_a_result_is_kept_as_it_was_and_replaced_by_a_repeat(database: Database) -> None:
    database.mirror_results.record(RESULT)
    database.mirror_results.record(FAILED)
    known = database.mirror_results.of_task("fleet", "run-1", "sync_mirrors")
    assert known["team/app"] == RESULT
    assert "space" in str(known["team/web"].error)
    repeated = replace(FAILED, outcome=MirrorOutcome.UNCHANGED, error=None, try_count=2)
    database.mirror_results.record(repeated)
    assert database.mirror_results.of_task("fleet", "run-1", "sync_mirrors")["team/web"] == repeated
    assert database.mirror_results.of_task("fleet", "run-2", "sync_mirrors") == {}


def test_the_last_result_of_each_is_shown_unless_a_run_is_named(database: Database) -> None:
    later = replace(RESULT, run_id="run-2", finished_at=RESULT.finished_at + timedelta(hours=1))
    for result in (later, FAILED, RESULT):
        database.mirror_results.record(result)
    assert shown(database) == [("team/app", "run-2"), ("team/web", "run-1")]
    assert shown(database, run_id="run-1") == [("team/app", "run-1"), ("team/web", "run-1")]
    assert shown(database, outcomes=[MirrorOutcome.FAILED, MirrorOutcome.STOPPED]) == [("team/web", "run-1")]
    assert shown(database, dag_id="other") == []


def test_old_results_go_unless_they_are_the_last_of_their_mirror(database: Database) -> None:
    old, now = utc_now() - KEPT - timedelta(days=1), utc_now()
    for run_id, name, at in (("a", "team/app", old), ("b", "team/app", now), ("a", "team/web", old)):
        database.mirror_results.record(replace(RESULT, run_id=run_id, repository=name, finished_at=at))
    assert database.mirror_results.delete_old(["team/web", "team/other"]) == 0
    assert database.mirror_results.delete_old(["team/app"]) == 1
    assert database.mirror_results.delete_old(["team/app"]) == 0
    assert shown(database) == [("team/app", "b"), ("team/web", "a")]
    assert shown(database, run_id="a") == [("team/web", "a")]


def test_old_results_of_all_mirrors_go(database: Database) -> None:
    old, now = utc_now() - KEPT - timedelta(days=1), utc_now()
    for name in ("team/app", "team/web"):
        for run_id, at in (("a", old), ("b", now)):
            database.mirror_results.record(replace(RESULT, run_id=run_id, repository=name, finished_at=at))
    assert database.mirror_results.delete_old() == 2
    assert shown(database, run_id="a") == []


def test_old_results_of_named_mirrors_are_looked_up_in_an_index(database: Database) -> None:
    database.mirror_results.record(RESULT)
    with planned_statements(database, "DELETE") as plans:
        database.mirror_results.delete_old(["team/app"])
    [plan] = plans
    assert re.search(r"Seq Scan|SCAN mirror_results", plan) is None, plan


def test_the_last_result_in_a_dag_is_shown_whichever_dag_came_later(database: Database) -> None:
    later = replace(RESULT, dag_id="nightly", run_id="run-2", finished_at=RESULT.finished_at + timedelta(hours=1))
    database.mirror_results.record(RESULT)
    database.mirror_results.record(later)
    assert shown(database) == [("team/app", "run-2")]
    assert shown(database, dag_id="fleet") == [("team/app", "run-1")]
    assert shown(database, dag_id="fleet", run_id="run-2") == []


def test_pages_have_each_result_once_where_many_are_alike(database: Database) -> None:
    """Runs of two schedules have one id, their tasks too, and unchanged mirrors take no time to speak of."""
    for number in range(20):
        for dag_id in ("two", "one"):
            alike = replace(RESULT, dag_id=dag_id, repository=f"app-{(7 * number) % 20:02}", seconds=0.0)
            database.mirror_results.record(alike)
    for ordering in ("repository", "-repository", "seconds", "-finished_at", "received_bytes"):
        found = [
            (result.repository, result.dag_id)
            for offset in range(0, 40, 7)
            for result in database.mirror_results.page(PageRequest(offset, 7, ordering), run_id="run-1").items
        ]
        assert found == sorted(found, reverse=ordering.startswith("-")), ordering
        assert len(found) == 40
