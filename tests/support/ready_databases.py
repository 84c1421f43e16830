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


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry_sync.db"
        with Database.connect(f"sqlite:///{path}") as database:
            database.ready()
        return path.read_bytes()
