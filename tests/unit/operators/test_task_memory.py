"""The threads of a task share their memory: what one has freed is there for the next."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

#: Prints how many arenas glibc has after threads have allocated at once; glibc makes them when a thread needs one.
_ARENAS = """
import ctypes, sys, threading

if sys.argv[1] == "shared":
    from registry_sync.operators.stage import share_arenas
    share_arenas()
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
barrier = threading.Barrier(12)

def allocate():
    for _ in range(100):
        barrier.wait()
        bytearray(3000)
        libc.malloc(3000)  # without Python's lock, so that threads meet

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
print(open(sys.argv[2]).read().count("<heap nr="))
"""


def arena_count(how: str, path: str) -> int:
    command = [sys.executable, "-W", "ignore", "-c", _ARENAS, how, path]
    limits = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")  # where this machine limits arenas itself
    environment = {name: value for name, value in os.environ.items() if name not in limits}
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_the_threads_of_a_task_share_two_arenas(tmp_path: Path) -> None:
    path = str(tmp_path / "arenas.xml")
    assert arena_count("shared", path) <= 2
    assert arena_count("by itself", path) > 2, "this machine has nothing to share"
