"""What a program takes is its own, and what it started with it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from benchmarks.results import TookTooLong
from benchmarks.syncs.measured_command import run_measured

_LARGE_MIB = 64


def test_the_processor_and_memory_of_all_that_it_starts_are_measured(tmp_path: Path) -> None:
    held = bytearray(1024 * 1024 * 96)  # of this process, which has 60 MiB without it, and is not the program
    code = f"x = bytearray({_LARGE_MIB} << 20)\nsum(range(2_000_000))"
    usage = run_measured(["sh", "-c", f"{sys.executable} -I -S -c '{code}'; exit 0"], tmp_path / "log", 60)
    assert usage.seconds > 0
    assert usage.cpu_seconds is not None
    assert usage.cpu_seconds > 0.01
    assert usage.peak_mib is not None
    assert _LARGE_MIB < usage.peak_mib < _LARGE_MIB + 60
    del held


def test_a_failure_gives_the_last_line_that_was_printed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^nothing found$"):
        run_measured(["sh", "-c", "echo first; echo nothing found >&2; exit 3"], tmp_path / "log", 60)
    with pytest.raises(RuntimeError, match="exit status 3"):
        run_measured(["sh", "-c", "exit 3"], tmp_path / "log", 60)


def test_one_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = "sleep 600 & sleep 600"
    with pytest.raises(TookTooLong, match=r"over 0 s"):
        run_measured(["sh", "-c", f"cd {tmp_path}; {script}"], tmp_path / "log", 0.2)
    deadline = time.monotonic() + 30
    while any(_target(path) == tmp_path for path in Path("/proc").glob("[0-9]*/cwd")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None


def test_variables_are_added_to_the_environment(tmp_path: Path) -> None:
    run_measured(["sh", "-c", 'test "$ONE" = two'], tmp_path / "log", 60, {"ONE": "two"})
