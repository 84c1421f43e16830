"""Tasks of requests that were done at once, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.db.database import Database
from registry_sync.db.runs.finished_tasks import KEPT
from registry_sync.domain.runs import FinishedTask
from registry_sync.errors import RecordNotFound

_NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
TASK = FinishedTask(
    task_id="fcf03266-f0e4-4497-8434-0fe9d94c8053",
    name="registry_sync.update",
    triggered_by="ana",
    path_form="container",
    created_at=_NOON,
    started_at=_NOON,
    finished_at=_NOON + timedelta(milliseconds=3),
    created_resources=("/a/",),
    reserved_resources=("/b/", "/c/"),
    result={"removed": 3},
)


def test_a_task_is_kept_as_it_was(database: Database) -> None:
    database.finished_tasks.add(TASK)
    failed = replace(TASK, task_id="b", error="no \x00 space", result=None)
    database.finished_tasks.add(failed)
    assert database.finished_tasks.get(TASK.task_id) == TASK
    assert "space" in str(database.finished_tasks.get("b").error)
    with pytest.raises(RecordNotFound):
        database.finished_tasks.get("c")


def test_the_first_tasks_are_in_the_order_requested_with_their_number(database: Database) -> None:
    for minute, error in enumerate((None, "failed", None, None)):
        at = _NOON + timedelta(minutes=minute)
        database.finished_tasks.add(replace(TASK, task_id=str(minute), created_at=at, finished_at=at, error=error))
    assert [task.task_id for task in database.finished_tasks.first(2)[0]] == ["3", "2"]
    assert [task.task_id for task in database.finished_tasks.first(9, ordering="finished_at")[0]] == list("0123")
    assert database.finished_tasks.first(1, is_failed=[False])[1] == 3
    assert [task.task_id for task in database.finished_tasks.first(9, is_failed=[True])[0]] == ["1"]
    assert database.finished_tasks.first(9, is_failed=[]) == ([], 0)


def test_tasks_that_ended_long_ago_are_deleted(database: Database) -> None:
    database.finished_tasks.add(TASK)
    database.finished_tasks.add(replace(TASK, task_id="b", finished_at=TASK.finished_at + KEPT))
    assert database.finished_tasks.get(TASK.task_id)
    database.finished_tasks.add(replace(TASK, task_id="c", finished_at=TASK.finished_at + KEPT * 1.1))
    with pytest.raises(RecordNotFound):
        database.finished_tasks.get(TASK.task_id)
