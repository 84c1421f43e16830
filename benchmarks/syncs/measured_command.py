"""What a program takes: seconds, those of the processor, and its largest size, without those of who started it.

Linux counts to a program the size of the process that it was started from. So it is started from a small one, which is
this file, run as a program of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.results import Usage


def run_measured(
    command: Sequence[str], log: Path, timeout_seconds: float, env: Mapping[str, str] | None = None
) -> Usage:
    """Runs ``command`` and whatever it starts; what it prints is in ``log``.

    Raises :class:`RuntimeError` with the end of the log when it fails, :class:`TookTooLong` after the time, when it is
    killed with all of its session.
    """
    from benchmarks.results import TookTooLong, Usage  # the small process finds none of ours

    starter = [sys.executable, "-I", "-S", str(Path(__file__)), str(log), *command]
    process = subprocess.Popen(
        starter,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise TookTooLong(timeout_seconds) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    used = json.loads(output)
    if used["status"] != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(said[-1][:300] if said else f"exit status {used['status']}")
    return Usage(used["seconds"], used["cpu_seconds"], used["peak_kib"] / 1024)


def _start(log: str, command: list[str]) -> dict[str, float]:
    """What ``command`` took, which writes to ``log``. Imports as little as it can, so that this process is small."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    began = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_kib": usage.ru_maxrss,
        "status": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2:])))
