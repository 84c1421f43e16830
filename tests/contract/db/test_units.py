"""Pages of content units on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from registry_sync.db.database import Database
from registry_sync.domain import media_types
from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import BlobRole
from registry_sync.domain.records import PageRequest, Repository
from registry_sync.errors import InvalidReference, RecordNotFound
from support.metadata import Upstream, image, index, sync


@pytest.fixture
def filled(database: Database) -> Repository:
    """A repository of two versions: ``v1`` and ``multi``, then ``multi`` moved."""
    repository = database.repositories.ensure("app")
    amd64, arm64 = image("base", "amd64", config="x"), image("base", "arm64", config="y")
    upstream = Upstream()
    upstream.tag("v1", amd64)
    upstream.tag("multi", index(amd64, arm64), amd64, arm64)
    sync(database, repository, upstream)
    upstream.tag("multi", index(arm64))
    sync(database, repository, upstream)
    return database.repositories.get(repository.id)


def test_units_of_a_version_are_those_present_added_or_removed(database: Database, filled: Repository) -> None:
    def names(number: int | None, relation: Relation) -> list[str]:
        return [unit.name for unit in database.units.tags(UnitQuery(filled.id, number, relation)).items]

    assert names(1, Relation.PRESENT) == ["multi", "v1"] == names(1, Relation.ADDED)
    assert names(2, Relation.PRESENT) == ["multi", "v1"] == names(None, Relation.PRESENT)
    assert names(2, Relation.ADDED) == ["multi"] == names(2, Relation.REMOVED)
    assert database.units.manifests(UnitQuery(filled.id, 2, Relation.REMOVED)).total_count == 1
    assert database.units.blobs(UnitQuery(filled.id, 2, Relation.REMOVED)).items == ()


def test_a_manifest_comes_with_its_blobs_and_children_and_a_tag_with_its_manifest(
    database: Database, filled: Repository
) -> None:
    tag = database.units.tags(UnitQuery(filled.id, 1, name="multi")).items[0]
    multi = database.units.manifest(tag.manifest_id)
    assert (multi.digest, multi.media_type) == (tag.digest, media_types.OCI_INDEX)
    assert multi.config is None
    assert len(multi.children) == 2
    first = database.units.manifest(multi.children[0].id or 0)
    assert first.digest == multi.children[0].digest
    assert first.config is not None
    assert (first.config.role, first.config.digest) == (BlobRole.CONFIG, Digest.of(b"x"))
    assert [blob.digest for blob in first.layers] == [Digest.of(b"base"), Digest.of(b"amd64")]
    assert database.units.blob(first.layers[0].id).digest == Digest.of(b"base")
    assert database.units.tag(tag.id) == tag


def test_units_are_filtered_by_digest_media_type_and_name(database: Database, filled: Repository) -> None:
    units = database.units
    assert units.blobs(UnitQuery(filled.id, digests=(Digest.of(b"base"),))).total_count == 1
    assert units.blobs(UnitQuery(filled.id, digests=())).total_count == 0
    indexes = units.manifests(UnitQuery(filled.id, media_types=(media_types.OCI_INDEX,)))
    assert [unit.media_type for unit in indexes.items] == [media_types.OCI_INDEX]
    assert units.manifests(UnitQuery(media_types=(media_types.OCI_INDEX,))).total_count == 2
    assert [unit.name for unit in units.tags(UnitQuery(filled.id, name_contains="MULT")).items] == ["multi"]
    assert units.tags(UnitQuery(filled.id, media_types=(media_types.OCI_MANIFEST,))).items[0].name == "v1"
    assert units.tags(UnitQuery(filled.id, name="none")).items == ()


def test_units_are_ordered_and_paged(database: Database, filled: Repository) -> None:
    query = UnitQuery(filled.id)
    everything = [unit.digest for unit in database.units.blobs(query).items]
    assert everything == sorted(everything)
    page = database.units.blobs(query, PageRequest(offset=1, limit=2, ordering="-digest"))
    assert ([unit.digest for unit in page.items], page.total_count) == (everything[::-1][1:3], len(everything))
    sizes = [unit.size_bytes for unit in database.units.manifests(query, PageRequest(ordering="size_bytes")).items]
    assert sizes == sorted(sizes)
    assert [unit.name for unit in database.units.tags(query, PageRequest(ordering="-name")).items] == ["v1", "multi"]
    with pytest.raises(InvalidReference, match="known are name"):
        database.units.tags(query, PageRequest(ordering="layers"))


def test_units_of_what_is_not_there_are_not_found_or_none(database: Database) -> None:
    empty = database.repositories.ensure("empty")
    assert database.units.tags(UnitQuery(empty.id)).items == ()
    with pytest.raises(RecordNotFound):
        database.units.tags(UnitQuery("nowhere"))
    with pytest.raises(RecordNotFound):
        database.units.tags(UnitQuery(empty.id, 1))
    for one in (database.units.blob, database.units.manifest, database.units.tag):
        with pytest.raises(RecordNotFound):
            one(1_000_000)


def test_a_page_costs_the_same_few_queries_whatever_it_holds(database: Database) -> None:
    repository = database.repositories.ensure("app")
    counts = []
    statements: list[str] = []

    def note(*parts: Any) -> None:
        statements.append(parts[2])

    event.listen(database._engine, "before_cursor_execute", note)
    for size in (2, 60):
        upstream = Upstream()
        for number in range(size):
            child = image(f"layer {number}")
            upstream.tag(f"tag-{number}", index(child), child)
        sync(database, repository, upstream)
        statements.clear()
        query, request = UnitQuery(repository.id), PageRequest(limit=1000)
        assert len(database.units.manifests(query, request).items) == 2 * size
        database.units.tags(query, request)
        database.units.blobs(query, request)
        database.versions.page(repository.id)
        counts.append(len(statements))
    event.remove(database._engine, "before_cursor_execute", note)
    assert counts[0] == counts[1] <= 20
