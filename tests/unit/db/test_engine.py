"""A URL decides which database is used; what its driver raises becomes an error that says what to do."""

from __future__ import annotations

import importlib.util
import sqlite3

import pytest
from sqlalchemy import exc

from registry_sync.db.engine import UPGRADE_COMMAND, converted, read_url
from registry_sync.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseFull,
    DatabaseOutdated,
    DatabaseUnavailable,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no url", "is not a database URL"),
        ("postgresql://host:port/name", "is not a database URL"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///file:x?mode=memory&uri=true", "name a file"),
        ("mysql://host/name", "names 'mysql'; supported are sqlite and postgresql"),
    ],
)
def test_a_database_that_tasks_cannot_share_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_url(text)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_reached_through_psycopg(scheme: str) -> None:
    assert read_url(f"{scheme}://user@host/name").drivername == "postgresql+psycopg"


def test_without_psycopg_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'registry-sync\[postgresql\]'"):
        read_url("postgresql://host/name")


class PostgresError(Exception):
    """As psycopg's, which carry a SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"state {sqlstate}\nDETAIL: of the second line")
        self.sqlstate = sqlstate


def _of_driver(kind: type[exc.DBAPIError], cause: Exception) -> exc.DBAPIError:
    return kind("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    ("problem", "expected", "said"),
    [
        (
            exc.TimeoutError("QueuePool limit"),
            DatabaseUnavailable,
            "all connections to the metadata database are in use",
        ),
        (exc.ArgumentError("odd"), DatabaseError, "the metadata database cannot be used: odd"),
        (_of_driver(exc.OperationalError, PostgresError("53100")), DatabaseFull, "on the disk of its server"),
        (_of_driver(exc.OperationalError, PostgresError("55P03")), DatabaseUnavailable, "is busy"),
        (_of_driver(exc.ProgrammingError, PostgresError("42P01")), DatabaseOutdated, UPGRADE_COMMAND),
        (
            _of_driver(exc.OperationalError, PostgresError("57P01")),
            DatabaseUnavailable,
            "does not respond: state 57P01$",
        ),
        (_of_driver(exc.IntegrityError, PostgresError("23505")), DatabaseError, "refused a record: state 23505$"),
        (_of_driver(exc.DataError, PostgresError("22003")), DatabaseError, "refused a statement: state 22003$"),
        (
            _of_driver(exc.OperationalError, sqlite3.OperationalError("database or disk is full")),
            DatabaseFull,
            "on the disk that its file is on",
        ),
        (
            _of_driver(exc.OperationalError, sqlite3.OperationalError("database is locked")),
            DatabaseUnavailable,
            "is busy",
        ),
        (
            _of_driver(exc.OperationalError, sqlite3.OperationalError("no such table: syncs")),
            DatabaseOutdated,
            "lacks what this release needs",
        ),
    ],
)
def test_an_error_of_the_driver_says_what_to_do(
    problem: exc.SQLAlchemyError, expected: type[DatabaseError], said: str
) -> None:
    error = converted(problem)
    assert type(error) is expected
    with pytest.raises(expected, match=said):
        raise error


def test_a_table_that_airflows_database_lacks_is_made_by_airflows_command() -> None:
    problem = converted(_of_driver(exc.ProgrammingError, PostgresError("42P01")), "Airflow's database")
    assert type(problem) is DatabaseOutdated
    said = "Airflow's database lacks what this release needs (state 42P01); run: airflow db migrate"
    assert str(problem) == said
