"""What commands print: tables for people, and exact values as JSON, YAML or plain columns for programs.

Rows are dicts whose names say their units. In a table ``added_bytes`` is shown as ``added size`` with a unit,
``created_at`` to the second, a count with its thousands apart, a digest by its first digits, and a column without any
value is left out; a program gets everything in full.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes

Row = Mapping[str, Any]
_SHOWN_DIGITS = 12
_LEAST_COLUMN = 10


def print_rows(rows: Sequence[Row], output: str) -> None:
    """Rows of one kind; ``output`` is ``table``, ``json``, ``yaml`` or ``plain``."""
    if output in ("json", "yaml"):
        print_document(rows, output)
    elif output == "plain":
        _console().print_as_plain_table([_exact(row) for row in rows])
    else:
        told = [name for name in (rows[0] if rows else ()) if any(not _is_nothing(row[name]) for row in rows)]
        _print_table(told, [_for_people({name: row[name] for name in told}) for row in rows])


def print_fields(fields: Row, output: str) -> None:
    """One thing: name and value below each other for people."""
    if output in ("json", "yaml"):
        print_document(fields, output)
    elif output == "plain":
        _console().print_as_plain_table([{"field": name, "value": value} for name, value in _exact(fields).items()])
    else:
        rows = [{"field": name, "value": value} for name, value in _for_people(fields).items()]
        _console().print_as_table(rows)


def print_document(document: Row | Sequence[Row], output: str) -> None:
    """Anything, as ``json`` or ``yaml``; JSON is on one line unless a person sees it."""
    exact = _exact(document)
    if output == "json":
        print(json.dumps(exact, indent=2 if sys.stdout.isatty() else None))
        return
    from airflow.utils import yaml

    print(yaml.dump(exact, sort_keys=False), end="")


def _console() -> Any:
    from airflow.cli.simple_table import AirflowConsole

    return AirflowConsole()


def _print_table(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Columns that end in ``_id`` are never broken or cut, because people paste what they see there."""
    from airflow.cli.simple_table import SimpleTable

    console = _console()
    if not rows:
        console.print_as_table([])
        return
    whole = [_title(name) for name in names if name.endswith("_id")]
    table: Any = SimpleTable(show_header=True)  # type: ignore[no-untyped-call]
    for title in map(_title, names):
        table.add_column(title, no_wrap=title in whole)
    for row in rows:
        table.add_row(*row.values())
    widths = sum(max(len(row[title]) for row in rows) for title in whole)
    console.width = max(console.width, widths + _LEAST_COLUMN * (len(names) - len(whole)) + 3 * len(names))
    console.print(table)


def _exact(value: Any) -> Any:
    """The value in types that JSON and YAML have."""
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
