"""Statements that are built once in a process, and executed with the values of each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Select, Update, select, type_coerce, update

from registry_sync.db.queries import built_once
from registry_sync.db.tables import repositories
from support.ready_databases import ready_database

_built: list[bool] = []


@built_once
def _named(names: Sequence[str], label: str, *, is_sorted: bool) -> Select[Any]:
    _built.append(is_sorted)
    found = select(repositories.c.name, type_coerce(label, repositories.c.name.type)).where(
        repositories.c.name.in_(names)
    )
    return found.order_by(repositories.c.name.desc()) if is_sorted else found


@built_once
def _describe(name: str, description: str) -> Update:
    return update(repositories).where(repositories.c.name == name).values(description=description)


def test_each_shape_is_built_once_and_executed_with_the_values_of_each_call(tmp_path: Any) -> None:
    _built.clear()
    with ready_database(tmp_path / "registry_sync.db") as database:
        for name in ("a", "b", "c"):
            database.repositories.ensure(name)
        with database.reading() as connection:
            found = [
                connection.execute(*_named(names, label, is_sorted=is_sorted)).all()
                for is_sorted in (True, False)
                for names, label in ((["a", "c"], "first"), ([], "none"), (["b"], "second"))
            ]
    assert _built == [True, False]
    assert found[:3] == [[("c", "first"), ("a", "first")], [], [("b", "second")]]
    assert [sorted(rows) for rows in found[3:]] == [[("a", "first"), ("c", "first")], [], [("b", "second")]]


def test_a_value_named_like_a_column_is_not_written_to_it(tmp_path: Any) -> None:
    with ready_database(tmp_path / "registry_sync.db") as database:
        for name in ("a", "b"):
            database.repositories.ensure(name)
        with database.writing() as connection:
            connection.execute(*_describe("a", "says hello"))
        described = {name: database.repositories.by_name(name).spec.description for name in ("a", "b")}
    assert described == {"a": "says hello", "b": None}


def test_a_call_with_other_values_than_the_statement_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _named(["a"], is_sorted=True)  # type: ignore[call-arg]
