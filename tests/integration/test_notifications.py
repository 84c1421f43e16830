"""People are told once of each state of a mirror, by a mail server and a webhook, whatever the number of runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from registry_sync.domain.quantities import utc_now
from registry_sync.operators import mirror_notifier
from registry_sync.operators.mirror_notifier import notify_of_passed_deadline
from support.dag_runs import FinishedRun, InProcessSync, runner_of
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry, refusal
from support.mirrors import small_repository
from support.recipients import MailServer, Webhook, connections, serving

DAG_FILE = Path(__file__).parents[2] / "dags" / "registry_sync_fleet.py"
FILE = """\
version: 1
defaults:
  retries: 0
  guard: {max_removed_tags: 0}
  notify:
    - {on: [changed, guard, failed], to: mail}
    - {on: guard, to: hook}
groups:
  told: {batch: true}
mirrors:
  - {repository: told/alone, source: SOURCE/team/alone}
  - {repository: told/first, source: SOURCE/team/first, group: told}
  - {repository: told/second, source: SOURCE/team/second, group: told}
"""


@pytest.fixture
def mails() -> Iterator[MailServer]:
    server = MailServer()
    with serving(server):
        yield server


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    with serving(server):
        yield server


@pytest.fixture
def registry() -> Iterator[MemoryRegistry]:
    with MemoryRegistry() as registry:
        for number, name in enumerate(("alone", "first", "second")):
            registry.serve(f"team/{name}", small_repository(number, tags=3))
        yield registry


@pytest.fixture
def run(
    sync_in_process: InProcessSync,
    registry: MemoryRegistry,
    mails: MailServer,
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], FinishedRun]]:
    """Runs a DAG of the fleet to its end."""
    with over_http(registry) as server:
        path = tmp_path / "mirrors.yaml"
        path.write_text(FILE.replace("SOURCE", str(server.url)))
        monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", str(path))
        for name, value in connections(mails, webhook).items():
            monkeypatch.setenv(name, value)
        yield runner_of(DAG_FILE.read_text(encoding="utf-8"), tmp_path / "dags", monkeypatch)


def test_a_mirror_in_stages_tells_each_state_once(
    run: Callable[[str], FinishedRun], registry: MemoryRegistry, mails: MailServer, webhook: Webhook
) -> None:
    assert run("mirror.told.alone").state == "success"
    (changed,) = mails.texts()
    assert "registry-sync: told/alone changed" in changed
    assert "version 1: 3 tags added: 1.0 added, 1.1 added, 1.2 added" in changed
    assert run("mirror.told.alone").state == "success"
    assert len(mails.mails) == 1
    registry.serve("team/alone", small_repository(0, tags=1))
    for _ in range(2):
        assert run("mirror.told.alone").state == "failed"
        assert len(mails.mails) == 2
        assert [state["state"] for post in webhook.posted for state in post["states"]] == ["guard"]
    assert "was stopped by its guard" in mails.texts()[1]
    assert "airflow registry-sync run approve" in mails.texts()[1]


def test_a_group_tells_what_is_new_of_its_mirrors_in_one_message(
    run: Callable[[str], FinishedRun], registry: MemoryRegistry, mails: MailServer, webhook: Webhook
) -> None:
    assert run("mirrors.told").state == "success"
    (both,) = mails.texts()
    assert "2 states of mirrors: 2 changed" in both
    registry.serve("team/first", small_repository(1, tags=1))
    registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository="team/second")
    webhook.status = 500
    assert run("mirrors.told").state == "failed"
    assert len(webhook.posted) == 1
    webhook.status = 204
    assert run("mirrors.told").state == "failed"
    assert len(mails.mails) == 2
    assert "1 guard, 1 failed" in mails.texts()[1]
    assert "told/second failed: NotFound" in mails.texts()[1]
    posted = [[(state["repository"], state["state"]) for state in post["states"]] for post in webhook.posted]
    assert posted == [[("told/first", "guard")]] * 2  # the second time because it had refused the first


def test_a_passed_deadline_is_about_the_age_of_what_is_stored_and_reported_once(
    run: Callable[[str], FinishedRun], webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Airflow calls it: with the DAG run alone, and whether or not a later run has succeeded meanwhile."""
    assert run("mirrors.told").state == "success"
    # Not before: Airflow's dag.test() cannot end a run that has a deadline.
    file = tmp_path / "mirrors.yaml"
    file.write_text(
        file.read_text().replace("on: guard", "on: [guard, stale]").replace("  retries", "  freshness: 1d\n  retries")
    )
    passed = {"dag_run": {"dag_id": "mirrors.told"}, "deadline": {"deadline_time": "any"}}
    notify_of_passed_deadline(passed)
    assert webhook.posted == []
    monkeypatch.setattr(mirror_notifier, "utc_now", lambda: utc_now() + timedelta(days=2))
    for _ in range(2):
        notify_of_passed_deadline(passed)
    (post,) = webhook.posted
    assert [(one["repository"], one["state"]) for one in post["states"]] == [
        ("told/first", "stale"),
        ("told/second", "stale"),
    ]


def test_mirrors_whose_runs_never_start_are_found_by_the_check_of_ages_once(
    run: Callable[[str], FinishedRun],
    mails: MailServer,
    webhook: Webhook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("mirrors.told").state == "success"
    file = tmp_path / "mirrors.yaml"
    stale = "on: [guard, stale]"
    file.write_text(file.read_text().replace("on: guard", stale).replace("  retries", "  freshness: 1d\n  retries"))
    checked = run("registry_sync_fleet_freshness")
    assert (checked.state, checked.xcom("check_ages")["stale"], webhook.posted) == ("success", 0, [])
    monkeypatch.setattr(mirror_notifier, "utc_now", lambda: utc_now() + timedelta(days=2))
    for _ in range(2):
        checked = run("registry_sync_fleet_freshness")
        assert checked.xcom("check_ages") == {"stale": 3, "mirrors": ["told/alone", "told/first", "told/second"]}
    (post,) = webhook.posted
    assert [(one["repository"], one["state"]) for one in post["states"]] == [
        ("told/alone", "stale"),  # of which there was no sync at all
        ("told/first", "stale"),
        ("told/second", "stale"),
    ]
    assert "there was no successful sync for 2 d" in post["states"][0]["detail"]
    assert len(mails.mails) == 1, "who asked for other states hears nothing"


def test_a_mirror_that_is_handed_over_to_the_sync_dag_tells_its_states(
    run: Callable[..., FinishedRun], registry: MemoryRegistry, mails: MailServer, tmp_path: Path
) -> None:
    """As the task of many mirrors starts it: the repository and its remote, which exist."""
    shutil.copy(DAG_FILE.with_name("registry_sync.py"), tmp_path / "dags")
    assert run("mirrors.told").state == "success"
    assert len(mails.mails) == 1
    registry.serve("team/first", small_repository(7, tags=4))
    handed_over = {"repository": "told/first", "remote": "told/first", "mode": "mirror"}
    for _ in range(2):
        assert run("registry_sync", **handed_over).state == "success"
        assert len(mails.mails) == 2
    assert "registry-sync: told/first changed" in mails.texts()[1]
