"""Lists as pages: ``count``, ``next``, ``previous``, ``results``; and what every list can be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from registry_sync.domain.hrefs import MAX_NUMBER
from registry_sync.domain.pages import Page, PageRequest

T = TypeVar("T")
S = TypeVar("S")
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class PageQuery(BaseModel):
    """Which part of a list; lists add their filters and their ``ordering``. Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many, at the most")] = DEFAULT_LIMIT
    offset: Annotated[int, Field(ge=0, le=MAX_NUMBER, description="How many to leave out before")] = 0

    def part(self, fields: dict[str, str], ordering: str | None) -> PageRequest:
        """For a store; ``fields`` gives its name for a field of answers, ``ordering`` None is its own order."""
        if ordering is None:
            return PageRequest(self.offset, self.limit)
        sign = "-" if ordering.startswith("-") else ""
        return PageRequest(self.offset, self.limit, sign + fields[ordering.removeprefix("-")])


class PageDocument(BaseModel, Generic[T]):
    """Part of a list. ``count`` is how many there are in all; ``next`` and ``previous`` are paths, or null."""

    count: int
    next: str | None
    previous: str | None
    results: list[T]


def page_document(href: str, query: PageQuery, page: Page[S], show: Callable[[S], T]) -> PageDocument[T]:
    """A page of the list at ``href``, with the same filters and order in the paths to its neighbours."""
    last, before = query.offset + len(page.items), max(query.offset - query.limit, 0)
    return PageDocument(
        count=page.total_count,
        next=_neighbour(href, query, last) if page.items and last < page.total_count else None,
        previous=_neighbour(href, query, before) if query.offset else None,
        results=[show(item) for item in page.items],
    )


def _neighbour(href: str, query: PageQuery, offset: int) -> str:
    given = query.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"limit", "offset"})
    return f"{href}?{urlencode({**given, 'limit': query.limit, 'offset': offset}, safe='/')}"
