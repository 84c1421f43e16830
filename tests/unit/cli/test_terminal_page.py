"""The tables in how-to/work-in-a-terminal.md have the columns that the commands print."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from support.commands import Run
from support.documents import code_blocks
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation

PAGE = "how-to/work-in-a-terminal.md"
#: What the page has of its own repository, by what stands for it here.
_OURS = {"hello:latest": "hello:latest", "sha256:213a9abc91a5": "hello:v1", "hello:2": "hello:2"}
#: Nobody is known to have started the syncs here.
_NOT_HERE = {"created by"}


def heads_shown() -> list[tuple[list[str], list[set[str]]]]:
    """The arguments of each command on the page, and the columns of its tables."""
    found = []
    for block in code_blocks(PAGE):
        lines = block.text.splitlines()
        words = shlex.split(lines[0])
        if words[:2] == ["airflow", "registry-sync"] and words[2] in ("version", "tag", "inspect", "diff"):
            heads = [titles(line) for line, under in pairwise(lines) if re.fullmatch(r"[=+]+", under)]
            found.append((words[2:], heads))
    return found


def titles(line: str) -> set[str]:
    return {title.strip() for title in line.split("|")}


@pytest.mark.parametrize(("words", "heads"), heads_shown(), ids=[" ".join(words)[:30] for words, _ in heads_shown()])
def test_the_columns_that_are_shown_are_those_of_the_command(
    run: Run,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    heads: list[set[str]],
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("COLUMNS", "250")
    registry, here, build = MemoryRegistry(), Installation.on(database, tmp_path), ContentBuilder(seed=5)
    image = build.image([build.blob(100)], docker=True)
    build.tag("v1", image)
    platform = {"platform": {"os": "linux", "architecture": "amd64"}}
    build.tag("latest", build.index([image], docker=True, descriptors={image: platform}))
    for tag in ("v1", "more"):
        build.tag(tag, image)
        registry.serve("sample/hello-world", build.content())
        here.sync("hello", registry.url, "sample/hello-world")
    capsys.readouterr()
    run(*(_OURS.get(word, word) for word in words))
    printed = capsys.readouterr().out.splitlines()
    assert heads
    for head in heads:
        assert head - _NOT_HERE in [titles(line) for line in printed]
