"""The commands below ``airflow registry-sync``, as Airflow's own parser reads and runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import registry_sync
from registry_sync.cli import get_cli_commands
from registry_sync.db.database import Database
from registry_sync.domain.records import RepositorySpec
from registry_sync.domain.remote import RemoteSpec
from support.commands import Run
from support.metadata import Upstream, image, sync
from support.ready_databases import filled


def test_check_fails_and_says_why_before_the_database_is_made(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="does not exist yet"):
        run("db", "check", "--output", "json")
    state = json.loads(capsys.readouterr().out)
    assert (state["schema"], state["is_usable"]) == (None, False)


@pytest.mark.slow
def test_upgrade_makes_a_database_that_check_approves_of(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("db", "upgrade")
    run("db", "upgrade")
    needed = Database.needed_revision
    assert f"is at schema {needed}" in capsys.readouterr().out
    run("db", "check", "--output", "json")
    state = json.loads(capsys.readouterr().out)
    assert (state["schema"], state["needed_schema"], state["is_usable"]) == (needed, needed, True)


@pytest.mark.slow
def test_downgrade_asks_first_and_does_nothing_without_a_yes(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("db", "upgrade")
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("db", "downgrade", "--to-revision", "base")
    with Database.connect(url) as database:
        database.check()
    run("db", "downgrade", "--to-revision", "base", "--yes")
    with Database.connect(url) as database:
        assert database.revision() is None


def with_a_held_tag(database: Database) -> None:
    """``hello`` with ``latest``; ``bad`` is held."""
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    upstream.tag("bad", image("b"))
    sync(database, database.repositories.ensure("hello"), upstream, held={"bad": "no such blob"})


def test_repositories_and_versions_are_listed_for_programs(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(database, with_a_held_tag)

    run("repository", "list", "-o", "json")
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["latest_version"]) == ("hello", 1)
    run("version", "list", "hello", "-o", "json")
    (version,) = json.loads(capsys.readouterr().out)
    assert (version["number"], version["tags"], version["held_tags"]) == (1, 1, 1)
    run("version", "show", "hello", "-o", "json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["content_summary"]["added"] == {"docker.blob": 2, "docker.manifest": 1, "docker.tag": 1}
    assert shown["holds"] == [{"tag": "bad", "kept_digest": None, "reason": "no such blob"}]
    assert shown["dag_run"].startswith("manual__")
    assert (shown["triggered_by"], shown["removals_approved_by"]) == (None, None)


def test_a_version_is_shown_as_tables_for_people(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(database, with_a_held_tag)
    run("version", "show", "hello", "1")
    out = capsys.readouterr().out
    assert "docker.manifest" in out
    assert "no such blob" in out


def test_repositories_remotes_and_runs_are_found_and_shown(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.repositories.create(RepositorySpec("hello", "says hello", 3, {"team": "x"}))
    database.repositories.ensure("other")
    spec = RemoteSpec.parse(
        "hub", "https://registry.example", "library/app", include_tags=("3.*",), conn_id="hub_account"
    )
    database.remotes.ensure(spec)
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    sync(database, database.repositories.by_name("hello"), upstream)

    def printed(*words: str) -> Any:
        run(*words, "-o", "json")
        return json.loads(capsys.readouterr().out)

    assert [row["name"] for row in printed("repository", "list", "--name", "HELL")] == ["hello"]
    shown = printed("repository", "show", "hello")
    assert (shown["description"], shown["retain_versions"], shown["labels"]) == ("says hello", 3, {"team": "x"})
    assert (shown["tags"], shown["manifests"], shown["blobs"]) == (1, 1, 2)
    assert [row["name"] for row in printed("remote", "list")] == ["hub", "upstream"]
    remote = printed("remote", "show", "hub")
    assert remote["include_tags"] == ["3.*"]
    assert {field.name for field in fields(RemoteSpec)} <= remote.keys()
    (listed,) = printed("run", "list", "hello")
    assert (listed["repository"], listed["state"], listed["version"]) == ("hello", "completed", 1)
    assert printed("run", "list", "hello", "--state", "failed") == []
    assert printed("run", "list", "other") == []


def test_a_version_is_described_and_labels_are_set_and_removed(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, upstream = database.repositories.ensure("hello"), Upstream()
    upstream.tag("latest", image("a"))
    sync(database, repository, upstream)

    def described(*words: str) -> tuple[str | None, dict[str, str]]:
        run("version", "describe", "hello", "1", *words, "-o", "json")
        shown = json.loads(capsys.readouterr().out)
        return shown["description"], shown["labels"]

    assert described("--description", "tested", "--label", "stage=test", "--label", "a=b=c") == (
        "tested",
        {"stage": "test", "a": "b=c"},
    )
    assert described("--label", "stage=") == ("tested", {"a": "b=c"})
    assert described("--description", "") == (None, {"a": "b=c"})
    assert database.versions.get(repository.id, 1).labels == {"a": "b=c"}


@pytest.mark.parametrize("text", ["stage", "=x", "a=\n", "x" * 256 + "=y"])
def test_a_label_that_is_none_is_refused(run: Run, text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run("version", "describe", "hello", "1", "--label", text)
    assert ended.value.code == 2


def test_content_reports_where_it_came_from_and_who_holds_it(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    for name in ("one", "two"):
        sync(database, database.repositories.ensure(name), upstream)
    upstream.tag("latest", image("b"))
    sync(database, database.repositories.by_name("two"), upstream)
    manifest = image("a")
    database.contents.mark_missing([manifest.layers[0].digest])
    database.contents.mark_stored([manifest.layers[0].digest], source="registry.example/library/app")

    def shown(digest: str) -> Any:
        run("content", "show", digest, "-o", "json")
        return json.loads(capsys.readouterr().out)

    holders = [
        {"repository": "one", "first_version": 1, "is_in_latest": True},
        {"repository": "two", "first_version": 1, "is_in_latest": False},
    ]
    of_manifest, of_blob = shown(manifest.digest), shown(manifest.layers[0].digest)
    assert (of_manifest["kind"], of_manifest["size_bytes"], of_manifest["holders"]) == (
        "manifest",
        manifest.size_bytes,
        holders,
    )
    assert (of_blob["kind"], of_blob["source"], of_blob["holders"]) == (
        "blob",
        "registry.example/library/app",
        holders,
    )
    assert of_blob["stored_at"] is not None
    run("content", "show", manifest.digest)
    assert manifest.digest in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("repository", "show", "nowhere"), "RecordNotFound: there is no repository 'nowhere'"),
        (("remote", "show", "nowhere"), "RecordNotFound: there is no remote 'nowhere'"),
        (("content", "show", f"sha256:{'0' * 64}"), "RecordNotFound: no manifest or blob sha256:0"),
        (("content", "show", "latest"), "InvalidReference: "),
        (("version", "describe", "empty", "7"), "there is no version 7 of repository 'empty'"),
        (("run", "list", "nowhere"), "RecordNotFound: there is no repository 'nowhere'"),
        (("run", "approve", "manual__1"), "RecordNotFound: there is no sync of DAG run 'manual__1'"),
        (("version", "show", "nowhere"), "RecordNotFound: there is no repository 'nowhere'"),
        (("version", "list", "nowhere"), "RecordNotFound: there is no repository 'nowhere'"),
        (("version", "show", "empty"), "has no version yet"),
        (("version", "show", "empty", "7"), "there is no version 7"),
        (("db", "downgrade", "-r", "9999", "-y"), "cannot be migrated"),
    ],
)
def test_what_is_missing_ends_a_command_with_a_message(
    run: Run, database: Database, words: tuple[str, ...], said: str
) -> None:
    database.repositories.ensure("empty")
    with pytest.raises(SystemExit, match=said):
        run(*words)


def test_loading_the_commands_loads_neither_the_database_nor_the_registry_client() -> None:
    script = (
        "import sys; import registry_sync.cli; "
        "print(*sorted({'sqlalchemy', 'alembic', 'requests', 'airflow'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(Path(registry_sync.__file__).parents[1])}
    loaded = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def _last_words(script: str) -> list[str]:
    """The words of the last line that a script prints in an interpreter of its own."""
    path = str(Path(registry_sync.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()


@pytest.mark.slow
def test_the_tree_of_commands_is_made_without_what_the_commands_require() -> None:
    """Every ``airflow`` command makes it."""
    script = (
        "import sys; from registry_sync.cli import get_cli_commands; get_cli_commands(); "
        "print(*sorted(name for name in sys.modules if name.startswith('registry_sync.')))"
    )
    assert set(_last_words(script)) - {"registry_sync.provider"} == {
        "registry_sync.cli",
        "registry_sync.cli.arguments",
        "registry_sync.cli.commands",
        "registry_sync.errors",
        "registry_sync.pulp",
        "registry_sync.pulp.hrefs",
        "registry_sync.pulp.path_forms",
    }


@pytest.mark.slow
def test_no_command_loads_what_only_a_few_of_them_use_before_it_does() -> None:
    """A command starts as fast as Airflow's own: what its parser has not loaded takes further time."""
    script = (
        "import importlib, pkgutil, sys; from airflow.cli.cli_parser import get_parser; get_parser(); "
        "import registry_sync.cli; known = set(sys.modules); "
        "names = [module.name for module in pkgutil.iter_modules(registry_sync.cli.__path__)]; "
        "[importlib.import_module(f'registry_sync.cli.{name}') for name in names]; "
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - known} - set(sys.stdlib_module_names)))"
    )
    assert set(_last_words(script)) <= {"registry_sync", "airflow"}


def test_a_state_that_no_run_has_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("run", "list", "--state", "done")
    assert ended.value.code == 2
    assert "they are running, completed, unchanged, failed, canceled" in capsys.readouterr().err


def test_the_provider_offers_the_commands_to_airflow() -> None:
    from registry_sync.provider import get_provider_info

    assert get_provider_info()["cli"] == ["registry_sync.cli.get_cli_commands"]
    assert [command.name for command in get_cli_commands()] == ["registry-sync"]


@pytest.mark.parametrize("text", ["many", "-1", "nan", "1e9"])
def test_an_amount_that_is_none_is_refused(run: Run, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("verify", f"--mib-per-second={text}")
    assert f"'{text}' is not a number from 0 to 1,000,000" in capsys.readouterr().err
