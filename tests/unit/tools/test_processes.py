"""Processes that are found again and stopped with all they started, and no others."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from local_airflow import processes

#: A leader that ignores SIGTERM, as does its child in another process group.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)
print("ready", flush=True)
time.sleep(60)
"""
GENTLE = "import time; print('ready', flush=True); time.sleep(60)"


def _spawn(folder: Path, code: str, lines: int = 1) -> processes.ProcessRecord:
    log = folder / "out.log"
    record = processes.spawn("test", [sys.executable, "-c", code], os.environ, log)
    deadline = time.monotonic() + 20
    while log.read_text().count("ready") < lines and time.monotonic() < deadline:
        time.sleep(0.01)
    return record


def test_a_process_ends_on_sigterm(tmp_path: Path) -> None:
    record = _spawn(tmp_path, GENTLE)
    assert processes.is_alive(record)
    processes.stop([record], grace_seconds=10)
    assert not processes.is_alive(record)


def test_what_does_not_end_is_killed_with_its_children_in_other_groups(tmp_path: Path) -> None:
    record = _spawn(tmp_path, STUBBORN, lines=2)
    assert len(processes.members(record)) == 2
    processes.stop([record], grace_seconds=0.2)
    assert processes.members(record) == []


def test_children_that_outlive_their_leader_are_killed(tmp_path: Path) -> None:
    record = _spawn(tmp_path, "import os, time\nif os.fork(): os._exit(0)\nprint('ready', flush=True)\ntime.sleep(60)")
    deadline = time.monotonic() + 10
    while processes.is_alive(record) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(processes.members(record)) == 1
    processes.stop([record], grace_seconds=1)
    assert processes.members(record) == []


def test_another_process_that_has_the_same_id_is_ignored(tmp_path: Path) -> None:
    record = _spawn(tmp_path, GENTLE)
    earlier = replace(record, started_ticks=record.started_ticks - 1)
    before_a_reboot = replace(record, boot_id="another boot")
    try:
        for other in (earlier, before_a_reboot):
            assert not processes.is_alive(other)
            processes.stop([other], grace_seconds=0)
        assert processes.is_alive(record)
    finally:
        processes.stop([record], grace_seconds=10)


def test_stopping_twice_is_the_same_as_once(tmp_path: Path) -> None:
    record = _spawn(tmp_path, GENTLE)
    processes.stop([record], grace_seconds=10)
    processes.stop([record], grace_seconds=10)
    assert not processes.is_alive(record)


def test_the_exit_status_of_a_child_is_reported_and_its_end_awaited(tmp_path: Path) -> None:
    record = _spawn(tmp_path, "import sys; print('ready'); sys.exit(3)")
    assert processes.wait(record, timeout_seconds=10) == 3


def test_a_child_that_does_not_end_in_time_has_no_exit_status(tmp_path: Path) -> None:
    record = _spawn(tmp_path, GENTLE)
    assert processes.wait(record, timeout_seconds=0.1) is None
    processes.stop([record], grace_seconds=10)
