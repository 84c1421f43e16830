"""``/content/docker/{blobs,manifests,tags}/``: list and read content units; and ``/artifacts/``, their stored bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import Field, StringConstraints

from registry_sync.api.access import READ
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import GivenHref, PathUnitId
from registry_sync.api.list_filters import OF_ORDER, OF_TEXT, Filtered, FilterField, filtered, read_time
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.resources import PageQuery, Resource, ordered_by, page_document, sent_page
from registry_sync.db.content.units import UnitStore
from registry_sync.db.database import Database
from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.filters import NOTHING, AllOf, Match, Operator
from registry_sync.domain.records import Page, PageRequest
from registry_sync.errors import InvalidReference, RecordNotFound
from registry_sync.pulp.content_documents import (
    ArtifactDocument,
    BlobDocument,
    BlobProvenanceDocument,
    ManifestDocument,
    ManifestProvenanceDocument,
    TagDocument,
)
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import artifacts_href, read_unit_href, read_version_href, units_href
from registry_sync.pulp.resource_names import BLOB, MANIFEST, TAG, read_unit_prn

T = TypeVar("T")
_RELATIONS = {
    "repository_version": Relation.PRESENT,
    "repository_version_added": Relation.ADDED,
    "repository_version_removed": Relation.REMOVED,
}


class ContentQuery(PageQuery, Filtered):
    """The filters of content units: those of one version, or all. At most one of the three relations may be given."""

    repository_version: Annotated[GivenHref | None, Field(description="Path of a version that has them")] = None
    repository_version_added: Annotated[GivenHref | None, Field(description="Path of a version that added them")] = None
    repository_version_removed: Annotated[
        GivenHref | None, Field(description="Path of a version that removed them")
    ] = None

    def unit_query(self) -> UnitQuery:
        """The query for the store. Raises :class:`InvalidField`."""
        field = self.version_field()
        repository_id, number = self._version(field) if field else (None, None)
        return UnitQuery(
            repository_id=repository_id,
            number=number,
            relation=_RELATIONS.get(field, Relation.PRESENT),
            where=self.wanted(),
        )

    def version_field(self) -> str:
        """The parameter that names a version; empty without one. Raises :class:`InvalidField` for two."""
        given = [field for field in _RELATIONS if getattr(self, field) is not None]
        if len(given) > 1:
            raise InvalidField(given[1], f"Send this or {given[0]}, not both.")
        return given[0] if given else ""

    def _version(self, field: str) -> tuple[str, int]:
        try:
            return read_version_href(getattr(self, field))
        except InvalidReference as problem:
            raise InvalidField(field, str(problem)) from None


_DigestOrder: Any = ordered_by("digest", "media_type", "size", "pulp_created")
_TagOrder: Any = ordered_by("name", "digest", "pulp_created")


class _OrderedByDigest(ContentQuery):
    ordering: _DigestOrder = None


class _OrderedByName(ContentQuery):
    ordering: _TagOrder = None


def _unit_fields(kind: str, model: str) -> tuple[FilterField, ...]:
    """What units of a kind are found by."""

    def read_own(href: str) -> int:
        of_kind, number = read_unit_href(href)
        if of_kind != kind:
            raise InvalidReference(f"{href[:200]!r} is a path of {of_kind}")
        return number

    return (
        FilterField("digest", how=(Operator.EQUAL, Operator.IN), read=Digest, is_repeatable=True),
        FilterField("media_type", how=(Operator.EQUAL, Operator.IN), is_repeatable=True),
        FilterField("pulp_href", "id", (Operator.IN,), read_own),
        FilterField("prn", "id", (Operator.IN,), partial(read_unit_prn, model=model)),
        FilterField("pulp_created", "created_at", OF_ORDER, read_time),
    )


BlobQuery = filtered(_OrderedByDigest, "BlobQuery", "The filters and order of blobs.", *_unit_fields("blobs", BLOB))
ManifestQuery = filtered(
    _OrderedByDigest, "ManifestQuery", "The filters and order of manifests.", *_unit_fields("manifests", MANIFEST)
)
TagQuery = filtered(
    _OrderedByName,
    "TagQuery",
    "The filters and order of tags. ``digest`` and ``media_type`` are those of the manifest.",
    FilterField("name", how=OF_TEXT),
    *_unit_fields("tags", TAG),
)
router = Router(prefix="/content/docker", tags=["content"])


def _units(
    read: Callable[[UnitStore, UnitQuery, PageRequest], Page[T]],
) -> Callable[[Database, ContentQuery], Page[T]]:
    """The page of a query. A missing version is invalid input, since a filter names it."""

    def page(database: Database, query: ContentQuery) -> Page[T]:
        try:
            return read(database.units, query.unit_query(), query.page_request())
        except RecordNotFound as problem:
            raise InvalidField(query.version_field(), str(problem)) from None

    return page


Resource(
    one="blob",
    many="blobs",
    listed="Blobs, by digest unless ordered otherwise.",
    read="A blob.",
    href=partial(units_href, "docker.blob"),
    query=BlobQuery,
    document=BlobDocument,
    page=_units(UnitStore.blobs),
    get=lambda database, unit_id: database.units.blob(unit_id),
    id_name="unit_id",
    id_type=PathUnitId,
).add_routes(router, "/blobs")


@router.get("/blobs/{unit_id}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_blob_provenance(database: UsedDatabase, unit_id: PathUnitId) -> BlobProvenanceDocument:
    """Where a blob came from, and which repositories have it."""
    return BlobProvenanceDocument.model_validate(database.provenance.blob(database.units.blob(unit_id).digest))


Resource(
    one="manifest",
    many="manifests",
    listed="Manifests with their relations, by digest unless ordered otherwise.",
    read="A manifest with its relations.",
    href=partial(units_href, "docker.manifest"),
    query=ManifestQuery,
    document=ManifestDocument,
    page=_units(UnitStore.manifests),
    get=lambda database, unit_id: database.units.manifest(unit_id),
    id_name="unit_id",
    id_type=PathUnitId,
).add_routes(router, "/manifests")


@router.get("/manifests/{unit_id}/provenance/", dependencies=READ, responses=NOT_FOUND)
def read_manifest_provenance(database: UsedDatabase, unit_id: PathUnitId) -> ManifestProvenanceDocument:
    """Since when a manifest is stored, and which repositories have it."""
    digest = database.units.manifest(unit_id).digest
    return ManifestProvenanceDocument.model_validate(database.provenance.manifest(digest))


Resource(
    one="tag",
    many="tags",
    listed="Tags, by name unless ordered otherwise.",
    read="A tag.",
    href=partial(units_href, "docker.tag"),
    query=TagQuery,
    document=TagDocument,
    page=_units(UnitStore.tags),
    get=lambda database, unit_id: database.units.tag(unit_id),
    id_name="unit_id",
    id_type=PathUnitId,
).add_routes(router, "/tags")


artifacts_router = Router(prefix="/artifacts", tags=["content"])
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_OF_HASH = (Operator.EQUAL, Operator.IN)
_ArtifactOrder: Any = ordered_by("size", "pulp_created")


def _read_sha256(text: str) -> Digest:
    return Digest(f"sha256:{text}")


class _OrderedArtifacts(PageQuery):
    ordering: _ArtifactOrder = None


ArtifactQuery: Any = filtered(
    _OrderedArtifacts,
    "ArtifactQuery",
    "The filters of artifacts: those of blobs, then those of manifests.",
    FilterField("sha256", "digest", _OF_HASH, _read_sha256),
    FilterField("pulp_created", "created_at", OF_ORDER, read_time),
    *(
        FilterField(name, NOTHING, _OF_HASH, about="Nothing: only SHA-256 is known")
        for name in ("md5", "sha1", "sha224", "sha384", "sha512")
    ),
)


@artifacts_router.get("/", dependencies=READ)
def list_artifacts(database: UsedDatabase, query: Annotated[ArtifactQuery, Query()]) -> PageDocument[ArtifactDocument]:
    """The stored bytes of blobs, then of manifests, each by digest unless ordered otherwise."""
    by_sha256 = Match("digest", ("sha256:",), Operator.STARTS)
    stored = Match("stored_at", (False,), Operator.IS_NULL)
    page, wanted = query.page_request(), query.wanted()
    blobs = database.units.blobs(UnitQuery(where=AllOf((wanted, by_sha256, stored))), page)
    # The lists follow each other: what precedes the second is skipped, and what is left of the page is filled.
    rest = PageRequest(max(0, page.offset - blobs.total_count), page.limit - len(blobs.items), page.ordering)
    manifests = database.units.manifests(UnitQuery(where=AllOf((wanted, by_sha256))), rest)
    found = Page((*blobs.items, *manifests.items), blobs.total_count + manifests.total_count)
    return sent_page(query, page_document(artifacts_href(), query, found, ArtifactDocument.model_validate))


@artifacts_router.get("/{sha256}/", dependencies=READ, responses=NOT_FOUND)
def read_artifact(database: UsedDatabase, sha256: Sha256) -> ArtifactDocument:
    """The stored bytes that a blob or a manifest names as its artifact."""
    digest = Digest(f"sha256:{sha256}")
    query = UnitQuery(digests=(digest,))
    stored = [blob for blob in database.units.blobs(query).items if blob.is_stored]
    for unit in (*stored, *database.units.manifests(query).items):
        return ArtifactDocument.model_validate(unit)
    raise RecordNotFound(f"no bytes of {digest} are stored")
