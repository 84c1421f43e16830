"""Statements over many rows: in batches that every database takes, and in pages with the total of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Row, Select, Table, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from registry_sync.domain.digests import Digest
from registry_sync.domain.pages import PageRequest
from registry_sync.errors import InvalidReference

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


#: More than this is not read at once, whatever was asked for.
MAX_LIMIT = 10_000


def fetch_page(
    connection: Connection,
    statement: Select[Any],
    request: PageRequest,
    orderings: Mapping[str, ColumnElement[Any]],
    tie_breaker: ColumnElement[Any],
) -> tuple[Sequence[Row[Any]], int]:
    """The rows of the page and the total count.

    ``orderings`` names what may be ordered by, the first entry is the default; ``tie_breaker`` makes the order
    total. Raises :class:`InvalidReference` for another ordering or a negative offset.
    """
    if request.offset < 0 or request.limit < 0:
        raise InvalidReference("offset and limit of a page are 0 or more")
    name, is_descending = request.ordering.removeprefix("-"), request.ordering.startswith("-")
    field = orderings.get(name) if name else next(iter(orderings.values()))
    if field is None:
        raise InvalidReference(f"cannot be ordered by {name[:40]!r}; known are {', '.join(orderings)}")
    keys = (field, tie_breaker)
    ordered = statement.order_by(*(key.desc() for key in keys) if is_descending else keys)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    rows = connection.execute(ordered.offset(request.offset).limit(min(request.limit, MAX_LIMIT))).all()
    return rows, total
