"""A sync that would store more than its remote allows stops before it downloads, and says what is large."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.runs import RunKey, RunState
from registry_sync.errors import LimitExceeded
from registry_sync.sync.fetch_blobs import fetch_small_run
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation, new_client

NAME = "team/app"
_numbers = itertools.count(1)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.embedded(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def upstream() -> Iterator[MemoryRegistry]:
    """Seven images: ``big`` and ``same`` one of them, the others on one base of 3,000 bytes."""
    build = ContentBuilder(seed=4)
    base = build.blob(3_000)
    for number in range(1, 6):
        build.tag(f"v{number}", build.image([base, build.blob(1_000 * number)]))
    big = build.index([build.image([build.blob(20_000)], architecture=name) for name in ("amd64", "arm64")])
    build.tag("big", big)
    build.tag("same", big)
    with MemoryRegistry() as registry:
        registry.serve(NAME, build.content())
        yield registry


def blob_requests(registry: MemoryRegistry) -> int:
    return len(registry.log().select("GET", "blob"))


def needed(here: Installation, registry: MemoryRegistry, **options: object) -> int:
    """The bytes that a sync says it would store, which is refused for one byte."""
    with pytest.raises(LimitExceeded) as refused:
        here.sync(f"asked-{next(_numbers)}", registry.url, NAME, max_total_bytes="1", **options)
    assert refused.value.limit == "max_total_bytes"
    return int(str(refused.value).split(" bytes)")[0].rpartition("(")[2].replace(",", ""))


def test_nothing_is_downloaded_and_the_sum_the_limit_and_the_largest_images_are_named(
    here: Installation, upstream: MemoryRegistry
) -> None:
    total = needed(here, upstream)
    with pytest.raises(LimitExceeded) as refused:
        here.sync("app", upstream.url, NAME, run_id="refused", max_total_bytes=str(total - 1))
    said = str(refused.value)
    assert f"({total:,} bytes) that the blob store lacks" in said
    assert f"max_total_bytes of remote 'app' allows {(total - 1) / 1024:.1f} KiB ({total - 1:,} bytes)" in said
    order = [said.index(name) for name in ("big (and 1 more tag) 39", "v5 ", "v4 ", "v3 ", "v2 ", " and 1 more. ")]
    assert order == sorted(order)
    assert "v1 " not in said
    assert "Exclude tags, select fewer platforms, or raise max_total_bytes" in said
    assert not refused.value.is_temporary
    assert blob_requests(upstream) == 0
    run = here.database.runs.by_key(RunKey("registry_sync", "refused"))
    assert run.state is RunState.RUNNING, "what the task says of it is noted by the operator"
    assert here.database.runs.progress(run.id).blob_count == 0
    assert here.database.repositories.by_name("app").latest_number is None


def test_the_same_run_goes_on_when_the_limit_is_raised(here: Installation, upstream: MemoryRegistry) -> None:
    total = needed(here, upstream)
    with pytest.raises(LimitExceeded):
        here.sync("app", upstream.url, NAME, run_id="one", max_total_bytes=str(total - 1))
    version = here.sync("app", upstream.url, NAME, run_id="one", max_total_bytes=str(total))
    assert version is not None
    assert version.summary.counts()["present"]["docker.tag"] == 7
    assert blob_requests(upstream) == version.summary.counts()["present"]["docker.blob"]
    assert here.database.remotes.by_name("app").spec.max_total_bytes == total, "what was said stays with the remote"


def test_each_blob_counts_once_and_what_the_store_has_or_is_not_selected_does_not(
    here: Installation, upstream: MemoryRegistry
) -> None:
    one = needed(here, upstream, include_tags=("v1",))
    both = needed(here, upstream, include_tags=("v1", "v2"))
    assert one + 2_000 < both < one + 3_000, "the base once"
    everything = needed(here, upstream, include_tags=("big",))
    assert needed(here, upstream, include_tags=("big", "same")) == everything
    assert needed(here, upstream, include_tags=("big",), platforms=("linux/amd64",)) == everything // 2
    assert here.sync("first", upstream.url, NAME, include_tags=("v1",)) is not None
    assert needed(here, upstream, include_tags=("v1", "v2")) == both - one
    assert here.sync("second", upstream.url, NAME, include_tags=("v1",), max_total_bytes="1") is not None, "all there"


def test_a_sync_that_stores_nothing_has_nothing_to_limit(here: Installation, upstream: MemoryRegistry) -> None:
    assert here.sync("app", upstream.url, NAME, policy="streamed", max_total_bytes="1") is not None
    assert blob_requests(upstream) == 0


def test_a_sync_on_demand_is_limited_by_the_configs_that_it_stores(
    here: Installation, upstream: MemoryRegistry
) -> None:
    with pytest.raises(LimitExceeded, match="max_total_bytes"):
        here.sync("app", upstream.url, NAME, policy="on_demand", max_total_bytes="1")
    assert blob_requests(upstream) == 0
    assert here.sync("app", upstream.url, NAME, policy="on_demand", max_total_bytes="20000") is not None
    assert sum(blob.size_bytes for blob in here.store.entries()) <= 20_000


def test_a_small_run_that_fetches_at_once_stops_too(here: Installation, upstream: MemoryRegistry) -> None:
    request = SyncRequest("app", url=upstream.url, upstream_name=NAME, max_total_bytes="1000")
    run = open_run(here.database, RunKey("registry_sync", "small"), request)
    client, report = new_client(run.remote), here.lines
    list_tags(client, here.database, run, run.remote, max_shards=1, report=report)
    fetch_manifests(client, here.database, run, run.remote, shard=0, is_last_try=False, report=report)
    with pytest.raises(LimitExceeded, match="max_total_bytes"):
        fetch_small_run(
            client,
            here.store,
            here.database,
            run,
            run.remote,
            min_shard_bytes=here.min_shard_bytes,
            is_last_try=False,
            report=report,
        )
    assert blob_requests(upstream) == 0


def test_bytes_that_the_store_lost_count_for_the_images_that_need_them(
    here: Installation, upstream: MemoryRegistry
) -> None:
    version = here.sync("app", upstream.url, NAME, include_tags=("v4", "v5"))
    assert version is not None
    (lost,) = (
        unit.digest
        for unit in here.database.units.blobs(UnitQuery(version.repository_id)).items
        if unit.size_bytes == 5_000
    )
    here.store.delete(lost)
    here.database.contents.mark_missing([lost])
    with pytest.raises(LimitExceeded, match=r"images, .*: v5 4\.9 KiB \(5,000 bytes\), v1 "):
        here.sync("app", upstream.url, NAME, include_tags=("v1", "v4", "v5"), max_total_bytes="1")
