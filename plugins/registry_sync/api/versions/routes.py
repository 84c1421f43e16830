"""``/repositories/docker/docker/<id>/versions/``: list and read repository versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from registry_sync.api.access import READ
from registry_sync.api.fields import PathNumber, PathUuid
from registry_sync.api.pages import PageDocument, page_document
from registry_sync.api.parts import UsedDatabase
from registry_sync.api.problems import NOT_FOUND
from registry_sync.api.versions.schemas import ORDERING_FIELDS, VersionDocument, VersionQuery
from registry_sync.domain.hrefs import versions_href

router = APIRouter(prefix="/repositories/docker/docker/{repository_id}/versions", tags=["versions"])


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
