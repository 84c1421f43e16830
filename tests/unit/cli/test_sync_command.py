"""``sync``: what a run is started with, how it is followed, what is printed, and with which status it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.cli import run_commands, run_progress, sync_commands
from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import LOCAL_DAG_ID, ListedTag, RunKey, RunState
from registry_sync.errors import TooManyRemovals
from registry_sync.hooks.dag_runs import DagRunState
from support.commands import Run
from support.hostile_registry import HostileRegistry
from support.metadata import Upstream, image, open_run, play_stages, upstream_with
from support.metadata import sync as sync_to_end
from support.serving import serve
from support.shapes import documented_example

NAME = "team/app"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with HostileRegistry() as served:
        yield serve(served, NAME, documented_example())


# -- in this process ---------------------------------------------------------------------------------------------------


def test_a_local_sync_makes_a_version_and_a_second_one_says_that_nothing_changed(
    run: Run, database: Database, registry: HostileRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sync", "app", "--local", "--url", registry.base, "--upstream-name", NAME, "--output", "json")
    made = json.loads(capsys.readouterr().out)
    assert (made["is_new"], made["version"]["number"], made["version"]["tags"]) == (True, 1, 8)
    run("sync", "app", "--local")
    assert capsys.readouterr().out == "app: nothing changed, no version was made\n"
    run("run", "show", made["run_id"], "--output", "json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["dag_id"], shown["state"], shown["version"]) == (LOCAL_DAG_ID, "completed", 1)
    assert shown["requests"]["blob_get_count"] == len(documented_example().blobs)


@pytest.mark.slow
def test_a_local_dry_run_prints_the_plan_and_writes_nothing(
    run: Run, database: Database, registry: HostileRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sync", "app", "--local", "--dry-run", "--url", registry.base, "--upstream-name", NAME)
    run(*words, "--output", "json")
    plan = json.loads(capsys.readouterr().out)
    assert (plan["outcome"], plan["number"], plan["tags"]["added"]) == ("version", 1, 8)
    run(*words)
    assert "21 manifests, 31 blobs" in capsys.readouterr().out
    assert database.repositories.page().total_count == 0


def test_a_dry_run_that_would_stop_ends_with_status_1_and_every_reason(
    run: Run, database: Database, registry: HostileRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--url", registry.base, "--upstream-name", NAME)
    with pytest.raises(SystemExit) as ended:
        run("sync", "app", "--local", "--dry-run", *place, "--max-total-bytes", "5")
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert "LimitExceeded: this sync would store" in captured.err
    assert "refused" in captured.out


def test_what_is_logged_is_said_in_sentences(
    run: Run, database: Database, registry: HostileRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not as lines of a log with times and places in the code, on every sync from a plain registry."""
    run("sync", "app", "--url", registry.base, "--upstream-name", NAME, "--local", "--output", "json")
    captured = capsys.readouterr()
    first = captured.err.splitlines()[0]
    assert first == f"{registry.base.partition('://')[2]} is accessed over plain http, without a password"
    assert json.loads(captured.out)["is_new"]
    log = logging.getLogger("registry_sync")
    assert (log.propagate, log.handlers) == (True, [])


def test_where_to_sync_from_is_said_in_a_sentence(run: Run, database: Database) -> None:
    with pytest.raises(SystemExit, match=r"say where 'app' is synced from: --url and --upstream-name, such as"):
        run("sync", "app", "--local")
    with pytest.raises(SystemExit, match=r"upstream_name is missing .*--upstream-name of the command"):
        run("sync", "app", "--local", "--url", "https://quay.io")


# -- by a run of the DAG -----------------------------------------------------------------------------------------------


class Airflow:
    """Stands for Airflow: runs that are started, and their states one after another; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[dict[str, Any]] = []
        self.canceled: list[tuple[str, str]] = []
        self.states = [DagRunState("success")]
        self.plan: dict[str, Any] | None = None
        monkeypatch.setattr(sync_commands, "trigger_run", self._trigger)
        monkeypatch.setattr(sync_commands, "plan_of_run", lambda *_key: self.plan)
        monkeypatch.setattr(run_progress, "run_state", self._state)
        monkeypatch.setattr(run_commands, "run_state", self._state)
        monkeypatch.setattr(run_commands, "cancel_run", lambda dag, run, _note, by: self.canceled.append((dag, run)))
        monkeypatch.setattr(run_progress, "pause", lambda _seconds: None)

    def _trigger(self, dag_id: str, conf: dict[str, Any], user_name: str, *, by: str, run_id: str) -> str:
        assert run_id.startswith(f"sync__{conf['repository']}__20"), "what Airflow's list of runs shows"
        self.started.append({"dag_id": dag_id, "conf": conf, "by": by, "user": user_name})
        return "manual__1"

    def _state(self, _dag_id: str, _run_id: str) -> DagRunState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    return Airflow(monkeypatch)


def test_a_run_is_started_with_what_was_given_alone(run: Run, database: Database, api: Airflow) -> None:
    run("sync", "app", "--url", "https://quay.io", "--upstream-name", "libpod/alpine", "--tag", "3.*", "--platform",
        "linux/amd64", "--include-referrers", "false", "--publish-as", "alpine", "--dry-run", "--no-wait")  # fmt: skip
    (started,) = api.started
    assert (started["dag_id"], started["by"]) == ("registry_sync", "cli")
    assert started["conf"] == {
        "repository": "app", "mode": "mirror", "url": "https://quay.io", "upstream_name": "libpod/alpine",
        "tags": ["3.*"], "platforms": ["linux/amd64"], "include_referrers": "false", "publish_as": "alpine",
        "dry_run": True,
    }  # fmt: skip


def test_a_run_is_followed_and_its_version_printed(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    begun = open_run(database, repository, key=RunKey("registry_sync", "manual__1"))
    play_stages(database, begun, upstream)
    database.versions.commit(begun.id)
    api.states = [DagRunState("queued"), DagRunState("running"), DagRunState("success")]
    run("sync", "app", "--remote", database.remotes.page().items[0].spec.name, "--output", "json")
    captured = capsys.readouterr()
    ended = json.loads(captured.out)
    assert (ended["run_id"], ended["syncs"][0]["version"]["number"]) == ("manual__1", 1)
    assert captured.err.startswith("started the run manual__1 of registry_sync\n")


def test_the_phases_of_a_run_are_lines_where_there_is_no_terminal(
    run: Run, database: Database, api: Airflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = database.repositories.ensure("app")
    begun = open_run(database, repository, key=RunKey("registry_sync", "manual__1"))
    database.remotes.ensure(begun.remote)
    api.states = [DagRunState("running"), DagRunState("running"), DagRunState("failed", ("list_tags",), "why")]
    listed = [ListedTag(TagName("a"), None, 0)]
    monkeypatch.setattr(
        run_progress, "pause", lambda _seconds: database.runs.record_listing(begun.id, utc_now(), listed)
    )
    with pytest.raises(SystemExit, match="why"):
        run("sync", "app", "--remote", begun.remote.name)
    assert capsys.readouterr().err.splitlines()[1:] == ["listing tags", "reading manifests of tags"]


def test_a_failed_run_ends_with_the_reason_and_without_one_names_the_log(
    run: Run, database: Database, api: Airflow
) -> None:
    api.states = [DagRunState("failed", ("list_tags",), "TriggerRefused: too far")]
    with pytest.raises(SystemExit, match=r"^TriggerRefused: too far$"):
        run("sync", "app", "--url", "https://quay.io", "--upstream-name", "a")
    api.states = [DagRunState("failed", ("list_tags",))]
    with pytest.raises(SystemExit, match="the run manual__1 failed; the log of list_tags says why"):
        run("sync", "app", "--url", "https://quay.io", "--upstream-name", "a")


def test_a_run_that_waits_for_an_approval_is_not_followed_for_a_day(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with the reason; after an approval, which Airflow acts on a moment later, it is followed to its end."""
    repository = database.repositories.ensure("app")
    sync_to_end(database, repository, upstream_with(30))
    begun = open_run(database, repository, key=RunKey("registry_sync", "manual__1"))
    play_stages(database, begun, upstream_with(3))
    with pytest.raises(TooManyRemovals) as refused:
        database.versions.commit(begun.id)
    database.runs.report_waiting(begun.id, f"TooManyRemovals: {refused.value}")
    waiting = DagRunState("running", is_waiting=True)
    api.states = [DagRunState("running"), waiting]
    with pytest.raises(SystemExit, match="27 of 30 tags"):
        run("sync", "app", "--remote", begun.remote.name)
    with pytest.raises(SystemExit, match="27 of 30 tags"):
        run("run", "show", "manual__1", "--follow")
    database.runs.approve_removals(begun.id, "ana")
    database.versions.commit(begun.id)
    api.states = [waiting, waiting, DagRunState("success")]
    capsys.readouterr()
    run("run", "show", "manual__1", "--follow", "--output", "json")
    ended = json.loads(capsys.readouterr().out)
    assert (ended["state"], ended["syncs"][0]["version"]["number"]) == ("success", 2)


def test_an_interruption_says_that_the_run_goes_on_and_how_to_cancel_it(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    api.states = [DagRunState("running")]
    monkeypatch.setattr(run_progress, "pause", interrupted)
    with pytest.raises(SystemExit) as ended:
        run("sync", "app", "--url", "https://quay.io", "--upstream-name", "a")
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "the run manual__1 goes on" in said
    assert "To cancel it: airflow registry-sync run cancel 'manual__1' --dag-id registry_sync" in said


def test_a_run_that_waits_for_a_scheduler_says_so_once(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = DagRunState("queued", has_scheduler=False)
    api.states = [waiting] * 60 + [DagRunState("success")]
    run("sync", "app", "--url", "https://quay.io", "--upstream-name", "a")
    assert capsys.readouterr().err.count("no scheduler is running, so the run waits") == 1


def test_the_plan_of_a_dry_run_is_printed_from_its_run(
    run: Run, database: Database, api: Airflow, registry: HostileRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--url", registry.base, "--upstream-name", NAME)
    run("sync", "app", "--local", "--dry-run", *place, "--output", "json")
    api.plan = json.loads(capsys.readouterr().out)
    run("sync", "app", "--dry-run", *place, "--output", "json")
    assert json.loads(capsys.readouterr().out) == api.plan


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_is_canceled_in_airflow_and_here(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = database.repositories.ensure("app")
    begun = open_run(database, repository, key=RunKey("registry_sync", "manual__1"))
    run("run", "cancel", "manual__1", "--yes")
    assert api.canceled == [("registry_sync", "manual__1")]
    assert database.runs.get(begun.id).state is RunState.CANCELED
    assert "the run manual__1 is canceled" in capsys.readouterr().out


def test_a_local_run_is_canceled_by_its_record(run: Run, database: Database, api: Airflow) -> None:
    repository = database.repositories.ensure("app")
    begun = open_run(database, repository, key=RunKey(LOCAL_DAG_ID, "local__1__elsewhere__1"))
    run("run", "cancel", "local__1__elsewhere__1", "--yes")
    assert database.runs.get(begun.id).state is RunState.CANCELED
    with pytest.raises(SystemExit, match="has ended: it is canceled"):
        run("run", "cancel", "local__1__elsewhere__1", "--yes")
    with pytest.raises(SystemExit, match=r"there is no run 'local__2'"):
        run("run", "cancel", "local__2", "--yes")
    assert api.canceled == []


def test_a_run_without_a_sync_is_shown_by_its_state(
    run: Run, database: Database, api: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    api.states = [DagRunState("queued")]
    run("run", "show", "manual__1", "--output", "json")
    assert json.loads(capsys.readouterr().out) == {
        "run_id": "manual__1", "dag_id": "registry_sync", "state": "queued",
    }  # fmt: skip


def test_modes_are_those_of_syncs(run: Run, database: Database, api: Airflow) -> None:
    for mode in SyncMode:
        run("sync", "app", "--url", "https://quay.io", "--upstream-name", "a", "--mode", mode.value, "--no-wait")
    assert [started["conf"]["mode"] for started in api.started] == ["mirror", "additive"]
