"""Copies of this process that do one thing and end, or die in the middle of it, as ``kill -9`` ends one: nothing cleans
up after them.

A copy has imported already what an interpreter of its own would import for one or two seconds. Databases must be closed
before, so that the copy connects anew.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path


class Copy:
    """A running copy, which does ``act`` and nothing else. What it prints as errors, its traceback included, is written
    to the file ``errors``.
    """

    def __init__(self, act: Callable[[], object], errors: Path) -> None:
        self._errors = errors
        self._status: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 on: threads of tests only wait
            self._pid = os.fork()
        if self._pid == 0:
            _do_and_end(act, errors)

    def has_ended(self) -> bool:
        """Whether it came to its end or was killed."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        """How it ended: 0 at its end, 1 by an error, negative for a signal, as in ``subprocess``."""
        self._look(0)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """Kills it, if it still runs, and waits."""
        if not self.has_ended():
            os.kill(self._pid, signal.SIGKILL)
            self.wait()

    @property
    def errors(self) -> str:
        """What it printed as errors, once it has ended."""
        return self._errors.read_text(errors="replace")

    def _look(self, options: int) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self._pid, options)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is not None


def _do_and_end(act: Callable[[], object], errors: Path) -> None:
    status = 1
    try:
        with errors.open("w", buffering=1) as sys.stderr:
            try:
                act()
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
    finally:
        os._exit(status)


def status_of_fork(act: Callable[[], object], errors: Path = Path(os.devnull)) -> int:
    """How a copy ended that did ``act``, as :meth:`Copy.wait` gives it."""
    return Copy(act, errors).wait()


def die() -> None:
    """Ends this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def was_killed(status: int) -> bool:
    """Whether a copy that ended with ``status`` ended by :func:`die`."""
    return status == -signal.SIGKILL
