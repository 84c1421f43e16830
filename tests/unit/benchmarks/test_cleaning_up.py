"""However a benchmark ends, nothing that it started runs on, and nothing that it wrote stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.cleaning_up import run_folder

from local_airflow.layout import CHECKOUT

#: Starts a program in a session of its own, as Airflow's parts are, another that works in the folder without the
#: variable, and waits.
PROGRAM = """
import os, signal, subprocess, sys, time
from benchmarks.cleaning_up import run_folder

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has in the background
with run_folder() as folder:
    try:
        one = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (place := folder / "place").mkdir()
        path = {"PATH": os.environ["PATH"]}
        other = subprocess.Popen(["sleep", "600"], start_new_session=True, env=path, cwd=place)
        print(folder, one.pid, other.pid, flush=True)
        time.sleep(600)
    finally:
        print("left", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["term", "int", "kill"])
def test_an_ended_benchmark_leaves_nothing(number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as benchmark:
        assert benchmark.stdout is not None
        folder, *pids = benchmark.stdout.readline().decode().split()
        benchmark.send_signal(number)
        left, _ = benchmark.communicate(timeout=30)
        assert left == (b"" if number == signal.SIGKILL else b"left\n")
        if number == signal.SIGTERM:
            assert benchmark.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 30
    while _running(pids) or Path(folder).exists():
        assert time.monotonic() < deadline, (_running(pids), folder)
        time.sleep(0.01)


def _running(pids: list[str]) -> list[str]:
    """Those that are there and no zombies, which the tests' own parent reaps."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_the_folder_is_that_of_temporary_files_for_its_time() -> None:
    before, handler = os.environ.get("TMPDIR"), signal.getsignal(signal.SIGTERM)
    with run_folder() as folder:
        assert os.environ["TMPDIR"] == str(folder)
        (folder / "file").write_text("")
    assert os.environ.get("TMPDIR") == before
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not folder.exists()
