"""Tasks as they are shown: what the DAG run and the record of the sync say together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunCounts, RunKey, RunState, SyncRun
from registry_sync.pulp.task_documents import ProgressReport, RequestedTask, SyncDagRun, TaskDocument, TaskState

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
DAG_RUN = SyncDagRun("fcf03266-f0e4-4497-8434-0fe9d94c8053", "registry_sync__x", TaskState.RUNNING, NOON, NOON)
RUN = SyncRun(
    id="run",
    key=RunKey("registry_sync", "registry_sync__x"),
    repository_id="1cc699b7-24fd-4944-bde7-86aed8ac12fa",
    remote_id="2cc699b7-24fd-4944-bde7-86aed8ac12fa",
    mode=SyncMode.MIRROR,
    remote=RemoteSpec.parse("hello", "https://registry.example", "library/hello-world"),
    state=RunState.RUNNING,
    started_at=NOON,
)
FETCHING = RunCounts(tag_count=8, pending_tag_count=3)
DOWNLOADING = RunCounts(tag_count=8, held_tag_count=1, blob_count=31, stored_blob_count=4)


def read(dag_run: SyncDagRun, run: SyncRun | None) -> TaskDocument:
    return TaskDocument.model_validate(RequestedTask(dag_run, run))


def reports(counts: RunCounts, *, listed: bool = True, state: TaskState = TaskState.RUNNING) -> list[ProgressReport]:
    run = replace(RUN, counts=counts, listed_at=NOON if listed else None)
    return read(replace(DAG_RUN, state=state), run).progress_reports


@pytest.mark.parametrize(
    ("counts", "listed", "expected"),
    [
        (RunCounts(), False, [("waiting", 0, 1), ("waiting", 0, None), ("waiting", 0, None)]),
        (FETCHING, True, [("completed", 1, 1), ("running", 5, 8), ("waiting", 0, None)]),
        (DOWNLOADING, True, [("completed", 1, 1), ("completed", 8, 8), ("running", 4, 31), ("completed", 1, 1)]),
    ],
)
def test_reports_say_how_far_a_sync_is(
    counts: RunCounts, listed: bool, expected: list[tuple[str, int, int | None]]
) -> None:
    assert [(report.state, report.done, report.total) for report in reports(counts, listed=listed)] == expected


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELED])
def test_what_had_not_ended_ends_as_the_task_did(state: TaskState) -> None:
    shown = reports(DOWNLOADING, state=state)
    assert [report.state for report in shown[:3]] == ["completed", "completed", state.value]


def test_a_sync_without_anything_new_has_done_all_of_nothing() -> None:
    shown = reports(RunCounts(), listed=False, state=TaskState.COMPLETED)
    assert [(report.state, report.done, report.total) for report in shown] == [
        ("completed", 1, 1), ("completed", 0, 0), ("completed", 0, 0),
    ]  # fmt: skip


def test_a_task_that_failed_without_a_record_names_the_tasks_whose_log_to_read() -> None:
    failed = replace(DAG_RUN, state=TaskState.FAILED, failed_tasks=("list_tags",))
    shown = read(failed, None)
    assert shown.error is not None
    assert "list_tags" in shown.error.description
    assert read(DAG_RUN, replace(RUN, error="an earlier try")).error is None


def test_a_sync_that_had_settled_before_it_was_canceled_is_completed() -> None:
    settled = replace(RUN, state=RunState.COMPLETED, version_number=3)
    shown = read(replace(DAG_RUN, state=TaskState.CANCELED), settled)
    assert shown.state is TaskState.COMPLETED
    assert shown.created_resources == [f"/pulp/api/v3/repositories/docker/docker/{RUN.repository_id}/versions/3/"]


def test_a_remote_that_was_deleted_is_not_named() -> None:
    shown = read(DAG_RUN, replace(RUN, remote_id=None))
    assert shown.reserved_resources_record == [f"/pulp/api/v3/repositories/docker/docker/{RUN.repository_id}/"]


def test_a_task_that_ran_again_names_the_versions_it_had_made_first() -> None:
    again = replace(RUN, state=RunState.UNCHANGED, made_before=((RUN.repository_id, 1), (RUN.repository_id, 2)))
    shown = read(replace(DAG_RUN, state=TaskState.COMPLETED), again)
    path = f"/pulp/api/v3/repositories/docker/docker/{RUN.repository_id}/versions"
    assert shown.created_resources == [f"{path}/1/", f"{path}/2/"]
