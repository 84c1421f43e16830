"""The first tutorial, its shell blocks run one after the other in a fresh copy of the project."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_airflow.ports import free_port
from support.documents import code_blocks
from support.make import Clone
from support.registry import RegistryServer

TUTORIAL = "tutorial/first-sync.md"
_HEADER = "content         | added"


@pytest.fixture
def shell(tmp_path: Path, upstream: RegistryServer) -> Iterator[subprocess.Popen[str]]:
    """A shell in a copy of the project, whose environment is the one that runs the tests and needs no set-up.

    The registry of the test stands for Docker Hub by the variable that ``make sync`` reads.
    """
    clone = Clone(tmp_path)
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "venv").symlink_to(sys.prefix)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAKE", "PYTHON"))}
    chosen = {"MAKEFLAGS": f"VENV={sys.prefix}", "REMOTE": upstream.url, "PORT": str(free_port())}
    process = subprocess.Popen(
        ["bash", "-eu"],
        cwd=tmp_path,
        env={**kept, **chosen},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()
    clone.make("down")


def run(shell: subprocess.Popen[str], block: str) -> str:
    """What a block prints, on either stream, when all of it succeeds."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{block}\necho {shlex.quote('-- done --')}\n")
    shell.stdin.flush()
    printed = []
    for line in shell.stdout:
        if line == "-- done --\n":
            return "".join(printed)
        printed.append(line)
    raise AssertionError("".join(printed))


def words(text: str) -> list[list[str]]:
    """The words of each line, blank ones left out: how wide columns are does not matter."""
    return [line.split() for line in text.splitlines() if line.strip()]


def test_the_commands_give_what_the_tutorial_shows(shell: subprocess.Popen[str]) -> None:
    """Tables word for word; the tasks of the unchanged sync by their states; three versions at the end."""
    printed, tables, unchanged, versions = "", 0, "", ""
    for block in code_blocks(TUTORIAL):
        if block.language == "bash":
            printed = run(shell, block.text)
            versions = printed if "version list" in block.text else versions
        elif _HEADER in block.text:
            shown = words(block.text)
            at = words(printed).index(shown[0])
            assert words(printed)[at : at + len(shown)] == shown
            tables += 1
        elif "Nothing changed" in block.text:
            unchanged = printed
            assert "Nothing changed upstream: no new version" in unchanged
            for task in ("fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"):
                assert [task, "skipped"] in words(unchanged)
    assert tables == 2
    assert unchanged
    numbers = [row for row in words(versions) if row[0].isdecimal()]
    # Words are told by their place before the origin: tags, manifests, blobs, held tags, whether it is complete.
    tags = {row[0]: row[row.index("sync") - 5] for row in numbers}
    assert list(tags.items()) == [("3", "4"), ("2", "8"), ("1", "2")]
    assert "Airflow is stopped" in printed
