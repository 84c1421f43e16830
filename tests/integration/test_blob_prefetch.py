"""Blobs come while manifests are still read, where that is for sure to be wanted, and are accounted for as ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import CommitResult, RunKey, SyncRun
from registry_sync.errors import LimitExceeded
from registry_sync.sync.blob_prefetch import BlobPrefetch
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.listed_content import ContentFetched
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import BlobsPlanned
from support.held import Held
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import HELD, MemoryRegistry, Scripted, refusal
from support.syncing import Installation

NAME, OTHER = "team/app", "team/other"
MIB = 1024 * 1024
#: Longer than anything takes; who waits so long fails.
PATIENCE_SECONDS = 30.0


def content() -> RepositoryContent:
    """Two tags, of one image each: the one that is read first has so many blobs that a download of them is begun."""
    build = ContentBuilder(seed=97)
    many = build.image([build.blob(MIB // 4 + number) for number in range(40)])
    one = build.image([build.blob(500)])
    build.tag("first", min(many, one))
    build.tag("last", max(many, one))
    return build.content()


def shared_content() -> RepositoryContent:
    """One tag, whose image has the largest eight layers of :func:`content`."""
    build = ContentBuilder(seed=97)
    layers = [build.blob(MIB // 4 + number) for number in range(40)]
    build.tag("shared", build.image(layers[-8:]))
    whole = build.content()
    return whole.part(whole.tags, whole.tags.values())


@dataclass
class PrefetchedSync:
    """A sync of which the manifest with few blobs comes only when ``gate`` has opened."""

    here: Installation
    registry: MemoryRegistry
    content: RepositoryContent

    def __post_init__(self) -> None:
        self.registry.serve(NAME, self.content)
        self.registry.serve(OTHER, shared_content())
        self.late, self.early = sorted(
            self.content.tags.values(), key=lambda digest: len(self.content.part({}, [digest]).blobs)
        )

    def run(
        self,
        *,
        concurrency: int = 4,
        min_shard_bytes: int = 1024 * MIB,
        on_plan: Callable[[BlobsPlanned], None] = lambda _planned: None,
        name: str = "app",
        **request: Any,
    ) -> tuple[ContentFetched, SyncRun]:
        here = self.here
        asked = SyncRequest(
            repository=name,
            url=self.registry.url,
            upstream_name=f"team/{name}",
            download_concurrency=concurrency,
            **request,
        )
        run = open_run(here.database, RunKey("registry_sync", name), asked)
        return here.fetch_listed(run, min_shard_bytes=min_shard_bytes, on_plan=on_plan), run

    def commit(self, run: SyncRun) -> CommitResult:
        return commit_version(self.here.database, run, report=self.here.lines)

    def blob_gets(self) -> list[str]:
        """In their order."""
        return [request.reference for request in self.registry.log().select("GET", "blob")]

    def hold_until(self, is_enough: Callable[[], bool]) -> list[bool]:
        """The late manifest comes once it ``is_enough``; True is added to the result where it was."""
        came, tick = list[bool](), threading.Event()

        def late() -> Scripted:
            for _ in range(int(PATIENCE_SECONDS / 0.01)):
                if is_enough():
                    break
                tick.wait(0.01)
            came.append(is_enough())
            return HELD

        self.registry.on("GET", "manifest", self.late, late)
        return came

    def has_no_claims(self) -> bool:
        """Whether another process might download all blobs."""
        with self.here.database.held_claims() as claims:
            return not claims.take_all(self.content.blobs)

    def hold_for(self, other: Callable[[], None]) -> list[bool]:
        """The late manifest comes once ``other`` has ended, which begins after 30 blobs: a sync of ``team/other``."""
        thread, done = threading.Thread(target=other, daemon=True), list[bool]()

        def is_done() -> bool:
            if len(self.blob_gets()) >= 30 and not done:
                thread.start()
                thread.join(PATIENCE_SECONDS)
                done.append(not thread.is_alive())
            return bool(done)

        self.hold_until(is_done)
        return done

    def check(self, run: SyncRun) -> None:
        """The run makes a complete version with all content."""
        result = self.commit(run)
        assert result.version is not None
        assert result.version.is_complete
        held = Held.read(self.here.database, self.here.store, "app")
        assert held.blobs == {digest: blob.data for digest, blob in self.content.blobs.items()}


@pytest.fixture
def sync(here: Installation) -> PrefetchedSync:
    return PrefetchedSync(here, MemoryRegistry(), content())


def test_blobs_are_downloaded_before_the_last_manifest_has_come(sync: PrefetchedSync) -> None:
    came = sync.hold_until(lambda: len(sync.blob_gets()) >= 30)
    fetched, run = sync.run()
    assert came == [True]
    assert fetched.counts["fetched_count"] == len(sync.content.blobs)
    assert fetched.counts["received_bytes"] == sync.content.blob_bytes
    assert sorted(sync.blob_gets()) == sorted(sync.content.blobs), "each once"
    assert f"{len(sync.content.blobs)} blobs needed, 0 in the store" in "\n".join(map(str, sync.here.lines))
    sync.check(run)


def test_the_large_ones_come_first(sync: PrefetchedSync) -> None:
    came = sync.hold_until(lambda: len(sync.blob_gets()) >= 20)
    sync.run(concurrency=2)  # of which half is one
    assert came == [True]
    sizes = [sync.content.blobs[Digest(digest)].size_bytes for digest in sync.blob_gets()[:20]]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) == max(blob.size_bytes for blob in sync.content.blobs.values())


def test_at_most_half_of_the_requests_are_for_blobs_while_manifests_come(sync: PrefetchedSync) -> None:
    most, lock = list[int](), threading.Lock()
    at_once = 0

    def blob() -> Scripted:
        nonlocal at_once
        with lock:
            at_once += 1
            most.append(at_once)
        threading.Event().wait(0.005)
        with lock:
            at_once -= 1
        return HELD

    for digest in sync.content.blobs:
        sync.registry.on("GET", "blob", digest, blob)
    seen = list[int]()

    def enough() -> bool:
        seen[:] = most
        return len(most) >= 20

    came = sync.hold_until(enough)
    sync.run(concurrency=6)
    assert came == [True]
    assert 1 < max(seen) <= 3


@pytest.mark.parametrize(
    "request_",
    [{"policy": "on_demand"}, {"policy": "streamed"}, {"max_total_bytes": 10}, {"max_total_bytes": 10**9}],
    ids=str,
)
def test_nothing_is_begun_that_may_not_be_wanted(
    sync: PrefetchedSync, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stopped = set[Digest](), list[BlobPrefetch]()
    stop = BlobPrefetch.stop

    def stop_and_look(prefetch: BlobPrefetch) -> None:
        stop(prefetch)
        stopped.append(prefetch)
        begun.update(prefetch.started())

    monkeypatch.setattr(BlobPrefetch, "stop", stop_and_look)
    before = list[int]()
    sync.hold_until(lambda: bool(before.append(len(sync.blob_gets()))) or len(before) > 5)
    if request_.get("max_total_bytes") == 10:
        with pytest.raises(LimitExceeded):
            sync.run(**request_)
        assert sync.blob_gets() == []
    else:
        sync.run(**request_)
    assert set(before) == {0}
    assert stopped
    assert begun == set()


def test_what_is_more_than_one_task_does_is_left_to_others(sync: PrefetchedSync) -> None:
    fetched, _ = sync.run(min_shard_bytes=16 * MIB)
    assert fetched.blobs is None
    assert sync.blob_gets() == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_blob_that_fails_is_reported_once_and_not_requested_again(sync: PrefetchedSync, count: int) -> None:
    sizes = {digest: blob.size_bytes for digest, blob in sync.content.blobs.items()}
    broken = sorted(sizes, key=lambda digest: -sizes[digest])[:count]
    for digest in broken:
        sync.registry.on("GET", "blob", digest, *[refusal(404, "BLOB_UNKNOWN")] * 9)
    came = sync.hold_until(lambda: any(digest in sync.blob_gets() for digest in broken))
    fetched, run = sync.run()
    assert came == [True]
    assert fetched.counts["failed_count"] == count
    assert all(sync.blob_gets().count(digest) == 1 for digest in sync.content.blobs)
    result = sync.commit(run)
    assert result.version is not None
    assert set(Held.read(sync.here.database, sync.here.store, "app").tags.values()) == {sync.late}


def test_what_another_process_downloads_is_waited_for_and_not_requested(sync: PrefetchedSync) -> None:
    other = max(sync.content.blobs, key=lambda digest: sync.content.blobs[digest].size_bytes)
    with sync.here.database.held_claims() as claims:
        assert claims.take(other)
        came = sync.hold_until(lambda: len(sync.blob_gets()) >= 20)

        def stored(_planned: BlobsPlanned) -> None:
            blob = sync.content.blobs[other]
            with sync.here.store.writer(other, blob.size_bytes) as writer:
                writer.write(blob.data)
                writer.commit()
            claims.release([other])

        fetched, run = sync.run(on_plan=stored)
    assert came == [True]
    assert other not in sync.blob_gets()
    assert fetched.counts["found_count"] == 1
    sync.check(run)


def test_bytes_that_are_collected_before_they_are_planned_are_downloaded_again(sync: PrefetchedSync) -> None:
    sync.hold_until(lambda: len(sync.blob_gets()) >= 30)
    collected = list[str]()

    def collect(_planned: BlobsPlanned) -> None:
        first = sync.blob_gets()[0]
        assert sync.here.store.delete(Digest(first))
        collected.append(first)

    _, run = sync.run(on_plan=collect)
    assert sync.blob_gets().count(collected[0]) == 2
    sync.check(run)


def test_what_another_sync_recorded_meanwhile_stays_recorded(sync: PrefetchedSync) -> None:
    """Its version is complete, before and after this sync plans, and its bytes are not requested again."""
    others = list[SyncRun]()
    done = sync.hold_for(lambda: others.append(sync.run(name="other")[1]))
    results = list[CommitResult]()
    _, run = sync.run(on_plan=lambda _planned: results.append(sync.commit(others[0])))
    assert done == [True]
    assert [result.version is not None and result.version.is_complete for result in results] == [True]
    assert sync.here.database.versions.missing_blob_count(others[0].repository_id) == 0
    shared = set(shared_content().blobs) & set(sync.content.blobs)
    assert [sync.blob_gets().count(digest) for digest in shared] == [1] * 8
    sync.check(run)


def test_another_sync_does_not_wait_for_the_manifests_of_this_one(sync: PrefetchedSync) -> None:
    """It waits for a download that is under way, and goes on once that has ended."""
    under_way, waiting = threading.Event(), threading.Event()
    slow = max(shared_content().blobs, key=lambda digest: shared_content().blobs[digest].size_bytes)

    def once_the_other_waits() -> Scripted:
        under_way.set()
        waiting.wait(PATIENCE_SECONDS)
        return HELD

    sync.registry.on("GET", "blob", slow, once_the_other_waits)

    def other() -> None:
        assert under_way.is_set()
        sync.run(name="other", on_plan=lambda _planned: waiting.set())

    done = sync.hold_for(other)
    _, run = sync.run()
    assert done == [True]
    sync.check(run)


def test_what_was_claimed_and_is_not_begun_after_a_failure_is_let_go(sync: PrefetchedSync) -> None:
    broken = max(sync.content.blobs, key=lambda digest: sync.content.blobs[digest].size_bytes)
    sync.registry.on("GET", "blob", broken, *[refusal(404, "BLOB_UNKNOWN")] * 9)
    came = sync.hold_until(lambda: broken in sync.blob_gets() and sync.has_no_claims())
    sync.run()
    assert came == [True]


def test_a_failure_that_may_have_passed_is_not_the_last_word(sync: PrefetchedSync) -> None:
    broken = max(sync.content.blobs, key=lambda digest: sync.content.blobs[digest].size_bytes)
    recovered = threading.Event()
    sync.registry.on("GET", "blob", broken, *[lambda: HELD if recovered.is_set() else refusal(503)] * 50)

    def has_failed() -> bool:
        if broken not in sync.blob_gets() or not sync.has_no_claims():
            return False
        recovered.set()
        return True

    came = sync.hold_until(lambda: recovered.is_set() or has_failed())
    fetched, run = sync.run()
    assert came == [True]
    assert fetched.counts["failed_count"] == 0
    sync.check(run)
