"""The record of a running instance, and its locks.

A later command, also after a crash, uses the record to find exactly the started processes. The lock serializes starts
and stops; the locks of uses show whether a temporary instance is still in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from local_airflow import processes
from local_airflow.ports import LOOPBACK
from local_airflow.processes import ProcessRecord
from local_airflow.settings import write_private


@dataclass(frozen=True)
class Running:
    """A started instance. A ``temporary`` one ends with the last command that uses it.

    ``pull_port`` is the port of its pull server, None without one.
    """

    port: int
    temporary: bool
    processes: tuple[ProcessRecord, ...] = ()
    pull_port: int | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def ended(self) -> list[str]:
        """The names of the components that no longer run."""
        return [record.name for record in self.processes if not processes.is_alive(record)]

    def with_process(self, record: ProcessRecord) -> Running:
        return replace(self, processes=(*self.processes, record))

    def without_process(self, record: ProcessRecord) -> Running:
        return replace(self, processes=tuple(other for other in self.processes if other != record))


class RunFolder:
    """The folder with the record and the locks of one instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> Running | None:
        """The last started instance that was not stopped; it may not run any more."""
        try:
            record = json.loads((self.folder / "instance.json").read_text())
        except FileNotFoundError:
            return None
        started = tuple(ProcessRecord(**process) for process in record["processes"])
        return Running(record["port"], record["temporary"], started, record.get("pull_port"))

    def write(self, running: Running) -> Running:
        write_private(self.folder / "instance.json", json.dumps(asdict(running), indent=1))
        return running

    def forget(self) -> None:
        (self.folder / "instance.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """A lock of one process at a time; waits for it."""
        with self._open("lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def use(self) -> Iterator[TextIO]:
        """Records one of several uses; pass the result to :meth:`is_last_use`."""
        with self._open("uses") as use:
            fcntl.flock(use, fcntl.LOCK_SH)
            yield use

    def is_last_use(self, use: TextIO) -> bool:
        """Whether there is no other use."""
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _open(self, name: str) -> TextIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / name).open("a")
