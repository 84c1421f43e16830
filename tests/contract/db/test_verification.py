"""Verification and repair on both databases and a store of files: what is found, what is noted, what is read when."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.db.database import Database
from registry_sync.db.tables import blobs, repository_blobs, repository_versions
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.storage_reports import Amount, FindingKind, Repair
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable, ConfigurationError
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import collect_orphans, reclaim_blobs
from registry_sync.sync.maintenance.repair import repair_blobs
from registry_sync.sync.maintenance.verify import ByteRate, Verification, VerifyOptions, verify_blobs
from support.emptied_databases import filled
from support.memory_client import MemoryClient
from support.memory_registry import MemoryRegistry
from support.metadata import Upstream, image, new_key, play_stages, sync
from support.stored_texts import keep_texts

TEXTS = ("one", "two", "three", "four", "config")
NOW = datetime.now(timezone.utc)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    found = open_blob_store((tmp_path / "blobs").as_uri())
    assert isinstance(found, LocalBlobStore)
    return found


@pytest.fixture
def stored(database: Database, store: LocalBlobStore) -> dict[str, Digest]:
    """An image of four layers and a config, all of it stored."""
    filled(database, _synced)
    return dict(zip(TEXTS, keep_texts(store, *TEXTS), strict=True))


def _synced(database: Database) -> None:
    upstream = Upstream()
    upstream.tag("latest", image(*TEXTS[:-1], config=TEXTS[-1]))
    sync(database, database.repositories.ensure("app"), upstream)


def verify(
    database: Database, store: Any, *, share: float = 1.0, at: datetime = NOW, rate: ByteRate | None = None
) -> Verification:
    options = VerifyOptions(share=share)
    return verify_blobs(database, store, options, clock=lambda: at, report=lambda _line: None, rate=rate)


def flip_a_bit(store: LocalBlobStore, digest: Digest) -> None:
    path = store.path(digest)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def is_stored(database: Database, digest: Digest) -> bool:
    return database.contents.blob(digest).is_stored


def verified_at(database: Database) -> dict[Digest, datetime | None]:
    with database.reading() as connection:
        rows = connection.execute(select(blobs.c.digest, blobs.c.verified_at))
        return {Digest(row.digest): row.verified_at for row in rows}


def test_what_is_whole_is_verified_and_noted_with_its_time(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    result = verify(database, store)
    assert result.is_clean
    assert result.verified == Amount(5, sum(map(len, TEXTS)))
    assert verified_at(database) == dict.fromkeys(stored.values(), NOW)


def test_a_flipped_bit_is_found_set_aside_and_noted_as_missing(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    flip_a_bit(store, stored["two"])
    result = verify(database, store)
    assert result.counts == {FindingKind.BROKEN: 1}
    assert result.lost == (stored["two"],)
    assert [finding.name for finding in result.findings] == [stored["two"]]
    assert result.verified.count == 4
    assert not is_stored(database, stored["two"])
    assert not store.has(stored["two"])
    assert [blob.digest for blob in store.quarantined()] == [stored["two"]]


LATER = NOW + timedelta(hours=1)


@pytest.mark.parametrize("share", [1, 0])
def test_what_is_broken_or_missing_is_found_again_until_it_is_mended(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest], share: float
) -> None:
    flip_a_bit(store, stored["two"])
    store.delete(stored["three"])
    found = {FindingKind.BROKEN: 1, FindingKind.MISSING: 1}
    lost = tuple(sorted([stored["two"], stored["three"]]))
    assert verify(database, store).counts == found
    for day in range(1, 3):
        again = verify(database, store, share=share, at=NOW + timedelta(days=day))
        assert again.counts == found
        assert again.lost == lost
        assert {finding.detail for finding in again.findings} == {
            f"found so {NOW:%Y-%m-%d %H:%M} UTC, and not repaired since"
        }
    records = database.blob_checks.records(lost)
    assert {records[digest].fault_at for digest in lost} == {NOW}, "the first time stays"
    assert repair(database, store, {HOME: registry_of(*TEXTS)}, list(again.lost)).fetched.count == 2
    assert verify(database, store, at=NOW + timedelta(days=4)).is_clean


def test_bytes_that_somebody_else_put_back_are_read_and_the_blob_is_lost_no_more(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    store.delete(stored["two"])
    verify(database, store)
    keep_texts(store, "two")
    assert verify(database, store, at=LATER).counts == {FindingKind.UNRECORDED: 1}
    assert verify(database, store, at=LATER + timedelta(hours=1)).is_clean


def test_what_is_gone_from_the_database_is_lost_no_more(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    flip_a_bit(store, stored["two"])
    verify(database, store)
    database.repositories.delete(database.repositories.by_name("app").id)
    for days in range(4):
        at = NOW + timedelta(days=days)
        collect_orphans(database, store, grace=timedelta(), clock=lambda at=at: at, report=lambda _line: None)
    assert verify(database, store, at=LATER).is_clean


def test_what_is_reclaimed_is_lost_no_more(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    flip_a_bit(store, stored["two"])
    verify(database, store)
    repository = database.repositories.by_name("app").id
    reclaim_blobs(database, store, [repository], kept=[(repository, 1)], report=lambda _line: None)
    assert verify(database, store, at=LATER).counts == {FindingKind.BROKEN: 1}, "a version that is kept needs it"
    reclaim_blobs(database, store, [repository], report=lambda _line: None)
    assert verify(database, store, at=LATER).is_clean


def test_what_was_lost_is_counted_by_the_usage_and_shown_with_the_blob(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    assert database.disk_usage.report().broken == Amount()
    flip_a_bit(store, stored["two"])
    verify(database, store)
    report = database.disk_usage.report()
    assert report.broken == report.repositories[0].broken == Amount(1, len("two"))
    found = database.provenance.blob(stored["two"])
    assert (found.fault, found.fault_at) == ("broken", NOW)
    assert database.provenance.blob(stored["one"]).fault is None


class NotSetAside(LocalBlobStore):
    """A store that lets nothing be moved, as an object store without the right to delete."""

    def quarantine(self, digest: Digest, /) -> bool:
        raise BlobStoreError(f"the blob store refuses to move {digest}")


def test_what_is_broken_and_cannot_be_set_aside_stops_no_verification_and_is_replaced_by_a_repair(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    stuck = NotSetAside(store.root)
    for text in ("two", "three"):
        flip_a_bit(store, stored[text])
    for at in (NOW, LATER):
        result = verify(database, stuck, at=at)
        assert result.counts == {FindingKind.BROKEN: 2}
        assert all("could not be quarantined" in finding.detail for finding in result.findings)
        assert not is_stored(database, stored["two"])
    assert store.has(stored["two"]), "wrong bytes of the right size"
    done = repair(database, stuck, {HOME: registry_of(*TEXTS)}, list(result.lost))
    assert done.fetched.count == 2
    assert verify(database, stuck, at=LATER + timedelta(hours=1)).is_clean


def test_a_folder_in_the_place_of_a_blob_is_found_and_keeps_no_repair_from_the_others(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    for text in ("two", "three"):
        store.delete(stored[text])
    store.path(stored["two"]).mkdir()
    lost = verify(database, store).lost
    assert lost == tuple(sorted([stored["two"], stored["three"]]))
    result = repair(database, store, {HOME: registry_of(*TEXTS)}, list(lost))
    assert list(result.failures) == [stored["two"]]
    assert store.has(stored["three"])


def test_what_may_not_be_opened_is_unreadable_and_stops_no_verification(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    result = verify(database, Unreadable(store, {stored["one"]: BlobStoreError("the blob store refuses")}))
    assert result.counts == {FindingKind.UNREADABLE: 1}
    assert result.verified.count == 4
    assert is_stored(database, stored["one"])


def test_a_deleted_file_is_found_whatever_the_share(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    store.delete(stored["three"])
    result = verify(database, store, share=0)
    assert result.counts == {FindingKind.MISSING: 1}
    assert result.lost == (stored["three"],)
    assert result.verified == Amount()
    assert not is_stored(database, stored["three"])


def test_a_file_of_another_size_is_read_whatever_the_share(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    with store.path(stored["four"]).open("ab") as file:
        file.write(b"more")
    assert verify(database, store, share=0).counts == {FindingKind.BROKEN: 1}
    assert not is_stored(database, stored["four"])


def test_bytes_that_are_there_and_noted_as_missing_are_read_and_noted(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    database.contents.mark_missing([stored["one"], stored["two"]])
    flip_a_bit(store, stored["two"])
    result = verify(database, store, share=0)
    assert result.counts == {FindingKind.UNRECORDED: 1, FindingKind.BROKEN: 1}
    assert is_stored(database, stored["one"])
    assert not is_stored(database, stored["two"])
    assert verified_at(database)[stored["one"]] == NOW


def test_untracked_blobs_and_unknown_files_are_reported_and_left(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    stray = keep_texts(store, "stray")[0]
    (store.root / "notes.txt").write_text("somebody's")
    result = verify(database, store)
    assert result.counts == {FindingKind.UNTRACKED_BLOB: 1, FindingKind.UNKNOWN_FILE: 1}
    assert result.lost == ()
    assert store.has(stray)
    assert (store.root / "notes.txt").exists()


def test_a_share_reads_what_was_unread_for_the_longest_time(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    days = [NOW + timedelta(days=number) for number in range(4)]
    read = [verify(database, store, share=0.4, at=day).verified.count for day in days[:3]]
    assert read == [2, 2, 2]
    times = sorted(time for time in verified_at(database).values() if time is not None)
    assert times == [days[0], days[1], days[1], days[2], days[2]], "two a day, and the first one again on the third"
    assert verify(database, store, share=0.01, at=days[3]).verified.count == 1, "a share is a blob at least"


def test_a_rate_bounds_what_is_read(database: Database, store: LocalBlobStore, stored: dict[str, Digest]) -> None:
    slept: list[float] = []
    rate = ByteRate(10, clock=lambda: 0.0, sleep=slept.append)
    verify(database, store, rate=rate)
    total = sum(map(len, TEXTS))
    assert max(slept) == pytest.approx((total - len("config")) / 10, abs=0.4), "the last one waits for all before it"


@pytest.mark.parametrize(("share", "rate"), [(-0.1, None), (1.1, None), (1, 0), (1, -5), (float("nan"), None)])
def test_numbers_that_make_no_sense_are_refused(share: float, rate: float | None) -> None:
    with pytest.raises(ConfigurationError):
        VerifyOptions(share, rate).checked()


class Unreadable:
    """A store of which some blobs fail to be read, or are collected at that moment."""

    def __init__(self, store: LocalBlobStore, failing: dict[Digest, Exception]) -> None:
        self._store, self._failing = store, failing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open(self, digest: Digest) -> Any:
        if digest in self._failing:
            raise self._failing[digest]
        return self._store.open(digest)


def test_what_cannot_be_read_now_is_reported_and_stays_as_it_is(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    failing = Unreadable(store, {stored["one"]: PermissionError(13, "Permission denied")})
    result = verify(database, failing)
    assert result.counts == {FindingKind.UNREADABLE: 1}
    assert result.lost == ()
    assert result.verified.count == 4
    assert is_stored(database, stored["one"])
    assert verified_at(database)[stored["one"]] is None


def test_a_medium_that_lost_its_bytes_makes_a_blob_broken(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    result = verify(database, Unreadable(store, {stored["one"]: OSError(5, "Input/output error")}))
    assert result.counts == {FindingKind.BROKEN: 1}
    assert [blob.digest for blob in store.quarantined()] == [stored["one"]]


def test_a_store_that_cannot_be_read_at_all_is_a_passing_error(database: Database, store: LocalBlobStore) -> None:
    upstream = Upstream()
    texts = [f"layer {number}" for number in range(30)]
    upstream.tag("latest", image(*texts))
    digests = keep_texts(store, *texts)
    sync(database, database.repositories.ensure("app"), upstream)
    failing = Unreadable(store, {digest: TimeoutError("timed out") for digest in digests})
    with pytest.raises(BlobStoreUnavailable, match="20 blobs"):
        verify(database, failing)
    assert all(is_stored(database, digest) for digest in digests)


def test_bytes_that_are_replaced_while_they_are_read_are_not_mistaken_for_broken(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    """The first read meets broken bytes, which another repair replaces before the second."""
    flip_a_bit(store, stored["one"])

    class Repaired(Unreadable):
        def open(self, digest: Digest) -> Any:
            found = self._store.open(digest)
            if digest == stored["one"]:
                path = store.path(digest)
                path.with_suffix(".new").write_bytes(b"one")
                path.with_suffix(".new").rename(path)
            return found

    result = verify(database, Repaired(store, {}))
    assert result.is_clean
    assert store.has(stored["one"])
    assert list(store.quarantined()) == []


def test_what_a_collector_takes_meanwhile_is_no_finding(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    class Collected(Unreadable):
        def open(self, digest: Digest) -> Any:
            if digest == stored["one"]:
                database.contents.mark_missing([digest])
                self._store.delete(digest)
            return self._store.open(digest)

    result = verify(database, Collected(store, {}))
    assert result.is_clean
    assert result.verified.count == 4


def registry_of(*texts: str) -> MemoryRegistry:
    """A registry whose ``library/app`` has ``texts`` as blobs."""
    registry = MemoryRegistry()
    for text in texts:
        registry.push_blob("library/app", Digest.of(text.encode()), text.encode())
    return registry


def asked(registry: MemoryRegistry) -> list[str]:
    """The blobs that it was asked for."""
    return [request.reference for request in registry.log().select("GET", "blob")]


def repair(
    database: Database, store: LocalBlobStore, remotes: dict[str, MemoryRegistry], digests: list[Digest]
) -> Repair:
    def open_client(spec: RemoteSpec) -> MemoryClient:
        if str(spec.url) not in remotes:
            raise ConfigurationError(f"nothing at {spec.url}")
        return remotes[str(spec.url)].client()

    return repair_blobs(database, store, open_client, digests, clock=lambda: NOW, report=lambda _line: None)


def sync_from(database: Database, repository: str, url: str, upstream: Upstream) -> None:
    """A sync of ``repository`` from the remote at ``url``."""
    remote = database.remotes.ensure(RemoteSpec.parse(url, url, "library/app"))
    target = database.repositories.ensure(repository)
    run = database.runs.begin(
        new_key(), repository_id=target.id, remote_id=remote.id, remote=remote.spec, mode=SyncMode.MIRROR
    )
    play_stages(database, run, upstream)
    database.versions.commit(run.id)


HOME, OTHER = "https://registry.example", "https://other.example"


def test_what_was_lost_is_fetched_again_from_the_remote_it_came_from(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    flip_a_bit(store, stored["two"])
    store.delete(stored["three"])
    lost = verify(database, store).lost
    registry = registry_of(*TEXTS)
    result = repair(database, store, {HOME: registry}, list(lost))
    assert result == Repair(Amount(2, len("twothree")), 0, {})
    assert sorted(asked(registry)) == sorted([stored["two"], stored["three"]])
    assert verify(database, store, at=NOW + timedelta(hours=1)).is_clean
    assert all(is_stored(database, digest) for digest in stored.values())
    assert repair(database, store, {HOME: registry}, list(lost)) == Repair(), "a repeat has nothing to do"


def test_what_the_first_remote_lost_is_requested_from_another(database: Database, store: LocalBlobStore) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("one", "two", config="config"))
    sync_from(database, "first", HOME, upstream)
    sync_from(database, "second", OTHER, upstream)
    one, two = Digest.of(b"one"), Digest.of(b"two")
    database.contents.mark_missing([one, two])
    with database.writing() as connection:
        source = "other.example/library/app"
        connection.execute(update(blobs).where(blobs.c.digest == two).values(source=source))
    remotes = {HOME: registry_of("two"), OTHER: registry_of("one")}
    result = repair(database, store, remotes, [one, two])
    assert result.failures == {}
    assert result.fetched.count == 2
    assert two in asked(remotes[OTHER]), "where it came from is asked first"
    assert store.has(one)
    assert store.has(two)


def test_what_no_remote_has_is_reported_with_the_reason_and_the_others_come_back(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    for text in ("one", "two"):
        store.delete(stored[text])
    lost = list(verify(database, store).lost)
    result = repair(database, store, {HOME: registry_of("one")}, lost)
    assert result.fetched.count == 1
    assert list(result.failures) == [stored["two"]]
    assert "no blob" in result.failures[stored["two"]]
    assert not is_stored(database, stored["two"])


def test_a_remote_that_cannot_be_opened_fails_its_blobs_and_nothing_else(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    store.delete(stored["one"])
    result = repair(database, store, {}, list(verify(database, store).lost))
    assert "nothing at" in result.failures[stored["one"]]


def test_a_blob_of_a_copy_is_fetched_from_where_the_original_came_from(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    """The original is gone from the repository that was synced; the copy alone holds the blob."""
    original = database.repositories.by_name("app")
    copy = database.repositories.ensure("copy")
    with database.writing() as connection:
        connection.execute(
            insert(repository_versions).values(
                repository_id=copy.id, number=1, created_at=NOW, origin="copy", origin_repository_id=original.id
            )
        )
        connection.execute(update(repository_blobs).values(repository_id=copy.id))
    store.delete(stored["one"])
    result = repair(database, store, {HOME: registry_of("one")}, list(verify(database, store).lost))
    assert result.fetched.count == 1


def test_blobs_are_lacking_where_the_last_sync_kept_bytes(
    database: Database, store: LocalBlobStore, stored: dict[str, Digest]
) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("elsewhere"))
    sync(database, database.repositories.ensure("later"), upstream, policy=Policy.ON_DEMAND)
    assert database.blob_checks.lacking() == []
    database.contents.mark_missing([stored["one"]])
    assert database.blob_checks.lacking() == [stored["one"]]
