"""``…/versions/`` and ``…/copy_tags/``: read, compare, describe, delete, roll back and copy versions.

A copy and a rollback are one short transaction, so the version itself is the response and there is no task to wait for.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import Field, StringConstraints, model_validator
from typing_extensions import Self

from registry_sync.api.access import CHANGE, DELETE, READ, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import (
    Flag,
    FreeText,
    GivenDocument,
    GivenHref,
    Labels,
    PathNumber,
    PathUuid,
    invalid,
    parsed,
)
from registry_sync.api.guard import list_origin
from registry_sync.api.list_filters import OF_ORDER, FilterField, filtered, read_number, read_time, read_unit
from registry_sync.api.preconditions import IfMatch
from registry_sync.api.problems import CONFLICT, NOT_FOUND, PRECONDITION, InvalidField
from registry_sync.api.resources import (
    PageQuery,
    SentFields,
    ordered_by,
    page_document,
    part_of,
    sent,
    sent_page,
)
from registry_sync.api.sync_dag import existing_tasks
from registry_sync.db.database import Database
from registry_sync.domain.filters import Operator
from registry_sync.domain.records import Annotation, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.version_history import CopyRequest, DerivedVersion, VersionDifference
from registry_sync.errors import RecordNotFound
from registry_sync.hooks.asset_events import announce_version
from registry_sync.pulp.container_documents import shown
from registry_sync.pulp.documents import PageDocument, Together
from registry_sync.pulp.hrefs import (
    MAX_NUMBER,
    href_of,
    read_repository_href,
    read_version_href,
    repository_href,
    version_href,
    versions_href,
)
from registry_sync.pulp.resource_names import VERSION, read_prn
from registry_sync.pulp.version_documents import (
    DerivedVersionDocument,
    DifferenceDocument,
    HeldTagDocument,
    MissingManifestDocument,
    NextPart,
    ProvenanceDocument,
    VersionDocument,
)
from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event


class ChangedVersion(GivenDocument):
    """The changed description and labels of a version; omitted fields are not changed, nor is its content."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset(VersionDocument.model_fields) - {
        "description",
        "pulp_labels",
    }

    description: FreeText | None = None
    pulp_labels: Labels


class NewRollback(GivenDocument):
    """The description of the version that a rollback makes."""

    description: FreeText | None = None


_VersionOrder: Any = ordered_by("number", "pulp_created")


class _OrderedVersions(PageQuery):
    default_ordering: ClassVar[str] = "-number"

    ordering: _VersionOrder = None


VERSION_FIELDS = (
    FilterField("number", how=(*OF_ORDER, Operator.IN), read=read_number),
    FilterField("pulp_created", "created_at", OF_ORDER, read_time),
    FilterField("pulp_href", "id", (Operator.IN,), read_version_href),
    FilterField("prn", how=(Operator.IN,), read=partial(read_prn, model=VERSION)),
    FilterField("content", how=(Operator.EQUAL, Operator.IN), read=read_unit, about="Paths of content units"),
)
VersionQuery: Any = filtered(
    _OrderedVersions, "VersionQuery", "The filters and order of versions; the newest first by default.", *VERSION_FIELDS
)


MAX_NAMES = 1000


def _read_pattern(text: str) -> object:
    return TagFilter.parse([text], ())


Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), parsed(_read_pattern)]


class SourceOfCopy(GivenDocument):
    """What is copied from. Exactly one of the two paths is required."""

    source_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of a repository, whose latest version is copied"),
    ] = None
    source_repository_version: Annotated[
        Annotated[GivenHref, parsed(read_version_href)] | None, Field(description="Path of a repository version")
    ] = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.source_repository is None) == (self.source_repository_version is None):
            raise invalid("Send either source_repository or source_repository_version.")
        return self

    def source(self) -> tuple[str, int | None]:
        """The repository's id, and the number of the version; None for the latest."""
        if self.source_repository_version is not None:
            return read_version_href(self.source_repository_version)
        return read_repository_href(str(self.source_repository)), None


class NewCopy(SourceOfCopy):
    """The tags to copy, and their repository or version. Exactly one of the two paths is required."""

    names: Annotated[
        list[Pattern] | None,
        Field(min_length=1, max_length=MAX_NAMES, description="Names and globs of tags; null for all"),
    ] = None
    mirror: Annotated[
        Flag,
        Field(description="Whether the repository's other tags are removed from the new version; false keeps them"),
    ] = False
    description: FreeText | None = None

    def request(self) -> CopyRequest:
        """The request for the store."""
        mode = SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE
        return CopyRequest(*self.source(), TagFilter.parse(self.names, ()), mode)


class DifferenceQuery(PageQuery):
    """The version to compare with, and the page of each of the three lists."""

    base: Annotated[
        int | None,
        Field(ge=0, le=MAX_NUMBER, description="Number of the other version; 0 is the empty version before the first"),
    ] = None
    base_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of the other version's repository; by default the same"),
    ] = None


#: The response of a rollback or copy besides 201.
DERIVED: dict[int | str, dict[str, Any]] = {
    200: {"model": DerivedVersionDocument, "description": "The latest version has this content already; none was made"}
}


def derived_response(
    database: Database, repository_id: str, derived: DerivedVersion, response: Response
) -> DerivedVersionDocument:
    """The new version with its path as ``Location``, or the latest with 200 when none was made."""
    version = derived.version
    if version is None:
        response.status_code = 200
        version = database.versions.latest(repository_id)
    else:
        announce_version(database, version, version_event, max_tags=MAX_EVENT_TAGS)
        response.headers["Location"] = href_of(version)
    if version is None:
        raise RecordNotFound(f"repository {repository_id!r} has no version")
    return shown(DerivedVersionDocument, Together(version, derived))


copies_router = Router(tags=["versions"])


@copies_router.post(
    "/repositories/docker/docker/{repository_id}/copy_tags/",
    status_code=201,
    dependencies=CHANGE,
    responses={**NOT_FOUND, **DERIVED},
)
def copy_tags(
    database: UsedDatabase, repository_id: PathUuid, given: NewCopy, user: SignedIn, response: Response
) -> DerivedVersionDocument:
    """Makes a new version with tags of another repository. If the latest has them already, responds with it and 200."""
    database.repositories.get(repository_id)
    require_source(database, given)
    try:
        made = database.versions.copy(repository_id, given.request(), by=user.get_name(), description=given.description)
    except RecordNotFound as problem:
        raise InvalidField("names", str(problem)) from None
    return derived_response(database, repository_id, made, response)


def require_source(database: Database, given: SourceOfCopy) -> None:
    """Checks the source. Raises :class:`InvalidField` for its field."""
    repository_id, number = given.source()
    field = "source_repository" if given.source_repository is not None else "source_repository_version"
    try:
        source = database.repositories.get(repository_id)
        if number is not None:
            database.versions.get(source.id, number)
    except RecordNotFound as problem:
        raise InvalidField(field, str(problem)) from None
    if source.latest_number is None:
        raise InvalidField(field, f"repository {source.name!r} has no version yet")


router = Router(prefix="/repositories/docker/docker/{repository_id}/versions", tags=["versions"])


@router.get("/", dependencies=READ, responses=NOT_FOUND)
def list_versions(
    database: UsedDatabase,
    repository_id: PathUuid,
    query: Annotated[VersionQuery, Query()],
) -> PageDocument[VersionDocument]:
    """Versions of a repository, the newest first unless ordered otherwise."""
    database.repositories.get(repository_id)
    page = database.versions.page(repository_id, query.page_request(), where=query.wanted())
    return sent_page(query, page_document(versions_href(repository_id), query, page, partial(shown, VersionDocument)))


@router.get("/{number}/", dependencies=READ, responses=NOT_FOUND)
def read_version(
    database: UsedDatabase,
    repository_id: PathUuid,
    number: PathNumber,
    *,
    query: Annotated[SentFields, Query()],
    request: Request,
) -> VersionDocument:
    """A repository version."""
    return sent(request, query, shown(VersionDocument, database.versions.get(repository_id, number)))


@router.patch("/{number}/", dependencies=CHANGE, responses={**NOT_FOUND, **PRECONDITION})
def change_version(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, given: ChangedVersion, if_match: IfMatch
) -> VersionDocument:
    """Changes the description or labels of the version; its content never changes."""
    sent = given.model_dump(exclude_unset=True)

    def change(current: Annotation) -> Annotation:
        return Annotation(sent.get("description", current.description), sent.get("pulp_labels", current.labels))

    only_if = if_match.of(VersionDocument)
    return shown(VersionDocument, database.versions.annotate(repository_id, number, change, only_if))


@router.delete("/{number}/", status_code=204, dependencies=DELETE, responses={**NOT_FOUND, **CONFLICT, **PRECONDITION})
def delete_version(database: UsedDatabase, repository_id: PathUuid, number: PathNumber, if_match: IfMatch) -> None:
    """Deletes a version. The content of the others stays; the only version cannot be deleted."""
    database.versions.delete(repository_id, number, if_match.of(VersionDocument))


@router.get("/{number}/diff/", dependencies=READ, responses=NOT_FOUND)
def compare_version(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[DifferenceQuery, Query()]
) -> DifferenceDocument:
    """Compares the version with another one, also of another repository; by default with its base."""
    other = None if query.base_repository is None else read_repository_href(query.base_repository)
    base = query.base
    if base is None:
        is_own = other in (None, repository_id)
        base = database.versions.get(repository_id, number).base_number if is_own else _latest(database, other)
    found = database.versions.difference(
        repository_id, number, base or 0, base_repository_id=other, request=query.page_request()
    )
    return DifferenceDocument.model_validate(Together(found, NextPart(_next_part(found, query))))


@router.get("/{number}/holds/", dependencies=READ, responses=NOT_FOUND)
def list_holds(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[PageQuery, Query()]
) -> PageDocument[HeldTagDocument]:
    """Tags that the version could not update, by name."""
    holds = database.versions.get(repository_id, number).holds
    page = part_of(holds, query)
    href = f"{version_href(repository_id, number)}holds/"
    return sent_page(query, page_document(href, query, page, HeldTagDocument.model_validate))


@router.get("/{number}/missing_manifests/", dependencies=READ, responses=NOT_FOUND)
def list_missing_manifests(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[PageQuery, Query()]
) -> PageDocument[MissingManifestDocument]:
    """Entries of indexes that their registry did not have, by the index's digest."""
    gaps = database.versions.get(repository_id, number).gaps
    page = part_of(gaps, query)
    href = f"{version_href(repository_id, number)}missing_manifests/"
    return sent_page(query, page_document(href, query, page, MissingManifestDocument.model_validate))


@router.get("/{number}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_provenance(database: UsedDatabase, repository_id: PathUuid, number: PathNumber) -> ProvenanceDocument:
    """Where the version came from: the sync with its remote as it was then, or the version that it was made from."""
    found = database.provenance.version(repository_id, number)
    keys = () if found.run is None else (found.run.key,)
    return ProvenanceDocument.model_validate(found, context=existing_tasks(keys))


@router.post("/{number}/rollback/", status_code=201, dependencies=CHANGE, responses={**NOT_FOUND, **DERIVED})
def roll_back(
    database: UsedDatabase,
    repository_id: PathUuid,
    number: PathNumber,
    given: NewRollback,
    *,
    user: SignedIn,
    response: Response,
) -> DerivedVersionDocument:
    """Makes a new version with this one's content. If the latest has the same, responds with it and 200."""
    made = database.versions.roll_back(repository_id, number, by=user.get_name(), description=given.description)
    return derived_response(database, repository_id, made, response)


def _latest(database: UsedDatabase, repository_id: str | None) -> int | None:
    return database.repositories.get(repository_id or "").latest_number


def _next_part(difference: VersionDifference, query: DifferenceQuery) -> str | None:
    end = query.offset + query.limit
    longest = max(part.page.total_count for part in (difference.tags, difference.manifests, difference.blobs))
    if end >= longest:
        return None
    given: dict[str, int | str] = {"base": difference.base_number, "limit": query.limit, "offset": end}
    if difference.base_repository_id != difference.repository_id:
        given["base_repository"] = repository_href(difference.base_repository_id)
    href = version_href(difference.repository_id, difference.number)
    return f"{list_origin()}{href}diff/?{urlencode(given, safe='/')}"
