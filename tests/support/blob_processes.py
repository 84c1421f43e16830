"""Other processes that write into a store, for tests of what happens when they die or meet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]


class Writer:
    """A running ``blob_writing.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hear(self) -> str:
        """The next line it says; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def rest(self) -> list[str]:
        """Everything else it says, to its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read().splitlines()

    def go_on(self) -> None:
        """Lets it continue after its pause."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, which leaves it no time to tidy up."""
        self._process.kill()
        self._process.wait()


@contextmanager
def writing(url: str, spool: Path, command: str, *numbers: int, environment: dict[str, str]) -> Iterator[Writer]:
    """A process that runs ``command``; killed at the end if it still runs."""
    paths = os.pathsep.join([str(_ROOT / "plugins"), str(_ROOT / "tests")])
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "blob_writing.py"), url, str(spool), command, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": paths},
    ) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()
