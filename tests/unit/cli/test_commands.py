"""The commands below ``airflow registry-sync``, as Airflow's own parser reads and runs them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

import registry_sync
from registry_sync.cli import get_cli_commands
from registry_sync.db.database import Database
from registry_sync.domain.records import RepositorySpec
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey, RunState
from support.commands import Run
from support.metadata import Upstream, image, open_run, sync
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
    header, _, version, *_ = out.splitlines()
    assert header.split(" | ")[0] == "number"
    assert version.split()[0] == "1", "which version it is, as the latest is shown without a number"
    assert "docker.manifest" in out
    assert "no such blob" in out
    with pytest.raises(SystemExit, match="there is no version 9 of repository 'hello'"):
        run("version", "diff", "hello", "--base", "9")


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
    (shown,) = printed("run", "show", listed["run_id"], "--dag-id", listed["dag_id"])
    assert shown["listed_and_gone_tag_count"] == 0, "another number than that of a refusal of removals"
    assert printed("run", "list", "hello", "--state", "failed") == []
    assert printed("run", "list", "other") == []


@pytest.mark.slow
def test_runs_are_listed_in_lines_with_the_names_of_their_errors(
    run: Run, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence in a narrow column takes a screen; ``run show`` and the other formats have it."""
    monkeypatch.setenv("COLUMNS", "80")
    repository = database.repositories.ensure("hello")
    long = f"{'team/' * 49}app-of-one"
    database.repositories.ensure(long)
    open_run(database, database.repositories.by_name(long), key=RunKey("registry_sync", "manual__0"))
    run("run", "list")
    *_, row, _ = capsys.readouterr().out.splitlines()
    assert row.startswith("team/team/team/team/tea\N{HORIZONTAL ELLIPSIS}/team/app-of-one | running"), "in one line"
    sentence = "TooManyRemovals: 3 of 4 tags are gone upstream, more than the remote allows: " + "v1, " * 100
    key = RunKey("registry_sync", "manual__1")
    database.runs.finish(open_run(database, repository, key=key).id, RunState.FAILED, error=sentence)
    run("run", "list", "hello")
    printed = capsys.readouterr()
    header, _, row, *rest = printed.out.splitlines()
    assert [cell.strip() for cell in header.split("|")][-2:] == ["error", "run id"], "and no dag id: it is the assumed"
    assert [cell.strip() for cell in row.split("|")][-2:] == ["TooManyRemovals", "manual__1"]
    assert not "".join(rest).strip()
    assert "why a sync has stopped or failed: airflow registry-sync run show RUN_ID" in printed.err
    run("run", "list", "hello", "-o", "json")
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["error"], listed["dag_id"]) == (sentence, "registry_sync")


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


def test_what_airflows_database_lacks_ends_a_command_with_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("no such table: dag"))

    monkeypatch.setattr("registry_sync.cli.sync_commands.trigger_run", fail)
    words = ("sync", "app", "--url", "https://registry.example", "--upstream-name", "app")
    with pytest.raises(SystemExit, match=r"^DatabaseOutdated: Airflow's own .*no such table: dag.*airflow db migrate$"):
        run(*words)


def test_loading_the_commands_loads_neither_the_database_nor_the_registry_client() -> None:
    script = (
        "import sys; import registry_sync.cli; "
        "print(*sorted({'sqlalchemy', 'alembic', 'requests', 'airflow'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(Path(registry_sync.__file__).parents[1])}
    loaded = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


#: Prints what it has loaded for the tree of commands, and then what the commands load that Airflow's parser has not.
_LOADS = """
import importlib, pkgutil, sys
from registry_sync.cli import get_cli_commands
get_cli_commands()
print("tree", *sorted(name for name in sys.modules if name.startswith("registry_sync.")))
from airflow.cli.cli_parser import get_parser
get_parser()
known = set(sys.modules)
for module in pkgutil.iter_modules(sys.modules["registry_sync.cli"].__path__):
    importlib.import_module(f"registry_sync.cli.{module.name}")
print("commands", *{name.partition(".")[0] for name in set(sys.modules) - known} - set(sys.stdlib_module_names))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What an interpreter of its own has loaded, by the word before it."""
    path = str(Path(registry_sync.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", _LOADS],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("tree", "commands"))]
    return {word: set(names) for word, *names in lines}


@pytest.mark.slow
def test_the_tree_of_commands_is_made_without_what_the_commands_require(loaded: dict[str, set[str]]) -> None:
    """Every ``airflow`` command makes it."""
    assert loaded["tree"] - {"registry_sync.provider"} == {
        "registry_sync.cli",
        "registry_sync.cli.arguments",
        "registry_sync.cli.commands",
        "registry_sync.errors",
        "registry_sync.pulp",
        "registry_sync.pulp.hrefs",
        "registry_sync.pulp.path_forms",
    }


@pytest.mark.slow
def test_no_command_loads_what_only_a_few_of_them_use_before_it_does(loaded: dict[str, set[str]]) -> None:
    """A command starts as fast as Airflow's own: what its parser has not loaded takes further time."""
    assert loaded["commands"] <= {"registry_sync", "airflow"}


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "--port", "99999"), "'99999' is not a whole number from 0 to 65,535"),
        (("serve", "--port", "-1"), "'-1' is not a whole number from 0 to 65,535"),
        (("serve", "--workers", "0"), "'0' is not a whole number from 1 to 256"),
        (("repository", "update", "app", "--retain-versions", "-1"), "'-1' is not a whole number from 0 to "),
        (("repository", "pulls", "app", "--unused-days", "1.5"), "'1.5' is not a whole number from 0 to 1,000,000"),
        (("fleet", "plan", "--jobs", "65"), "'65' is not a whole number from 1 to 64"),
    ],
)
def test_a_number_out_of_its_bounds_is_no_command_line(
    run: Run, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port past 65,535 would be another one, and -1 version to keep would remove all but the latest."""
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_command_whose_output_is_read_no_further_ends_without_a_traceback() -> None:
    """As in ``airflow registry-sync version list app | head -1``."""
    script = (
        "from registry_sync.cli.commands import until_nobody_reads; "
        "until_nobody_reads(lambda _args: [print('a line of a table ' * 10) for _ in range(10_000)])(None)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(registry_sync.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("a line of a table")
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")
