"""Locks by name, for work that no transaction can hold together because part of it happens elsewhere.

They hold between threads, processes and machines, and are dropped with whoever holds them. Nothing in the database is
locked meanwhile: only those wait who ask for the same lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from registry_sync.domain.file_modes import FileModes
from registry_sync.errors import DatabaseError, DatabaseUnavailable

#: Tells locks by name from the one under which PostgreSQL is migrated; the number is arbitrary.
POSTGRESQL_SEED = 7_250_131
_POLL_SECONDS = 0.02


@contextmanager
def file_lock(path: str, patience_seconds: float, modes: FileModes) -> Iterator[None]:
    """Holds the lock of the file at ``path``, which is made. Raises :class:`DatabaseUnavailable` when it is not had."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.file)
    except OSError as problem:
        raise DatabaseError(f"the lock {path} of the metadata database cannot be made: {problem.strerror}") from problem
    try:
        modes.apply(descriptor)
        deadline = time.monotonic() + patience_seconds
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("another change of this kind is under way, and takes long; try again later")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
