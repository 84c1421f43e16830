"""``fleet status``: what became of mirrors, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from registry_sync.cli import command_context
from registry_sync.db.database import Database
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from support.commands import Run

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
RESULT = MirrorResult(
    dag_id="fleet",
    run_id="monday",
    task_id="sync_mirrors",
    repository="app",
    position=0,
    outcome=MirrorOutcome.UNCHANGED,
    started_at=NOON,
    finished_at=NOON + timedelta(seconds=2),
    version_number=7,
    seconds=1.74,
    request_count=3,
    received_bytes=120,
)
TUESDAY = NOON + timedelta(days=1)


@pytest.fixture
def results(database: Database) -> list[MirrorResult]:
    """Two DAG runs of one fleet, of which the later one succeeded but for one mirror, and a run of another."""
    made = [
        replace(RESULT, outcome=MirrorOutcome.FAILED, error="no route to it"),
        replace(RESULT, repository="web", outcome=MirrorOutcome.CHANGED),
        replace(RESULT, run_id="tuesday", finished_at=TUESDAY),
        replace(
            RESULT,
            repository="web",
            run_id="tuesday",
            finished_at=TUESDAY,
            outcome=MirrorOutcome.STOPPED,
            error="9 of 9",
        ),
        replace(RESULT, repository="big", outcome=MirrorOutcome.HANDED_OVER, handed_over_to="large__1"),
        replace(RESULT, dag_id="other", repository="db", outcome=MirrorOutcome.THROTTLED, error="wait"),
        replace(RESULT, dag_id="other", repository="held", outcome=MirrorOutcome.HELD, held_count=2),
    ]
    for result in made:
        database.mirror_results.record(result)
    return made


Listed = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def listed(run: Run, capsys: pytest.CaptureFixture[str]) -> Listed:
    """Runs the command; the outcome of each mirror in the order that is printed, and what is said beside it."""

    def status(*words: str) -> tuple[dict[str, Any], str]:
        run("fleet", "status", "--output", "json", *words)
        printed = capsys.readouterr()
        rows = json.loads(printed.out)
        by_name = {row["repository"]: row["outcome"] for row in rows}
        assert len(by_name) == len(rows)
        return by_name, printed.err.strip()

    return status


@pytest.mark.usefixtures("results")
def test_the_last_result_of_each_mirror_is_listed_and_counted(listed: Listed) -> None:
    assert listed() == (
        {"app": "unchanged", "big": "handed_over", "db": "throttled", "held": "held", "web": "stopped"},
        "1 unchanged, 1 held, 1 handed over, 1 stopped, 1 throttled: db, web",
    )


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("words", "names", "said"),
    [
        (("--failed",), ["db", "web"], "1 stopped, 1 throttled: db, web"),
        (("--failed", "--run-id", "monday"), ["app", "db"], "1 throttled, 1 failed: app, db"),
        (("--run-id", "monday", "--dag-id", "fleet"), ["app", "big", "web"], "1 changed, 1 handed over, 1 failed: app"),
        (("--run-id", "tuesday"), ["app", "web"], "1 unchanged, 1 stopped: web"),
        (("--dag-id", "other"), ["db", "held"], "1 held, 1 throttled: db"),
        (("--dag-id", "other", "--failed"), ["db"], "1 throttled: db"),
        (
            ("--dag-id", "other", "--run-id", "tuesday"),
            [],
            "no mirror has been synced in DAG run 'tuesday' of DAG 'other'",
        ),
        (("--dag-id", "none"), [], "no mirror has been synced in DAG 'none'"),
        (("--failed", "--run-id", "mondya"), [], "no mirror has been synced in DAG run 'mondya'"),
    ],
)
def test_filters_together(listed: Listed, words: tuple[str, ...], names: list[str], said: str) -> None:
    found, beside = listed(*words)
    assert (list(found), beside) == (names, said)


def test_a_run_without_failures_says_so_and_nothing_synced_is_another_thing(database: Database, listed: Listed) -> None:
    assert listed() == ({}, "no mirror has been synced")
    assert listed("--failed") == ({}, "no mirror has been synced")
    database.mirror_results.record(RESULT)
    assert listed("--failed") == ({}, "no mirror failed")
    assert listed("--failed", "--run-id", "monday") == ({}, "no mirror failed in DAG run 'monday'")


@pytest.mark.usefixtures("results")
def test_a_row_says_what_a_program_needs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("fleet", "status", "--output", "json", "--run-id", "monday", "--dag-id", "fleet")
    app, big, _web = json.loads(capsys.readouterr().out)
    assert app == {
        "repository": "app",
        "outcome": "failed",
        "version": 7,
        "seconds": 1.7,
        "requests": 3,
        "received_bytes": 120,
        "held_tags": None,
        "finished_at": app["finished_at"],
        "error": "no route to it",
        "handed_over_to": None,
        "dag_id": "fleet",
        "run_id": "monday",
    }
    assert datetime.fromisoformat(app["finished_at"].replace("Z", "+00:00")) == RESULT.finished_at
    assert big["handed_over_to"] == "large__1"
    run("fleet", "status", "--run-id", "monday")
    assert "no route to it" in capsys.readouterr().out


def test_more_mirrors_than_a_page_has_are_all_listed(
    database: Database, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_context, "_PAGE", 3)
    for number in range(7):
        database.mirror_results.record(replace(RESULT, repository=f"app-{number}"))
    found, said = listed()
    assert list(found) == [f"app-{number}" for number in range(7)]
    assert said == "7 unchanged"


@pytest.mark.parametrize("words", [("--outcome", "failed"), ("--run-id",), ("monday",)])
def test_an_unknown_argument_ends_with_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("fleet", "status", *words)
    assert ended.value.code == 2
