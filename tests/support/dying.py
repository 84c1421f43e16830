"""Processes that die in the middle of what they do, as ``kill -9`` ends one: nothing cleans up after them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def status_of_fork(act: Callable[[], None]) -> int:
    """The status, as ``os.waitpid`` gives it, of a copy of this process that does ``act`` and nothing else: 0 when it
    came to its end. A database must be closed before, so that the copy connects anew.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def die() -> None:
    """Ends this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def was_killed(status: int) -> bool:
    """Whether a process that ended with ``status`` ended by :func:`die`."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
