"""Lists as pages, and a resource that is nothing but its document and its store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from pydantic import Field, TypeAdapter, ValidationError
from starlette.testclient import TestClient

from registry_sync.api import problems
from registry_sync.api.dependencies import Router, database_of
from registry_sync.api.list_filters import OF_TEXT, FilterField, filtered
from registry_sync.api.resources import (
    NamedQuery,
    PageQuery,
    Resource,
    listed_states,
    ordered_by,
    page_document,
    part_of,
    wanted_states,
)
from registry_sync.domain.filters import AllOf, Match, Operator
from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import RecordNotFound
from registry_sync.pulp.documents import Document, PageDocument


class Query(PageQuery):
    name: str | None = None
    ordering: list[str] | None = None


def shown(offset: int, limit: int = 2, total: int = 5, **filters: Any) -> PageDocument[str]:
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
    page = shown(0, name="a b&c=/d/", ordering=["-name"])
    assert page.next == "/list/?name=a+b%26c%3D/d/&ordering=-name&limit=2&offset=2"


@pytest.mark.parametrize(
    ("ordering", "stored"),
    [
        (None, ""),
        ("pulp_created", "created_at"),
        ("-pulp_created", "-created_at"),
        ("name,-pulp_created", "name,-created_at"),
    ],
)
def test_an_ordering_is_reported_in_the_words_of_the_store(ordering: str | None, stored: str) -> None:
    given = None if ordering is None else ordering.split(",")
    assert Query(offset=3, limit=7, ordering=given).page_request() == PageRequest(3, 7, stored)


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ValidationError):
        Query.model_validate({"nonsense": "1"})


def test_what_is_in_memory_is_shown_in_parts_too() -> None:
    assert part_of("abcde", Query(offset=3, limit=3)) == Page(("d", "e"), 5)


class Light(str, Enum):
    RED = "red"
    GREEN = "green"


@pytest.mark.parametrize(
    ("one", "several", "wanted"),
    [
        (None, None, None),
        (Light.RED, None, [Light.RED]),
        (None, "green, red", [Light.RED, Light.GREEN]),
        (Light.GREEN, "green,red", [Light.GREEN]),
        (Light.GREEN, "red", []),
    ],
)
def test_two_filters_by_state_let_through_what_fits_both(
    one: Light | None, several: str | None, wanted: list[Light] | None
) -> None:
    assert wanted_states(Light, one, several) == wanted


@pytest.mark.parametrize("text", ["", " , ", "red,blue", "RED"])
def test_unknown_states_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="green, red"):
        TypeAdapter(listed_states(Light)).validate_python(text)


def test_an_order_is_by_a_field_in_either_direction_and_by_nothing_else() -> None:
    order = TypeAdapter(ordered_by("name", "size"))
    given: list[Any] = [["name"], ["-size, name"], ["-size", "name"], None]
    assert [order.validate_python(texts) for texts in given] == [["name"], ["-size", "name"], ["-size", "name"], None]
    for texts in (["-digest"], ["name", "name", "name"]):
        with pytest.raises(ValidationError):
            order.validate_python(texts)


@dataclass(frozen=True)
class Lamp:
    id: str
    name: str
    size_bytes: int


class LampDocument(Document):
    pulp_href: Annotated[str, Field(validation_alias="id")]
    name: str
    size: int


LAMPS = {f"{number:08}-0000-4000-8000-000000000000": f"lamp {number}" for number in range(3)}


def lamp(lamp_id: str) -> Lamp:
    if lamp_id not in LAMPS:
        raise RecordNotFound(f"there is no lamp {lamp_id!r}")
    return Lamp(lamp_id, LAMPS[lamp_id], 7)


@pytest.fixture
def lamps() -> TestClient:
    """An app with one resource, whose database records its queries."""
    asked: list[Any] = []

    def page(_database: Any, query: Any) -> Page[Lamp]:
        asked.append((query.page_request(), query.wanted()))
        return part_of([lamp(lamp_id) for lamp_id in LAMPS], query)

    router, app = Router(prefix="/lamps"), FastAPI()
    Resource(
        one="lamp",
        many="lamps",
        listed="Lamps.",
        read="A lamp.",
        href=lambda: "/api/lamps/",
        query=filtered(NamedQuery, "LampQuery", "Lamps.", FilterField("name", how=OF_TEXT)),
        document=LampDocument,
        page=page,
        get=lambda _database, lamp_id: lamp(lamp_id),
    ).add_routes(router, access=[])
    app.include_router(router)
    problems.install(app)
    app.dependency_overrides[database_of] = lambda: asked
    app.state.asked = asked
    return TestClient(app)


def test_a_resource_lists_filters_orders_and_reads(lamps: TestClient) -> None:
    query = {"name__in": "a,b", "name__icontains": "c", "ordering": "-pulp_created", "limit": 2}
    page = lamps.get("/lamps/", params=query).json()
    last = urlencode({**query, "offset": 2})
    assert (page["count"], page["next"], page["previous"]) == (3, f"/api/lamps/?{last}", None)
    first = {"pulp_href": next(iter(LAMPS)), "name": "lamp 0", "size": 7}
    assert page["results"][0] == first
    assert lamps.app.state.asked == [  # type: ignore[attr-defined]
        (
            PageRequest(0, 2, "-created_at"),
            AllOf(
                (
                    Match("name", ("a", "b"), Operator.IN),
                    Match("name", ("c",), Operator.CONTAINS_ANY_CASE),
                )
            ),
        )
    ]
    assert lamps.get(f"/lamps/{next(iter(LAMPS))}/").json() == first


def test_some_fields_are_sent(lamps: TestClient) -> None:
    path = f"/lamps/{next(iter(LAMPS))}/"
    assert lamps.get(path, params={"fields": "name,nonsense"}).json() == {"name": "lamp 0"}
    assert lamps.get(path, params={"exclude_fields": ["name", "size"]}).json() == {"pulp_href": next(iter(LAMPS))}
    page = lamps.get("/lamps/", params={"fields": "name,size", "exclude_fields": "size", "limit": 1}).json()
    assert (page["results"], page["count"]) == ([{"name": "lamp 0"}], 3)
    assert "fields=name,size" in page["next"].replace("%2C", ",")


def test_an_entity_tag_is_that_of_what_is_sent(lamps: TestClient) -> None:
    path = f"/lamps/{next(iter(LAMPS))}/"
    found = lamps.get(path)
    etag = found.headers["etag"]
    assert json.dumps(found.json(), separators=(",", ":")) == found.text
    for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = lamps.get(path, headers={"If-None-Match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert lamps.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert lamps.get(path, params={"fields": "name"}).headers["etag"] != etag


@pytest.mark.parametrize("path", ["/lamps/nonsense/", "/lamps/fcf03266-f0e4-4497-8434-0fe9d94c8053/"])
def test_what_no_entry_has_as_its_id_is_not_found(lamps: TestClient, path: str) -> None:
    response = lamps.get(path)
    assert (response.status_code, list(response.json())) == (404, ["detail"])


def test_a_filter_that_a_resource_does_not_have_is_refused(lamps: TestClient) -> None:
    assert lamps.get("/lamps/", params={"color": "red"}).json() == {"color": ["Unexpected field."]}


def test_a_resource_is_documented_by_what_it_says_of_itself(lamps: TestClient) -> None:
    paths = lamps.app.openapi()["paths"]  # type: ignore[attr-defined]
    assert (paths["/lamps/"]["get"]["description"], paths["/lamps/{lamp_id}/"]["get"]["description"]) == (
        "Lamps.", "A lamp.",
    )  # fmt: skip
    shown = paths["/lamps/{lamp_id}/"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown == {"$ref": "#/components/schemas/LampDocument"}
