"""Commands about distributions and robots."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from registry_sync.cli import arguments
from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest, Repository
from registry_sync.domain.serving import DistributionSpec
from registry_sync.serve.server import ServerOptions
from support.commands import Run
from support.metadata import two_versions
from support.ready_databases import filled
from support.statements import executed_statements


@pytest.fixture
def repository(database: Database) -> Repository:
    return filled(database, two_versions, "app")


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


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("days", ["0", "-1", "nan", "soon"])
def test_a_robot_that_would_have_expired_is_not_made(run: Run, days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("robot", "create", "ci", "--scope", "team/*", f"--days={days}")
    assert "argument --days" in capsys.readouterr().err


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


def test_a_list_of_distributions_costs_one_query_for_their_repositories(
    run: Run, database: Database, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        database.distributions.create(DistributionSpec(f"app-{number}", f"app-{number}", repository.id))
    database.distributions.create(DistributionSpec("nothing", "nothing"))
    with executed_statements() as statements:
        run("distribution", "list", "--output", "json")
    assert [(row["name"], row["repository"]) for row in _printed(capsys)] == [
        ("app-0", "app"), ("app-1", "app"), ("app-2", "app"), ("nothing", None),
    ]  # fmt: skip
    assert len([statement for statement in statements if "FROM repositories" in statement]) == 1


@pytest.mark.parametrize("name", ["port", "workers"])
def test_the_command_serves_by_the_defaults_of_the_server(name: str) -> None:
    """It states them itself, because every ``airflow`` command loads it and none needs the server."""
    (option,) = (arg for arg in (arguments.PORT, arguments.WORKERS) if arg.flags == (f"--{name}",))
    (default,) = (field.default for field in fields(ServerOptions) if field.name == name)
    assert option.kwargs["default"] == default
    assert f"(default: {default})" in option.kwargs["help"]


def test_tags_are_listed_by_their_last_pull_what_nobody_pulled_first(
    run: Run, database: Database, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    now = utc_now()
    run("repository", "pulls", "app")
    assert "last pulled" in capsys.readouterr().out
    pulls = {"latest": now - timedelta(days=100), "new": now}
    database.last_pulls.record({(repository.id, tag): at for tag, at in pulls.items()})
    run("repository", "pulls", "app", "--output", "json")
    assert [row["tag"] for row in _printed(capsys)] == ["latest", "new"]
    run("repository", "pulls", "app", "--unused-days", "90", "--output", "json")
    (unused,) = _printed(capsys)
    assert (unused["tag"], unused["digest"][:7]) == ("latest", "sha256:")
    assert unused["last_pulled"].startswith(str(pulls["latest"].date()))
    run("repository", "pulls", "app", "--unused-days", "101", "--output", "json")
    assert _printed(capsys) == []
