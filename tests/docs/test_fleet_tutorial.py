"""The tutorial of declared mirrors: its file has the mistake that it shows, and the commands print what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from support.commands import run_command
from support.documents import CodeBlock, code_blocks
from support.hostile_registry import HostileRegistry
from support.ready_databases import ready_database
from support.serving import serve
from support.shapes import documented_example

PAGE = "tutorial/fleet.md"
BLOCKS = code_blocks(PAGE)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    """Stands for Docker Hub; the database and the blob store are empty."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/db.sqlite")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", str(tmp_path / "mirrors.yaml"))
    with HostileRegistry() as served, ready_database(tmp_path / "db.sqlite"):
        yield serve(served, "library/hello-world", documented_example())


def shown_after(command: str) -> CodeBlock:
    """The block that shows what a command prints."""
    return next(after for block, after in pairwise(BLOCKS) if block.text.rstrip().endswith(command))


def head(text: str) -> list[str]:
    """The titles of the first table in a text."""
    return next(
        [title.strip() for title in line.split("|")]
        for line, under in pairwise(text.splitlines())
        if re.fullmatch(r"[=+]+", under)
    )


def test_the_file_is_checked_shown_and_planned_as_the_page_says(
    registry: HostileRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declared, mended = (block.text for block in BLOCKS if block.language == "yaml")
    path = tmp_path / "mirrors.yaml"
    path.write_text(declared)
    with pytest.raises(SystemExit):
        run_command("fleet", "validate")
    printed = capsys.readouterr()
    assert printed.out == shown_after("fleet validate").text
    assert printed.err.strip() == "2 mirrors in order, 1 mirror with mistakes"

    path.write_text("\n".join([*declared.splitlines()[:-1], mended]))
    run_command("fleet", "validate")
    assert capsys.readouterr().out == ""
    run_command("fleet", "show")
    shown = capsys.readouterr().out
    expected = shown_after("fleet show").text
    assert head(shown) == [*head(expected), "dag id", "declared in"]
    row = [cell.strip() for cell in expected.splitlines()[2].split("|")]
    found = next(line for line in shown.splitlines() if line.startswith("library/hello-world"))
    assert [cell.strip() for cell in found.split("|")][:6] == row[:6]

    path.write_text(path.read_text().replace("docker.io", registry.base))
    with suppress(SystemExit):
        run_command("fleet", "plan", "library/hello-world")
    planned = capsys.readouterr().out
    expected = shown_after("fleet plan library/hello-world").text
    assert head(planned) == head(expected)
    row = [cell.strip() for cell in expected.splitlines()[2].split("|")]
    found = next(line for line in planned.splitlines() if line.startswith("library/hello-world"))
    assert [cell.strip() for cell in found.split("|")][:8] == row[:8]
