"""The statements that reach databases while something runs, for tests of what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from registry_sync.db.database import Database

#: How long another transaction may take to reach the lock that it waits for, in seconds.
_LOCK_SECONDS = 60.0


@contextmanager
def listening(name: str, listener: Callable[..., None]) -> Iterator[None]:
    """``listener`` is called with that event of every database."""
    event.listen(Engine, name, listener)
    try:
        yield
    finally:
        event.remove(Engine, name, listener)


@contextmanager
def planned_statements(database: Database, kind: str = "SELECT") -> Iterator[list[str]]:
    """How the database looks up each statement of a ``kind`` since, in order: by an index wherever one can serve."""
    sent: list[tuple[str, Any]] = []
    plans: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if statement.startswith(kind):
            sent.append((statement, parameters))

    with listening("before_cursor_execute", note):
        yield plans
    with database.reading() as connection:
        is_postgres = connection.dialect.name == "postgresql"
        if is_postgres:  # without statistics several indexes look alike; a table of a few rows is read whole
            connection.execute(text("ANALYZE"))
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
            connection.execute(text("SET LOCAL enable_sort = off"))
        for statement, parameters in sent:
            explain = "EXPLAIN " if is_postgres else "EXPLAIN QUERY PLAN "
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            plans.append("\n".join(str(row[0] if is_postgres else row[-1]) for row in rows))


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """The steps that SQLite's machine takes since, in tens, also for rows that are read later."""
    taken: list[int] = []
    used: dict[int, Any] = {}

    def count(_connection: Any, cursor: Any, *_more: Any) -> None:
        used[id(cursor.connection)] = cursor.connection
        cursor.connection.set_progress_handler(lambda: taken.append(10), 10)

    try:
        with listening("before_cursor_execute", count):
            yield taken
    finally:
        for driver in used.values():
            driver.set_progress_handler(None, 10)


def await_lock(connection: Connection, other: Future[Any]) -> None:
    """Returns once another transaction of this PostgreSQL waits for a lock, or ``other`` has ended."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    give_up_at = time.monotonic() + _LOCK_SECONDS
    while not other.done() and not connection.execute(waiting).scalar_one():
        assert time.monotonic() < give_up_at, "nobody waits"
        time.sleep(0.01)


@contextmanager
def executed_statements() -> Iterator[list[str]]:
    """The text of each statement that any database was sent since, in order."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(" ".join(statement.split()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def recursive(statements: list[str]) -> list[str]:
    """Those that follow links as far as they lead."""
    return [statement for statement in statements if "RECURSIVE" in statement]
