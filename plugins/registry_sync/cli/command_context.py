"""The context of every command: the database, errors as one line, confirmation before destructive work, and output.

Output is a table for people, or exact values as JSON, YAML or plain columns for programs.

Rows are dicts whose names include their units. A table shows ``added_bytes`` as ``added size`` with a unit,
``created_at`` to the second, counts with separated thousands and shortened digests, and omits columns without any
value; programs get all values in full.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from difflib import get_close_matches
from enum import Enum
from typing import Any, Protocol, TypeVar

from registry_sync.db.database import Database
from registry_sync.db.engine import AIRFLOWS_DATABASE, FOREIGN_ERROR, converted
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes
from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import RecordNotFound, RegistrySyncError
from registry_sync.hooks.dag_runs import run_end
from registry_sync.hooks.settings import load_settings

T = TypeVar("T")
R = TypeVar("R")
_PAGE = 1000


@contextmanager
def errors_shown() -> Iterator[None]:
    """Ends the command with the message of a :class:`RegistrySyncError` and status 1, without a traceback.

    Errors of Airflow's database as well; those of ours are of that type already.
    """
    try:
        yield
    except RegistrySyncError as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
    except FOREIGN_ERROR as problem:
        found = converted(problem, AIRFLOWS_DATABASE)
        sys.exit(f"{type(found).__name__}: {found}")


@contextmanager
def configured_database() -> Iterator[Database]:
    """The configured database, neither migrated nor checked."""
    with errors_shown():
        settings = load_settings()
        with Database.connect(settings.sql_alchemy_conn, modes=settings.file_modes) as database:
            yield database


class _Notices(logging.Handler):
    """Prints what is logged as a sentence on standard error, a warning as one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print(prefix + record.getMessage(), file=sys.stderr)


@contextmanager
def _notices_shown() -> Iterator[None]:
    """Lets a command say what it logs in its own way, and not in that of Airflow's processes."""
    logger, notices = logging.getLogger("registry_sync"), _Notices(logging.INFO)
    was_propagated, logger.propagate = logger.propagate, False
    logger.addHandler(notices)
    try:
        yield
    finally:
        logger.removeHandler(notices)
        logger.propagate = was_propagated


@contextmanager
def usable_database() -> Iterator[Database]:
    """The configured database with a current schema; meanwhile what is logged is said in sentences."""
    with configured_database() as database, _notices_shown():
        database.ready()
        yield database


def without_airflows_log(work: Callable[[], T]) -> T:
    """The result of ``work``, without what Airflow logs of it: it logs to standard output, where results belong."""
    from airflow.utils.cli import suppress_logs_and_warning

    results: list[T] = []
    suppress_logs_and_warning(lambda _args: results.append(work()))(Namespace(verbose=False))
    return results[0]


def read_connections() -> None:
    """Lets this process read connections from Airflow's own database, as the API server does."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


class _NamedStore(Protocol[R]):
    def by_name(self, name: str) -> R: ...
    def page(self, request: PageRequest = ..., *, name_contains: str | None = ...) -> Page[R]: ...


def named(store: _NamedStore[R], name: str) -> R:
    """The record of that name. Raises :class:`RecordNotFound` with the nearest names that exist."""
    try:
        return store.by_name(name)
    except RecordNotFound as problem:
        known = {_name_of(record): record for record in store.page(PageRequest(limit=_PAGE)).items}
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        if not near:
            raise
        raise RecordNotFound(f"{problem}; did you mean {' or '.join(map(repr, near))}?") from None


def _name_of(record: Any) -> str:
    return str(getattr(record, "name", None) or record.spec.name)


def end_lost(database: Database) -> None:
    """Ends syncs recorded as running whose DAG run has ended, where Airflow's database is reachable."""
    from registry_sync.sync.maintenance.collect import end_lost_runs

    try:
        end_lost_runs(database.run_ends, lambda run: run_end(run.key), report=lambda line: print(line, file=sys.stderr))
    except RegistrySyncError:
        raise
    except Exception as problem:  # noqa: BLE001  any reason why Airflow's metadata database is not reachable
        kind = type(problem).__name__
        print(f"Airflow could not be queried for the state of running syncs ({kind})", file=sys.stderr)


def confirm(args: Namespace, question: str) -> None:
    """Asks for confirmation unless ``--yes`` is set; without one, or a terminal, the command ends with status 1."""
    if args.yes:
        return
    try:
        response = input(f"{question} [y/N] ")
    except EOFError:
        sys.exit("nothing was done: no terminal for the confirmation; use --yes")
    if response.strip().lower() not in ("y", "yes"):
        sys.exit("nothing was done")


def every(page: Callable[[PageRequest], Page[T]], ordering: str = "") -> Iterator[T]:
    """All items of a paged list, page after page."""
    offset, total = 0, 1
    while offset < total:
        part = page(PageRequest(offset, _PAGE, ordering))
        yield from part.items
        offset, total = offset + _PAGE, part.total_count


Row = Mapping[str, Any]
_SHOWN_DIGITS = 12
_LEAST_COLUMN = 10


def print_rows(rows: Sequence[Row], output: str, *, always: Sequence[str] = (), whole: Sequence[str] = ()) -> None:
    """Rows of one kind; ``output`` is ``table``, ``json``, ``yaml`` or ``plain``.

    ``always`` are columns that a table has even where no row has a value: those that were asked for. ``whole`` are
    columns of short texts, which are not wrapped, as ids and times are not.
    """
    if output in ("json", "yaml"):
        print_document(rows, output)
    elif output == "plain":
        _console().print_as_plain_table([_exact(row) for row in rows])
    else:
        given = rows[0] if rows else ()
        names = [name for name in given if name in always or any(not _is_nothing(row[name]) for row in rows)]
        _print_table(names, [_for_people({name: row[name] for name in names}) for row in rows], whole)


def print_fields(fields: Row, output: str) -> None:
    """One object: a table of names and values for people."""
    if output in ("json", "yaml"):
        print_document(fields, output)
    elif output == "plain":
        _console().print_as_plain_table([{"field": name, "value": value} for name, value in _exact(fields).items()])
    else:
        rows = [{"field": name, "value": value} for name, value in _for_people(fields).items()]
        _console().print_as_table(rows)


def print_document(document: Row | Sequence[Row], output: str) -> None:
    """Any document, as ``json`` or ``yaml``; JSON is on one line unless standard output is a terminal."""
    exact = _exact(document)
    if output == "json":
        print(json.dumps(exact, indent=2 if sys.stdout.isatty() else None))
        return
    from airflow.utils import yaml

    print(yaml.dump(exact, sort_keys=False), end="")


def _console() -> Any:
    from airflow.cli.simple_table import AirflowConsole

    return AirflowConsole()


def _print_table(names: Sequence[str], rows: Sequence[Mapping[str, str]], kept_whole: Sequence[str]) -> None:
    """Prints a table. Ids are never wrapped or cut, so that they can be copied, and times neither, to be one line."""
    from airflow.cli.simple_table import SimpleTable

    console = _console()
    if not rows:
        console.print_as_table([])
        return
    whole = [_title(name) for name in names if name == "id" or name.endswith(("_id", "_at")) or name in kept_whole]
    table: Any = SimpleTable(show_header=True)  # type: ignore[no-untyped-call]
    for title in map(_title, names):
        table.add_column(title, no_wrap=title in whole)
    for row in rows:
        table.add_row(*row.values())
    widths = sum(max(len(row[title]) for row in rows) for title in whole)
    console.width = max(console.width, widths + _LEAST_COLUMN * (len(names) - len(whole)) + 3 * len(names))
    console.print(table)


def _exact(value: Any) -> Any:
    """The value in the types of JSON and YAML."""
    if isinstance(value, Enum):
        return _exact(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _exact(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


def _for_people(row: Row) -> dict[str, str]:
    from rich.markup import escape

    return {_title(name): escape(_readable(name, value)) for name, value in row.items()}


def _title(name: str) -> str:
    if name.endswith("_bytes"):
        name = f"{name.removesuffix('_bytes').removesuffix('_size')}_size" if name != "size_bytes" else "size"
    return name.replace("_", " ")


def _is_nothing(value: Any) -> bool:
    return value is None or value in ((), [], {})


def _readable(name: str, value: Any) -> str:
    if _is_nothing(value):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_readable(str(key), entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_readable(name, entry) for entry in value)
    return _readable_scalar(name, value)


def _readable_scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_bytes(value) if name.endswith("_bytes") else f"{value:,}"
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Digest):
        return value[: value.index(":") + 1 + _SHOWN_DIGITS]
    return str(value.value if isinstance(value, Enum) else value)
