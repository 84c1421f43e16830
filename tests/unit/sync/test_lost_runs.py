"""Syncs that are said to be running, held against what Airflow says of their DAG runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.runs import DagRunEnd, RunState, SyncRun
from registry_sync.sync.maintenance.collect import end_lost_runs
from support.metadata import open_run
from support.ready_databases import ready_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


@pytest.mark.parametrize(
    ("end", "state", "why"),
    [
        (DagRunEnd.FAILED, RunState.FAILED, "marked as failed, timed out, or lost its worker"),
        (DagRunEnd.SUCCESS, RunState.FAILED, "made no version"),
        (DagRunEnd.CANCELED, RunState.CANCELED, "canceled"),
        (DagRunEnd.GONE, RunState.CANCELED, "was deleted in Airflow"),
    ],
)
def test_a_sync_whose_dag_run_has_ended_ends_too_and_says_how(
    database: Database, end: DagRunEnd, state: RunState, why: str
) -> None:
    lines: list[str] = []
    run = open_run(database, database.repositories.ensure("app"))
    for count in (1, 0):
        assert end_lost_runs(database.run_ends, lambda _run: end, report=lines.append) == count
    ended = database.runs.get(run.id)
    assert (ended.state, len(lines)) == (state, 1)
    assert ended.finished_at is not None
    assert why in (ended.error or "")
    assert why in lines[0]


def test_a_sync_that_goes_on_and_those_of_others_are_left_alone(database: Database) -> None:
    mine, others = database.repositories.ensure("mine"), database.repositories.ensure("others")
    going_on, own, lost = (open_run(database, mine) for _ in range(3))
    open_run(database, others)
    asked: list[str] = []

    def end_of(run: SyncRun) -> DagRunEnd | None:
        asked.append(run.id)
        return DagRunEnd.FAILED if run.id == lost.id else None

    assert end_lost_runs(database.run_ends, end_of, report=str, repository_id=mine.id, without=own.id) == 1
    assert sorted(asked) == sorted([going_on.id, lost.id])
    assert [run.state for run in database.runs.page().items].count(RunState.RUNNING) == 3
