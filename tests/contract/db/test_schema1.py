"""A manifest whose digest is over a part of its bytes, on both databases."""

from __future__ import annotations

from registry_sync.db.database import Database
from registry_sync.domain import media_types
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import read_manifest
from support.schema1 import document, payload_of, signed


def test_a6_17_a_signed_manifest_of_schema_1_is_kept_under_the_digest_of_its_payload(database: Database) -> None:
    empty, base = Digest.of(b"empty"), Digest.of(b"base")
    payload = payload_of(document([empty, base, empty]))
    data = signed(payload)
    manifest = read_manifest(data, schema1_size_of={empty: 5, base: 4}.__getitem__)
    for _ in range(2):
        database.contents.add_manifests([manifest])
    stored = database.contents.manifest(Digest.of(payload))
    assert (stored.data, stored.media_type) == (data, media_types.DOCKER_SCHEMA1_SIGNED)
    assert set(database.contents.stored_manifests([manifest.digest, Digest.of(data)])) == {manifest.digest}
    unit = database.units.manifests(UnitQuery(digests=(manifest.digest,))).items[0]
    assert (unit.config, unit.size_bytes) == (None, len(data))
    assert [(layer.digest, layer.size_bytes) for layer in unit.layers] == [(empty, 5), (base, 4), (empty, 5)]
