"""Lists as pages."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from registry_sync.api.resources import PageQuery, page_document
from registry_sync.domain.records import Page, PageRequest
from registry_sync.pulp.documents import PageDocument


class Query(PageQuery):
    name: str | None = None
    ordering: str | None = None


def shown(offset: int, limit: int = 2, total: int = 5, **filters: str) -> PageDocument[str]:
    """The page at an offset of a list of ``total`` numbers."""
    items = tuple(range(total))[offset : offset + limit]
    query = Query(offset=offset, limit=limit, **filters)  # type: ignore[arg-type]
    return page_document("/list/", query, Page(items, total), str)


@pytest.mark.parametrize(
    ("offset", "following", "previous"),
    [
        (0, "/list/?limit=2&offset=2", None),
        (1, "/list/?limit=2&offset=3", "/list/?limit=2&offset=0"),
        (2, "/list/?limit=2&offset=4", "/list/?limit=2&offset=0"),
        (4, None, "/list/?limit=2&offset=2"),
        (9, None, "/list/?limit=2&offset=7"),
    ],
)
def test_a_page_leads_to_its_neighbours(offset: int, following: str | None, previous: str | None) -> None:
    page = shown(offset)
    assert (page.count, page.next, page.previous) == (5, following, previous)


def test_an_empty_list_has_no_neighbours() -> None:
    assert shown(0, total=0).model_dump() == {"count": 0, "next": None, "previous": None, "results": []}


def test_neighbours_keep_filters_and_order() -> None:
    page = shown(0, name="a b&c=/d/", ordering="-name")
    assert page.next == "/list/?name=a+b%26c%3D/d/&ordering=-name&limit=2&offset=2"


@pytest.mark.parametrize(
    ("ordering", "stored"), [(None, ""), ("pulp_created", "created_at"), ("-pulp_created", "-created_at")]
)
def test_an_ordering_is_told_in_the_words_of_the_store(ordering: str | None, stored: str) -> None:
    assert Query(offset=3, limit=7, ordering=ordering).page_request() == PageRequest(3, 7, stored)


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ValidationError):
        Query.model_validate({"nonsense": "1"})
