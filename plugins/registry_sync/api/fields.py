"""The types of request fields, and the base of request documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from registry_sync.domain.quantities import parse_flag
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.pulp.hrefs import MAX_NUMBER, MAX_UNIT_ID

MAX_LABELS = 100


def invalid(message: str) -> PydanticCustomError:
    """An error for validators, with a message."""
    return PydanticCustomError("invalid", "{message}", {"message": message})


def parsed(read: Callable[[str], object]) -> AfterValidator:
    """Validates a text with one of the domain's grammars, and keeps it unchanged."""

    def check(text: str) -> str:
        try:
            read(text)
        except InvalidReference as problem:
            raise invalid(str(problem)) from None
        return text

    return AfterValidator(check)


def printable(text: str) -> str:
    """``text``, for a validator; refuses control characters."""
    if not text.isprintable():
        raise invalid("Control characters are not allowed.")
    return text


def without_nul(text: str) -> str:
    """``text``, for a validator; refuses null characters, which PostgreSQL has in no text."""
    if "\x00" in text:
        raise invalid("Null characters are not allowed.")
    return text


def _read_flag(value: Any) -> Any:
    """Reads the text of a flag, which command line clients send; other values are kept and refused for their type."""
    if not isinstance(value, str) or value != value.strip():
        return value
    try:
        flag = parse_flag(value, "")
    except ConfigurationError:
        return value
    return value if flag is None else flag


def whole_number(lowest: int, highest: int, *, digit_count: int = 9) -> Any:
    """A whole number, or its text of at most ``digit_count`` digits."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= digit_count:
            return int(value)
        return value

    return Annotated[
        int,
        Field(strict=True, ge=lowest, le=highest),
        BeforeValidator(read),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": lowest, "maximum": highest},
                    {"type": "string", "pattern": f"^[0-9]{{1,{digit_count}}}$"},
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
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(printable)]
FreeText = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(without_nul)]
#: Text to search for.
Sought = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(printable)]
Labels = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(printable)],
        Annotated[str, StringConstraints(max_length=1_000), AfterValidator(printable)],
    ],
    Field(max_length=MAX_LABELS, default_factory=dict),
]
#: Ids in paths; an invalid one is handled as an unknown id.
PathUuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
PathNumber = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
PathUnitId = Annotated[int, Field(ge=1, le=MAX_UNIT_ID)]
GivenHref = Annotated[str, StringConstraints(max_length=500)]


class GivenDocument(BaseModel):
    """A document in a request: unknown fields are refused.

    Fields that only responses have are accepted and ignored, so that a response may be changed and sent back.
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
