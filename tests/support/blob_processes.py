"""Other processes that write into a store, for tests of what happens when they die or meet.

They are copies of this one, which has imported all that they need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from support.blob_stores import open_store
from support.blob_writing import COMMANDS
from support.dying import Copy


class Writer:
    """A running one."""

    def __init__(self, copy: Copy, to_it: TextIO, from_it: TextIO) -> None:
        self._copy, self._to_it, self._from_it = copy, to_it, from_it

    def hear(self) -> str:
        """The next line it says; empty when it has ended."""
        return self._from_it.readline().strip()

    def rest(self) -> list[str]:
        """Everything else it says, to its end."""
        return self._from_it.read().splitlines()

    def go_on(self) -> None:
        """Lets it continue after its pause."""
        self._to_it.write("\n")
        self._to_it.flush()

    def kill(self) -> None:
        """SIGKILL, which leaves it no time to tidy up."""
        self._copy.kill()


@contextmanager
def writing(url: str, spool: Path, command: str, *numbers: int, environment: dict[str, str]) -> Iterator[Writer]:
    """A process that runs ``command``; killed at the end if it still runs."""
    (its_input, to_it), (from_it, its_output) = os.pipe(), os.pipe()

    def act() -> None:
        os.close(to_it)
        os.close(from_it)
        os.environ.update(environment)
        with os.fdopen(its_input) as sys.stdin, os.fdopen(its_output, "w") as sys.stdout:
            COMMANDS[command](open_store(url, spool), *numbers)

    copy = Copy(act, Path(os.devnull))
    os.close(its_input)
    os.close(its_output)
    with os.fdopen(to_it, "w") as speaking, os.fdopen(from_it) as hearing:
        try:
            yield Writer(copy, speaking, hearing)
        finally:
            copy.kill()
