"""Engines: a URL turned into connections that behave alike on both databases, and driver errors turned into ours.

Errors are classified by the type of the driver's error and by SQLSTATE or SQLite's result code, not by messages. Before
Python 3.11 the sqlite3 module gives no code; there its fixed texts are compared.

SQLite is opened for several processes on one file: a write starts with ``BEGIN IMMEDIATE``, so that writers queue for
up to :data:`BUSY_TIMEOUT_SECONDS`. Upgrading a read lock later would fail at once.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, exc, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import LRUCache

from registry_sync.errors import ConfigurationError, DatabaseError, DatabaseFull, DatabaseOutdated, DatabaseUnavailable

UPGRADE_COMMAND, AIRFLOWS_UPGRADE_COMMAND = "airflow registry-sync db upgrade", "airflow db migrate"
#: The errors that :func:`converted` accepts: those of our database and of Airflow's.
FOREIGN_ERROR = exc.SQLAlchemyError
OURS = "the metadata database"
#: The name of the other one in messages.
AIRFLOWS_DATABASE = "Airflow's own metadata database"
#: Conditions: SQLSTATE of PostgreSQL, code and text of SQLite. Here disk_full (out_of_memory is not converted).
_FULL = ("53100", 13, "database or disk is full")
#: The same: lock_not_available.
_BUSY = ("55P03", 5, "database is locked")
_SQLITE_UNKNOWN = ("no such table", "no such column", "has no column named")
#: SQLSTATE: undefined_table, undefined_column.
_POSTGRESQL_UNKNOWN = frozenset({"42P01", "42703"})


@contextmanager
def converted_errors() -> Iterator[None]:
    """Converts driver errors into :class:`DatabaseUnavailable`, :class:`DatabaseOutdated` or :class:`DatabaseError`."""
    try:
        yield
    except exc.SQLAlchemyError as problem:
        raise converted(problem) from problem


def converted(problem: exc.SQLAlchemyError, database: str = OURS) -> DatabaseError:
    """The corresponding :class:`DatabaseError`; ``database`` is the name of the failing database in messages."""
    if isinstance(problem, exc.TimeoutError):
        return DatabaseUnavailable(f"all connections to {database} are in use; try again later")
    if not isinstance(problem, exc.DBAPIError):
        return DatabaseError(f"{database} cannot be used: {_first_line(problem)}")
    return _converted_from_driver(problem, database)


def _converted_from_driver(problem: exc.DBAPIError, database: str) -> DatabaseError:
    cause = problem.orig or problem
    said = _first_line(cause)
    if _is_condition(cause, _FULL):
        disk = "the disk that its file is on" if type(cause).__module__ == "sqlite3" else "the disk of its server"
        return DatabaseFull(f"{database} has no space left, on {disk}: {said}; stored content stays intact")
    if _is_condition(cause, _BUSY):
        return DatabaseUnavailable(f"{database} is busy: another transaction holds its locks for long; try again later")
    if _is_unknown_to_schema(cause):
        command = UPGRADE_COMMAND if database == OURS else AIRFLOWS_UPGRADE_COMMAND
        return DatabaseOutdated(f"{database} lacks what this release needs ({said}); run: {command}")
    if isinstance(problem, exc.OperationalError | exc.InterfaceError) or problem.connection_invalidated:
        return DatabaseUnavailable(f"{database} does not respond: {said}")
    refused = "a record" if isinstance(problem, exc.IntegrityError) else "a statement"
    return DatabaseError(f"{database} refused {refused}: {said}")


def _is_condition(cause: BaseException, condition: tuple[str, int, str]) -> bool:
    """Whether a driver reports ``condition``: a SQLSTATE of PostgreSQL, SQLite's code, or its text."""
    sqlstate, sqlite_code, sqlite_text = condition
    if getattr(cause, "sqlstate", None) == sqlstate:
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    return code & 0xFF == sqlite_code if code is not None else str(cause) == sqlite_text


def _is_unknown_to_schema(cause: BaseException) -> bool:
    if getattr(cause, "sqlstate", None) in _POSTGRESQL_UNKNOWN:
        return True
    return type(cause).__module__ == "sqlite3" and any(words in str(cause) for words in _SQLITE_UNKNOWN)


def _first_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[0][:300]


class Transactions(Protocol):
    """Opens transactions; driver errors are raised as :class:`DatabaseError`."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A read-only transaction."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that may write."""
        ...


BUSY_TIMEOUT_SECONDS = 60
CONNECT_TIMEOUT_SECONDS = 30
_WRITING = "registry_sync_writing"
_POSTGRESQL_SPELLINGS = frozenset({"postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"})


def read_url(text: str) -> URL:
    """``text`` as a URL of a supported database: a SQLite file, or PostgreSQL through psycopg 3.

    Raises :class:`ConfigurationError` for others, for SQLite in memory, and when psycopg is not installed.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "[registry_sync] sql_alchemy_conn is not a database URL; such as sqlite:////var/lib/registry_sync.db or "
            "postgresql://user:password@host/name"
        ) from None
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.query.get("mode") == "memory":
            raise ConfigurationError("a SQLite database in memory is not shared by tasks; name a file")
        return url.set(drivername="sqlite")
    if url.drivername in _POSTGRESQL_SPELLINGS:
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigurationError(
                "PostgreSQL is reached through psycopg, which is not installed; "
                "run: pip install 'registry-sync[postgresql]'"
            )
        return url.set(drivername="postgresql+psycopg")
    raise ConfigurationError(
        f"[registry_sync] sql_alchemy_conn names {url.drivername!r}; supported are sqlite and postgresql"
    )


class _CompiledStatements(MutableMapping[tuple[Any, ...], Any]):
    """Statements as SQLAlchemy has compiled them, for all engines of one kind in a process; the latest are kept.

    SQLAlchemy keeps them by engine, and the first part of its key is the engine's dialect. In its place here is what
    ``depends_on`` says that they depend on, so that a task that is forked finds compiled what was so before in the
    process it is forked from. To compile one takes a millisecond, and a task executes fifty.
    """

    def __init__(self, depends_on: Callable[[Dialect], Hashable]) -> None:
        self._kept: LRUCache[Any, Any] = LRUCache(500)
        self._depends_on = depends_on

    def _key(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._depends_on(key[0]), *key[1:])

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        return self._kept[self._key(key)]

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        self._kept[self._key(key)] = compiled

    def __delitem__(self, key: tuple[Any, ...]) -> None:
        del self._kept[self._key(key)]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


#: The dialects of SQLite are alike in one process.
_OF_SQLITE = _CompiledStatements(lambda _dialect: None)
#: What a dialect of PostgreSQL reads from its server when it connects, and so before it compiles anything.
_OF_POSTGRESQL = _CompiledStatements(
    lambda dialect: (dialect.server_version_info, getattr(dialect, "_backslash_escapes", None))
)


def make_engine(url: URL, patience_seconds: float | None = None) -> Engine:
    """An engine for ``url`` as returned by :func:`read_url`. Connects lazily; the pool is small, as tasks are short.

    ``patience_seconds`` limits the wait for a lock or a connection when a person waits for the result. None waits as
    tasks do: on PostgreSQL without limit for a lock.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=-1,
            connect_args={"timeout": patience_seconds or BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            execution_options={"compiled_cache": _OF_SQLITE},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        pool_size=2,
        max_overflow=18,
        pool_timeout=patience_seconds or BUSY_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        use_native_hstore=False,  # for which each engine would ask the server first
        execution_options={"compiled_cache": _OF_POSTGRESQL},
        connect_args={
            "connect_timeout": ceil(patience_seconds or CONNECT_TIMEOUT_SECONDS),
            "application_name": "registry-sync",
        },
    )
    if patience_seconds is not None:
        event.listen(engine, "begin", partial(_limit_waiting, patience_seconds))
    return engine


class CommitCounter:
    """Changes whenever a transaction of any process was committed, as far as a database says so for next to nothing.

    That is SQLite's (``PRAGMA data_version``), whose numbers mean something on one connection alone, which this keeps.
    Not for several threads at once.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_known = engine.dialect.name == "sqlite"
        self._connection: Any = None

    def read(self) -> int | None:
        """The present number; None where there is none, or it would have to be waited for."""
        if not self._is_known:
            return None
        try:
            if self._connection is None:
                address = Path(str(self._engine.url.database)).absolute().as_uri()
                self._connection = sqlite3.connect(
                    f"{address}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
                )
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return None

    def close(self) -> None:
        """Closes its connection; from then on nothing is known."""
        self._is_known = False
        if self._connection is not None:
            self._connection.close()

    def __del__(self) -> None:
        self.close()


def for_writing(connection: Connection) -> Connection:
    """``connection``, whose next transaction acquires SQLite's write lock when it starts."""
    return connection.execution_options(**{_WRITING: True})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not start transactions itself: it would do so late and without the lock.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    is_writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _limit_waiting(patience_seconds: float, connection: Connection) -> None:
    """Limits this transaction alone: a pooler in front of PostgreSQL may give the session to another client."""
    if connection.get_execution_options().get(_WRITING, False):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {ceil(patience_seconds * 1000)}")
