"""Who pulls what is remembered together and written now and then, so that no request waits for a write.

A process that is killed loses what it has not written, a few seconds of pulls at most. What the database does not take
is kept and tried again, up to a bound.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from datetime import datetime

from cachetools import TTLCache

from registry_sync.db.database import Database
from registry_sync.db.last_pulls import LastPullStore
from registry_sync.domain.file_modes import FileModes
from registry_sync.domain.serving import PullRecord
from registry_sync.errors import RegistrySyncError
from registry_sync.serve.access_log import AccessLog

#: What :class:`~registry_sync.serve.pull_api.PullApp` gives each request to, and what ends something.
Observer = Callable[[PullRecord], None]
Closer = Callable[[], None]
_log = logging.getLogger(__name__)
#: Seconds between two writes of a process, and for how long a reference that was written is not written again.
WRITE_SECONDS = 10.0
EXACT_SECONDS = 60.0
#: References that wait for a write at a time, about.
MOST_WAITING = 20_000
_DAY_SECONDS = 86_400.0


def open_notes(database: Database, access_log: str | None, modes: FileModes) -> tuple[list[Observer], list[Closer]]:
    """What notes the last pulls in ``database`` and each request in the access log, and what ends both in turn.

    ``access_log`` is a file or ``-``, None for none. Raises :class:`ConfigurationError` for one that cannot be written.
    """
    pulls = LastPulls(database.last_pulls)
    if access_log is None:
        return [pulls.note], [pulls.close]
    log = AccessLog(access_log, modes=modes)
    return [pulls.note, log.write], [pulls.close, log.close]


class LastPulls:
    """Notes pulls of one process for ``store``. The thread that writes starts with the first of them."""

    def __init__(
        self,
        store: LastPullStore,
        *,
        write_seconds: float = WRITE_SECONDS,
        exact_seconds: float = EXACT_SECONDS,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._write_seconds = write_seconds
        self._most_waiting = most_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], datetime] = {}
        self._written: TTLCache[Hashable, bool] = TTLCache(most_waiting, exact_seconds, timer=clock)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._forgotten_at: float | None = None
        self._is_failing = False

    def note(self, record: PullRecord) -> None:
        """Notes a tag that was asked for, by HEAD too as clients do before they pull, or a digest that was sent.

        Other requests are ignored.
        """
        if record.kind != "manifests" or record.status not in (200, 304) or record.repository_id is None:
            return
        reference = record.tag if record.tag is not None else record.digest if record.method == "GET" else None
        if reference is None:
            return
        key = (record.repository_id, reference)
        with self._lock:
            if key in self._written or (key not in self._waiting and len(self._waiting) >= self._most_waiting):
                return
            self._waiting[key] = record.at
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._write_now_and_then, name="last-pulls", daemon=True)
                self._thread.start()

    def close(self, patience_seconds: float = 10.0) -> None:
        """Writes what waits."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(patience_seconds)

    def write(self) -> None:
        """Writes what waits now."""
        with self._lock:
            pulls, self._waiting = self._waiting, {}
        if not pulls:
            return
        try:
            self._store.record(pulls)
            self._forget()
        except RegistrySyncError as problem:
            if not self._is_failing:
                _log.error("the last pulls cannot be written, and are tried again: %s", problem)
            self._is_failing = True
            self._keep(pulls)
        else:
            self._is_failing = False
            with self._lock, suppress(ValueError):
                self._written.update(dict.fromkeys(pulls, True))

    def _keep(self, pulls: Mapping[tuple[str, str], datetime]) -> None:
        with self._lock:
            room = max(self._most_waiting - len(self._waiting), 0)
            kept = dict(list(pulls.items())[:room])
            self._waiting = {**kept, **self._waiting}

    def _forget(self) -> None:
        """Once a day."""
        now = self._clock()
        if self._forgotten_at is None or now - self._forgotten_at > _DAY_SECONDS:
            self._store.forget()
            self._forgotten_at = now

    def _write_now_and_then(self) -> None:
        while not self._ending.wait(self._write_seconds):
            self.write()
        self.write()
