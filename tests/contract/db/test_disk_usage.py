"""What content takes: shared blobs once, and once for each repository and version that would hold them alone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositorySpec
from registry_sync.domain.remote import Policy
from registry_sync.domain.storage_reports import Amount, ContentKind, DiskUsage, RepositoryUsage
from registry_sync.errors import RecordNotFound
from support.metadata import Upstream, image, layer, sync

NOW = datetime.now(timezone.utc)


def test_an_empty_installation_takes_nothing(database: Database) -> None:
    assert database.disk_usage.report() == DiskUsage()


def test_shared_blobs_are_counted_once_in_all_and_once_for_each_holder(database: Database) -> None:
    for name, text in (("first", "ten bytes."), ("second", "five.")):
        upstream = Upstream()
        upstream.tag("latest", image("twenty bytes, shared", config=text))
        sync(database, database.repositories.ensure(name), upstream)
    upstream.tag("more", image("seven b", config="five."))
    sync(database, database.repositories.by_name("second"), upstream)

    usage = database.disk_usage.report()
    first, second = usage.repositories
    assert (first.name, second.name) == ("first", "second")
    assert first.blobs == Amount(2, 30)
    assert first.own_blobs == Amount(1, 10)
    assert second.blobs == Amount(3, 32)
    assert second.own_blobs == Amount(2, 12)
    assert (first.version_count, second.version_count) == (1, 2)
    assert first.by_versions == Amount(2, 30)
    assert second.by_versions == Amount(2 + 3, 25 + 32)
    assert [database.disk_usage.repository(each.repository_id) for each in (first, second)] == [first, second]
    assert usage.stored == usage.held == Amount(4, 42)
    assert usage.by_repositories == Amount(5, 62)
    assert usage.by_versions == Amount(7, 87)
    assert usage.saved_bytes == 20
    assert usage.manifests.count == 3
    assert second.manifests.count == 2
    assert usage.missing == usage.orphaned_blobs == Amount()


def test_versions_that_are_gone_are_not_counted(database: Database) -> None:
    repository = database.repositories.create(RepositorySpec("app", retain_versions=2))
    upstream = Upstream()
    for text in ("1", "22", "333"):
        upstream.tag("latest", image("always", config=text))
        sync(database, repository, upstream)
    usage = database.disk_usage.report().repositories[0]
    assert usage.version_count == 2
    assert usage.by_versions == Amount(4, 2 * len("always") + 2 + 3)


def test_what_is_missing_counts_as_missing_and_foreign_blobs_do_not(database: Database) -> None:
    upstream = Upstream()
    foreign = layer("windows", is_foreign=True)
    upstream.tag("latest", image("layer", foreign, config="config"))
    sync(database, database.repositories.ensure("app"), upstream, policy=Policy.ON_DEMAND)
    usage = database.disk_usage.report()
    assert usage.missing == usage.repositories[0].missing == Amount(2, len("layerconfig"))
    assert usage.stored == usage.repositories[0].blobs == Amount()
    database.contents.mark_stored([Digest.of(b"layer")])
    usage = database.disk_usage.report()
    assert usage.missing == Amount(1, len("config"))
    assert usage.stored == Amount(1, len("layer"))


def test_what_is_recorded_as_orphaned_is_reported(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("layer", config="config"))
    sync(database, repository, upstream)
    database.repositories.delete(repository.id)
    assert database.disk_usage.report().orphaned_manifests == Amount()
    database.orphans.record(ContentKind.MANIFEST, NOW)
    usage = database.disk_usage.report()
    assert usage.orphaned_manifests.count == 1
    assert usage.repositories == ()
    assert usage.held == Amount()
    due = database.orphans.due(ContentKind.MANIFEST, NOW + timedelta(hours=1))
    database.orphans.delete_manifests([record.id for record in due], NOW + timedelta(hours=1))
    database.orphans.record(ContentKind.BLOB, NOW)
    assert database.disk_usage.report().orphaned_blobs == Amount(2, len("layerconfig"))


def test_a_repository_without_content_takes_nothing_and_one_that_is_not_there_is_reported(database: Database) -> None:
    empty = database.repositories.ensure("empty")
    assert database.disk_usage.repository(empty.id) == RepositoryUsage(empty.id, "empty")
    with pytest.raises(RecordNotFound, match="no repository"):
        database.disk_usage.repository("nowhere")
