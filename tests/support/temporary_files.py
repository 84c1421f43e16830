"""Where tests write: in memory where there is plenty of it, so that no disk is written to, and none is waited for.

A user's ``TMPDIR`` stays. Tests of full disks and of power failures mount disks of their own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

GIBIBYTE = 1024**3
#: What the processes of a whole run may write at a time, with room to spare, and what they need themselves.
WRITTEN_BYTES, MEMORY_BYTES = 4 * GIBIBYTE, 6 * GIBIBYTE
#: The memory that Linux offers as a file system. In most containers it is small, and nothing may be executed there.
SHARED_MEMORY = Path("/dev/shm")


def write_to_memory() -> None:
    """From now on, also in what this process starts, where there is room."""
    choose(os.environ)
    tempfile.tempdir = None  # it is read again


def choose(
    environment: MutableMapping[str, str],
    *,
    folder: Path = SHARED_MEMORY,
    written_bytes: int = WRITTEN_BYTES,
    memory_bytes: int = MEMORY_BYTES,
) -> None:
    """Sets ``TMPDIR`` to ``folder`` when it has room for ``written_bytes`` and ``memory_bytes`` remain."""
    if "TMPDIR" in environment or not folder.is_dir() or not os.access(folder, os.W_OK):
        return
    offered = os.statvfs(folder)
    has_room = offered.f_bavail * offered.f_frsize >= written_bytes
    if has_room and not offered.f_flag & os.ST_NOEXEC and _available_bytes() >= written_bytes + memory_bytes:
        environment["TMPDIR"] = str(folder)


def _available_bytes() -> int:
    """Memory that can be had without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
