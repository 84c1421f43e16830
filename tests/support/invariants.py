"""What holds of every version of an installation that keeps bytes, whatever happened before."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select

from registry_sync.blobs.store import BlobStore
from registry_sync.db.content.closures import is_in_version
from registry_sync.db.database import Database
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    tags,
)
from registry_sync.domain.digests import Digest


def assert_whole(database: Database, store: BlobStore, *, additive: Collection[str] = ()) -> int:
    """Holds every version of every repository against its tags, its links and the bytes; how many versions.

    A version holds the manifests that its tags lead to over its links, and the blobs that its manifests name.
    Repositories that are named ``additive`` may hold manifests besides. All blobs are recorded as stored, and are.
    """
    with database.reading() as connection:
        versions = connection.execute(
            select(repository_versions.c.repository_id, repository_versions.c.number, repositories.c.name).join(
                repositories, repositories.c.id == repository_versions.c.repository_id
            )
        ).all()
        needed: set[str] = set()
        for row in versions:
            manifests, reached, found = _version(connection, row.repository_id, row.number, f"{row.name} {row.number}")
            assert reached <= manifests, f"{row.name} {row.number} holds what its tags lead to"
            assert row.name in additive or manifests == reached, f"{row.name} {row.number} holds nothing else"
            needed |= found
        stored = set(connection.execute(select(blobs.c.digest).where(blobs.c.stored_at.is_not(None))).scalars())
    assert stored <= set(store.digests()), "what is noted as stored is there"
    for digest in sorted(needed):
        with store.open(Digest(digest)) as file:
            assert Digest(digest).matches(file.read()), f"{digest} holds other bytes"
    return len(versions)


def _version(connection: Connection, repository_id: str, number: int, name: str) -> tuple[set[int], set[int], set[str]]:
    """Ids of the manifests that a version holds, and of those that its tags lead to; digests of its blobs."""

    def held(table: Any, *columns: Any) -> list[Any]:
        return list(connection.execute(select(*columns).where(is_in_version(table, repository_id, number))))

    manifests = {row.manifest_id for row in held(repository_manifests, repository_manifests.c.manifest_id)}
    links = held(repository_links, repository_links.c.parent_id, repository_links.c.child_id)
    tagged = connection.execute(
        select(tags.c.manifest_id, tags.c.name, repository_tags.c.name.label("name_there"))
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_in_version(repository_tags, repository_id, number))
    ).all()
    assert all(row.name == row.name_there for row in tagged), f"{name}: tags are found by their names"
    reached = {row.manifest_id for row in tagged}
    waiting = list(reached)
    while waiting:
        parent = waiting.pop()
        new = {link.child_id for link in links if link.parent_id == parent and link.child_id is not None} - reached
        reached |= new
        waiting += new
    assert all(link.parent_id in manifests for link in links), f"{name}: links begin at its manifests"
    named = set(
        connection.execute(
            select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id.in_(manifests))
        ).scalars()
    )
    assert {row.blob_id for row in held(repository_blobs, repository_blobs.c.blob_id)} == named, name
    rows = connection.execute(select(blobs.c.digest, blobs.c.stored_at).where(blobs.c.id.in_(named))).all()
    assert all(row.stored_at is not None for row in rows), f"{name}: its blobs are noted as stored"
    return manifests, reached, {row.digest for row in rows}
