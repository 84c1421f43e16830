"""Engines: an address turned into connections that behave alike on both databases.

SQLite is opened so that several processes may work on one file: a write begins with ``BEGIN IMMEDIATE``, so that
writers queue for up to :data:`BUSY_TIMEOUT_SECONDS` where a later upgrade of a read lock would fail at once.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from math import ceil
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from registry_sync.errors import ConfigurationError

BUSY_TIMEOUT_SECONDS = 60
CONNECT_TIMEOUT_SECONDS = 30
_WRITING = "registry_sync_writing"
_POSTGRESQL_SPELLINGS = frozenset({"postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"})


def read_url(text: str) -> URL:
    """``text`` as an address that is supported: a SQLite file, or PostgreSQL through psycopg 3.

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
        if not url.database or url.database == ":memory:" or "mode=memory" in str(url.query):
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


def make_engine(url: URL, patience_seconds: float | None = None) -> Engine:
    """An engine for ``url`` as given by :func:`read_url`. Connects lazily; few connections, as tasks live shortly.

    ``patience_seconds`` is for those that somebody waits for: a lock or a connection that is not had by then is an
    error. None waits as tasks do, on PostgreSQL for a lock without end.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=-1,
            connect_args={"timeout": patience_seconds or BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
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
        connect_args={
            "connect_timeout": ceil(patience_seconds or CONNECT_TIMEOUT_SECONDS),
            "application_name": "registry-sync",
        },
    )
    if patience_seconds is not None:
        event.listen(engine, "begin", partial(_limit_waiting, patience_seconds))
    return engine


def for_writing(connection: Connection) -> Connection:
    """``connection``, whose next transaction takes SQLite's write lock at its beginning."""
    return connection.execution_options(**{_WRITING: True})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself, it would do so late and without the lock.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    is_writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _limit_waiting(patience_seconds: float, connection: Connection) -> None:
    """For this transaction alone, as a pool between here and PostgreSQL may give the session to another."""
    if connection.get_execution_options().get(_WRITING, False):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {ceil(patience_seconds * 1000)}")
