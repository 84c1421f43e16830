"""Lists and reads, the same for all resources: pages, filters, orders, and their routes.

A resource describes itself by a :class:`Resource`, and adds its other operations to its router.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, cast
from urllib.parse import urlencode

from fastapi import Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from registry_sync.api.access import READ
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PathUuid, Sought, invalid, split_list
from registry_sync.api.guard import list_origin
from registry_sync.api.list_filters import listed, split_values
from registry_sync.api.preconditions import as_bytes, etag_of, is_named
from registry_sync.api.problems import NOT_FOUND
from registry_sync.db.database import Database
from registry_sync.domain.records import Page, PageRequest
from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.documents import Document, PageDocument, domain_name
from registry_sync.pulp.hrefs import MAX_NUMBER

E = TypeVar("E", bound=Enum)
S = TypeVar("S")
T = TypeVar("T")
D = TypeVar("D", bound=BaseModel)
Q = TypeVar("Q", bound="PageQuery")
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


_Only: Any = listed("Only these fields, separated by commas")
_Without: Any = listed("All but these fields")


class SentFields(BaseModel):
    """Which fields of documents are sent; all of them by default. Unknown ones are ignored, as Pulp does."""

    fields: _Only = None
    exclude_fields: _Without = None

    def selects(self) -> bool:
        """Whether not all fields are sent."""
        return bool(self.fields or self.exclude_fields)

    def of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The selected fields of a document."""
        excluded = self.exclude_fields or ()
        return {
            name: value
            for name, value in document.items()
            if name not in excluded and (not self.fields or name in self.fields)
        }


class PageQuery(SentFields):
    """The page of a list; lists add their filters and their ``ordering``. Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    #: The order of the list by default; empty for the store's own.
    default_ordering: ClassVar[str] = ""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="The maximum number of entries")] = DEFAULT_LIMIT
    offset: Annotated[int, Field(ge=0, le=MAX_NUMBER, description="The number of entries to skip")] = 0

    def page_request(self) -> PageRequest:
        """The page as a request to a store."""
        given: Sequence[str] = getattr(self, "ordering", None) or [self.default_ordering]
        return PageRequest(self.offset, self.limit, ",".join(map(_stored_ordering, given)))


def _stored_ordering(ordering: str) -> str:
    sign = "-" if ordering.startswith("-") else ""
    return sign + domain_name(ordering.removeprefix("-"))


def ordered_by(*fields: str) -> Any:
    """An ``ordering`` by some of these fields of the document, each with ``-`` before it for the other direction."""
    one: Any = Literal[tuple(f"{sign}{field}" for field in fields for sign in ("", "-"))]
    about = "Fields to order by, separated by commas; with - for the other direction"

    def split(given: list[str] | None) -> list[str] | None:
        found = None if given is None else split_values(given)
        if found is not None and len(found) > len(fields):
            raise invalid(f"Order by at most {len(fields)} fields.")
        return found

    return Annotated[list[one] | None, BeforeValidator(split), Field(description=about)]


def listed_states(kind: type[Enum]) -> Any:
    """Text with states of ``kind``, separated by commas."""
    known = {str(member.value) for member in kind}

    def check(text: str) -> str:
        values = split_list(text)
        if not values or not known.issuperset(values):
            raise invalid(f"Send states separated by commas: {', '.join(sorted(known))}.")
        return text

    return Annotated[Sought, AfterValidator(check)]


def wanted_states(kind: type[E], one: E | None, several: str | None) -> list[E] | None:
    """The states that match both filters, of which ``several`` is one of :func:`listed_states`; None for all."""
    if several is None:
        return None if one is None else [one]
    return [member for member in kind if str(member.value) in (split_list(several) or ()) and one in (None, member)]


_NamedOrder: Any = ordered_by("name", "pulp_created", "pulp_last_updated")


class NamedQuery(PageQuery):
    """The order of repositories, remotes or distributions."""

    ordering: _NamedOrder = None


def page_document(href: str, query: PageQuery, page: Page[S], show: Callable[[S], T]) -> PageDocument[T]:
    """A page of the list at ``href``; the paths of its neighbours have the same filters and order."""
    last, before = query.offset + len(page.items), max(query.offset - query.limit, 0)
    return PageDocument(
        count=page.total_count,
        next=_neighbour(href, query, last) if page.items and last < page.total_count else None,
        previous=_neighbour(href, query, before) if query.offset else None,
        results=[show(item) for item in page.items],
    )


def part_of(items: Sequence[S], query: PageQuery) -> Page[S]:
    """The page of a list in memory."""
    return Page(tuple(items[query.offset : query.offset + query.limit]), len(items))


def _neighbour(href: str, query: PageQuery, offset: int) -> str:
    given = query.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"limit", "offset"})
    given |= {"ordering": given.pop("ordering")} if "ordering" in given else {}
    joined = {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items()}
    return f"{list_origin()}{href}?{urlencode({**joined, 'limit': query.limit, 'offset': offset}, safe='/')}"


def sent_page(query: SentFields, page: PageDocument[T]) -> PageDocument[T]:
    """A page with the selected fields of its entries: the page itself, or a response, which FastAPI takes for it."""
    if not query.selects():
        return page
    document = page.model_dump(mode="json", by_alias=True)
    selected = JSONResponse({**document, "results": [query.of(entry) for entry in document["results"]]})
    return cast("PageDocument[T]", selected)


def sent(request: Request, query: SentFields, document: D) -> D:
    """A response, which FastAPI takes for the document: its selected fields, with its ``ETag``.

    It is 304 for who has that already (RFC 9110 section 13).
    """
    selected = query.of(document.model_dump(mode="json", by_alias=True))
    headers = {"ETag": etag_of(selected)}
    if is_named(headers["ETag"], request.headers.get("if-none-match")):
        return cast("D", Response(None, 304, headers))
    return cast("D", Response(as_bytes(selected), 200, headers, media_type="application/json"))


@dataclass(frozen=True)
class Resource(Generic[Q, S]):
    """A resource with a list at what ``href`` returns, and entries below it with ids of type ``id_type``.

    ``one`` and ``many`` are its name, ``listed`` and ``read`` describe its two routes. ``page`` returns the page of a
    query, ``get`` the entry of an id; that raises :class:`RecordNotFound`. ``context`` returns the validation context
    of the documents of some entries.
    """

    one: str
    many: str
    listed: str
    read: str
    href: Callable[[], str]
    query: type[Q]
    document: type[Document]
    page: Callable[[Database, Q], Page[S]]
    get: Callable[[Database, Any], S]
    id_name: str = ""
    id_type: Any = PathUuid
    context: Callable[[Sequence[S]], Any] = lambda _: None

    def shown(self, value: S) -> Any:
        """The document of an entry."""
        return shown(self.document, value, context=self.context([value]))

    def add_routes(self, router: Router, path: str = "", access: Any = READ) -> None:
        """Adds the list and the read of an entry to ``router``, below ``path``, with the checks of ``access``."""

        def list_entries(database: Database, query: Q) -> Any:
            found = self.page(database, query)
            context = self.context(found.items)
            page = page_document(self.href(), query, found, lambda value: shown(self.document, value, context=context))
            return sent_page(query, page)

        def read_entry(database: Database, entry_id: Any, query: SentFields, request: Request) -> Any:
            return sent(request, query, self.shown(self.get(database, entry_id)))

        # FastAPI reads the types of parameters here.
        list_entries.__annotations__ = {
            "database": UsedDatabase,
            "query": Annotated[self.query, Query()],
            "return": PageDocument[self.document],  # type: ignore[name-defined]
        }
        id_name = self.id_name or f"{self.one}_id"
        read_entry.__annotations__ = {
            "database": UsedDatabase,
            "entry_id": Annotated[self.id_type, Path(alias=id_name)],
            "query": Annotated[SentFields, Query()],
            "request": Request,
            "return": self.document,
        }
        router.add_api_route(
            f"{path}/", list_entries, name=f"list_{self.many}", description=self.listed, dependencies=access
        )
        router.add_api_route(
            f"{path}/{{{id_name}}}/",
            read_entry,
            name=f"read_{self.one}",
            description=self.read,
            dependencies=access,
            responses=NOT_FOUND,
        )
