"""What every command needs around its work: the database, errors as one line, a question before what destroys."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from registry_sync.db.database import Database
from registry_sync.domain.pages import Page, PageRequest
from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.dag_runs import run_end
from registry_sync.hooks.settings import load_settings
from registry_sync.sync.lost_runs import end_lost_runs

T = TypeVar("T")
_PAGE = 1000


@contextmanager
def errors_shown() -> Iterator[None]:
    """Ends the command with the message of an error of ours and status 1, without a traceback."""
    try:
        yield
    except RegistrySyncError as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")


@contextmanager
def configured_database() -> Iterator[Database]:
    """The database that the settings name, as it is: neither migrated nor checked."""
    with errors_shown():
        settings = load_settings()
        with Database.connect(settings.sql_alchemy_conn, modes=settings.file_modes) as database:
            yield database


@contextmanager
def usable_database() -> Iterator[Database]:
    """The database that the settings name, its schema ready."""
    with configured_database() as database:
        database.ready()
        yield database


def end_lost(database: Database) -> None:
    """Ends syncs that are said to be running and whose DAG run has ended, where Airflow's database is reached."""
    try:
        end_lost_runs(database.run_ends, lambda run: run_end(run.key), report=lambda line: print(line, file=sys.stderr))
    except RegistrySyncError:
        raise
    except Exception as problem:  # noqa: BLE001  whatever keeps this machine from Airflow's metadata database
        kind = type(problem).__name__
        print(f"whether running syncs still run could not be asked of Airflow from here ({kind})", file=sys.stderr)


def confirm(args: Namespace, question: str) -> None:
    """Asks unless ``--yes`` was given; anything but yes ends the command with status 1, and so does no terminal."""
    if args.yes:
        return
    try:
        response = input(f"{question} [y/N] ")
    except EOFError:
        sys.exit("nothing was done: there is nobody to ask; give --yes")
    if response.strip().lower() not in ("y", "yes"):
        sys.exit("nothing was done")


def every(page: Callable[[PageRequest], Page[T]], ordering: str = "") -> Iterator[T]:
    """All items of a paged list, page after page."""
    offset, total = 0, 1
    while offset < total:
        part = page(PageRequest(offset, _PAGE, ordering))
        yield from part.items
        offset, total = offset + _PAGE, part.total_count
