"""Repository versions as they are shown."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from registry_sync.api.fields import Moment
from registry_sync.api.pages import PageQuery
from registry_sync.domain.records import RepositoryVersion

ORDERING_FIELDS = {"number": "number", "pulp_created": "created_at"}


class UnitCount(BaseModel):
    """How many units of one type, and the path of their list."""

    count: int
    href: str


class SummaryDocument(BaseModel):
    """Units by content type; a type without units is left out."""

    added: dict[str, UnitCount]
    present: dict[str, UnitCount]
    removed: dict[str, UnitCount]


class HeldTagDocument(BaseModel):
    """A tag that could not be brought up to date: the digest it keeps, null when it is left out, and why."""

    name: str
    digest: str | None
    reason: str


class VersionDocument(BaseModel):
    """A repository version. ``held_tags`` is only there when there are some."""

    pulp_created: Moment
    pulp_href: str
    base_version: str | None
    content_summary: SummaryDocument
    number: int
    held_tags: list[HeldTagDocument] = []

    @classmethod
    def of(cls, version: RepositoryVersion) -> VersionDocument:
        """A stored version, shown."""
        return cls(
            pulp_created=version.created_at,
            pulp_href=version.href,
            base_version=version.base_href,
            content_summary=SummaryDocument.model_validate(version.summary.as_json(version.href)),
            number=version.number,
            held_tags=[
                HeldTagDocument(name=hold.tag, digest=hold.digest, reason=hold.reason) for hold in version.holds
            ],
        )

    @model_serializer(mode="wrap")
    def _without_empty_holds(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = serialize(self)
        if not self.held_tags:
            shown.pop("held_tags", None)
        return shown


class VersionQuery(PageQuery):
    """In which order; the newest first unless said otherwise."""

    ordering: Literal["number", "-number", "pulp_created", "-pulp_created"] | None = None
