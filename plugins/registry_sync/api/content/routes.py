"""``/content/docker/{blobs,manifests,tags}/``: list and read content units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Query

from registry_sync.api.access import READ
from registry_sync.api.content.documents import (
    BlobDocument,
    BlobProvenanceDocument,
    ContentQuery,
    DigestQuery,
    ManifestDocument,
    ManifestProvenanceDocument,
    TagDocument,
    TagQuery,
)
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import PageDocument, PathUnitId, page_document
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.errors import RecordNotFound
from registry_sync.pulp.hrefs import units_href

router = Router(prefix="/content/docker", tags=["content"])


@router.get("/blobs/", dependencies=READ)
def list_blobs(database: UsedDatabase, query: Annotated[DigestQuery, Query()]) -> PageDocument[BlobDocument]:
    """Blobs, by digest unless ordered otherwise."""
    with _known_version(query):
        page = database.units.blobs(query.unit_query(), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.blob"), query, page, BlobDocument.of)


@router.get("/blobs/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_blob(database: UsedDatabase, unit_id: PathUnitId) -> BlobDocument:
    """A blob."""
    return BlobDocument.of(database.units.blob(unit_id))


@router.get("/blobs/{unit_id}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_blob_provenance(database: UsedDatabase, unit_id: PathUnitId) -> BlobProvenanceDocument:
    """Where a blob came from, and which repositories hold it."""
    return BlobProvenanceDocument.of(database.provenance.blob(database.units.blob(unit_id).digest))


@router.get("/manifests/", dependencies=READ)
def list_manifests(database: UsedDatabase, query: Annotated[DigestQuery, Query()]) -> PageDocument[ManifestDocument]:
    """Manifests with their relations, by digest unless ordered otherwise."""
    with _known_version(query):
        page = database.units.manifests(query.unit_query(), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.manifest"), query, page, ManifestDocument.of)


@router.get("/manifests/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_manifest(database: UsedDatabase, unit_id: PathUnitId) -> ManifestDocument:
    """A manifest with its relations."""
    return ManifestDocument.of(database.units.manifest(unit_id))


@router.get("/manifests/{unit_id}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_manifest_provenance(database: UsedDatabase, unit_id: PathUnitId) -> ManifestProvenanceDocument:
    """Since when a manifest is here, and which repositories hold it."""
    return ManifestProvenanceDocument.of(database.provenance.manifest(database.units.manifest(unit_id).digest))


@router.get("/tags/", dependencies=READ)
def list_tags(database: UsedDatabase, query: Annotated[TagQuery, Query()]) -> PageDocument[TagDocument]:
    """Tags, by name unless ordered otherwise."""
    with _known_version(query):
        page = database.units.tags(query.unit_query(), query.part(query.ordering_fields, query.ordering))
    return page_document(units_href("docker.tag"), query, page, TagDocument.of)


@router.get("/tags/{unit_id}/", dependencies=READ, responses=NOT_FOUND)
def read_tag(database: UsedDatabase, unit_id: PathUnitId) -> TagDocument:
    """A tag."""
    return TagDocument.of(database.units.tag(unit_id))


@contextmanager
def _known_version(query: ContentQuery) -> Iterator[None]:
    """A version that is not there is bad input, since a filter names it."""
    try:
        yield
    except RecordNotFound as problem:
        raise InvalidField(query.version_field(), str(problem)) from None
