"""Failed logins of all processes of an installation, as rates: each failure moves a time that lies ahead further on.

What is counted is named by a hash. Times are those of the database's clock, so that no two machines' clocks are
compared. A row is of no use once its time has passed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Double, bindparam, delete, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches
from registry_sync.db.serving_tables import login_failures

#: How many rows are removed at a time.
_REMOVED_AT_ONCE = 1_000
_POSTGRESQL_NOW = "extract(epoch from clock_timestamp())::double precision"
_SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"


class LoginFailureStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def seconds_ahead(self, keys: Collection[str]) -> dict[str, float]:
        """How many seconds the times of ``keys`` lie ahead; those that have none are missing."""
        row = login_failures.c
        with self._transactions.reading() as connection:
            ahead = (row.until - _now(connection)).label("ahead")
            found = connection.execute(select(row.key, ahead).where(row.key.in_(keys), row.until > _now(connection)))
            return {key: float(seconds) for key, seconds in found}

    def record(self, failures: Mapping[str, float]) -> None:
        """Moves the time of each key on by so many seconds, from now where it has passed."""
        row = login_failures.c
        for batch in in_batches(sorted(failures.items())):  # in one order, lest writers deadlock
            with self._transactions.writing() as connection:
                is_postgresql = connection.dialect.name == "postgresql"
                insert = postgresql.insert if is_postgresql else sqlite.insert
                later: Any = func.greatest if is_postgresql else func.max
                seconds: ColumnElement[float] = bindparam("seconds", type_=Double())
                now = _now(connection)
                added = insert(login_failures).values(key=bindparam("failed"), until=now + seconds)
                moved = added.on_conflict_do_update(
                    index_elements=["key"], set_={"until": later(row.until, now) + seconds}
                )
                connection.execute(moved, [{"failed": key, "seconds": number} for key, number in batch])

    def forget(self) -> int:
        """Removes rows whose time has passed; how many they were. Others that remove at the same time are no matter."""
        row = login_failures.c
        removed = 0
        while True:
            with self._transactions.writing() as connection:
                passed = select(row.key).where(row.until < _now(connection)).limit(_REMOVED_AT_ONCE)
                keys = connection.execute(passed.with_for_update(skip_locked=True)).scalars().all()
                count = connection.execute(delete(login_failures).where(row.key.in_(keys))).rowcount if keys else 0
            removed += count
            if len(keys) < _REMOVED_AT_ONCE:
                return removed


def _now(connection: Connection) -> ColumnElement[float]:
    """Seconds since 1970, by the clock of the database."""
    text = _POSTGRESQL_NOW if connection.dialect.name == "postgresql" else _SQLITE_NOW
    return literal_column(text, Double())
