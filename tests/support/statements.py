"""The statements that reach databases while something runs, for tests of what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


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
