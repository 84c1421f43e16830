"""How two versions differ, as it is shown."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from registry_sync.api.fields import GivenHref, parsed
from registry_sync.api.pages import PageQuery
from registry_sync.domain.history import Change, TagChange, UnitChange, UnitDifference, VersionDifference
from registry_sync.domain.hrefs import MAX_NUMBER, read_repository_href, repository_href, version_href


class DifferenceQuery(PageQuery):
    """Which version to compare with, and which part of each of the three lists."""

    base: Annotated[
        int | None,
        Field(ge=0, le=MAX_NUMBER, description="Number of the other version; 0 is the empty one before the first"),
    ] = None
    base_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of the repository that the other version is of; the same unless given"),
    ] = None


class AmountsDocument(BaseModel):
    """Units: in the version alone, in both, in the base alone; ``moved`` tags are in none of the other numbers."""

    added: int
    shared: int
    removed: int
    moved: int | None = None


class ChangedTagDocument(BaseModel):
    """A tag that differs: ``before`` is its digest in the base, ``after`` that in the version; null where it is not."""

    change: Change
    name: str
    before: str | None
    after: str | None

    @classmethod
    def of(cls, changed: TagChange) -> ChangedTagDocument:
        """A change, shown."""
        return cls(change=changed.change, name=changed.name, before=changed.before, after=changed.after)


class ChangedUnitDocument(BaseModel):
    """A manifest or blob that only one of the two versions holds."""

    change: Literal[Change.ADDED, Change.REMOVED]
    digest: str
    media_type: str
    size: int

    @classmethod
    def of(cls, changed: UnitChange) -> ChangedUnitDocument:
        """A change, shown."""
        return cls.model_validate(
            {
                "change": changed.change,
                "digest": changed.digest,
                "media_type": changed.media_type,
                "size": changed.size_bytes,
            }
        )


class DifferenceDocument(BaseModel):
    """How a version differs from its base. Counts and sizes are of all; the lists are the part that was asked for.

    ``base_version`` is null for the empty version. ``next`` is the path of the next part while a list goes on.
    """

    version: str
    base_version: str | None
    is_empty: bool
    counts: dict[str, AmountsDocument]
    sizes: dict[str, AmountsDocument]
    tags: list[ChangedTagDocument]
    manifests: list[ChangedUnitDocument]
    blobs: list[ChangedUnitDocument]
    next: str | None

    @classmethod
    def of(cls, difference: VersionDifference, query: DifferenceQuery) -> DifferenceDocument:
        """A difference, shown; ``query`` is what was asked."""
        tags, units = difference.tags, {"docker.blob": difference.blobs, "docker.manifest": difference.manifests}
        of_tags = AmountsDocument(
            added=tags.added_count, shared=tags.shared_count, removed=tags.removed_count, moved=tags.moved_count
        )
        return cls(
            version=version_href(difference.repository_id, difference.number),
            base_version=_base_href(difference),
            is_empty=difference.is_empty,
            counts={**{kind: _counts(found) for kind, found in units.items()}, "docker.tag": of_tags},
            sizes={kind: _sizes(found) for kind, found in units.items()},
            tags=[ChangedTagDocument.of(changed) for changed in tags.page.items],
            manifests=[ChangedUnitDocument.of(changed) for changed in difference.manifests.page.items],
            blobs=[ChangedUnitDocument.of(changed) for changed in difference.blobs.page.items],
            next=_next(difference, query),
        )


def _base_href(difference: VersionDifference) -> str | None:
    if difference.base_number == 0:
        return None
    return version_href(difference.base_repository_id, difference.base_number)


def _counts(found: UnitDifference) -> AmountsDocument:
    return AmountsDocument(added=found.count.added, shared=found.count.shared, removed=found.count.removed)


def _sizes(found: UnitDifference) -> AmountsDocument:
    size = found.size_bytes
    return AmountsDocument(added=size.added, shared=size.shared, removed=size.removed)


def _next(difference: VersionDifference, query: DifferenceQuery) -> str | None:
    end = query.offset + query.limit
    longest = max(part.page.total_count for part in (difference.tags, difference.manifests, difference.blobs))
    if end >= longest:
        return None
    given: dict[str, int | str] = {"base": difference.base_number, "limit": query.limit, "offset": end}
    if difference.base_repository_id != difference.repository_id:
        given["base_repository"] = repository_href(difference.base_repository_id)
    href = version_href(difference.repository_id, difference.number)
    return f"{href}diff/?{urlencode(given, safe='/')}"
