"""What is collected and what is not: every reason to keep content, its grace, and the bytes that go with it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.db.download_claims import LAPSED_SECONDS
from registry_sync.db.tables import (
    orphaned_blobs,
    orphaned_manifests,
    sync_runs,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositorySpec
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import RunState
from registry_sync.domain.storage_reports import Amount, Collection, ContentKind
from registry_sync.errors import NothingSynced, RecordNotFound
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import StoredBytes, collect_orphans, preview_collection
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.stored_texts import keep_texts

GRACE = timedelta(hours=24)


class Clock:
    """Time that passes when a test says so; it begins now, as the database's own times do."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def pass_hours(self, hours: float) -> None:
        self.now += timedelta(hours=hours)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_blob_store((tmp_path / "blobs").as_uri())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def collect(database: Database, store: BlobStore, clock: Clock, batch_size: int = 3) -> Collection:
    return collect_orphans(database, store, grace=GRACE, clock=clock, report=lambda _line: None, batch_size=batch_size)


def preview(database: Database, store: BlobStore, clock: Clock) -> Collection:
    return preview_collection(database, store, grace=GRACE, clock=clock, report=lambda _line: None)


def collect_all(database: Database, store: BlobStore, clock: Clock) -> list[Collection]:
    """Notes manifests, collects them, notes their blobs, collects those: the graces one after the other."""
    done = []
    for _ in range(4):
        done.append(collect(database, store, clock))
        clock.pass_hours(25)
    return done


def known(database: Database, *digests: Digest) -> set[Digest]:
    """Those of ``digests`` of which the database has a blob or a manifest."""
    found = {unit.digest for unit in database.units.blobs().items}
    found |= {unit.digest for unit in database.units.manifests().items}
    return found & set(digests)


def noted(database: Database, kind: ContentKind) -> int:
    table = {ContentKind.MANIFEST: orphaned_manifests, ContentKind.BLOB: orphaned_blobs}[kind]
    with database.reading() as connection:
        return len(connection.execute(select(table)).all())


def test_claims_on_downloads_of_processes_that_died_are_ended_and_those_of_living_ones_stay(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    claims, waited, reports = database.download_claims, list[float](), list[str]()
    blobs = sorted(Digest.of(b"blob %d" % number) for number in range(4))
    claims.take_all(blobs[:2], "dead")
    claims.take_all(blobs[2:3], "living")

    def wait(seconds: float) -> None:
        waited.append(seconds)
        claims.beat("living")
        claims.beat("new")
        claims.take_all(blobs[3:], "new")

    for _ in range(2):
        collect_orphans(database, store, grace=GRACE, clock=clock, wait=wait, report=reports.append)
        assert set(claims.of_others(blobs, "asks")) == set(blobs[2:])
    assert len(waited) == 2
    assert all(0 <= seconds <= LAPSED_SECONDS for seconds in waited)
    assert [line for line in reports if "claim" in line] == ["ended 2 claims on downloads of processes that have died"]


def test_a_collection_does_not_wait_where_nobody_downloads(database: Database, store: BlobStore, clock: Clock) -> None:
    collect_orphans(database, store, grace=GRACE, clock=clock, wait=pytest.fail, report=lambda _line: None)


def test_what_a_deleted_repository_leaves_goes_after_a_grace_for_manifests_and_one_for_blobs(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    repository = database.repositories.ensure("app")
    upstream, child = Upstream(), image("layer one", "layer two", config="config")
    upstream.tag("latest", index(child), child)
    layers = keep_texts(store, "layer one", "layer two", "config")
    sync(database, repository, upstream)
    assert collect(database, store, clock) == Collection()

    database.repositories.delete(repository.id)
    waiting = collect(database, store, clock)
    assert waiting.manifests == Amount()
    assert waiting.waiting_manifests.count == 2
    assert noted(database, ContentKind.MANIFEST) == 2
    clock.pass_hours(23)
    assert collect(database, store, clock).manifests.count == 0

    clock.pass_hours(2)
    after_manifests = collect(database, store, clock)
    assert after_manifests.manifests.count == 2
    assert after_manifests.blobs.count == 0
    assert after_manifests.waiting_blobs == Amount(3, len("layer one" + "layer two" + "config"))
    assert all(store.has(digest) for digest in layers)
    with database.reading() as connection:
        assert connection.execute(select(tags)).all() == []

    clock.pass_hours(25)
    after_blobs = collect(database, store, clock)
    assert after_blobs.blobs == after_blobs.freed == Amount(3, len("layer one" + "layer two" + "config"))
    assert not any(store.has(digest) for digest in layers)
    assert known(database, *layers) == set()
    assert collect(database, store, clock) == Collection()


def test_every_version_that_exists_keeps_what_it_holds(database: Database, store: BlobStore, clock: Clock) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    keep_texts(store, "old", "new")
    old, new = image("old", config="old config"), image("new", config="new config")
    upstream.tag("latest", old)
    sync(database, repository, upstream)
    upstream.tag("latest", new)
    sync(database, repository, upstream)
    assert [done.manifests.count for done in collect_all(database, store, clock)] == [0, 0, 0, 0]
    assert store.has(Digest.of(b"old"))
    assert database.versions.tags(repository.id, 1) == {"latest": old.digest}


def test_content_of_a_version_that_is_kept_no_more_goes(database: Database, store: BlobStore, clock: Clock) -> None:
    repository = database.repositories.create(RepositorySpec("app", retain_versions=1))
    upstream = Upstream()
    keep_texts(store, "first", "second", "third")
    for text in ("first", "second", "third"):
        upstream.tag("latest", image(text, config=f"config of {text}"))
        sync(database, repository, upstream)
    collect_all(database, store, clock)
    # The one version that is left says what it removed, which therefore stays until the next one.
    assert not store.has(Digest.of(b"first"))
    assert store.has(Digest.of(b"second"))
    assert store.has(Digest.of(b"third"))


def test_a_blob_that_another_manifest_names_stays(database: Database, store: BlobStore, clock: Clock) -> None:
    keep_texts(store, "base", "mine", "yours")
    for name, text in (("mine", "mine"), ("yours", "yours")):
        upstream = Upstream()
        upstream.tag("latest", image("base", text))
        sync(database, database.repositories.ensure(name), upstream)
    database.repositories.delete(database.repositories.by_name("mine").id)
    collect_all(database, store, clock)
    assert store.has(Digest.of(b"base"))
    assert store.has(Digest.of(b"yours"))
    assert not store.has(Digest.of(b"mine"))


def test_a_sync_under_way_keeps_what_it_listed_read_and_planned(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    upstream, child = Upstream(), image("layer", config="config")
    top = index(child)
    upstream.tag("latest", top, child)
    digests = keep_texts(store, "layer", "config")
    run = open_run(database, database.repositories.ensure("app"))
    play_stages(database, run, upstream)
    collect_all(database, store, clock)
    assert known(database, top.digest, child.digest, *digests) == {top.digest, child.digest, *digests}
    assert all(store.has(digest) for digest in digests)
    version = database.versions.commit(run.id).version
    assert version is not None
    assert version.summary.present == {"docker.tag": 1, "docker.manifest": 2, "docker.blob": 2}


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELED])
def test_a_sync_that_ended_badly_keeps_its_content_for_the_grace_and_is_then_released(
    database: Database, store: BlobStore, clock: Clock, state: RunState
) -> None:
    upstream, child = Upstream(), image("layer", config="config")
    top = index(child)
    upstream.tag("latest", top, child)
    digests = keep_texts(store, "layer", "config")
    run = open_run(database, database.repositories.ensure("app"))
    play_stages(database, run, upstream)
    database.runs.finish(run.id, state)
    clock.pass_hours(20)
    assert collect(database, store, clock).released_runs == 0
    clock.pass_hours(10)
    assert preview(database, store, clock).released_runs == 1
    assert collect(database, store, clock).released_runs == 1
    collect_all(database, store, clock)
    assert known(database, top.digest, child.digest, *digests) == set()
    # A task that is repeated all the same commits nothing by halves, and says why.
    with pytest.raises(NothingSynced, match="garbage collection"):
        database.versions.commit(run.id)
    # The whole run, begun anew, fetches all of it again.
    again = open_run(database, database.repositories.ensure("app"), key=run.key)
    play_stages(database, again, upstream)
    assert database.versions.commit(again.id).version is not None


def test_what_is_needed_again_before_its_grace_is_over_is_recorded_no_more(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    upstream = Upstream()
    keep_texts(store, "layer", "config")
    upstream.tag("latest", image("layer", config="config"))
    first = database.repositories.ensure("first")
    sync(database, first, upstream)
    database.repositories.delete(first.id)
    assert collect(database, store, clock).waiting_manifests.count == 1
    sync(database, database.repositories.ensure("second"), upstream)
    clock.pass_hours(30)
    assert collect(database, store, clock) == Collection()
    assert noted(database, ContentKind.MANIFEST) == 0
    assert store.has(Digest.of(b"layer"))


def test_a_preview_says_what_would_go_and_changes_nothing(database: Database, store: BlobStore, clock: Clock) -> None:
    upstream = Upstream()
    keep_texts(store, "layer", "config", "stray")
    upstream.tag("latest", image("layer", config="config"))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    database.repositories.delete(repository.id)
    seen = preview(database, store, clock)
    assert (seen.manifests.count, seen.waiting_manifests.count) == (0, 1)
    assert noted(database, ContentKind.MANIFEST) == 0
    collect(database, store, clock)
    clock.pass_hours(25)
    seen = preview(database, store, clock)
    assert seen.is_dry_run
    assert (seen.manifests.count, seen.untracked) == (1, Amount(1, len("stray")))
    done = collect(database, store, clock)
    assert (done.manifests, done.untracked) == (seen.manifests, seen.untracked)
    clock.pass_hours(25)
    seen = preview(database, store, clock)
    assert seen.blobs == Amount(2, len("layer" + "config"))
    assert store.has(Digest.of(b"layer"))
    assert collect(database, store, clock).blobs == seen.blobs


def test_blobs_whose_bytes_were_never_fetched_free_nothing(database: Database, store: BlobStore, clock: Clock) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("layer", config="config"))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream, policy=Policy.ON_DEMAND)
    keep_texts(store, "layer")
    database.contents.mark_stored([Digest.of(b"layer")])
    database.repositories.delete(repository.id)
    for _ in range(2):
        collect(database, store, clock)
        clock.pass_hours(25)
    seen = preview(database, store, clock)
    assert (seen.blobs, seen.freed) == (Amount(2, len("layerconfig")), Amount(1, len("layer")))
    done = collect(database, store, clock)
    assert (done.blobs, done.freed) == (seen.blobs, seen.freed)


def test_bytes_that_no_record_names_go_when_they_are_old(database: Database, store: BlobStore, clock: Clock) -> None:
    stray, named = keep_texts(store, "stray", "layer")
    upstream = Upstream()
    upstream.tag("latest", image("layer"))
    sync(database, database.repositories.ensure("app"), upstream)
    assert collect(database, store, clock).untracked == Amount()
    clock.pass_hours(25)
    assert collect(database, store, clock).untracked == Amount(1, len("stray"))
    assert not store.has(stray)
    assert store.has(named)
    assert known(database, stray) == set()


def test_bytes_that_a_sync_came_to_name_meanwhile_are_not_untracked(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    """Listed as stray, named before they are removed: the record that is there keeps them."""
    digest, lone = keep_texts(store, "layer", "lone")
    upstream = Upstream()
    upstream.tag("latest", image("layer"))
    sync(database, database.repositories.ensure("app"), upstream)
    clock.pass_hours(25)
    gone = database.blob_bytes.delete_untracked({digest: 5, lone: 4}, clock.now, StoredBytes(store))
    assert gone == Amount(1, 4)
    assert store.has(digest)
    assert database.contents.blob(digest).is_stored
    with pytest.raises(RecordNotFound):
        database.contents.blob(lone)


def test_a_sync_heals_what_a_collector_left_that_died_after_the_bytes(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    """The record stays, says missing, and is taken up by the next manifest that names the blob."""
    upstream = Upstream()
    upstream.tag("latest", image("layer", config="config"))
    layer = keep_texts(store, "layer", "config")[0]
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    database.repositories.delete(repository.id)

    class Dying:
        @property
        def failures(self) -> dict[str, Exception]:
            return {}

        def present(self, digests: object) -> set[Digest]:
            return set()

        def delete(self, digests: list[Digest], **_when: object) -> set[Digest]:
            for digest in digests:
                store.delete(digest)
            raise KeyboardInterrupt

    for _ in range(2):
        collect(database, store, clock)
        clock.pass_hours(25)
    due = database.orphans.due(ContentKind.BLOB, clock.now)
    assert len(due) == 2
    with pytest.raises(KeyboardInterrupt):
        database.blob_bytes.delete_orphans([orphan.id for orphan in due], clock.now, Dying())
    assert not database.contents.blob(layer).is_stored
    run = open_run(database, database.repositories.ensure("again"))
    database.contents.add_manifests(list(upstream.catalog.values()))
    play_stages(database, run, upstream)
    assert database.versions.commit(run.id).version is not None


def test_a_sync_that_was_started_is_kept_however_long_it_runs(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("layer"))
    run = open_run(database, database.repositories.ensure("app"))
    play_stages(database, run, upstream)
    clock.pass_hours(24 * 30)
    assert collect(database, store, clock).released_runs == 0
    with database.reading() as connection:
        assert connection.execute(select(sync_runs.c.state)).scalar_one() == RunState.RUNNING.value
    assert database.versions.commit(run.id).version is not None


def test_a_task_that_still_runs_when_its_sync_is_released_resolves_nothing_any_more(
    database: Database, store: BlobStore, clock: Clock
) -> None:
    upstream, child = Upstream(), image("layer", config="config")
    upstream.tag("latest", index(child), child)
    run = open_run(database, database.repositories.ensure("app"))
    play_stages(database, run, upstream)
    database.runs.finish(run.id, RunState.FAILED)
    clock.pass_hours(25)
    assert collect(database, store, clock).released_runs == 1
    database.runs.resolve_tags(run.id, {TagName("latest"): upstream.tags["latest"].digest})
    with pytest.raises(NothingSynced, match="garbage collection"):
        database.versions.commit(run.id)
