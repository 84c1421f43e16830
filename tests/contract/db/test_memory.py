"""What a task holds in memory of a large listing, version or plan: little for each tag or blob."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from sqlalchemy import insert, select, update

from registry_sync.db.database import Database
from registry_sync.db.tables import blobs, manifests, repositories, repository_tags, run_blobs, tags
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.domain.runs import ListedTag, RequiredBlob
from registry_sync.oci.manifests import ManifestHead
from registry_sync.oci.tags import TagListing
from registry_sync.sync.list_tags import TagsListed, list_tags
from support.memory_client import MemoryClient
from support.memory_registry import MemoryRegistry
from support.metadata import LISTED_AT, open_run

pytestmark = pytest.mark.slow

COUNT = 5_000
#: Where many rows are written: what is written at once takes 1.5 MB on PostgreSQL, however many there are.
WRITTEN_COUNTS = {"sqlite": COUNT, "postgresql": 2 * COUNT}


@pytest.fixture
def count(dialect: str) -> int:
    return WRITTEN_COUNTS[dialect]


def peak_bytes(act: Callable[[], object]) -> int:
    """How much more was allocated at once than before; what ``act`` returns included."""
    tracemalloc.start()
    try:
        value = act()
        _, peak = tracemalloc.get_traced_memory()
        del value
        return peak
    finally:
        tracemalloc.stop()


def test_a_task_that_is_alone_takes_all_blobs_of_a_plan_and_holds_little_of_each(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    needed = [RequiredBlob(Digest(f"sha256:{number:064x}"), number % 997, "text/plain") for number in range(COUNT)]
    with database.writing() as connection:
        common = {"media_type": "text/plain", "is_foreign": False}
        new = [{"digest": one.digest, "size_bytes": one.size_bytes, "created_at": utc_now()} for one in needed]
        connection.execute(insert(blobs), [{**one, **common} for one in new])
        ids = {row.digest: row for row in connection.execute(select(blobs.c.id, blobs.c.digest, blobs.c.size_bytes))}
        planned = [
            {"sync_run_id": run.id, "blob_id": row.id, "shard": 0, "size_bytes": row.size_bytes} for row in ids.values()
        ]
        connection.execute(insert(run_blobs), [{**one, **common} for one in planned])
    database.runs.take_blobs(run.id, 1, may_take_over=False)  # statements are built once

    assert peak_bytes(lambda: database.runs.take_blobs(run.id, 0, may_take_over=False)) < 250 * COUNT
    database.runs.give_back_blobs(run.id, 0)
    taken = database.runs.take_blobs(run.id, 0, may_take_over=False)
    assert taken is not None
    assert list(taken.blobs) == sorted(needed, key=lambda blob: (-blob.size_bytes, blob.digest))
    assert database.runs.take_blobs(run.id, 0, may_take_over=False) is None


def test_a_listing_is_written_as_it_is_read(database: Database, count: int) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    digest, count = Digest.of(b"a manifest"), 2 * count
    listed = [ListedTag(TagName(f"nightly-{number:06}"), digest, 0) for number in range(count)]
    database.runs.record_listing(run.id, LISTED_AT, listed[:10])

    assert peak_bytes(lambda: database.runs.record_listing(run.id, LISTED_AT, listed)) < 100 * count
    assert len(database.runs.tags_of_shard(run.id, 0)) == count


def names_of(count: int) -> tuple[TagName, ...]:
    return tuple(TagName(f"nightly-{number:06}") for number in range(count))


class LargeRepository(MemoryClient):
    """Lists ``count`` tags, each on a manifest of its own, and keeps nothing of what is requested."""

    def __init__(self, count: int) -> None:
        super().__init__(MemoryRegistry())
        self.names = names_of(count)

    def list_tags(self, repository: RepositoryName) -> TagListing:
        return TagListing(self.names, (), LISTED_AT, 1)

    def head_manifest(self, repository: RepositoryName, reference: str, *, started: object = None) -> ManifestHead:
        return ManifestHead(Digest.of(reference.encode()), media_types.OCI_MANIFEST, 400)


def test_a_listing_holds_little_of_each_tag(database: Database, count: int) -> None:
    """Names, 33 bytes of each digest, the shard of each, and for a moment what it is sorted by."""
    run = open_run(database, database.repositories.ensure("app"), include_referrers=False)
    client = LargeRepository(count)
    arguments = (client, database, run, run.remote)

    assert peak_bytes(lambda: list_tags(*arguments, max_shards=8, report=lambda _line: None)) < 300 * count
    shards = [database.runs.tags_of_shard(run.id, number) for number in range(8)]
    assert {tag.name: tag.digest for tags in shards for tag in tags} == {
        name: Digest.of(name.encode()) for name in client.names
    }


def add_large_version(database: Database, repository: Repository, count: int) -> None:
    """A version with the tags of :class:`LargeRepository`."""
    now, numbered = utc_now(), [(number, name) for number, name in enumerate(names_of(count), 1)]
    described = {"media_type": media_types.OCI_MANIFEST, "kind": "image", "size_bytes": 2, "annotations": {}}
    with database.writing() as connection:
        stored = [
            {"id": number, "digest": Digest.of(name.encode()), **described, "created_at": now, "data": b"{}"}
            for number, name in numbered
        ]
        connection.execute(insert(manifests), stored)
        of_manifests = [
            {"id": number, "name": name, "manifest_id": number, "created_at": now} for number, name in numbered
        ]
        connection.execute(insert(tags), of_manifests)
        members = [
            {"repository_id": repository.id, "tag_id": number, "name": name, "version_added": 1}
            for number, name in numbered
        ]
        connection.execute(insert(repository_tags), members)
        connection.execute(update(repositories).values(latest_number=1))


def test_a_listing_beside_a_large_version_holds_little_of_each_tag(database: Database, count: int) -> None:
    """Of all tags, which are read again, as nobody knows with which selection they were synced."""
    repository = database.repositories.ensure("app")
    add_large_version(database, repository, count)
    run = open_run(database, repository, include_referrers=False)
    client, found = LargeRepository(count), list[TagsListed]()

    def listing() -> None:
        found.append(list_tags(client, database, run, run.remote, max_shards=8, report=lambda _line: None))

    assert peak_bytes(listing) < 500 * count
    assert (found[0].changed_count, found[0].reread_count) == (0, count)


def test_the_tags_of_a_large_version_are_read_and_held_in_little_memory(database: Database) -> None:
    repository = database.repositories.ensure("app")
    add_large_version(database, repository, COUNT)
    latest = database.versions.latest_tags(repository.id).digests
    assert latest == {name: Digest.of(name.encode()) for name in names_of(COUNT)}

    assert peak_bytes(lambda: database.versions.latest_tags(repository.id)) < 250 * COUNT
