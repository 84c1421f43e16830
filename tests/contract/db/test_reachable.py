"""Every reason to keep content, alone: with it nothing is recorded or removed, without it everything is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from registry_sync.db.database import Database
from registry_sync.db.tables import (
    blobs,
    manifests,
    orphaned_blobs,
    orphaned_manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_blobs,
    run_links,
    run_manifests,
    run_tags,
    tags,
)
from registry_sync.domain.runs import TagState
from registry_sync.domain.storage_reports import Amount, ContentKind
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import StoredBytes
from support.emptied_databases import filled
from support.metadata import image, open_run
from support.stored_texts import keep_texts

NOW = datetime.now(timezone.utc)
SOON = NOW + timedelta(minutes=1)


@dataclass(frozen=True)
class Orphan:
    """A manifest, another one, a blob of its own, and who might need them, all by their ids."""

    digest: str
    manifest: int
    other: int
    blob: int
    repository: str
    run: str


@pytest.fixture
def orphan(database: Database) -> Orphan:
    """Two manifests, and a blob that no manifest names; a repository without versions, and a run that noted nothing."""
    return filled(database, _unneeded)


def _unneeded(database: Database) -> Orphan:
    kept, other, named = image("layer", config="config"), image("other", config="config"), image("blob", config="blob")
    database.contents.add_manifests([kept, other, named])
    repository = database.repositories.ensure("app")
    run = open_run(database, repository)
    with database.writing() as connection:
        ids = {row.digest: row.id for row in connection.execute(select(manifests.c.digest, manifests.c.id))}
        blob = connection.execute(select(blobs.c.id).where(blobs.c.digest == named.layers[0].digest)).scalar_one()
        connection.execute(manifests.delete().where(manifests.c.id == ids[named.digest]))
    return Orphan(kept.digest, ids[kept.digest], ids[other.digest], blob, repository.id, run.id)


def membership(table: Any, **unit: Any) -> Callable[[Connection, Orphan], None]:
    """A row of a membership table, of an interval that has ended."""

    def add(connection: Connection, here: Orphan) -> None:
        values = {name: getattr(here, value) for name, value in unit.items()}
        row = {"repository_id": here.repository, "version_added": 1, "version_removed": 2}
        connection.execute(insert(table).values(**row, **values))

    return add


def link(table: Any, parent: str, child: str) -> Callable[[Connection, Orphan], None]:
    def add(connection: Connection, here: Orphan) -> None:
        owner = {"sync_run_id": here.run} if table is run_links else {"repository_id": here.repository}
        if table is repository_links:
            owner["version_added"] = 1  # type: ignore[assignment]
        ends = {"parent_id": getattr(here, parent), "child_id": getattr(here, child)}
        connection.execute(insert(table).values(**owner, **ends, child_digest="sha256:any", kind="child"))

    return add


def add_tag(connection: Connection, here: Orphan) -> None:
    connection.execute(insert(tags).values(id=1, name="latest", manifest_id=here.manifest, created_at=NOW))
    connection.execute(insert(repository_tags).values(repository_id=here.repository, tag_id=1, version_added=1))


def run_tag(state: TagState) -> Callable[[Connection, Orphan], None]:
    def add(connection: Connection, here: Orphan) -> None:
        values = {"sync_run_id": here.run, "name": "latest", "state": state.value, "digest": here.digest}
        connection.execute(insert(run_tags).values(**values))

    return add


def run_manifest(connection: Connection, here: Orphan) -> None:
    connection.execute(insert(run_manifests).values(sync_run_id=here.run, manifest_id=here.manifest))


def run_blob(connection: Connection, here: Orphan) -> None:
    values = {"sync_run_id": here.run, "blob_id": here.blob, "shard": 0, "size_bytes": 4, "media_type": "any"}
    connection.execute(insert(run_blobs).values(**values, is_foreign=False))


MANIFEST_REASONS = {
    "a version": membership(repository_manifests, manifest_id="manifest"),
    "a tag of a version": add_tag,
    "a link from it": link(repository_links, "manifest", "other"),
    "a link to it": link(repository_links, "other", "manifest"),
    "a run that read it": run_manifest,
    "a run's link from it": link(run_links, "manifest", "other"),
    "a run's link to it": link(run_links, "other", "manifest"),
    **{f"a run's {state.value} tag": run_tag(state) for state in (TagState.PENDING, TagState.UNCHANGED)},
    "a run's resolved tag": run_tag(TagState.RESOLVED),
}
BLOB_REASONS = {"a version": membership(repository_blobs, blob_id="blob"), "a run's plan": run_blob}


def orphaned(database: Database) -> tuple[set[int], set[int]]:
    """Notes, and gives the ids of manifests and blobs that are noted."""
    for kind in ContentKind:
        database.orphans.record(kind, NOW)
    with database.reading() as connection:
        return (
            set(connection.execute(select(orphaned_manifests.c.manifest_id)).scalars()),
            set(connection.execute(select(orphaned_blobs.c.blob_id)).scalars()),
        )


def test_without_a_reason_all_of_it_is_recorded_and_what_a_manifest_names_is_not(
    database: Database, orphan: Orphan
) -> None:
    found, found_blobs = orphaned(database)
    assert found == {orphan.manifest, orphan.other}
    assert found_blobs == {orphan.blob}, "the layers and configs are named by manifests that are stored"


@pytest.mark.parametrize("reason", MANIFEST_REASONS)
def test_each_reason_alone_keeps_a_manifest(database: Database, orphan: Orphan, reason: str) -> None:
    with database.writing() as connection:
        MANIFEST_REASONS[reason](connection, orphan)
    assert orphan.manifest not in orphaned(database)[0]


@pytest.mark.parametrize("reason", MANIFEST_REASONS)
def test_each_reason_that_comes_after_the_note_keeps_a_manifest_and_removes_the_note(
    database: Database, orphan: Orphan, reason: str
) -> None:
    assert orphan.manifest in orphaned(database)[0]
    with database.writing() as connection:
        MANIFEST_REASONS[reason](connection, orphan)
    assert database.orphans.delete_manifests([orphan.manifest], SOON) == Amount()
    with database.reading() as connection:
        left = connection.execute(select(orphaned_manifests.c.manifest_id)).scalars().all()
    assert orphan.manifest not in left


@pytest.mark.parametrize("state", [TagState.HELD, TagState.GONE, TagState.FILTERED])
def test_a_tag_that_a_run_does_not_take_keeps_nothing(database: Database, orphan: Orphan, state: TagState) -> None:
    with database.writing() as connection:
        run_tag(state)(connection, orphan)
    assert orphan.manifest in orphaned(database)[0]


@pytest.mark.parametrize("reason", BLOB_REASONS)
def test_each_reason_alone_keeps_a_blob(database: Database, orphan: Orphan, reason: str, tmp_path: Path) -> None:
    store = open_blob_store((tmp_path / "blobs").as_uri())
    (digest,) = keep_texts(store, "blob")
    assert orphaned(database)[1] == {orphan.blob}
    with database.writing() as connection:
        BLOB_REASONS[reason](connection, orphan)
    assert database.blob_bytes.delete_orphans([orphan.blob], SOON, StoredBytes(store)) == (Amount(), Amount())
    assert store.has(digest)
    assert orphaned(database)[1] == set()


def test_what_was_recorded_later_than_the_grace_stays(database: Database, orphan: Orphan, tmp_path: Path) -> None:
    store = open_blob_store((tmp_path / "blobs").as_uri())
    orphaned(database)
    before = NOW - timedelta(minutes=1)
    assert database.orphans.delete_manifests([orphan.manifest], before) == Amount()
    assert database.blob_bytes.delete_orphans([orphan.blob], before, StoredBytes(store)) == (Amount(), Amount())
    assert database.orphans.due(ContentKind.MANIFEST, before) == []
    assert database.orphans.delete_manifests([orphan.manifest], SOON).count == 1
    assert database.blob_bytes.delete_orphans([orphan.blob], SOON, StoredBytes(store))[0].count == 1
