"""``/repositories/docker/docker/<id>/versions/``: versions read, compared, described, removed and rolled back to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from registry_sync.api.access import CHANGE, DELETE, READ, SignedIn
from registry_sync.api.fields import PathNumber, PathUuid
from registry_sync.api.pages import PageDocument, PageQuery, page_document
from registry_sync.api.parts import UsedDatabase
from registry_sync.api.problems import CONFLICT, NOT_FOUND
from registry_sync.api.threads import Router
from registry_sync.api.versions.derived import DERIVED, derived_answer
from registry_sync.api.versions.differences import DifferenceDocument, DifferenceQuery
from registry_sync.api.versions.provenance import ProvenanceDocument
from registry_sync.api.versions.schemas import (
    ORDERING_FIELDS,
    ChangedVersion,
    DerivedVersionDocument,
    HeldTagDocument,
    MissingManifestDocument,
    NewRollback,
    VersionDocument,
    VersionQuery,
)
from registry_sync.domain.hrefs import read_repository_href, version_href, versions_href
from registry_sync.domain.pages import Page
from registry_sync.domain.records import Annotation
from registry_sync.hooks.settings import load_settings

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
    return derived_answer(database, repository_id, made, response)


def _latest(database: UsedDatabase, repository_id: str | None) -> int | None:
    return database.repositories.get(repository_id or "").latest_number
