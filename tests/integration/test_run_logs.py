"""What a sync reports while it runs, read as a person reads it."""

from __future__ import annotations

import pytest

from registry_sync.domain.runs import SyncRun
from registry_sync.sync.fetch_blobs import fetch_small_run
from support.filling import push
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example
from support.syncing import Installation, Lines, new_client


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def test_a_small_run_says_what_it_downloads_before_it_does(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "app", documented_example())
    report = Lines()

    def fetch_here(stage: str, run: SyncRun) -> None:
        if stage == "plan_blobs":
            with new_client(run.remote) as client:
                fetch_small_run(
                    client,
                    here.store,
                    here.database,
                    run,
                    run.remote,
                    min_shard_bytes=1 << 30,
                    is_last_try=True,
                    report=report,
                )

    here.sync("app", registry.url, "app", before=fetch_here)
    planned, fetched = report
    assert planned.startswith("31 blobs needed, 0 in the store, 31 to download (")
    assert fetched.startswith("31 of 31 blobs, ")


def test_held_tags_are_warnings(here: Installation, registry: MemoryRegistry) -> None:
    content = documented_example()
    push(registry, "app", content)
    registry.delete_blob("app", content.manifests[content.tags["v1"]].blobs[0])
    here.sync("app", registry.url, "app", is_last_try=True)
    held = [line for line in here.lines if "v1 is held" in line or line.startswith("blob ")]
    assert held
    assert set(held) <= set(here.lines.warnings)
