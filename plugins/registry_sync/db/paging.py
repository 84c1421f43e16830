"""Pages out of SELECTs: one query for the items, one for the total, whatever the size of the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from registry_sync.domain.pages import PageRequest
from registry_sync.errors import InvalidReference

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
