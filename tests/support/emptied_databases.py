"""Databases for tests that run one after the other: emptied after each, or put back as another test began with.

A new database for each test costs a third of a second, and as much again for what an engine and a server learn of it
anew: how statements are compiled, and what is in the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, text

from registry_sync.db.database import Database
from registry_sync.db.tables import metadata
from registry_sync.errors import RegistrySyncError

#: Rows of one table that a test may leave before its database is not used for others.
MOST_DEAD_ROWS = 2000
#: Those that others refer to come first.
TABLES = tuple(table.name for table in metadata.sorted_tables)
_IN_PUBLIC = "FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
_NUMBERS = (
    "SELECT json_object_agg(sequencename, last_value)::text FROM pg_sequences "
    "WHERE schemaname = 'public' AND last_value IS NOT NULL"
)
_DELETE = "DELETE FROM {0}; GET DIAGNOSTICS gone = ROW_COUNT; most := greatest(most, gone);"
_INSERT = """IF rows->'{0}' IS NOT NULL THEN
INSERT INTO {0} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{0}, rows->'{0}'); END IF;"""
#: What does either in one statement. Everything goes and comes at once, so that no row is looked for that refers to
#: another.
_FUNCTIONS = f"""
CREATE SCHEMA tests;
CREATE FUNCTION tests.empty() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE most bigint := 0; gone bigint;
BEGIN
    PERFORM set_config('session_replication_role', 'replica', true), set_config('lock_timeout', '10s', true);
    {"".join(_DELETE.format(table) for table in TABLES)}
    PERFORM setval(oid, 1, false) {_IN_PUBLIC};
    RETURN most;
END $$;
CREATE FUNCTION tests.put_back(rows json, numbers json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('session_replication_role', 'replica', true);
    {"".join(_INSERT.format(table) for table in TABLES)}
    PERFORM setval(key::regclass, value::bigint) FROM json_each_text(numbers);
END $$;
"""

P = ParamSpec("P")
T = TypeVar("T")


class EmptiedDatabase:
    """A migrated database at a URL, for one test after the other."""

    def __init__(self, url: str) -> None:
        self.database = Database.connect(url)
        self._kept: dict[tuple[Any, ...], tuple[Any, dict[str, Any]]] = {}
        _all[self.database] = self
        if not self.database.is_embedded:
            with self.database.writing() as connection:
                connection.exec_driver_sql(_FUNCTIONS)

    def empty(self) -> bool:
        """Removes every row, and begins to number anew; whether the next test finds it as if it were new.

        It does not where something holds a row that a test has left behind, or where the space of so many rows would
        be read by every test that follows.
        """
        try:
            with self.database.writing() as connection:
                if self.database.is_embedded:
                    gone = [_driver(connection).execute(f"DELETE FROM {table}").rowcount for table in reversed(TABLES)]
                else:
                    gone = [connection.execute(text("SELECT tests.empty()")).scalar_one()]
        except RegistrySyncError:
            return False
        return bool(max(gone) <= MOST_DEAD_ROWS)

    def filled(self, fill: Callable[[], T], key: tuple[Any, ...]) -> T:
        """What ``fill`` returned when it filled this database, while it was empty, for the first time with ``key``."""
        if key not in self._kept:
            result = fill()
            with self.database.reading() as connection:
                self._kept[key] = result, (_read_embedded if self.database.is_embedded else _read)(connection)
            return result
        result, content = self._kept[key]
        with self.database.writing() as connection:
            (_put_back_embedded if self.database.is_embedded else _put_back)(connection, content)
        return result


_all: WeakKeyDictionary[Database, EmptiedDatabase] = WeakKeyDictionary()


def filled(
    database: Database, fill: Callable[Concatenate[Database, P], T], *arguments: P.args, **options: P.kwargs
) -> T:
    """What ``fill`` returned when it filled a database with these arguments, and ``database`` with what it wrote.

    One that is emptied for the next test is put back as it was then, with the same ids and times; in any other ``fill``
    writes anew. ``database`` must be empty; nothing but the database may depend on ``fill``.
    """
    if database not in _all:
        return fill(database, *arguments, **options)
    return _all[database].filled(
        lambda: fill(database, *arguments, **options), (fill, arguments, tuple(options.items()))
    )


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _read_embedded(connection: Connection) -> dict[str, Any]:
    rows = {table: _driver(connection).execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    return {table: found for table, found in rows.items() if found}


def _put_back_embedded(connection: Connection, content: dict[str, Any]) -> None:
    driver = _driver(connection)
    driver.execute("PRAGMA defer_foreign_keys = ON")
    for table, rows in content.items():
        driver.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _read(connection: Connection) -> dict[str, Any]:
    columns = ", ".join(f"(SELECT json_agg(kept)::text FROM {table} AS kept)" for table in TABLES)
    found = zip(TABLES, connection.exec_driver_sql(f"SELECT {columns}").one(), strict=True)
    rows = ", ".join(f"{json.dumps(table)}: {kept}" for table, kept in found if kept)
    return {"rows": f"{{{rows}}}", "numbers": connection.exec_driver_sql(_NUMBERS).scalar_one() or "{}"}


def _put_back(connection: Connection, content: dict[str, Any]) -> None:
    connection.execute(text("SELECT tests.put_back(:rows, :numbers)"), content)
