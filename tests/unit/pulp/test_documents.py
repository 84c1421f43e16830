"""How documents are read from values of the domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Annotated

import pytest
from pydantic import AliasPath, Field, ValidationError

from registry_sync.pulp.documents import WHOLE, Document, Timestamp, Together, domain_name, made

NINE = datetime(2019, 9, 5, 9, 0, 0, 7, tzinfo=timezone(timedelta(hours=2)))


@dataclass(frozen=True)
class Inner:
    size_bytes: int = 3


@dataclass(frozen=True)
class Value:
    name: str = "codzo"
    created_at: datetime = NINE
    inner: tuple[Inner, ...] = (Inner(1), Inner(2))
    first: Inner = field(default_factory=Inner)

    @property
    def is_long(self) -> bool:
        return len(self.name) > 4


class InnerDocument(Document):
    size: int


class Shown(Document):
    pulp_created: Timestamp
    pulp_href: Annotated[str, made(lambda value: f"/things/{value.name}/"), WHOLE]
    is_long: bool
    inner: list[InnerDocument]
    first_size: Annotated[int, Field(validation_alias=AliasPath("first", "size_bytes"))]


def test_a_document_is_read_from_attributes_and_from_the_whole_value_in_the_order_of_its_fields() -> None:
    assert Shown.model_validate(Value()).model_dump_json() == (
        '{"pulp_created":"2019-09-05T07:00:00.000007Z","pulp_href":"/things/codzo/","is_long":true,'
        '"inner":[{"size":1},{"size":2}],"first_size":3}'
    )


def test_an_attribute_that_a_value_lacks_is_no_empty_field() -> None:
    with pytest.raises(ValidationError, match="size"):
        InnerDocument.model_validate(Value())


def test_two_values_are_read_as_one_and_the_first_is_the_whole() -> None:
    @dataclass
    class More:
        name: str = "not asked"
        size_bytes: int = 9

    class Both(Shown):
        name: str
        size: int

    read = Both.model_validate(Together(Value(), More()))
    assert (read.name, read.size, read.pulp_href) == ("codzo", 9, "/things/codzo/")


def test_fields_and_orders_of_lists_have_one_name_in_the_domain() -> None:
    assert [domain_name(field) for field in ("pulp_created", "pulp_last_updated", "size", "pulp_labels", "name")] == [
        "created_at", "updated_at", "size_bytes", "labels", "name",
    ]  # fmt: skip
