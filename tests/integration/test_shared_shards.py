"""Tasks that fetch blobs help each other: who has finished takes over what no task has begun, and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.runs.required_blobs import TakenBlobs
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.errors import BlobStoreFull
from registry_sync.oci.blobs import BlobDestination
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import BlobsFetched, fetch_blobs
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation, new_client

NAME = "team/app"
IMAGE_COUNT = 12


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each blob counts as a MiB."""
    monkeypatch.setattr("registry_sync.db.runs.required_blobs.TAKEN_BYTES", 2 * 1024 * 1024)


@dataclass
class Client:
    """A registry's client that calls ``before`` with each blob, and notes which were ``fetched``."""

    client: Any
    before: Callable[[Digest], None] = lambda _digest: None
    fetched: list[Digest] = field(default_factory=list)

    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        self.before(blob.digest)
        received: int = self.client.fetch_blob(repository, blob, writer)
        self.fetched.append(blob.digest)
        return received

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


@dataclass
class Tasks:
    """A sync up to its plan of two shards, and the tasks that fetch them."""

    here: Installation
    run: SyncRun
    blob_count: int

    @classmethod
    def planned(cls, here: Installation) -> Tasks:
        build = ContentBuilder(seed=41)
        for number in range(IMAGE_COUNT):
            build.tag(f"v{number}", build.image([build.blob(1000 + number)]))
        content, registry = build.content(), MemoryRegistry()
        registry.add(NAME, content)
        request = SyncRequest(repository="app", url=registry.url, upstream_name=NAME)
        run = open_run(here.database, RunKey("registry_sync", "shared"), request)
        tasks = cls(here, run, len(content.blobs))
        client = tasks.client()
        list_tags(client, here.database, run, run.remote, max_shards=1, report=here.lines)
        fetch_manifests(client, here.database, run, run.remote, shard=0, is_last_try=False, report=here.lines)
        planned = plan_blobs(
            here.store, here.database, run, max_shards=2, min_shard_bytes=1024 * 1024, report=here.lines
        )
        assert len(planned.shards) == 2
        return tasks

    def client(self, before: Callable[[Digest], None] = lambda _digest: None) -> Client:
        assert self.run.remote is not None
        return Client(new_client(self.run.remote), before)

    def fetch(self, shard: int, client: Client, *, is_last_try: bool = False) -> BlobsFetched:
        here = self.here
        return fetch_blobs(
            client,
            here.store,
            here.database,
            self.run,
            self.run.remote,
            shard=shard,
            is_last_try=is_last_try,
            report=here.lines,
        )

    def check_whole(self, *clients: Client) -> None:
        """Every blob was fetched once, and the version is complete."""
        fetched = [digest for client in clients for digest in client.fetched]
        assert (len(fetched), len(set(fetched))) == (self.blob_count, self.blob_count)
        version = commit_version(self.here.database, self.run, report=self.here.lines).version
        assert version is not None
        assert version.is_complete


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks.planned(Installation.embedded(tmp_path))


def test_a_task_that_waits_is_helped_and_not_waited_for(tasks: Tasks) -> None:
    has_begun, other_has_finished = threading.Event(), threading.Event()

    def wait(_digest: Digest) -> None:
        has_begun.set()
        assert other_has_finished.wait(30)

    slow, quick = tasks.client(wait), tasks.client()
    counts: list[BlobsFetched] = []
    thread = threading.Thread(target=lambda: counts.append(tasks.fetch(0, slow)))
    thread.start()
    assert has_begun.wait(30)
    counts.append(tasks.fetch(1, quick))
    other_has_finished.set()
    thread.join()
    assert len(quick.fetched) > tasks.blob_count // 2
    assert any("taking over" in line for line in tasks.here.lines)
    assert sum(count.fetched_count for count in counts) == tasks.blob_count
    tasks.check_whole(slow, quick)


def test_what_a_task_had_not_begun_when_it_died_is_fetched_by_another(tasks: Tasks) -> None:
    def refuse(_digest: Digest) -> None:
        raise BlobStoreFull("the store is full")

    dying, other, again = tasks.client(refuse), tasks.client(), tasks.client()
    with pytest.raises(BlobStoreFull):
        tasks.fetch(0, dying)
    tasks.fetch(1, other)
    assert tasks.blob_count // 2 < len(other.fetched) < tasks.blob_count
    tasks.fetch(0, again)
    tasks.check_whole(other, again)


def test_a_task_in_its_last_try_takes_nothing_over(tasks: Tasks) -> None:
    first, second = tasks.client(), tasks.client()
    tasks.fetch(0, first, is_last_try=True)
    assert 0 < len(first.fetched) < tasks.blob_count
    tasks.fetch(1, second)
    tasks.check_whole(first, second)


def test_what_an_earlier_try_begins_before_it_ends_is_fetched_by_the_present_one(tasks: Tasks) -> None:
    """A task that is cleared while it runs is started again before its process has been told to end."""
    ending: list[TakenBlobs | None] = []

    def begin_more(_digest: Digest) -> None:
        if not ending:
            ending.append(tasks.here.database.runs.take_blobs(tasks.run.id, 0, may_take_over=False))

    present, other = tasks.client(begin_more), tasks.client()
    tasks.fetch(0, present, is_last_try=True)
    tasks.fetch(1, other)
    assert ending[0] is not None
    tasks.check_whole(present, other)
