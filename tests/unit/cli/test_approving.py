"""Removals of a stopped run approved by a command; that the run continues is tried in a real Airflow (tests/e2e)."""

from __future__ import annotations

import getpass
import json

import pytest

from registry_sync.cli import command_context, run_commands
from registry_sync.db.database import Database
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.runs import RunKey, RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import RecordNotFound, TooManyRemovals
from support.commands import Run
from support.metadata import Upstream, image, open_run, play_stages, sync, upstream_with

KEY = RunKey("mirror", "manual__1")


@pytest.fixture
def stopped(database: Database) -> SyncRun:
    """A run that would remove 27 of 30 tags, and has failed."""
    repository = database.repositories.ensure("hello")
    sync(database, repository, upstream_with(30))
    run = open_run(database, repository, key=KEY)
    play_stages(database, run, upstream_with(3))
    with pytest.raises(TooManyRemovals) as refused:
        database.versions.commit(run.id)
    database.runs.finish(run.id, RunState.FAILED, error=f"TooManyRemovals: {refused.value}")
    return run


@pytest.mark.slow
def test_the_reason_is_shown_and_nothing_is_approved_without_a_yes(
    run: Run, database: Database, stopped: SyncRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("run", "approve", "manual__1", "--dag-id", "mirror")
    assert "27 of 30 tags" in capsys.readouterr().err
    assert questions == ["Let manual__1 remove these tags from hello? [y/N] "]
    with pytest.raises(TooManyRemovals):
        database.versions.commit(stopped.id)


def test_where_airflow_cannot_be_reached_the_approval_stands_and_what_is_left_to_do_is_said(
    run: Run, database: Database, stopped: SyncRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_dag_id: str, _run_id: str, **_approval: object) -> int:
        raise ConnectionRefusedError("no such host")

    monkeypatch.setattr(run_commands, "continue_run", unreachable)
    with pytest.raises(SystemExit, match=r"are approved, .*no such host.*clear its failed CommitVersionOperator"):
        run("run", "approve", "manual__1", "--dag-id", "mirror", "--yes")
    assert database.versions.commit(stopped.id).counts["removed"]["docker.tag"] == 27


def test_a_run_that_airflow_does_not_know_any_more_is_reported(
    run: Run, stopped: SyncRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_dag_id: str, _run_id: str, **_approval: object) -> int:
        raise RecordNotFound("Airflow has no run")

    monkeypatch.setattr(run_commands, "continue_run", unknown)
    with pytest.raises(SystemExit, match="RecordNotFound: Airflow has no run"):
        run("run", "approve", "manual__1", "--dag-id", "mirror", "--yes")


def test_a_run_that_has_settled_is_not_approved(run: Run, database: Database, stopped: SyncRun) -> None:
    database.runs.approve_removals(stopped.id, "anna")
    database.versions.commit(stopped.id)
    with pytest.raises(SystemExit, match="RunEnded: "):
        run("run", "approve", "manual__1", "--dag-id", "mirror", "--yes")


def test_a_run_that_was_not_stopped_is_not_confirmed_and_what_to_do_is_said(
    run: Run, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_question: str) -> str:
        raise AssertionError("there is nothing to ask about")

    monkeypatch.setattr("builtins.input", ask)
    open_run(database, database.repositories.ensure("hello"), key=KEY)
    with pytest.raises(SystemExit, match=r"NothingToApprove: .*'manual__1' was not stopped.*approve them then"):
        run("run", "approve", "manual__1", "--dag-id", "mirror")


def test_other_removals_than_those_that_were_shown_are_not_approved(
    run: Run, database: Database, stopped: SyncRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_again(_question: str) -> str:
        """While the person reads, a tag comes from elsewhere and the run is cleared."""
        source, upstream = database.repositories.ensure("staging"), Upstream()
        upstream.tag("promoted", image("promoted"))
        sync(database, source, upstream)
        request = CopyRequest(source.id, None, TagFilter.parse(["promoted"]), SyncMode.ADDITIVE)
        database.versions.copy(stopped.repository_id, request)
        with pytest.raises(TooManyRemovals):
            database.versions.commit(stopped.id)
        return "y"

    monkeypatch.setattr("builtins.input", stop_again)
    with pytest.raises(SystemExit, match=r"NothingToApprove: .*stopped again since, for other tags"):
        run("run", "approve", "manual__1", "--dag-id", "mirror")
    assert database.runs.get(stopped.id).removals_approved_by is None


@pytest.mark.parametrize(
    ("count", "said"), [(0, "no task of it waits or has failed"), (2, "2 tasks of it will run again, once a scheduler")]
)
def test_what_happens_next_is_said(
    run: Run,
    stopped: SyncRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    said: str,
) -> None:
    approvals: list[dict[str, object]] = []
    monkeypatch.setattr(
        run_commands, "continue_run", lambda _dag_id, _run_id, **approval: approvals.append(approval) or count
    )
    run("run", "approve", "manual__1", "--dag-id", "mirror", "--yes")
    assert f"the removals of manual__1 are approved; {said}" in capsys.readouterr().out
    assert approvals == [{"approved": [stopped.id], "approved_by": getpass.getuser()}]
    run("run", "list", "-o", "json")
    (listed,) = [row for row in json.loads(capsys.readouterr().out) if row["run_id"] == "manual__1"]
    assert listed["removals_approved_by"] == getpass.getuser()
    assert listed["removals_approved_at"] >= listed["started_at"]


@pytest.mark.parametrize("problem", [ConnectionRefusedError("no such host"), RecordNotFound("Airflow has no run")])
def test_a_command_goes_on_where_airflow_cannot_say_whether_a_sync_still_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: Exception
) -> None:
    def unreachable(_key: RunKey) -> None:
        raise problem

    monkeypatch.setattr(command_context, "run_end", unreachable)
    running = open_run(database, database.repositories.ensure("hello"), key=KEY)
    if isinstance(problem, RecordNotFound):
        with pytest.raises(RecordNotFound):
            command_context.end_lost(database)
    else:
        command_context.end_lost(database)
        assert "could not be queried for the state of running syncs (ConnectionRefusedError)" in capsys.readouterr().err
    assert not database.runs.get(running.id).state.is_settled
