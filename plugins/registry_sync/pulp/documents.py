"""The base of all documents: how they are read from domain objects, timestamps, and pages of lists.

A document is read from the attributes of an object: a field from the attribute of the same name, or of the domain's
name for it; a field without an attribute, such as most paths, from the object itself. So a new field of a document is
one line, and nothing is copied by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from registry_sync.domain.platforms import Platform
from registry_sync.domain.references import RegistryUrl

T = TypeVar("T")

#: The domain's names of fields that have another name in Pulp.
_DOMAIN_NAMES = {
    "pulp_created": "created_at",
    "pulp_last_updated": "updated_at",
    "pulp_labels": "labels",
    "size": "size_bytes",
}


def domain_name(field: str) -> str:
    """The attribute, or the ordering of a store, for a field of a document."""
    return _DOMAIN_NAMES.get(field, field)


def shown_timestamp(timestamp: datetime) -> str:
    """``2019-09-05T14:29:43.424822Z``: UTC, always with six digits after the second."""
    return timestamp.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Timestamp = Annotated[
    datetime,
    PlainSerializer(shown_timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
#: A field that is read from the object itself, by the :func:`made` in its annotation.
WHOLE: Any = Field(validation_alias="whole")


def made(make: Callable[[Any], Any]) -> BeforeValidator:
    """A field whose value ``make`` computes from its attribute, or from the whole object."""
    return BeforeValidator(make)


def _url_text(url: RegistryUrl) -> str:
    return url.written


def _platform_texts(platforms: Sequence[Platform] | None) -> list[str] | None:
    return None if platforms is None else list(map(str, platforms))


#: The URL of a registry, and platforms, as they were written in the remote.
WrittenUrl = Annotated[str, made(_url_text)]
WrittenPlatforms = Annotated[list[str] | None, made(_platform_texts)]


class Together:
    """The attributes of several objects as those of one, the first object's first; ``whole`` is the first object."""

    def __init__(self, whole: Any, *others: Any) -> None:
        self.whole = whole
        self._others = others

    def __getattr__(self, name: str) -> Any:
        for value in self._others:
            if not hasattr(self.whole, name) and hasattr(value, name):
                return getattr(value, name)
        return getattr(self.whole, name)


class Document(BaseModel):
    """A document of the REST API, read from an object by ``model_validate``, or from several :class:`Together`."""

    model_config = ConfigDict(
        from_attributes=True,
        validate_by_name=True,
        validate_by_alias=True,
        alias_generator=AliasGenerator(validation_alias=domain_name),
    )

    _reads_whole: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        cls._reads_whole = any(field.validation_alias == "whole" for field in cls.model_fields.values())

    @model_validator(mode="before")
    @classmethod
    def _with_itself(cls, value: Any) -> Any:
        is_read_as_it_is = not cls._reads_whole or isinstance(value, Mapping | Document | Together)
        return value if is_read_as_it_is else Together(value)


class PageDocument(BaseModel, Generic[T]):
    """A page of a list. ``count`` is the total number of entries; ``next`` and ``previous`` are paths, or null."""

    count: int
    next: str | None
    previous: str | None
    results: list[T]
