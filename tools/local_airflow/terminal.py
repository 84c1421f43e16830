"""Output for the terminal, on standard error; standard output is reserved for results."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO


def say(text: str) -> None:
    """Prints a line."""
    print(text, file=sys.stderr, flush=True)


class Board:
    """Status lines, one per key.

    On a terminal a line is updated in place; elsewhere every change is a new line.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._in_place = self._stream.isatty()
        self._rows: dict[str, int] = {}

    def show(self, key: str, text: str) -> None:
        """Shows ``text`` as the current status of ``key``."""
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = len(self._rows)
        if row is None or not self._in_place:
            print(text, file=self._stream, flush=True)
            return
        up = len(self._rows) - row
        text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line would take two rows
        print(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r", end="", file=self._stream, flush=True)
