"""Manifests and blobs on both databases."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from registry_sync.db.database import Database
from registry_sync.db.tables import manifests, orphaned_manifests
from registry_sync.domain import media_types
from registry_sync.domain.content_units import KnownManifest, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, ManifestKind, read_manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest
from registry_sync.errors import RecordNotFound
from support.metadata import image, index, layer


def test_a_manifest_is_given_back_byte_by_byte(database: Database) -> None:
    data = bytes(range(256)) * 16 * 1024
    large = replace(image("a"), digest=Digest.of(data), data=data)
    database.contents.add_manifests([large])
    stored = database.contents.manifest(large.digest)
    assert (stored.data, stored.media_type, stored.size_bytes) == (data, large.media_type, 4 * 1024 * 1024)


def test_adding_again_changes_nothing(database: Database) -> None:
    child = image("a", "b")
    parent = index(child)
    for _ in range(2):
        database.contents.add_manifests([child, parent])
    assert database.units.manifests().total_count == 2
    assert database.units.blobs().total_count == 3
    assert len(database.units.manifests(UnitQuery(digests=(child.digest,))).items[0].layers) == 2


def test_stored_manifests_are_reported_and_indexes_are_read_again_from_their_bytes(database: Database) -> None:
    first, second = image("a"), image("elsewhere")
    document = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": first.media_type, "digest": first.digest, "size": first.size_bytes}],
    }
    parent = read_manifest(json.dumps(document).encode(), content_type=media_types.OCI_INDEX)
    database.contents.add_manifests([first, parent])
    asked = [first.digest, second.digest, parent.digest]
    assert database.contents.stored_manifests(asked) == {
        first.digest: KnownManifest(first.digest),
        parent.digest: KnownManifest(parent.digest, None, parent),
    }
    assert database.contents.stored_manifests([]) == {}


def test_a_stored_manifest_that_is_requested_is_no_orphan_any_more(database: Database) -> None:
    lone = image("lone")
    database.contents.add_manifests([lone])
    with database.writing() as connection:
        orphan = {"manifest_id": select(manifests.c.id).scalar_subquery(), "orphaned_at": utc_now()}
        connection.execute(insert(orphaned_manifests).values(orphan))
    assert database.contents.stored_manifests([lone.digest]) == {lone.digest: KnownManifest(lone.digest)}
    with database.reading() as connection:
        assert connection.execute(select(orphaned_manifests)).all() == []


def test_an_entry_whose_manifest_is_not_stored_is_kept_by_digest_and_connected_later(database: Database) -> None:
    child = image("a")
    parent = index(child, platform={"os": "linux", "architecture": "arm64"})
    database.contents.add_manifests([parent])
    (entry,) = database.units.manifests().items[0].children
    assert (entry.id, entry.digest) == (None, child.digest)
    assert entry.platform == {"os": "linux", "architecture": "arm64"}
    database.contents.add_manifests([child])
    unit = database.units.manifests(UnitQuery(digests=(parent.digest,))).items[0]
    assert unit.children[0].id == database.units.manifests(UnitQuery(digests=(child.digest,))).items[0].id


def test_a_blob_is_stored_or_missing_as_it_was_last_said(database: Database) -> None:
    database.contents.add_manifests([image("a", config="c")])
    digest = Digest.of(b"a")
    assert not database.contents.blob(digest).is_stored
    for _ in range(2):
        database.contents.mark_stored([digest, Digest.of(b"unknown")])
    stored = database.contents.blob(digest)
    assert stored.is_stored
    assert not database.contents.blob(Digest.of(b"c")).is_stored
    database.contents.mark_stored([digest])
    assert database.contents.blob(digest).stored_at == stored.stored_at
    database.contents.mark_missing([digest])
    assert not database.contents.blob(digest).is_stored
    database.contents.mark_stored([])


def test_a_blob_that_one_manifest_calls_foreign_and_another_does_not_is_not_foreign(database: Database) -> None:
    database.contents.add_manifests([image(layer("shared", is_foreign=True))])
    assert database.contents.blob(Digest.of(b"shared")).is_foreign
    database.contents.add_manifests([image(layer("shared"), note="again")])
    database.contents.add_manifests([image(layer("shared", is_foreign=True), note="and again")])
    assert not database.contents.blob(Digest.of(b"shared")).is_foreign


def test_what_is_not_stored_is_not_found(database: Database) -> None:
    with pytest.raises(RecordNotFound):
        database.contents.manifest(Digest.of(b"nothing"))
    with pytest.raises(RecordNotFound):
        database.contents.blob(Digest.of(b"nothing"))


def test_text_that_a_registry_should_not_have_sent_is_stored_cleaned(database: Database) -> None:
    hostile = Descriptor("type\x00with\ud800" + "x" * 5000, Digest.of(b"l"), 1)
    data = b"hostile"
    manifest = Manifest(
        Digest.of(data),
        "application/vnd.oci.image.manifest.v1+json",
        ManifestKind.IMAGE,
        data,
        layers=(hostile, hostile),
        annotations={"key\x00": "value\ud800"},
        artifact_type="a\x00" * 300,
    )
    parent = Manifest(
        Digest.of(b"parent"),
        "application/vnd.oci.image.index.v1+json",
        ManifestKind.INDEX,
        b"parent",
        children=(
            Descriptor("m\x00", manifest.digest, 7, platform={"os": "l\x00\ud800", "os.features": ["\x00f", 1]}),
        ),
    )
    database.contents.add_manifests([manifest, parent])
    unit = database.units.manifests(UnitQuery(digests=(manifest.digest,))).items[0]
    assert unit.annotations == {"key": "value?"}
    assert [blob.media_type for blob in unit.layers] == [("typewith?" + "x" * 5000)[:255]] * 2
    top = database.units.manifests(UnitQuery(digests=(parent.digest,))).items[0]
    assert top.children[0].platform == {"os": "l?", "os.features": ["f"]}
    assert top.children[0].media_type == "m"


@pytest.mark.slow
def test_thousands_of_manifests_go_in_and_come_out_in_a_few_statements(database: Database) -> None:
    many = [image(f"layer {number % 700}", "base", note=str(number)) for number in range(2500)]
    database.contents.add_manifests(many)
    asked = [manifest.digest for manifest in many]
    assert database.contents.stored_manifests(asked) == {digest: KnownManifest(digest) for digest in asked}
    assert database.units.blobs(request=PageRequest(limit=0)).total_count == 2500 + 700 + 1
