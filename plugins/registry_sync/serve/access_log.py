"""One line of JSON for each request: who asked for what, and what they got. It never holds a secret or a token.

A thread writes what requests leave for it, so that a slow disk or a full pipe stops no pull. What it cannot write in
time is left out, and the log says how many lines that were.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from pathlib import Path
from typing import Any

from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.domain.serving import PullRecord
from registry_sync.errors import ConfigurationError

_log = logging.getLogger(__name__)
#: Lines that wait for the thread at a time, and how long a text of a client may be in one.
WAITING_LINES = 10_000
_MOST_CHARACTERS = 300
#: Written together at most.
_BATCH_LINES = 500
STANDARD_OUTPUT = "-"


class AccessLog:
    """Appends to the file at ``target``, or writes to standard output for ``-``; several processes may share it.

    Raises :class:`ConfigurationError` for a file that cannot be opened.
    """

    def __init__(self, target: str, *, modes: FileModes = OWNER_ONLY, waiting_lines: int = WAITING_LINES) -> None:
        if target == STANDARD_OUTPUT:
            self._descriptor = os.dup(1)
        else:
            try:
                self._descriptor = os.open(
                    Path(target).expanduser(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, modes.file
                )
            except OSError as problem:
                raise ConfigurationError(f"the access log {target} cannot be written: {problem.strerror}") from None
        self._lines: queue.Queue[bytes | None] = queue.Queue(waiting_lines)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def write(self, record: PullRecord) -> None:
        """Leaves a line for the thread; never waits."""
        try:
            self._lines.put_nowait(_line(document(record)))
        except queue.Full:
            self._left_out += 1

    def close(self, patience_seconds: float = 5.0) -> None:
        """Writes what waits."""
        try:
            self._lines.put(None, timeout=patience_seconds)
        except queue.Full:
            return
        self._thread.join(patience_seconds)

    def _write_all(self) -> None:
        is_failing = False
        while True:
            lines = [self._lines.get()]
            while len(lines) < _BATCH_LINES and not self._lines.empty():
                lines.append(self._lines.get())
            left_out, self._left_out = self._left_out, 0
            if left_out:
                lines.insert(0, _line({"left_out": left_out}))
            try:
                # Line by line: a line that is appended at once is never mixed with one of another process.
                for line in filter(None, lines):
                    os.write(self._descriptor, line)
                is_failing = False
            except OSError as problem:
                if not is_failing:
                    _log.error("the access log cannot be written: %s", problem.strerror)
                is_failing = True
                self._left_out += len(lines)
            if None in lines:
                os.close(self._descriptor)
                return


def document(record: PullRecord) -> dict[str, Any]:
    """The line of a request; what is not known of it is absent."""
    values = {
        "time": record.at.isoformat(timespec="milliseconds"),
        "method": record.method,
        "kind": record.kind,
        "path": record.path if record.name is None else None,
        "name": record.name,
        "reference": record.reference,
        "digest": record.digest,
        "status": record.status,
        "code": record.code,
        "bytes": record.sent_bytes,
        "seconds": round(record.seconds, 6),
        "account": record.account or None,
        "address": record.address or None,
        "user_agent": record.user_agent or None,
    }
    return {
        name: value[:_MOST_CHARACTERS] if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"
