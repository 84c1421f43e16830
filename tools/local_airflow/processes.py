"""Long-running processes, each the leader of its own session, identified later without confusing them with others.

A process is identified by its id and its start time in Linux's clock ticks; the id alone may be reused by another
process. Children of a leader stay in its session, so that all of them can be stopped. Names of processes are not used.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: How often the end of a process is polled.
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ProcessRecord:
    """A started process. ``started_ticks`` is its start in clock ticks since the boot named by ``boot_id``."""

    name: str
    pid: int
    started_ticks: int
    boot_id: str


@dataclass(frozen=True)
class _Stat:
    pid: int
    state: str
    session: int
    started_ticks: int


def boot_id() -> str:
    """An id that changes with every boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def spawn(name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> ProcessRecord:
    """Starts ``command`` as the leader of a new session, its output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return find(name, pid)


def find(name: str, pid: int) -> ProcessRecord:
    """The record of the process with the id ``pid``; without one, a record that is not alive."""
    stat = _stat(pid)
    return ProcessRecord(name, pid, stat.started_ticks if stat else 0, boot_id())


def is_alive(record: ProcessRecord) -> bool:
    """Whether exactly that process still runs; a zombie does not."""
    _reap(record.pid)
    stat = _stat(record.pid)
    return (
        stat is not None
        and stat.state not in "ZX"
        and stat.started_ticks == record.started_ticks
        and record.boot_id == boot_id()
    )


def wait(record: ProcessRecord, timeout_seconds: float) -> int | None:
    """The exit status of a child of this process, negative for a signal; None when it still runs after that time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        pid, status = os.waitpid(record.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)


def stop(records: Iterable[ProcessRecord], grace_seconds: float) -> None:
    """Sends SIGTERM to the processes and, after ``grace_seconds``, kills what remains of their sessions.

    Processes that have ended already are skipped; a repeat does nothing.
    """
    current = [record for record in records if record.boot_id == boot_id()]
    for record in filter(is_alive, current):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(is_alive(record) for record in current) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    while remaining := [pid for record in current for pid in members(record)]:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def members(record: ProcessRecord) -> list[int]:
    """The ids of the processes in the session of ``record``.

    Linux does not reuse the id of a session that has members. Once the session is empty, the id may belong to another
    process, which started later and leads its own session; it is not included.
    """
    _reap(record.pid)
    leader = _stat(record.pid)
    if leader is not None and leader.started_ticks != record.started_ticks:
        return []
    return [
        stat.pid
        for stat in _all_stats()
        if stat.session == record.pid and stat.state not in "ZX" and stat.started_ticks >= record.started_ticks
    ]


def _all_stats() -> Iterator[_Stat]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            yield stat


def _stat(pid: int) -> _Stat | None:
    """State, session and start of a process (proc_pid_stat(5)); None when there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may include brackets and blanks
    return _Stat(pid=pid, state=fields[0], session=int(fields[3]), started_ticks=int(fields[19]))


def _reap(pid: int) -> None:
    """Reaps a child of this process that has ended, so that it does not stay as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
