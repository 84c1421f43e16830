"""Parts that come out of one process, with a package of the test's own in Airflow's place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from local_airflow import launch, processes
from local_airflow.layout import Layout
from local_airflow.running import RunFolder, Running
from local_airflow.startup import COMMANDS, HEALTH_NAMES, Startup

#: Writes its component to its log and runs on for a while, or ends where it is told to.
MAIN = """
import os, sys, time

def main():
    print(*sys.argv[1:], os.getpid(), os.getsid(0), flush=True)
    if sys.argv[1] != os.environ.get("ENDING"):
        time.sleep(60)
"""
PARTS = {"api-server": ["api-server"], "scheduler": ["scheduler", "--quietly"], "triggerer": ["triggerer"]}


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A folder with something to import for Airflow."""
    package = tmp_path / "airflow"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(MAIN)
    return tmp_path


def start(folder: Path, control: socket.socket) -> subprocess.Popen[bytes]:
    control.set_inheritable(True)
    parts = [(name, str(folder / f"{name}.log"), arguments) for name, arguments in PARTS.items()]
    with (folder / "api-server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, launch.__file__, str(control.fileno()), json.dumps(parts)],
            env={**os.environ, "PYTHONPATH": str(folder), "ENDING": "api-server"},
            pass_fds=[control.fileno()],
            stdout=log,
        )


def reported(folder: Path, name: str) -> list[str]:
    log = folder / f"{name}.log"
    return log.read_text().split() if log.exists() else []


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_each_part_leads_a_session_of_its_own_and_writes_its_own_log(stub: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, start(stub, theirs) as first:
        theirs.close()
        others = json.loads(ours.makefile().readline())
        assert list(others) == ["scheduler", "triggerer"]
        records = [processes.find(name, pid) for name, pid in others.items()]
        assert not any(reported(stub, name) for name in PARTS), "none goes on before its id is written down"
        ours.sendall(bytes(len(PARTS)))
        wait_until(lambda: all(reported(stub, name) for name in PARTS))
        assert first.wait(timeout=60) == 0
        assert reported(stub, "api-server")[:2] == ["api-server", str(first.pid)]
        pid = str(others["scheduler"])
        assert reported(stub, "scheduler") == ["scheduler", "--quietly", pid, pid]
        assert all(processes.is_alive(record) for record in records), "they outlive the process that started them"
        processes.stop(records, grace_seconds=10)
        assert not any(processes.is_alive(record) for record in records)


#: Notes which process has called what.
PREPARING = """
import os

def load_modules():
    _note("loaded")

def rehearse():
    _note("rehearsed")

def _note(what):
    with open({path!r}, "a") as file:
        file.write(f"{{what}} {{os.getpid()}}\\n")
"""


@pytest.mark.slow
def test_what_tasks_need_is_loaded_once_and_rehearsed_by_the_part_that_they_are_forked_from(stub: Path) -> None:
    package, noted = stub / Path(*launch.PREPARED_BY.split(".")[:-1]), stub / "noted"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "preloading.py").write_text(PREPARING.format(path=str(noted)))
    ours, theirs = socket.socketpair()
    with ours, theirs, start(stub, theirs) as first:
        theirs.close()
        others = json.loads(ours.makefile().readline())
        wait_until(lambda: len(noted.read_text().splitlines()) == 2)
        ours.sendall(bytes(len(PARTS)))
        wait_until(lambda: all(reported(stub, name) for name in PARTS))
        first.wait(timeout=60)
        processes.stop([processes.find(name, pid) for name, pid in others.items()], grace_seconds=10)
    assert noted.read_text().splitlines() == [f"loaded {first.pid}", f"rehearsed {others['scheduler']}"]


@pytest.mark.slow
def test_no_component_continues_when_its_parent_is_gone(stub: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs, start(stub, theirs) as first:
        with ours:
            theirs.close()
            others = json.loads(ours.makefile().readline())
            records = [processes.find(name, pid) for name, pid in others.items()]
        assert first.wait(timeout=60) == 0
        wait_until(lambda: not any(processes.is_alive(record) for record in records))
        assert not any(reported(stub, name) for name in PARTS)


class HealthyApi:
    """What is asked of an Airflow while it starts."""

    def health(self) -> dict[str, str]:
        return dict.fromkeys(HEALTH_NAMES, "healthy")

    def warm_up(self) -> None:
        pass


@pytest.mark.slow
def test_what_is_kept_of_a_start_is_its_components_and_not_the_migration_before_them(stub: Path) -> None:
    programs = stub / "bin"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    (programs / "airflow").write_text("# migrates nothing")
    layout = Layout(folder=stub / "local", python=programs / "python")
    layout.make_private()
    kept = RunFolder(layout.state)
    startup = Startup(layout, {**os.environ, "PYTHONPATH": str(stub)}, kept.write)
    running = startup.run(Running(port=1, temporary=False), HealthyApi())  # type: ignore[arg-type]
    try:
        assert [record.name for record in running.processes] == list(COMMANDS)
        assert kept.read() == running
        assert running.ended() == []
        assert layout.migrated.exists()
    finally:
        processes.stop(running.processes, grace_seconds=0)
