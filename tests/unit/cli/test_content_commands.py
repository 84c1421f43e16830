"""``tag list``, ``inspect`` and ``diff``: what a repository holds, by what people type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry_sync.cli.content_commands import resolve_digest
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.errors import InvalidReference, RecordNotFound
from support.commands import Run
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation

LINUX = {"platform": {"os": "linux", "architecture": "amd64"}}
ARM = {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}


@pytest.fixture
def content(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Digest]:
    """Repository ``app`` with an index and an image in two versions, and ``copy`` with the second one."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    registry, here = MemoryRegistry(), Installation.on(database, tmp_path)
    build = ContentBuilder(seed=41)
    amd, arm = build.image([build.blob(1000), build.blob(500)]), build.image([build.blob(700)], architecture="arm64")
    both = build.index([amd, arm], descriptors={amd: LINUX, arm: ARM})
    build.tag("latest", both)
    build.tag("1.0", amd)
    registry.serve("team/app", build.content())
    here.sync("app", registry.url, "team/app")
    build.tag("2.0", arm)
    registry.serve("team/app", build.content())
    here.sync("app", registry.url, "team/app")
    here.sync("copy", registry.url, "team/app")
    return {"amd": amd, "arm": arm, "index": both}


def shown(run: Run, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    run(*words, "--output", "json")
    return json.loads(capsys.readouterr().out)


def test_tags_of_a_version_are_listed_with_their_digests(
    run: Run, content: dict[str, Digest], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = shown(run, capsys, "tag", "list", "app")
    assert {row["tag"]: row["digest"] for row in listed} == {
        "1.0": content["amd"], "2.0": content["arm"], "latest": content["index"],
    }  # fmt: skip
    assert [row["tag"] for row in shown(run, capsys, "tag", "list", "app", "--number", "1")] == ["1.0", "latest"]
    assert [row["tag"] for row in shown(run, capsys, "tag", "list", "app", "--name", ".0")] == ["1.0", "2.0"]


def test_an_index_is_shown_by_platform_with_sizes(
    run: Run, content: dict[str, Digest], capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(run, capsys, "inspect", "app")
    assert (found["digest"], found["kind"], found["blobs"]) == (content["index"], "index", [])
    platforms = {row["platform"]: row for row in found["platforms"]}
    assert platforms.keys() == {"linux/amd64", "linux/arm64/v8"}
    assert (platforms["linux/amd64"]["digest"], platforms["linux/amd64"]["layers"]) == (content["amd"], 2)
    assert found["total_bytes"] == sum(row["total_bytes"] for row in found["platforms"]) > 2200


@pytest.mark.parametrize("reference", ["app:1.0", "app@{amd}", "{amd}", "{short}", "copy:1.0"])
def test_an_image_is_found_by_tag_and_by_digest_as_tables_show_it(
    run: Run, content: dict[str, Digest], capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    digest = content["amd"]
    found = shown(run, capsys, "inspect", reference.format(amd=digest, short=digest[:19]))
    assert (found["digest"], found["kind"], found["platform"]) == (digest, "image", "linux/amd64")
    assert [(row["role"], row["is_stored"]) for row in found["blobs"]] == [
        ("config", True), ("layer", True), ("layer", True),
    ]  # fmt: skip
    assert [row["size_bytes"] for row in found["blobs"]][1:] == [1000, 500]


def test_the_digest_of_a_table_is_accepted_by_other_commands(
    run: Run, content: dict[str, Digest], capsys: pytest.CaptureFixture[str]
) -> None:
    run("tag", "list", "app")
    table = capsys.readouterr().out
    short = next(word for word in table.split() if word.startswith("sha256:"))
    assert shown(run, capsys, "content", "show", short)["kind"] == "manifest"


def test_too_short_unknown_and_ambiguous_digests_are_refused(database: Database, content: dict[str, Digest]) -> None:
    with pytest.raises(InvalidReference, match="at least 6 of its characters"):
        resolve_digest(database, "sha256:12")
    with pytest.raises(RecordNotFound, match="no manifest or blob has a digest that starts with sha256:000000"):
        resolve_digest(database, "sha256:000000")
    assert database.units.digests_starting_with("sha256:", limit=3)[2:], "several start so"


def test_a_tag_that_is_not_there_and_a_mistyped_name_are_said_with_what_to_do(
    run: Run, content: dict[str, Digest]
) -> None:
    with pytest.raises(SystemExit, match=r"version 2 of 'app' has no tag '9'; airflow registry-sync tag list app"):
        run("inspect", "app:9")
    with pytest.raises(SystemExit, match=r"there is no repository 'ap'; did you mean 'app'\?"):
        run("tag", "list", "ap")


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (("app",), ["2.0"]),
        (("app:2", "1"), ["2.0"]),
        (("app:2", "app:1"), ["2.0"]),
        (("app:1", "0"), ["1.0", "latest"]),
        (("copy", "app:1"), ["2.0"]),
        (("app", "copy"), []),
    ],
)
def test_any_two_versions_are_compared(
    run: Run,
    content: dict[str, Digest],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    added: list[str],
) -> None:
    found = shown(run, capsys, "diff", *words)
    assert [row["tag"] for row in found["tags"] if row["change"] == "added"] == added
    assert found["is_empty"] is (not added)


def test_a_version_that_does_not_exist_is_not_compared(run: Run, content: dict[str, Digest]) -> None:
    with pytest.raises(SystemExit, match="there is no version 7 of repository 'copy'"):
        run("diff", "app", "copy:7")
