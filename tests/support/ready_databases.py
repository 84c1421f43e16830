"""SQLite databases with tables, or with what tests start from: made once in a process, copied for each test."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from registry_sync.db.database import Database


def ready_database(path: Path) -> Database:
    """The database at ``path``, opened, as :meth:`Database.ready` makes it where there is none."""
    if not path.exists():
        path.write_bytes(_migrated())
    return Database.connect(f"sqlite:///{path}")


P = ParamSpec("P")
T = TypeVar("T")
_filled: dict[tuple[Any, ...], tuple[bytes, Any]] = {}


def filled(
    database: Database, fill: Callable[Concatenate[Database, P], T], *arguments: P.args, **options: P.kwargs
) -> T:
    """What ``fill`` returned when it filled a database with these arguments, and ``database`` with what it wrote.

    It runs once in a process; then its database is copied, with the same ids and times. ``database`` must be ready,
    empty, and not in use; nothing but the database may depend on ``fill``.
    """
    path = Path(str(database._engine.url.database))
    key = (fill, arguments, tuple(options.items()))
    if key not in _filled:
        result = fill(database, *arguments, **options)
        _filled[key] = _read(database, path), result
    else:
        _replace(database, path, _filled[key][0])
    return _filled[key][1]  # type: ignore[no-any-return]


def _read(database: Database, path: Path) -> bytes:
    database.close()
    assert not Path(f"{path}-wal").exists(), "another connection keeps a part of the database to itself"
    return path.read_bytes()


def _replace(database: Database, path: Path, data: bytes) -> None:
    database.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(data)


class RenewedDatabase:
    """One database at ``path`` for tests that run one after the other: each finds it migrated and empty.

    How statements are compiled is learnt once by an engine, and costs more than most tests do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = ready_database(path)

    def renewed(self, data: bytes | None = None) -> Database:
        """Resets the database, or puts it back as :meth:`kept` gave it; it must not be in use."""
        _replace(self._database, self._path, data or _migrated())
        return self._database

    def kept(self) -> bytes:
        """All that it holds now; it must not be in use."""
        return _read(self._database, self._path)

    def close(self) -> None:
        self._database.close()


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry_sync.db"
        with Database.connect(f"sqlite:///{path}") as database:
            database.ready()
        return path.read_bytes()
