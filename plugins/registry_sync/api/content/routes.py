"""``/content/docker/{blobs,manifests,tags}/``: list and read content units."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from registry_sync.api.access import READ
from registry_sync.api.content.schemas import (
    BlobDocument,
    ContentQuery,
    DigestQuery,
    ManifestDocument,
    TagDocument,
    TagQuery,
)
from registry_sync.api.fields import PathUnitId
from registry_sync.api.pages import PageDocument, page_document
from registry_sync.api.parts import UsedDatabase
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.db.database import Database
from registry_sync.domain.hrefs import units_href
from registry_sync.domain.units import UnitQuery
from registry_sync.errors import RecordNotFound

router = APIRouter(prefix="/content/docker", tags=["content"])


@router.get("/blobs/", dependencies=READ)
def list_blobs(database: UsedDatabase, query: Annotated[DigestQuery, Query()]) -> PageDocument[BlobDocument]:
    """Blobs, by digest unless ordered otherwise."""
    page = database.units.blobs(_unit_query(database, query), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.blob"), query, page, BlobDocument.of)


@router.get("/blobs/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_blob(database: UsedDatabase, unit_id: PathUnitId) -> BlobDocument:
    """A blob."""
    return BlobDocument.of(database.units.blob(unit_id))


@router.get("/manifests/", dependencies=READ)
def list_manifests(database: UsedDatabase, query: Annotated[DigestQuery, Query()]) -> PageDocument[ManifestDocument]:
    """Manifests with their relations, by digest unless ordered otherwise."""
    page = database.units.manifests(_unit_query(database, query), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.manifest"), query, page, ManifestDocument.of)


@router.get("/manifests/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_manifest(database: UsedDatabase, unit_id: PathUnitId) -> ManifestDocument:
    """A manifest with its relations."""
    return ManifestDocument.of(database.units.manifest(unit_id))


@router.get("/tags/", dependencies=READ)
def list_tags(database: UsedDatabase, query: Annotated[TagQuery, Query()]) -> PageDocument[TagDocument]:
    """Tags, by name unless ordered otherwise."""
    page = database.units.tags(_unit_query(database, query), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.tag"), query, page, TagDocument.of)


@router.get("/tags/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_tag(database: UsedDatabase, unit_id: PathUnitId) -> TagDocument:
    """A tag."""
    return TagDocument.of(database.units.tag(unit_id))


def _unit_query(database: Database, query: ContentQuery) -> UnitQuery:
    """What is asked for; a version that is not there is bad input, since a filter names it."""
    asked = query.unit_query()
    if asked.repository_id is not None and asked.number is not None:
        try:
            database.versions.get(asked.repository_id, asked.number)
        except RecordNotFound as problem:
            raise InvalidField(query.version_field(), str(problem)) from None
    return asked
