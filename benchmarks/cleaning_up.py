"""A folder for all that a benchmark writes, and the end of all that it started, however it ends itself.

What a benchmark starts has sessions of its own and outlives it. So a second process waits for the benchmark's end, be
it by SIGKILL, kills every process that belongs to the folder, and removes the folder. A process belongs to it that
works in it, or whose environment names it as the folder of temporary files: all that the benchmark starts inherit that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """The folder, which is that of all temporary files for the time of the block.

    SIGTERM and SIGHUP raise :class:`SystemExit`, once, so that what was entered is left in order.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o711)  # PostgreSQL runs as another account where this is root
    variable, handlers = os.environ.get("TMPDIR"), [signal.signal(number, _end) for number in _SIGNALS]
    command = [sys.executable, "-I", "-S", str(Path(__file__)), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guardian:
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
        try:
            yield folder
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR")
            if variable is not None:
                os.environ["TMPDIR"] = variable
            assert guardian.stdin is not None
            guardian.stdin.close()
            guardian.wait()
            for number, handler in zip(_SIGNALS, handlers, strict=True):
                signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:  # which may come again, from make and from timeout
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def end_all(folder: str) -> None:
    """Kills the processes that belong to ``folder``, but for this one, and removes it."""
    while pids := [pid for pid in _processes() if _belongs(pid, folder)]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208


def _belongs(pid: int, folder: str) -> bool:
    """Whether it runs and belongs to ``folder``; False for what may not be looked at."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        place = f"{Path(f'/proc/{pid}/cwd').readlink()}/"
    except OSError:  # it has ended, waits to be reaped, or is somebody else's
        return False
    return f"TMPDIR={folder}".encode() in environment or place.startswith(f"{folder}/")


if __name__ == "__main__":
    for each in (*_SIGNALS, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    sys.stdin.read()
    end_all(sys.argv[1])
