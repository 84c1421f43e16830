"""A listing goes on to fetch what is one task's work, and leaves to the tasks that follow what is more or fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from registry_sync.domain.runs import CommitResult, RunKey, SyncRun
from registry_sync.errors import RepositoryUnavailable
from registry_sync.sync import listed_content
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_blobs
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.listed_content import ContentFetched
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from support.held import Held
from support.images import RepositoryContent
from support.memory_registry import HELD, MemoryRegistry, MemoryResponse, refusal, tag_page
from support.shapes import documented_example
from support.syncing import Installation, new_client

NAME = "library/hello-world"
MIB = 1024 * 1024


@dataclass
class Sync:
    """One sync, task by task, each with a client of its own."""

    here: Installation
    registry: MemoryRegistry
    content: RepositoryContent = field(default_factory=documented_example)

    def open(self) -> SyncRun:
        request = SyncRequest(repository="hello", url=self.registry.url, upstream_name=NAME, download_concurrency=1)
        return open_run(self.here.database, RunKey("registry_sync", "run"), request)

    def list(
        self, *, min_shard_bytes: int = 1024 * MIB, clock: Callable[[], float] = lambda: 0.0, max_shards: int = 1
    ) -> ContentFetched:
        """The first task."""
        return self.here.fetch_listed(self.open(), max_shards=max_shards, min_shard_bytes=min_shard_bytes, clock=clock)

    def rest(self, *, manifests: bool = False, blobs: bool = False) -> CommitResult:
        """The tasks that are not skipped, up to the commit."""
        here = self.here
        run = here.database.runs.by_key(RunKey("registry_sync", "run"))
        with new_client(run.remote) as client:
            if manifests:
                fetch_manifests(client, here.database, run, run.remote, shard=0, is_last_try=True, report=here.lines)
            if blobs:
                planned = plan_blobs(here.store, here.database, run, max_shards=1, min_shard_bytes=1, report=here.lines)
                for shard in planned.shards:
                    fetch_blobs(
                        client, here.store, here.database, run, run.remote, shard=shard.number, is_last_try=True,
                        report=here.lines,
                    )  # fmt: skip
        return commit_version(here.database, run, report=here.lines)

    def check(self, result: CommitResult) -> None:
        """All content is there, and was requested once."""
        assert result.version is not None
        assert result.version.is_complete
        held = Held.read(self.here.database, self.here.store, "hello")
        assert held.tags == self.content.tags
        assert held.blobs == {digest: blob.data for digest, blob in self.content.blobs.items()}

    def gets(self, kind: str) -> Counter[str]:
        return Counter(request.reference for request in self.registry.log().select("GET", kind))


@pytest.fixture
def sync(here: Installation) -> Sync:
    registry = MemoryRegistry()
    registry.serve(NAME, documented_example())
    return Sync(here, registry)


def test_a_small_run_is_fetched_by_its_listing(sync: Sync) -> None:
    fetched = sync.list()
    assert (fetched.has_manifests, fetched.is_whole) == (True, True)
    assert fetched.counts.items() >= {"tag_count": 8, "manifest_count": 21, "fetched_count": 31}.items()
    assert str(fetched).startswith("8 tags, 21 new manifests, 31 blobs, ")
    sync.check(sync.rest())


def test_two_shards_of_manifests_are_left_to_their_tasks(sync: Sync) -> None:
    fetched = sync.list(max_shards=2, min_shard_bytes=MIB)
    assert fetched == ContentFetched()
    assert fetched.counts == {}
    assert sync.gets("manifest") == {}


def test_blobs_for_two_tasks_are_left_to_these(sync: Sync) -> None:
    fetched = sync.list(min_shard_bytes=8 * MIB)
    assert (fetched.has_manifests, fetched.is_whole, fetched.blobs) == (True, False, None)
    assert sync.gets("blob") == {}
    sync.check(sync.rest(blobs=True))


def test_a_manifest_that_fails_for_now_is_left_with_its_tag_and_the_listing_stands(sync: Sync) -> None:
    digest = min(sync.content.tags.values())
    sync.registry.on("GET", "manifest", digest, refusal(503), refusal(503), HELD)
    fetched = sync.list()
    assert (fetched.has_manifests, fetched.is_whole) == (False, False)
    assert "what is left is fetched by the tasks that follow" in sync.here.lines.warnings[-1]
    before = sync.gets("manifest")
    sync.check(sync.rest(manifests=True, blobs=True))
    assert set((sync.gets("manifest") - before).values()) <= {1}
    assert sync.registry.log().manifest_head_count == len(sync.content.tags), "the listing is not repeated"


def test_a_blob_that_fails_for_now_is_the_only_one_that_is_left(sync: Sync) -> None:
    digest = min(sync.content.blobs)
    sync.registry.on("GET", "blob", digest, refusal(503), refusal(503), HELD)
    fetched = sync.list()
    assert (fetched.has_manifests, fetched.is_whole) == (True, False)
    before = sync.gets("blob")
    sync.check(sync.rest(blobs=True))
    assert sync.gets("blob") - before == {digest: 1}


def test_what_no_retry_mends_ends_the_task(sync: Sync) -> None:
    sync.registry.basic_auth = True
    sync.registry.on("GET", "tags", "", tag_page(sync.content.tags))
    for tag, digest in sync.content.tags.items():
        sync.registry.on("HEAD", "manifest", tag, MemoryResponse(digest=digest))
    with pytest.raises(RepositoryUnavailable):
        sync.list()


@pytest.mark.parametrize("reads", [2, 10], ids=["manifests", "blobs"])
def test_after_a_minute_the_rest_is_left(sync: Sync, reads: int) -> None:
    """``reads`` is how often the clock is read before the minute is over."""
    times = iter([0.0] * reads)
    fetched = sync.list(clock=lambda: next(times, listed_content.LONGEST_SECONDS))
    assert fetched.is_whole is False
    got = len(sync.gets("blob"))
    assert (got > 0) is (reads > 2)
    assert got < len(sync.content.blobs)
    sync.check(sync.rest(manifests=not fetched.has_manifests, blobs=True))
    assert set(sync.gets("blob").values()) == {1}


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_a_task_that_dies_while_it_fetches_is_repeated_and_requests_nothing_twice(sync: Sync, kind: str) -> None:
    def dies() -> MemoryResponse:
        raise Killed

    digests = sorted(sync.content.blobs if kind == "blob" else sync.content.manifests)
    sync.registry.on("GET", kind, digests[len(digests) // 2], dies)
    with pytest.raises(Killed):
        sync.list()
    sync.registry.forget(kind)
    fetched = sync.list()
    assert fetched.is_whole
    sync.check(sync.rest())
    if kind == "blob":
        assert set(sync.gets("manifest").values()) == {1}
        repeated = [digest for digest, count in sync.gets("blob").items() if count > 1]
        assert set(repeated) <= {digests[len(digests) // 2]}


def test_a_run_without_changed_tags_fetches_the_blobs_that_were_lost(sync: Sync) -> None:
    sync.list()
    sync.check(sync.rest())
    lost = min(sync.content.blobs)
    sync.here.store.delete(lost)
    sync.here.database.contents.mark_missing([lost])
    again = Sync(sync.here, sync.registry)
    before = sync.gets("blob")
    fetched = again.list()
    assert (fetched.manifests, fetched.has_manifests, fetched.is_whole) == (None, True, True)
    assert sync.gets("blob") - before == {lost: 1}
