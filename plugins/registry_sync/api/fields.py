"""Kinds of fields that several documents have, what documents that people send have in common, and lists as pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import urlencode

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import InvalidReference
from registry_sync.pulp.hrefs import MAX_NUMBER, MAX_UNIT_ID

MAX_LABELS = 100


def shown_timestamp(timestamp: datetime) -> str:
    """``2019-09-05T14:29:43.424822Z``: UTC, always with six digits after the second."""
    return timestamp.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def invalid(message: str) -> PydanticCustomError:
    """An error for validators, with a message for people."""
    return PydanticCustomError("invalid", "{message}", {"message": message})


def parsed(read: Callable[[str], object]) -> AfterValidator:
    """Checks a text with one of the domain's grammars, and leaves it as it is."""

    def check(text: str) -> str:
        try:
            read(text)
        except InvalidReference as problem:
            raise invalid(str(problem)) from None
        return text

    return AfterValidator(check)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise invalid("Control characters are not allowed.")
    return text


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise invalid("Null characters are not allowed.")
    return text


def _read_flag(value: Any) -> Any:
    """Command line clients send texts."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _read_number(value: Any) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value


def whole_number(lowest: int, highest: int) -> Any:
    """A whole number, or its text."""
    return Annotated[
        int,
        Field(strict=True, ge=lowest, le=highest),
        BeforeValidator(_read_number),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": lowest, "maximum": highest},
                    {"type": "string", "pattern": "^[0-9]{1,9}$"},
                ]
            }
        ),
    ]


#: True or false, or its text.
Flag = Annotated[
    bool,
    Field(strict=True),
    BeforeValidator(_read_flag),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["true", "false", "True", "False"]}]},
    ),
]
Timestamp = Annotated[
    datetime,
    PlainSerializer(shown_timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(_printable)
]
FreeText = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_without_nul)]
#: Text to look for.
Sought = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_printable)]
Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)],
        Annotated[str, StringConstraints(max_length=1_000), AfterValidator(_printable)],
    ],
    Field(max_length=MAX_LABELS, default_factory=dict),
]
#: Ids in paths; what cannot be one is answered as an id that nothing has.
PathUuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
PathNumber = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
PathUnitId = Annotated[int, Field(ge=1, le=MAX_UNIT_ID)]
GivenHref = Annotated[str, StringConstraints(max_length=500)]


class GivenDocument(BaseModel):
    """A document that somebody sends: unknown fields are refused.

    Fields that only answers have may be there and mean nothing, so that an answer may be changed and sent back.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    only_in_responses: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_what_only_responses_have(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: given for name, given in value.items() if name not in cls.only_in_responses}
        return value


def split_list(text: str | None) -> tuple[str, ...] | None:
    """The entries of a text with commas, without blanks around them; None for None."""
    if text is None:
        return None
    return tuple(entry for part in text.split(",") if (entry := part.strip()))


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
