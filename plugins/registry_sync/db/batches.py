"""Statements over many rows, in batches that every database takes (SQLite bounds the variables of a statement)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Table, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from registry_sync.domain.digests import Digest

T = TypeVar("T")
BATCH_SIZE = 500


def in_batches(items: Iterable[T], size: int = BATCH_SIZE) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``, in order; no items give no lists."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def is_one_of(connection: Connection, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Whether ``column`` is one of ``values``, at most a batch: each looked up by an index.

    PostgreSQL reads a whole table rather than look up hundreds of listed values, and compares each row with each of
    them; a set that is joined it looks up.
    """
    wanted = list(values)
    if connection.dialect.name == "postgresql":
        listed = literal(wanted, postgresql.ARRAY(column.type))
        return column.in_(select(func.unnest(listed)))
    return column.in_(wanted)


def ids_by_digest(connection: Connection, table: Table, digests: Iterable[Digest]) -> dict[Digest, int]:
    """Ids of the manifests or blobs of those digests; those that are not stored are left out."""
    ids: dict[Digest, int] = {}
    for batch in in_batches(sorted(digests)):
        found = select(table.c.digest, table.c.id).where(is_one_of(connection, table.c.digest, batch))
        ids.update((Digest(row.digest), row.id) for row in connection.execute(found))
    return ids


def insert_or_keep(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves a row alone that is there already, whoever wrote it, even at the same moment."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def insert_absent(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts those of ``rows`` that are not there. Give rows in one order everywhere, lest writers deadlock."""
    statement = insert_or_keep(connection, table)
    for batch in in_batches(rows):
        connection.execute(statement, batch)


def storable(text: str, length: int | None = None) -> str:
    """``text`` as both databases can hold it: no NUL, no lone surrogates, cut to ``length`` characters.

    What comes from a registry may hold either; exact bytes are kept elsewhere, this text is for people and queries.
    """
    clean = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return clean if length is None else clean[:length]
