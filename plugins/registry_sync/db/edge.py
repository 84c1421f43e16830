"""The edge of the database: foreign errors become ours here and nowhere else.

Decided by the type of the driver's error and by SQLSTATE or SQLite's result code, not by messages; SQLite before
Python 3.11 tells no code, there its fixed texts are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from registry_sync.errors import DatabaseError, DatabaseFull, DatabaseOutdated, DatabaseUnavailable

UPGRADE_COMMAND = "airflow registry-sync db upgrade"
#: What :func:`converted` takes: the errors of databases, ours and Airflow's.
FOREIGN_ERROR = exc.SQLAlchemyError
OURS = "the metadata database"
_SQLITE_BUSY, _SQLITE_FULL = 5, 13
_SQLITE_BUSY_TEXT = "database is locked"
_SQLITE_FULL_TEXT = "database or disk is full"
_SQLITE_UNKNOWN = ("no such table", "no such column", "has no column named")
#: SQLSTATE: disk_full, out_of_memory is left alone; undefined_table, undefined_column.
_POSTGRESQL_FULL = "53100"
_POSTGRESQL_BUSY = "55P03"  # lock_not_available
_POSTGRESQL_UNKNOWN = frozenset({"42P01", "42703"})


@contextmanager
def converted_errors() -> Iterator[None]:
    """Raises :class:`DatabaseUnavailable`, :class:`DatabaseOutdated` or :class:`DatabaseError` for what is inside."""
    try:
        yield
    except exc.SQLAlchemyError as problem:
        raise converted(problem) from problem


def converted(problem: exc.SQLAlchemyError, database: str = OURS) -> DatabaseError:
    """The error of ours that it is; ``database`` names the database that it came from."""
    if isinstance(problem, exc.TimeoutError):
        return DatabaseUnavailable(f"all connections to {database} are in use; try again later")
    if not isinstance(problem, exc.DBAPIError):
        return DatabaseError(f"{database} cannot be used: {_first_line(problem)}")
    return _converted_from_driver(problem, database)


def _converted_from_driver(problem: exc.DBAPIError, database: str) -> DatabaseError:
    cause = problem.orig or problem
    said = _first_line(cause)
    if _is_full(cause):
        disk = "the disk that its file is on" if type(cause).__module__ == "sqlite3" else "the disk of its server"
        return DatabaseFull(f"{database} has no space left, on {disk}: {said}; what is stored stays good")
    if _is_busy(cause):
        return DatabaseUnavailable(f"{database} is busy: others hold its locks for long; try again later")
    if database == OURS and _is_unknown_to_schema(cause):
        return DatabaseOutdated(f"{database} lacks what this release needs ({said}); run: {UPGRADE_COMMAND}")
    if isinstance(problem, exc.OperationalError | exc.InterfaceError) or problem.connection_invalidated:
        return DatabaseUnavailable(f"{database} does not answer: {said}")
    refused = "a record" if isinstance(problem, exc.IntegrityError) else "a statement"
    return DatabaseError(f"{database} refused {refused}: {said}")


def _is_busy(cause: BaseException) -> bool:
    if getattr(cause, "sqlstate", None) == _POSTGRESQL_BUSY:
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    return code & 0xFF == _SQLITE_BUSY if code is not None else str(cause) == _SQLITE_BUSY_TEXT


def _is_full(cause: BaseException) -> bool:
    if getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL:
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    return code & 0xFF == _SQLITE_FULL if code is not None else str(cause) == _SQLITE_FULL_TEXT


def _is_unknown_to_schema(cause: BaseException) -> bool:
    if getattr(cause, "sqlstate", None) in _POSTGRESQL_UNKNOWN:
        return True
    return type(cause).__module__ == "sqlite3" and any(words in str(cause) for words in _SQLITE_UNKNOWN)


def _first_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:300]
