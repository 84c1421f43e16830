"""Statements over many rows, in batches that every database accepts and in pages with totals; and named records.

A named record (repository, remote) consists of a specification, which users write and which contains the name, and of
an id and timestamps, which are assigned.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, wraps
from inspect import Parameter, signature
from itertools import islice
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    Table,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from registry_sync.db.filtering import Searched, condition, labels_match
from registry_sync.domain.digests import Digest
from registry_sync.domain.filters import EVERYTHING, AllOf, Filter, Match, Operator
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import InvalidReference, NameTaken, RecordNotFound

T = TypeVar("T")
P = ParamSpec("P")
Statement = TypeVar("Statement")
BATCH_SIZE = 500


def built_once(build: Callable[P, Statement]) -> Callable[P, tuple[Statement, dict[str, Any]]]:
    """Turns ``build``, which returns a statement, into a function that returns the statement and its parameters.

    ``connection.execute(*lock_of(run_id))`` builds ``lock_of`` once per process, with placeholders for its positional
    arguments; keyword-only arguments are the statement's shape, and each combination of them is built once. Building
    and hashing a statement takes SQLAlchemy longer than its execution takes SQLite. ``build`` must not read its
    positional arguments; where no column gives a placeholder its type, it uses ``type_coerce``.
    """
    names = [name for name, given in signature(build).parameters.items() if given.kind is not Parameter.KEYWORD_ONLY]
    # No column has such a name: the value of a parameter that is named like a column would be written to it.
    keys = [f"{name}_given" for name in names]
    placeholders: list[Any] = [bindparam(key) for key in keys]
    built: dict[tuple[tuple[str, Any], ...], Statement] = {}

    @wraps(build)
    def with_parameters(*values: P.args, **shape: P.kwargs) -> tuple[Statement, dict[str, Any]]:
        chosen = tuple(shape.items())
        if chosen not in built:
            built[chosen] = build(*placeholders, **shape)
        return built[chosen], dict(zip(keys, values, strict=True))

    return with_parameters


def in_batches(items: Iterable[T], size: int = BATCH_SIZE) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``, in order; none for no items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def is_one_of(connection: Connection, column: ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """Whether ``column`` is one of ``values``, at most one batch: each looked up in an index.

    For hundreds of listed values PostgreSQL would scan the whole table and compare each row with each value; a joined
    set is looked up.
    """
    wanted = list(values)
    if connection.dialect.name == "postgresql":
        listed = literal(wanted, postgresql.ARRAY(column.type))
        return column.in_(select(func.unnest(listed)))
    return column.in_(wanted)


def is_one_of_given(dialect: str, column: ColumnElement[Any], values: Any) -> ColumnElement[bool]:
    """As :func:`is_one_of`, in a statement that is built once for a ``dialect``; ``values`` is a list's placeholder."""
    if dialect == "postgresql":
        return column.in_(select(func.unnest(type_coerce(values, postgresql.ARRAY(column.type)))))
    return column.in_(values)


def ids_by_digest(connection: Connection, table: Table, digests: Iterable[Digest]) -> dict[Digest, int]:
    """Ids of the manifests or blobs of those digests; those that are not stored are omitted."""
    ids: dict[Digest, int] = {}
    for batch in in_batches(sorted(digests)):
        found = connection.execute(*_ids_of(batch, table=table, dialect=connection.dialect.name))
        ids.update((Digest(row.digest), row.id) for row in found)
    return ids


@built_once
def _ids_of(digests: list[Digest], *, table: Table, dialect: str) -> Select[Any]:
    return select(table.c.digest, table.c.id).where(is_one_of_given(dialect, table.c.digest, digests))


def insert_or_keep(connection: Connection, table: Table) -> Insert:
    """An INSERT that keeps an existing row, also one inserted concurrently."""
    return insert_or_keep_on(connection.dialect.name, table)


@cache
def insert_or_keep_on(dialect: str, table: Table) -> Insert:
    """As :func:`insert_or_keep`, by the name of the database."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def insert_absent(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Inserts those of ``rows`` that do not exist. Always pass rows in the same order, lest writers deadlock.

    Rows that are made as they are read are held a batch at a time.
    """
    if connection.dialect.name == "postgresql":
        for batch in in_batches(rows, _ARRAY_SIZE):
            columns = tuple(batch[0])
            arrays = {name: [row[name] for row in batch] for name in columns}
            connection.execute(_insert_arrays(table, columns), arrays)
        return
    statement = insert_or_keep(connection, table)
    for batch in in_batches(rows):
        connection.execute(statement, batch)


#: Rows of one INSERT from arrays.
_ARRAY_SIZE = 2000


@cache
def _insert_arrays(table: Table, columns: tuple[str, ...]) -> Insert:
    """As :func:`insert_or_keep_on`, for PostgreSQL: the parameters are an array of each column.

    One statement for many rows; executed for one row after the other they cost several times as much.
    """
    types = {name: table.c[name].type for name in columns}
    arrays = [bindparam(name, type_=postgresql.ARRAY(type_)) for name, type_ in types.items()]
    given = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()))
    rows = select(*given.render_derived("given").c)
    return postgresql.insert(table).from_select(list(columns), rows).on_conflict_do_nothing()


def storable(text: str, length: int | None = None) -> str:
    """``text`` as both databases can store it: no NUL, no lone surrogates, cut to ``length`` characters.

    Text from a registry may contain either. Exact bytes are kept elsewhere; this text is for people and queries.
    """
    clean = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return clean if length is None else clean[:length]


#: The most rows of one page, whatever limit is requested.
MAX_LIMIT = 10_000


def fetch_page(
    connection: Connection,
    statement: Select[Any],
    request: PageRequest,
    orderings: Mapping[str, ColumnElement[Any]],
    *tie_breakers: ColumnElement[Any],
) -> tuple[Sequence[Row[Any]], int]:
    """The rows of the page and the total count.

    ``orderings`` lists the possible orderings, the default first; ``tie_breakers`` make the order total, lest pages
    repeat some rows and lack others. Raises :class:`InvalidReference` for another ordering or a negative offset.
    """
    offset, limit = page_bounds(request)
    names = request.ordering.split(",") if request.ordering else [next(iter(orderings))]
    keys = [_order_key(name, orderings) for name in names]
    keys += [key.desc() if names[-1].startswith("-") else key for key in tie_breakers]
    ordered = statement.order_by(*keys)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    return connection.execute(ordered.offset(offset).limit(limit)).all(), total


def page_bounds(request: PageRequest) -> tuple[int, int]:
    """Offset and limit of a page. Raises :class:`InvalidReference` for a negative one."""
    if request.offset < 0 or request.limit < 0:
        raise InvalidReference("offset and limit of a page are 0 or more")
    return request.offset, min(request.limit, MAX_LIMIT)


def _order_key(name: str, orderings: Mapping[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    field = orderings.get(name.removeprefix("-"))
    if field is None:
        raise InvalidReference(f"cannot be ordered by {name[:40]!r}; known are {', '.join(orderings)}")
    return field.desc() if name.startswith("-") else field


_SHOWN_CHARACTERS = 255


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Spec = TypeVar("Spec", bound=_Named)


class _Specified(Protocol):
    @property
    def spec(self) -> Any: ...


Record = TypeVar("Record", bound=_Specified)


@built_once
def _record(value: str, *, table: Table, column: str, is_locked: bool) -> Select[Any]:
    statement = select(table).where(table.c[column] == value)
    return statement.with_for_update(key_share=True) if is_locked else statement


@cache
def _insert_into(table: Table) -> Insert:
    return insert(table)


@dataclass(frozen=True)
class NamedRecords(Generic[Spec, Record]):
    """A table of named records, within the caller's transaction. ``kind`` is the word for a record in messages.

    ``values`` gives the columns of a specification, ``read`` the record of a row; ``searched`` is what records are
    found by besides their id, name, labels and timestamps.
    """

    table: Table
    kind: str
    values: Callable[[Spec], dict[str, Any]]
    read: Callable[[Row[Any]], Record]
    searched: Mapping[str, Searched] = field(default_factory=dict)

    def by_id(self, connection: Connection, record_id: str) -> Record:
        """Raises :class:`RecordNotFound`."""
        return self._require(connection, "id", record_id)

    def by_name(self, connection: Connection, name: str) -> Record:
        """Raises :class:`RecordNotFound`."""
        return self._require(connection, "name", name)

    def ensure(self, connection: Connection, spec: Spec) -> Record:
        """The record of that name, created from ``spec`` if there is none; safe to run concurrently."""
        connection.execute(insert_or_keep(connection, self.table), self._new_values(spec))
        return self.by_name(connection, spec.name)

    def create(self, connection: Connection, spec: Spec, record_id: str | None = None) -> Record:
        """A new record with ``record_id`` or a random id. Raises :class:`NameTaken`."""
        values = self._new_values(spec)
        if record_id is not None:
            values["id"] = record_id
        self._refusing_duplicates(spec.name, lambda: connection.execute(_insert_into(self.table), values))
        return self.by_id(connection, values["id"])

    def replace(self, connection: Connection, record_id: str, spec: Spec) -> Record:
        """The record with its specification replaced. Raises :class:`RecordNotFound`, :class:`NameTaken`."""
        statement = update(self.table).where(self.table.c.id == record_id)
        changed = statement.values(**self.values(spec), updated_at=utc_now())
        self._refusing_duplicates(spec.name, lambda: connection.execute(changed))
        return self.by_id(connection, record_id)

    def change(
        self,
        connection: Connection,
        record_id: str,
        change: Callable[[Spec], Spec],
        only_if: Callable[[Record], None] | None = None,
    ) -> Record:
        """The record with its specification changed by ``change``, as one atomic update.

        ``only_if`` is given the record as it is, locked, and raises where it must not be changed. Raises
        :class:`RecordNotFound`, :class:`NameTaken`, and the errors of both.
        """
        present = self.locked(connection, record_id, only_if)
        return self.replace(connection, record_id, change(present.spec))

    def locked(self, connection: Connection, record_id: str, only_if: Callable[[Record], None] | None = None) -> Record:
        """The record, locked until the transaction ends, after ``only_if``. Raises :class:`RecordNotFound`."""
        present = self._require(connection, "id", record_id, is_locked=True)
        if only_if is not None:
            only_if(present)
        return present

    def delete(self, connection: Connection, record_id: str, only_if: Callable[[Record], None] | None = None) -> None:
        """Removes it, after ``only_if`` as of :meth:`change`. Raises :class:`RecordNotFound`."""
        self.locked(connection, record_id, only_if)
        connection.execute(delete(self.table).where(self.table.c.id == record_id))

    def page(
        self,
        connection: Connection,
        request: PageRequest,
        *,
        name: str | None,
        names: Sequence[str] | None,
        name_contains: str | None,
        where: Filter = EVERYTHING,
    ) -> Page[Record]:
        """Records ordered by ``name`` (default), ``created_at`` or ``updated_at``; a filter of None selects all."""
        columns = self.table.c
        parts = [where]
        if name is not None:
            parts.append(Match("name", (name,)))
        if names is not None:
            parts.append(Match("name", tuple(names), Operator.IN))
        if name_contains is not None:
            parts.append(Match("name", (name_contains,), Operator.CONTAINS_ANY_CASE))
        found = {field: columns[field] for field in ("id", "name", "created_at", "updated_at")}
        searched = {**found, "labels": lambda match: labels_match(columns.labels, match.values[0]), **self.searched}
        statement = select(self.table).where(condition(AllOf(tuple(parts)), searched))
        orderings = {field: columns[field] for field in ("name", "created_at", "updated_at")}
        rows, total = fetch_page(connection, statement, request, orderings, columns.id)
        return Page(tuple(map(self.read, rows)), total)

    def _new_values(self, spec: Spec) -> dict[str, Any]:
        now = utc_now()
        return {"id": str(uuid.uuid4()), **self.values(spec), "created_at": now, "updated_at": now}

    def _require(self, connection: Connection, column: str, requested: str, *, is_locked: bool = False) -> Record:
        """``is_locked`` locks the row until the transaction ends; a write on SQLite locks the whole database anyway."""
        found = connection.execute(*_record(requested, table=self.table, column=column, is_locked=is_locked))
        row = found.one_or_none()
        if row is None:
            raise RecordNotFound(f"there is no {self.kind} {requested[:_SHOWN_CHARACTERS]!r}")
        return self.read(row)

    def _refusing_duplicates(self, name: str, write: Callable[[], object]) -> None:
        try:
            write()
        except IntegrityError:
            raise NameTaken(f"there is a {self.kind} {name[:_SHOWN_CHARACTERS]!r} already") from None
