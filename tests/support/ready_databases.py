"""SQLite databases with tables: migrated once in a process, and copied for each test that wants one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from registry_sync.db.database import Database


def ready_database(path: Path) -> Database:
    """The database at ``path``, opened, as :meth:`Database.ready` makes it where there is none."""
    if not path.exists():
        path.write_bytes(_migrated())
    return Database.connect(f"sqlite:///{path}")


class RenewedDatabase:
    """One database at ``path`` for tests that run one after the other: each finds it migrated and empty.

    How statements are compiled is learnt once by an engine, and costs more than most tests do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = ready_database(path)

    def renewed(self) -> Database:
        """Resets the database; it must not be in use."""
        self._database.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._path.write_bytes(_migrated())
        return self._database

    def close(self) -> None:
        self._database.close()


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry_sync.db"
        with Database.connect(f"sqlite:///{path}") as database:
            database.ready()
        return path.read_bytes()
