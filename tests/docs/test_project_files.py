"""What a stranger to the project meets first: license, supported Pythons, hooks and the workflow, held together."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text(encoding="utf-8"))
PYTHONS = [
    f"3.{minor}" for minor in range(8, 20) if Version(f"3.{minor}.1") in SpecifierSet(PROJECT["requires-python"])
]


def test_the_license_is_the_one_that_the_metadata_names() -> None:
    license_text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.match(r"\s+Apache License\n\s+Version 2\.0, January 2004\n", license_text)
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert "LICENSE" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_supported_python_is_named_and_tried_by_the_workflow() -> None:
    named = [entry.rpartition(" ")[2] for entry in PROJECT["classifiers"] if ":: Python :: 3." in entry]
    job = WORKFLOW["jobs"]["test"]
    assert named == job["strategy"]["matrix"]["python"] == PYTHONS
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    bootstrap = (ROOT / "tools/bootstrap.sh").read_text(encoding="utf-8")
    assert [python for python in PYTHONS if f"python{python}" not in bootstrap] == []
    assert f"{PYTHONS[0]} to {PYTHONS[-1]}" in bootstrap


def test_the_workflow_runs_commands_that_there_are() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for job in WORKFLOW["jobs"].values():
        for step in job["steps"]:
            for command in step.get("run", "").splitlines():
                program, *words = command.split()
                assert set(words) <= targets if program == "make" else (ROOT / program).stat().st_mode & 0o100


@pytest.mark.parametrize("program", ["ruff check", "ruff format", "mypy"])
def test_the_hooks_run_what_the_checks_run(program: str) -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"] if hook["entry"].startswith(f".local/venv/bin/{program}")]
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert check is not None
    assert f"$(BIN)/{program}" in check[1]


@pytest.mark.parametrize("command", [[".ci/run"], ["make", "test-quick"]], ids=["ci", "test-quick"])
@pytest.mark.parametrize(("style", "types", "tests"), [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)])
def test_types_are_checked_beside_the_tests_and_all_must_pass(
    tmp_path: Path, command: list[str], style: int, types: int, tests: int
) -> None:
    done = _run_with_stand_ins(tmp_path, command, style, types, tests)
    assert (done.returncode == 0) == (style == types == tests == 0)
    if not style:
        assert {"ruff has run", "mypy has run", "python has run"} <= set(done.stdout.splitlines())


@pytest.mark.parametrize(("style", "tests"), [(0, 0), (0, 1), (1, 0)])
def test_all_tests_are_run_with_the_style_and_without_the_types(tmp_path: Path, style: int, tests: int) -> None:
    done = _run_with_stand_ins(tmp_path, ["make", "test"], style, 1, tests)
    assert (done.returncode == 0) == (style == tests == 0)
    assert "mypy has run" not in done.stdout


def _run_with_stand_ins(
    folder: Path, command: list[str], style: int, types: int, tests: int
) -> subprocess.CompletedProcess[str]:
    """The command with programs that do nothing and end with these states."""
    programs = folder / "venv/bin"
    programs.mkdir(parents=True)
    for name, status in {"ruff": style, "mypy": types, "python": tests}.items():
        (programs / name).write_text(f"#!/bin/sh\necho {name} has run; exit {status}\n")
        (programs / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    env["MAKEFLAGS"] = f"VENV={folder / 'venv'} LOCAL={folder / 'local'} OTHERS_READY="
    return subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)


def test_the_editor_writes_lines_as_long_as_the_checks_take() -> None:
    editor = (ROOT / ".editorconfig").read_text(encoding="utf-8")
    length = re.search(r"^line-length = (\d+)$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert length is not None
    assert f"max_line_length = {length[1]}\n" in editor
    assert editor.startswith("root = true\n")


@pytest.mark.parametrize(
    ("page", "titles"),
    [
        ("CONTRIBUTING.md", ["Set-up and the loop", "How to add", "A release"]),
        ("CONTRIBUTING.md", ["An option of remotes", "A quirk of a registry", "A REST resource", "A stage"]),
        ("SECURITY.md", ["Security"]),
    ],
)
def test_the_pages_for_contributors_say_what_they_are_for(page: str, titles: list[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [title for title in titles if not re.search(rf"^(#+ |\*\*){title}", text, re.MULTILINE)] == []
