"""``…/versions/`` and ``…/copy_tags/``: versions read, compared, described, removed, rolled back to and copied.

A copy and a rollback are short work in one transaction, so the version itself is the response and there is no task to
wait for.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from registry_sync.api.access import CHANGE, DELETE, READ, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PageDocument, PageQuery, PathNumber, PathUuid, page_document
from registry_sync.api.problems import CONFLICT, NOT_FOUND, InvalidField
from registry_sync.api.versions.documents import (
    ORDERING_FIELDS,
    ChangedVersion,
    DerivedVersionDocument,
    HeldTagDocument,
    MissingManifestDocument,
    NewCopy,
    NewRollback,
    VersionDocument,
    VersionQuery,
)
from registry_sync.api.versions.reports import DifferenceDocument, DifferenceQuery, ProvenanceDocument
from registry_sync.db.database import Database
from registry_sync.domain.records import Annotation, Page
from registry_sync.domain.version_history import CopyRequest, DerivedVersion
from registry_sync.errors import RecordNotFound
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.hrefs import href_of, read_repository_href, version_href, versions_href

#: What such an operation answers besides 201.
DERIVED: dict[int | str, dict[str, Any]] = {
    200: {"model": DerivedVersionDocument, "description": "The latest version is so already; none was made"}
}


def derived_response(
    database: Database, repository_id: str, derived: DerivedVersion, response: Response
) -> DerivedVersionDocument:
    """The version that was made with its path as ``Location``, or the latest with 200 when none was."""
    version = derived.version
    if version is None:
        response.status_code = 200
        version = database.versions.latest(repository_id)
    else:
        response.headers["Location"] = href_of(version)
    if version is None:
        raise RecordNotFound(f"repository {repository_id!r} has no version")
    return DerivedVersionDocument.of_derived(derived, version)


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
    """Makes a new version with tags of another repository. When the latest has them so, it is the answer, with 200."""
    database.repositories.get(repository_id)
    request = given.request()
    _require_source(database, given, request)
    try:
        made = database.versions.copy(repository_id, request, by=user.get_name(), description=given.description)
    except RecordNotFound as problem:
        raise InvalidField("names", str(problem)) from None
    return derived_response(database, repository_id, made, response)


def _require_source(database: Database, given: NewCopy, request: CopyRequest) -> None:
    """What is wrong with the source is said of its field."""
    field = "source_repository" if given.source_repository is not None else "source_repository_version"
    try:
        source = database.repositories.get(request.repository_id)
        if request.number is not None:
            database.versions.get(source.id, request.number)
    except RecordNotFound as problem:
        raise InvalidField(field, str(problem)) from None
    if source.latest_number is None:
        raise InvalidField(field, f"repository {source.name!r} has no version yet")


router = Router(prefix="/repositories/docker/docker/{repository_id}/versions", tags=["versions"])


@router.get("/", dependencies=READ, responses=NOT_FOUND)
def list_versions(
    database: UsedDatabase, repository_id: PathUuid, query: Annotated[VersionQuery, Query()]
) -> PageDocument[VersionDocument]:
    """Versions of a repository, the newest first unless ordered otherwise."""
    database.repositories.get(repository_id)
    page = database.versions.page(repository_id, query.part(ORDERING_FIELDS, query.ordering or "-number"))
    return page_document(versions_href(repository_id), query, page, VersionDocument.of)


@router.get("/{number}/", dependencies=READ, responses=NOT_FOUND)
def read_version(database: UsedDatabase, repository_id: PathUuid, number: PathNumber) -> VersionDocument:
    """A repository version."""
    return VersionDocument.of(database.versions.get(repository_id, number))


@router.patch("/{number}/", dependencies=CHANGE, responses=NOT_FOUND)
def change_version(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, given: ChangedVersion
) -> VersionDocument:
    """The version with another description or other labels; what it holds never changes."""
    sent = given.model_dump(exclude_unset=True)

    def change(said: Annotation) -> Annotation:
        return Annotation(sent.get("description", said.description), sent.get("pulp_labels", said.labels))

    return VersionDocument.of(database.versions.annotate(repository_id, number, change))


@router.delete("/{number}/", status_code=204, dependencies=DELETE, responses={**NOT_FOUND, **CONFLICT})
def delete_version(database: UsedDatabase, repository_id: PathUuid, number: PathNumber) -> None:
    """Removes a version. What the others hold stays, and so does the only one."""
    database.versions.delete(repository_id, number)


@router.get("/{number}/diff/", dependencies=READ, responses=NOT_FOUND)
def compare_version(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[DifferenceQuery, Query()]
) -> DifferenceDocument:
    """How the version differs from another one, of another repository too; from its base unless one is given."""
    other = None if query.base_repository is None else read_repository_href(query.base_repository)
    base = query.base
    if base is None:
        is_own = other in (None, repository_id)
        base = database.versions.get(repository_id, number).base_number if is_own else _latest(database, other)
    found = database.versions.difference(
        repository_id, number, base or 0, base_repository_id=other, request=query.part({}, None)
    )
    return DifferenceDocument.of(found, query)


@router.get("/{number}/holds/", dependencies=READ, responses=NOT_FOUND)
def list_holds(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[PageQuery, Query()]
) -> PageDocument[HeldTagDocument]:
    """Tags that the version could not bring up to date, by name."""
    holds = database.versions.get(repository_id, number).holds
    page = Page(holds[query.offset : query.offset + query.limit], len(holds))
    return page_document(f"{version_href(repository_id, number)}holds/", query, page, HeldTagDocument.of)


@router.get("/{number}/missing_manifests/", dependencies=READ, responses=NOT_FOUND)
def list_missing_manifests(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, query: Annotated[PageQuery, Query()]
) -> PageDocument[MissingManifestDocument]:
    """Entries of indexes that their registry did not have, by the index's digest."""
    gaps = database.versions.get(repository_id, number).gaps
    page = Page(gaps[query.offset : query.offset + query.limit], len(gaps))
    return page_document(
        f"{version_href(repository_id, number)}missing_manifests/", query, page, MissingManifestDocument.of
    )


@router.get("/{number}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_provenance(database: UsedDatabase, repository_id: PathUuid, number: PathNumber) -> ProvenanceDocument:
    """Where the version came from: the sync with its remote as it was then, or the version that it was made of."""
    found = database.provenance.version(repository_id, number)
    return ProvenanceDocument.of(found, load_settings().sync_dag_id)


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
    """Makes a new version that holds what this one held. When the latest does, it is the answer, with 200."""
    made = database.versions.roll_back(repository_id, number, by=user.get_name(), description=given.description)
    return derived_response(database, repository_id, made, response)


def _latest(database: UsedDatabase, repository_id: str | None) -> int | None:
    return database.repositories.get(repository_id or "").latest_number
