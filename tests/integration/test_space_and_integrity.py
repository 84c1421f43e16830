"""The DAGs that look after space and integrity, in this process: real registry, blob store, database and tasks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.domain.digests import Digest
from registry_sync.hooks.stores import open_blobs, open_database
from support.filling import push
from support.registry import RegistryServer
from support.shapes import documented_example, wide

if TYPE_CHECKING:
    from support.dag_runs import InProcessSync


def local_store() -> LocalBlobStore:
    store = open_blobs()
    assert isinstance(store, LocalBlobStore)
    return store


def whole(store: LocalBlobStore, digest: Digest) -> bool:
    with store.open(digest) as blob:
        return digest.matches(blob.read())


def age(store: LocalBlobStore, hours: float) -> None:
    """Makes every blob look as if it had been written before."""
    then = time.time() - hours * 3600
    for digest in store.digests():
        os.utime(store.path(digest), (then, then))


def test_a_flipped_bit_and_a_deleted_file_are_found_and_fetched_again(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    content = documented_example()
    push(registry, "library/hello-world", content)
    assert sync_in_process(repository="app", url=registry.url, upstream_name="library/hello-world").state == "success"
    store = local_store()
    flipped, deleted, *rest = sorted(content.blobs)
    data = bytearray(store.path(flipped).read_bytes())
    data[len(data) // 2] ^= 4
    store.path(flipped).write_bytes(data)
    store.delete(deleted)
    registry.reset_counts()

    run = sync_in_process("registry_sync_scrub", share=1)

    assert run.state == "success"
    counts = run.xcom("verify_blobs")
    assert counts["found"] == {"broken": 1, "missing": 1}
    assert (counts["verified_count"], counts["repaired_count"]) == (len(rest), 2)
    assert counts["repaired_bytes"] == content.blobs[flipped].size_bytes + content.blobs[deleted].size_bytes
    assert registry.log().blob_get_count == 2
    assert all(whole(store, digest) for digest in content.blobs)
    assert [blob.digest for blob in store.quarantined()] == [flipped]
    again = sync_in_process("registry_sync_scrub", share=1)
    assert again.xcom("verify_blobs")["found"] == {}
    assert again.xcom("verify_blobs")["verified_count"] == len(content.blobs)


def test_what_the_registry_has_no_more_fails_the_scrub_and_comes_back_with_it(
    sync_in_process: InProcessSync, registry: RegistryServer, tmp_path: Path
) -> None:
    content = wide(0.01, tags=2)
    push(registry, "team/app", content)
    sync_in_process(repository="app", url=registry.url, upstream_name="team/app")
    store, lost = local_store(), min(content.blobs)
    store.delete(lost)
    with open_database() as database:
        remote = database.remotes.by_name("app")
    registry.delete_blob("team/app", lost)
    failed = sync_in_process("registry_sync_scrub", share=0)
    assert failed.state == "failed"
    with open_database() as database:
        assert not database.contents.blob(lost).is_stored
        assert database.remotes.get(remote.id) == remote
    push(registry, "team/app", content)
    # The blob was noted as missing by the run that failed; the repository keeps bytes, so that it is lacking.
    repaired = sync_in_process("registry_sync_scrub", share=0)
    assert repaired.state == "success"
    assert repaired.xcom("verify_blobs")["repaired_count"] == 1
    assert whole(store, lost)


def test_what_a_deleted_repository_leaves_is_collected_and_the_rest_stays(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    stays, goes = documented_example(), wide(0.01, tags=3)
    push(registry, "stays", stays)
    push(registry, "goes", goes)
    for name in ("stays", "goes"):
        assert sync_in_process(repository=name, url=registry.url, upstream_name=name).state == "success"
    with open_database() as database:
        database.repositories.delete(database.repositories.by_name("goes").id)
    store = local_store()

    seen = sync_in_process("registry_sync_collect", preview=True).xcom("collect_orphans")
    assert seen["dry_run"] is True
    assert (seen["manifest_count"], seen["waiting_manifest_count"]) == (0, len(goes.manifests))
    waiting = sync_in_process("registry_sync_collect").xcom("collect_orphans")
    assert waiting["waiting_manifest_count"] == len(goes.manifests), "the setting's grace is a day"
    first = sync_in_process("registry_sync_collect", grace_hours=0).xcom("collect_orphans")
    assert first["manifest_count"] == len(goes.manifests)
    second = sync_in_process("registry_sync_collect", grace_hours=0).xcom("collect_orphans")
    only_there = set(goes.blobs) - set(stays.blobs)
    assert second["blob_count"] == len(only_there)
    assert second["freed_bytes"] == sum(goes.blobs[digest].size_bytes for digest in only_there)
    assert set(store.digests()) == set(stays.blobs)
    assert sync_in_process(repository="goes", url=registry.url, upstream_name="goes").version is not None
    assert set(store.digests()) == set(stays.blobs) | set(goes.blobs)


def test_bytes_are_reclaimed_and_come_back_with_the_next_sync(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    content = wide(0.01, tags=3)
    push(registry, "team/app", content)
    conf = {"repository": "app", "url": registry.url, "upstream_name": "team/app"}
    sync_in_process(**conf)
    seen = sync_in_process("registry_sync_reclaim", repositories=["app"], preview=True).xcom("reclaim_blobs")
    assert seen["blob_count"] == len(content.blobs)
    assert (
        sync_in_process("registry_sync_reclaim", repositories=["app"], keep_latest=True).xcom("reclaim_blobs")[
            "blob_count"
        ]
        == 0
    )
    done = sync_in_process("registry_sync_reclaim", repositories=["app"]).xcom("reclaim_blobs")
    assert done == {**seen, "dry_run": False}
    assert list(local_store().digests()) == []
    assert sync_in_process(**conf).state == "success"
    assert set(local_store().digests()) == set(content.blobs)


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("registry_sync_reclaim", {"repositories": ["nowhere"]}),
        ("registry_sync_reclaim", {"repositories": [" "]}),
    ],
)
def test_what_cannot_be_done_fails_the_run(
    sync_in_process: InProcessSync, dag_id: str, conf: dict[str, object]
) -> None:
    assert sync_in_process(dag_id, **conf).state == "failed"


def test_old_bytes_without_a_record_are_collected(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    content = wide(0.01, tags=1)
    push(registry, "team/app", content)
    sync_in_process(repository="app", url=registry.url, upstream_name="team/app")
    store = local_store()
    stray = Digest.of(b"nobody's")
    with store.writer(stray, len(b"nobody's")) as writer:
        writer.write(b"nobody's")
        writer.commit()
    assert sync_in_process("registry_sync_collect").xcom("collect_orphans")["untracked_count"] == 0
    age(store, hours=30)
    assert sync_in_process("registry_sync_collect").xcom("collect_orphans")["untracked_count"] == 1
    assert set(store.digests()) == set(content.blobs)
