"""Versions compared, rolled back to, promoted and deleted by commands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_sync.db.database import Database
from support.commands import Run
from support.metadata import two_versions
from support.ready_databases import filled

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def hello(database: Database) -> Database:
    """``hello`` with two versions: latest moved, old gone and new came with the second."""
    filled(database, two_versions, "hello")
    return database


def printed(capsys: Printed) -> Any:
    return json.loads(capsys.readouterr().out)


def tags(database: Database, name: str, number: int | None = None) -> list[str]:
    return sorted(database.versions.tags(database.repositories.by_name(name).id, number))


def test_a_version_is_compared_with_the_one_before(run: Run, hello: Database, capsys: Printed) -> None:
    run("version", "diff", "hello", "-o", "json")
    shown = printed(capsys)
    assert (shown["number"], shown["base_number"], shown["is_empty"]) == (2, 1, False)
    assert {tag["tag"]: tag["change"] for tag in shown["tags"]} == {"latest": "moved", "new": "added", "old": "removed"}
    assert shown["amounts"][0] == {
        "content": "docker.tag", "added": 1, "removed": 1, "moved": 1, "shared": 0,
        "added_bytes": None, "removed_bytes": None,
    }  # fmt: skip
    blobs = shown["amounts"][2]
    sizes = {change: [blob["size_bytes"] for blob in shown["blobs"] if blob["change"] == change]
             for change in ("added", "removed")}  # fmt: skip
    assert (blobs["added_bytes"], blobs["removed_bytes"]) == (sum(sizes["added"]), sum(sizes["removed"]))


def test_a_version_is_compared_with_nothing_and_with_another_repository(
    run: Run, hello: Database, capsys: Printed
) -> None:
    run("version", "diff", "hello", "--base", "0", "-o", "json")
    assert {tag["change"] for tag in printed(capsys)["tags"]} == {"added"}
    run("version", "diff", "hello", "1", "--base", "1", "-o", "json")
    assert printed(capsys)["is_empty"]
    hello.repositories.ensure("empty")
    run("version", "diff", "hello", "--base-repository", "empty", "-o", "json")
    shown = printed(capsys)
    assert (shown["base_number"], len(shown["tags"])) == (0, 2)


def test_people_see_sizes_with_units_and_names_of_tags(run: Run, hello: Database, capsys: Printed) -> None:
    run("version", "diff", "hello")
    out = capsys.readouterr().out
    assert " B" in out
    assert "moved" in out
    assert "added size" in out
    assert "added_bytes" not in out


def test_a_rollback_makes_a_version_and_a_second_one_none(run: Run, hello: Database, capsys: Printed) -> None:
    run("version", "rollback", "hello", "1", "--description", "the new latest does not start", "-o", "json")
    assert printed(capsys)["version"]["number"] == 3
    assert tags(hello, "hello") == ["latest", "old"]
    repository = hello.repositories.by_name("hello")
    made = hello.versions.get(repository.id, 3)
    assert made.description == "the new latest does not start"
    assert made.origin.created_by
    run("version", "rollback", "hello", "1")
    assert "no version was made" in capsys.readouterr().out
    assert hello.repositories.by_name("hello").latest_number == 3


def test_tags_are_promoted_by_names_and_globs(run: Run, hello: Database, capsys: Printed) -> None:
    hello.repositories.ensure("production")
    run(
        "version", "promote", "hello", "production", "--tag", "la*", "--tag", "new", "--exclude-tag", "n*", "-o", "json"
    )
    assert printed(capsys)["version"]["tags"] == 1
    run("version", "promote", "hello", "production", "--number", "1", "--tag", "old")
    assert tags(hello, "production") == ["latest", "old"]
    run("version", "promote", "hello", "production", "--number", "1", "--tag", "old")
    assert "it has these tags already" in capsys.readouterr().out


def test_a_promotion_that_removes_asks_first(run: Run, hello: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hello.repositories.ensure("production")
    run("version", "promote", "hello", "production", "--number", "1")
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("version", "promote", "hello", "production", "--mirror")
    assert tags(hello, "production") == ["latest", "old"]
    run("version", "promote", "hello", "production", "--mirror", "--yes")
    assert tags(hello, "production") == ["latest", "new"]


def test_a_version_is_deleted_after_a_yes_and_the_only_one_never(
    run: Run, hello: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    with pytest.raises(SystemExit, match="nothing was done"):
        run("version", "delete", "hello", "1")
    run("version", "delete", "hello", "1", "--yes")
    with pytest.raises(SystemExit, match="OnlyVersion: "):
        run("version", "delete", "hello", "2", "-y")
    assert tags(hello, "hello") == ["latest", "new"]


def test_without_a_terminal_what_destroys_requires_a_yes(
    run: Run, hello: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    with pytest.raises(SystemExit, match="use --yes"):
        run("version", "delete", "hello", "1")
    assert hello.versions.get(hello.repositories.by_name("hello").id, 1).number == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("version", "diff", "hello", "7"), "there is no version 7 of repository 'hello'"),
        (("version", "diff", "hello", "--base", "7"), "there is no version 7"),
        (("version", "diff", "hello", "--base-repository", "nowhere"), "there is no repository 'nowhere'"),
        (("version", "rollback", "hello", "7"), "there is no version 7"),
        (("version", "promote", "hello", "nowhere"), "there is no repository 'nowhere'"),
        (("version", "promote", "hello", "hello"), "copied into itself"),
        (("version", "promote", "hello", "empty", "--tag", "nothing"), "has no tag 'nothing'"),
        (("version", "promote", "hello", "empty", "--tag", "no/tag"), "neither a tag nor a glob"),
        (("version", "promote", "empty", "hello"), "has no version yet"),
    ],
)
def test_what_cannot_be_done_ends_with_a_message(run: Run, hello: Database, words: tuple[str, ...], said: str) -> None:
    hello.repositories.ensure("empty")
    with pytest.raises(SystemExit, match=said):
        run(*words)
    assert hello.repositories.by_name("hello").latest_number == 2


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", "2147483648", "٣"])
def test_a_number_that_is_none_is_refused_before_anything_is_opened(run: Run, number: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run("version", "rollback", "hello", number)
    assert ended.value.code == 2
