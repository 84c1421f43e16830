"""Commands about distributions and robots."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import PageRequest, Repository
from support.commands import Run
from support.metadata import two_versions


@pytest.fixture
def repository(database: Database) -> Repository:
    return two_versions(database, "app")


def _printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_distribution_is_made_shown_moved_and_deleted(
    run: Run, database: Database, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distribution", "create", "app", "--output", "json")
    made = _printed(capsys)
    assert {name: made[name] for name in ("name", "base_path", "repository", "version", "access")} == {
        "name": "app",
        "base_path": "app",
        "repository": "app",
        "version": "latest",
        "access": "private",
    }
    run("distribution", "update", "app", "--number", "1", "--public", "--base-path", "team/app")
    capsys.readouterr()
    run("distribution", "show", "app", "--output", "json")
    shown = _printed(capsys)
    assert (shown["base_path"], shown["version"], shown["access"]) == ("team/app", 1, "public")
    run("distribution", "update", "app", "--latest", "--private")
    capsys.readouterr()
    run("distribution", "list", "--output", "json")
    listed = _printed(capsys)[0]
    assert (listed["version"], listed["access"]) == ("latest", "private")
    run("distribution", "delete", "app", "--yes")
    assert "the repository stays" in capsys.readouterr().out
    assert database.distributions.page().total_count == 0


def test_a_distribution_says_what_it_cannot_serve(run: Run, repository: Repository) -> None:
    with pytest.raises(SystemExit, match="RecordNotFound: there is no repository 'other'"):
        run("distribution", "create", "other")
    with pytest.raises(SystemExit, match=r"RecordNotFound: .*version 9"):
        run("distribution", "create", "app", "--number", "9")
    with pytest.raises(SystemExit, match="InvalidReference: 'App' is not a repository name"):
        run("distribution", "create", "app", "--base-path", "App")


def test_a_robots_secret_is_printed_once(run: Run, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    run("robot", "create", "ci", "--scope", "team/*", "--days", "30", "--output", "json")
    made = _printed(capsys)
    robot = database.robots.authenticate("ci", made["secret"])
    assert robot is not None
    assert robot.scopes == ("team/*",)
    assert robot.expires_at is not None
    run("robot", "list", "--output", "json")
    said = capsys.readouterr().out
    assert made["secret"] not in said
    assert json.loads(said)[0]["name"] == "ci"
    run("robot", "revoke", "ci", "--yes")
    assert database.robots.authenticate("ci", made["secret"]) is None


def test_every_robot_is_listed(run: Run, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"robot-{number:04}" for number in range(PageRequest().limit + 1)]
    for name in names:
        database.robots.create(name, ["*"])
    run("robot", "list", "--output", "json")
    assert [robot["name"] for robot in _printed(capsys)] == names


@pytest.mark.usefixtures("database")
def test_serve_says_what_is_missing_before_it_begins(run: Run) -> None:
    with pytest.raises(SystemExit, match="ConfigurationError: TLS needs both a certificate and its key"):
        run("serve", "--certificate", "/nowhere/cert.pem")
    with pytest.raises(SystemExit, match=r"ConfigurationError: there is no file /nowhere/cert\.pem"):
        run("serve", "--certificate", "/nowhere/cert.pem", "--key", "/nowhere/key.pem")
