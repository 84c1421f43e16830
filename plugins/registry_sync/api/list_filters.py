"""The parameters that filter lists, as Pulp's: a field's name, or with ``__`` and how it compares; and ``q``.

A list declares its fields once, as :class:`FilterField`; its parameters, their documentation, and what ``q`` may say
are made of that. Values are read when a request is, so that what is wrong with one is reported for its parameter.

``__in`` takes values with commas between, or is repeated. Another parameter that is repeated is refused, unless Pulp
takes any of its values, too (``is_repeatable``).
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Annotated, Any, ClassVar, TypeAlias

from fastapi import Request
from pydantic import AfterValidator, Field, WithJsonSchema, create_model

from registry_sync.api.fields import Sought, invalid, printable, split_list
from registry_sync.api.problems import InvalidField
from registry_sync.domain.filters import (
    AllOf,
    Filter,
    Match,
    Operator,
    read_expression,
    read_label_rules,
)
from registry_sync.domain.quantities import parse_flag
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.pulp.hrefs import MAX_NUMBER, read_unit_href
from registry_sync.pulp.resource_names import BLOB, MANIFEST, TAG, read_unit_prn

#: The most values of a parameter; how long a text may be is limited by the server's limit of an address.
MOST_VALUES = 1000
#: Reads a value of a field. Raises :class:`InvalidReference`.
Read: TypeAlias = Callable[[str], Any]

OF_TEXT = (
    Operator.EQUAL,
    Operator.IN,
    Operator.CONTAINS,
    Operator.CONTAINS_ANY_CASE,
    Operator.STARTS,
    Operator.STARTS_ANY_CASE,
    Operator.EQUAL_ANY_CASE,
)
OF_ORDER = (
    Operator.EQUAL,
    Operator.GREATER,
    Operator.GREATER_OR_EQUAL,
    Operator.LESS,
    Operator.LESS_OR_EQUAL,
    Operator.RANGE,
)
_SAID = {
    Operator.EQUAL: "",
    Operator.NOT_EQUAL: "Not this",
    Operator.IN: "Any of these, separated by commas",
    Operator.CONTAINS: "Contains this",
    Operator.CONTAINS_ANY_CASE: "Contains this, ignoring case",
    Operator.STARTS: "Begins with this",
    Operator.STARTS_ANY_CASE: "Begins with this, ignoring case",
    Operator.EQUAL_ANY_CASE: "Is this, ignoring case",
    Operator.GREATER: "Greater than this",
    Operator.GREATER_OR_EQUAL: "This or greater",
    Operator.LESS: "Less than this",
    Operator.LESS_OR_EQUAL: "This or less",
    Operator.RANGE: "Between these two, separated by a comma, or equal to one of them",
    Operator.IS_NULL: "Whether it is null",
}


def read_text(text: str) -> str:
    """Any text."""
    return text


def read_number(text: str) -> int:
    """A whole number as a version may have."""
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= MAX_NUMBER):
        raise InvalidReference(f"{text[:40]!r} is no whole number up to {MAX_NUMBER}")
    return int(text)


def read_time(text: str) -> datetime:
    """A time of ISO 8601; UTC where it names no zone."""
    # A plus that was not encoded arrives as a blank; Python 3.10 reads no Z.
    written = re.sub(r"[Zz]$", "+00:00", re.sub(r" (\d\d:\d\d)$", r"+\1", text))
    try:
        found = datetime.fromisoformat(written if re.match(r"\d{4}-\d\d-\d\d", text) else "")
        return found.astimezone(timezone.utc) if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        raise InvalidReference(f"{text[:40]!r} is no time such as 2026-03-01T00:00:00Z") from None


def read_uuid(text: str) -> str:
    """The UUID of a record."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidReference(f"{text[:60]!r} is no UUID") from None


def read_unit(text: str) -> tuple[str, int]:
    """The kind and the number of a content unit, by its path or PRN."""
    for kind, model in (("blobs", BLOB), ("manifests", MANIFEST), ("tags", TAG)):
        if text.startswith(f"prn:{model}:"):
            return kind, read_unit_prn(text, model)
    return read_unit_href(text)


def one_of(values: Iterable[str]) -> Read:
    """Reads one of a few values."""
    known = sorted(values)

    def read(text: str) -> str:
        if text not in known:
            raise InvalidReference(f"{text[:40]!r} is none of {', '.join(known)}")
        return text

    return read


@dataclass(frozen=True)
class FilterField:
    """A field that a list is filtered by: its ``name`` in parameters, and ``field``, what the store calls it.

    ``how`` are its comparisons, ``read`` reads a value. With ``is_repeatable`` the parameter without ``__`` takes any
    of several values.
    """

    name: str
    field: str = ""
    how: tuple[Operator, ...] = (Operator.EQUAL,)
    read: Read = read_text
    about: str = ""
    is_repeatable: bool = False

    def parameter(self, comparison: Operator) -> str:
        """The name of a parameter."""
        return f"{self.name}__{comparison.value}" if comparison.value else self.name

    def is_listed(self, comparison: Operator) -> bool:
        """Whether the parameter takes several values."""
        return comparison is Operator.IN or (self.is_repeatable and comparison is Operator.EQUAL)

    def match(self, comparison: Operator, texts: Iterable[str]) -> Match:
        """The filter of a parameter with these values. Raises :class:`InvalidReference`."""
        field = self.field or self.name
        if comparison is Operator.IS_NULL:
            return Match(field, (_flag(next(iter(texts))),), comparison)
        values = tuple(self.read(text) for text in texts)
        if self.is_listed(comparison):
            return Match(field, values, Operator.IN)
        return Match(field, values, comparison)


Parameters: TypeAlias = Mapping[str, tuple[FilterField, Operator]]


def parameters_of(fields: Iterable[FilterField]) -> Parameters:
    """The parameters of fields, by name."""
    return {field.parameter(comparison): (field, comparison) for field in fields for comparison in field.how}


def label_field() -> FilterField:
    """Pulp's selection by labels."""
    about = "Labels: key=value, key!=value, key~part, key, !key, separated by commas, which all must match"
    return FilterField("pulp_label_select", "labels", read=read_label_rules, about=about)


def named_fields(
    read_href: Read, read_prn: Read, *, with_labels: bool = True, with_names: bool = True
) -> tuple[FilterField, ...]:
    """What every record is found by. ``read_href`` and ``read_prn`` read its id."""
    found = [
        FilterField("pulp_href", "id", (Operator.IN,), read_href),
        FilterField("prn", "id", (Operator.IN,), read_prn),
        FilterField("pulp_id", "id", (Operator.IN,), read_uuid),
        FilterField("pulp_created", "created_at", (*OF_ORDER, Operator.IS_NULL), read_time),
        FilterField("pulp_last_updated", "updated_at", (*OF_ORDER, Operator.IS_NULL), read_time),
    ]
    if with_names:
        found.append(FilterField("name", how=OF_TEXT))
    if with_labels:
        found.append(label_field())
    return tuple(found)


def _flag(text: str) -> bool:
    try:
        return bool(parse_flag(text, ""))
    except ConfigurationError:
        raise InvalidReference(f"{text[:40]!r} is neither true nor false") from None


def split_values(texts: list[str]) -> list[str]:
    """The values of a parameter that is repeated, or has commas between them."""
    found = [entry for text in texts for entry in split_list(text) or ()]
    if len(found) > MOST_VALUES:
        raise invalid(f"Send at most {MOST_VALUES} values.")
    return found


def listed(about: str = "") -> Any:
    """Values separated by commas, or of a repeated parameter."""
    return Annotated[
        list[Annotated[str, AfterValidator(printable)]] | None,
        AfterValidator(lambda texts: None if texts is None else split_values(texts)),
        WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
        Field(description=about),
    ]


async def refuse_repeated(request: Request) -> None:
    """Refuses a parameter that is sent twice and has one value: which of the two counts would be a guess."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if count > 1 and name not in _REPEATABLE and not name.endswith(f"__{Operator.IN.value}"):
            raise InvalidField(name, "Send this parameter once.")


#: Parameters that take several values, besides those that end in ``__in``.
_REPEATABLE = frozenset({"fields", "exclude_fields", "ordering", "media_type", "digest"})


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    def read(value: Any) -> Any:
        if value is not None:
            try:
                check(value)
            except InvalidReference as problem:
                raise invalid(_sentence(str(problem))) from None
        return value

    return AfterValidator(read)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def query_fields(fields: Iterable[FilterField]) -> dict[str, Any]:
    """The definitions of a model with the parameters of ``fields``, and ``q``."""
    parameters = parameters_of(fields)
    made: dict[str, Any] = {}
    for name, (field, comparison) in parameters.items():
        about = ": ".join(filter(None, (field.about, _SAID[comparison])))
        kind = listed(about) if field.is_listed(comparison) else Annotated[Sought | None, Field(description=about)]
        made[name] = (Annotated[kind, _checked(partial(match_of, parameters, name))], None)
    about = 'An expression of these filters, such as name="app" AND NOT (name__contains=old OR name__startswith=x)'
    text = Annotated[str, AfterValidator(printable)]
    expression = Annotated[text | None, _checked(partial(expression_of, parameters))]
    made["q"] = (Annotated[expression, Field(description=about)], None)
    return made


def match_of(parameters: Parameters, name: str, given: str | list[str]) -> Match:
    """The filter of one parameter. Raises :class:`InvalidReference`."""
    field, comparison = parameters[name]
    texts = split_list(given) or () if comparison is Operator.RANGE and isinstance(given, str) else given
    if comparison is Operator.RANGE and len(texts) != 2:
        raise InvalidReference("send two values with a comma between")
    return field.match(comparison, [texts] if isinstance(texts, str) else texts)


def expression_of(parameters: Parameters, text: str) -> Filter:
    """The filter that ``q`` says. Raises :class:`InvalidReference`."""

    def read(name: str, value: str) -> Filter:
        if name not in parameters:
            raise InvalidReference(f"there is no filter {name[:60]!r} here")
        field, comparison = parameters[name]
        return match_of(parameters, name, split_values([value]) if field.is_listed(comparison) else value)

    return read_expression(text, read)


class Filtered:
    """What queries with the parameters of :func:`query_fields` have in common."""

    searched: ClassVar[Parameters] = {}

    def wanted(self) -> Filter:
        """The filter of all parameters together."""
        found: list[Filter] = [
            match_of(self.searched, name, given) for name in self.searched if (given := getattr(self, name)) is not None
        ]
        expression: str | None = getattr(self, "q", None)
        return AllOf((*found, *([] if expression is None else [expression_of(self.searched, expression)])))


def filtered(base: type[Any], name: str, about: str, *fields: FilterField) -> Any:
    """A model of a list's query: ``base`` with the parameters of ``fields``."""
    bases = (base,) if issubclass(base, Filtered) else (base, Filtered)
    made: Any = create_model(name, __base__=bases, __doc__=about, **query_fields(fields))
    made.searched = parameters_of(fields)
    return made
