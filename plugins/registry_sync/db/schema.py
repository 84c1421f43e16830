"""The schema: the revision that a database is at, and the migration to the one this release needs.

Alembic is imported only to migrate; a check costs one query.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table

from registry_sync.db.engine import UPGRADE_COMMAND, converted_errors, for_writing
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.errors import DatabaseError, DatabaseFull, DatabaseOutdated, DatabaseUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)
#: What Alembic writes a line to for each migration: in the log of a task it would hide what the task did.
_MIGRATION_LOG = logging.getLogger("alembic.runtime.migration")
#: The newest migration; a test compares it with the folder of migrations.
HEAD_REVISION = "0020"
VERSION_TABLE = "registry_sync_schema"
_MIGRATIONS = Path(__file__).parent / "migrations"
#: Names the lock under which one process at a time migrates a PostgreSQL; the number is arbitrary.
_LOCK_NUMBER = 7_250_131_906_412_817
#: How long an embedded database may be open elsewhere before it counts as used.
_PATIENCE_SECONDS, _POLL_SECONDS = 2.0, 0.05


def current_revision(connection: Connection) -> str | None:
    """The revision of the database, None for an empty one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(
        select(sql_column("version_num")).select_from(sql_table(VERSION_TABLE))
    ).scalar_one_or_none()
    return revision


def is_behind(revision: str | None) -> bool:
    """Whether a database at ``revision`` has to be migrated before this release can use it."""
    return revision is None or revision < HEAD_REVISION


def refuse_other_than_head(revision: str | None) -> None:
    """Raises :class:`DatabaseOutdated` with the remedy unless ``revision`` is that of this release."""
    if revision == HEAD_REVISION:
        return
    if not is_behind(revision):
        raise DatabaseOutdated(
            f"the metadata database is at schema {revision}, made by a newer registry-sync than this one, which knows "
            f"{HEAD_REVISION}; upgrade the package"
        )
    raise DatabaseOutdated(
        f"the metadata database is at schema {revision or 'none'}, this release needs {HEAD_REVISION}; "
        f"run: {UPGRADE_COMMAND}"
    )


def upgrade(
    engine: Engine, revision: str = "head", *, modes: FileModes = OWNER_ONLY, only_unused: bool = False
) -> None:
    """Migrates up to ``revision``; safe to repeat and to run concurrently.

    ``modes`` sets who may access a SQLite file that is created. ``only_unused`` raises :class:`DatabaseUnavailable` for
    a SQLite file behind this release that others have open: they run the release before, whose statements would fail.
    What it did is logged in one line, if anything.
    """
    with _one_at_a_time(engine, modes, only_unused=only_unused) as connection:
        from alembic import command

        before = current_revision(connection)
        with _without_line_for_each():
            command.upgrade(_config(connection), revision)
        after = current_revision(connection)
    if after != before:
        was = "was made, and" if before is None else f"was at schema {before}, and"
        log.info("the metadata database %s is at schema %s", was, after)


@contextmanager
def _without_line_for_each() -> Iterator[None]:
    """Alembic logs warnings alone, unless more than INFO is wanted."""
    level = _MIGRATION_LOG.level
    if _MIGRATION_LOG.getEffectiveLevel() == logging.INFO:
        _MIGRATION_LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _MIGRATION_LOG.setLevel(level)


def downgrade(engine: Engine, revision: str) -> None:
    """Migrates down to ``revision``; ``base`` drops every table."""
    with _one_at_a_time(engine) as connection:
        from alembic import command

        command.downgrade(_config(connection), revision)


@contextmanager
def _one_at_a_time(engine: Engine, modes: FileModes = OWNER_ONLY, *, only_unused: bool = False) -> Iterator[Connection]:
    from alembic.util import CommandError

    file = engine.url.database if engine.dialect.name == "sqlite" else None
    with (
        converted_errors(),
        _file_lock(engine, file, modes, only_unused=only_unused),
        for_writing(engine.connect()) as connection,
        _tables_may_be_recreated(connection, is_sqlite=file is not None),
        connection.begin(),
    ):
        if file is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
        try:
            yield connection
        except CommandError as problem:
            raise DatabaseError(f"the metadata database cannot be migrated: {problem}") from problem
        if file is not None and connection.execute(text("PRAGMA foreign_key_check")).first() is not None:
            raise DatabaseError("the metadata database cannot be migrated: records would refer to missing rows")


@contextmanager
def _file_lock(engine: Engine, file: str | None, modes: FileModes, *, only_unused: bool) -> Iterator[None]:
    """Holds ``file``'s lock while a SQLite database is created or migrated, and switches it to write-ahead logging.

    The switch needs exclusive access and does not wait for it, so it happens here, once.
    """
    if file is None:
        yield
        return
    try:
        modes.make_folder(Path(file).parent)
        lock = os.fdopen(_opened(f"{file}.lock", modes), "a")
        os.close(_opened(file, modes))  # SQLite makes its other files like this one
    except OSError as problem:
        kind = DatabaseFull if problem.errno in (errno.ENOSPC, errno.EDQUOT) else DatabaseError
        raise kind(f"the metadata database {file} cannot be made: {problem.strerror}") from problem
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if only_unused:
            _refuse_used(engine, file)
        with engine.connect() as connection:
            driver_connection = connection.connection.driver_connection
            assert driver_connection is not None  # noqa: S101  # a connection in use has one
            driver_connection.execute("PRAGMA journal_mode = WAL").fetchone()
        yield


def _refuse_used(engine: Engine, file: str) -> None:
    """Raises :class:`DatabaseUnavailable` for a file that is behind this release while others have it open.

    A connection of write-ahead logging has a lock on the file as long as it is open, so that SQLite refuses to leave
    that mode. Whoever only looks which revision it is at is gone again at once.
    """
    with engine.connect() as connection:
        revision = current_revision(connection)
    engine.dispose()  # its own connections do not count
    if revision is None or not is_behind(revision):
        return
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with closing(sqlite3.connect(file, timeout=0)) as alone:
        while not _leaves_wal(alone):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"the embedded metadata database is at schema {revision}, this release needs {HEAD_REVISION}, and "
                    "another process has it open: an Airflow or a pull server that runs an earlier release. Stop or "
                    "restart that and repeat this. To migrate all the same, and restart it afterwards, run: "
                    f"{UPGRADE_COMMAND}"
                )
            time.sleep(_POLL_SECONDS)


def _leaves_wal(connection: sqlite3.Connection) -> bool:
    """Whether the file could leave write-ahead logging, which every migration enters again."""
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as problem:
        if "locked" in str(problem):
            return False
        raise
    return True


@contextmanager
def _tables_may_be_recreated(connection: Connection, *, is_sqlite: bool) -> Iterator[None]:
    """SQLite alters most tables by copying them; foreign keys are off meanwhile, so that no cascade deletes rows."""
    driver_connection: Any = connection.connection.driver_connection
    if is_sqlite:
        driver_connection.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        if is_sqlite:
            driver_connection.execute("PRAGMA foreign_keys = ON")


def _opened(path: str, modes: FileModes) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.file)
    modes.apply(descriptor)
    return descriptor


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
