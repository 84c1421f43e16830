"""A process that dies in the middle of a sync: the repeat completes it, and nothing half-made is left."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from registry_sync.blobs.store import BlobStore, BlobWriter
from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import SyncRun
from support.dying import Copy, die, was_killed
from support.filling import place
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.shapes import big, wide
from support.syncing import Installation

ROOT = Path(__file__).parents[2]


def stored_digests(here: Installation) -> set[Digest]:
    """What the store holds, each blob read and hashed."""
    found = set()
    for digest in here.store.digests():
        with here.store.open(digest) as blob:
            assert digest.matches(blob.read()), f"{digest} holds other bytes"
        found.add(digest)
    return found


class DyingStore:
    """Of its process, only so many blobs can be begun and so many bytes be written; before any more it dies."""

    def __init__(self, store: BlobStore, *, blob_count: int = 1_000, byte_count: int = 1 << 30) -> None:
        self._store, self._blob_count, self._byte_count = store, blob_count, byte_count

    def has(self, *arguments: Any) -> bool:
        return self._store.has(*arguments)

    @contextmanager
    def writer(self, *arguments: Any, **options: Any) -> Iterator[BlobWriter]:
        self._blob_count -= 1
        if self._blob_count < 0:
            die()
        with self._store.writer(*arguments, **options) as writer:
            yield cast("BlobWriter", DyingWriter(writer, self._written))

    def _written(self, byte_count: int) -> None:
        self._byte_count -= byte_count
        if self._byte_count < 0:
            die()


class DyingWriter:
    """Reports how much it has written."""

    def __init__(self, writer: BlobWriter, written: Callable[[int], None]) -> None:
        self._writer, self._written = writer, written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, chunk: bytes | memoryview) -> None:
        self._writer.write(chunk)
        self._written(len(chunk))


@pytest.fixture
def killed_sync(here: Installation, registry: RegistryServer, tmp_path: Path) -> Callable[..., None]:
    """Syncs ``app`` as run ``one`` in a copy of this process that dies: in ``before``, or at a limit of the store."""

    def sync(*, before: Callable[[str, SyncRun], None] | None = None, **options: Any) -> None:
        here.database.close()
        limits = {name: options.pop(name) for name in ("blob_count", "byte_count") if name in options}
        dying = replace(here, store=cast("BlobStore", DyingStore(here.store, **limits)))
        died = Copy(
            lambda: dying.sync("app", registry.url, "app", run_id="one", before=before, **options), tmp_path / "errors"
        )
        assert was_killed(died.wait()), died.errors

    return sync


def dies_at(stage: str) -> Callable[[str, SyncRun], None]:
    return lambda reached, _run: die() if reached == stage else None


@pytest.mark.parametrize("stage", ["fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"])
def test_a_kill_before_a_stage_leaves_no_version_and_the_repeat_completes_it(
    here: Installation, registry: RegistryServer, killed_sync: Callable[..., None], stage: str
) -> None:
    content = wide(0.05, tags=10)
    place(registry, "app", content)
    killed_sync(before=dies_at(stage))
    assert here.database.repositories.by_name("app").latest_number is None
    version = here.sync("app", registry.url, "app", run_id="one")
    assert version is not None
    assert version.number == 1
    assert here.database.versions.tags(version.repository_id) == content.tags
    assert stored_digests(here) == set(content.blobs)


def test_a_kill_among_the_blobs_leaves_only_whole_ones_and_the_repeat_fetches_the_rest(
    here: Installation, registry: RegistryServer, killed_sync: Callable[..., None]
) -> None:
    content = wide(0.5, tags=20)
    place(registry, "app", content)
    killed_sync(blob_count=39)
    whole = stored_digests(here)
    assert 0 < len(whole) < len(content.blobs)
    assert here.database.repositories.by_name("app").latest_number is None
    registry.reset_counts()
    version = here.sync("app", registry.url, "app", run_id="one")
    assert version is not None
    assert version.is_complete
    assert registry.log().blob_get_count == len(content.blobs) - len(whole), "what was whole is not fetched again"
    assert stored_digests(here) == set(content.blobs)


def test_a_kill_inside_a_large_blob_is_continued_by_a_range(
    here: Installation, registry: RegistryServer, killed_sync: Callable[..., None]
) -> None:
    content = big(0.02)
    place(registry, "app", content)
    # Bytes are written by the mebibyte at most, so that something of the blob's 2.6 MiB is left.
    killed_after = 3 * 1024 * 1024 // 2
    killed_sync(byte_count=killed_after, download_concurrency="1")
    assert not stored_digests(here), "no partial blob is seen under a digest"
    registry.reset_counts()
    version = here.sync("app", registry.url, "app", run_id="one")
    assert version is not None
    assert stored_digests(here) == set(content.blobs)
    log = registry.log()
    ranged = log.select("GET", "blob", status=206)
    assert len(ranged) == 1
    sent = sum(request.sent_bytes for request in log.select("GET", "blob"))
    total = sum(blob.size_bytes for blob in content.blobs.values())
    assert sent <= total - killed_after, "no byte that was stored is fetched twice"


MEASURE = """
    import sys
    from pathlib import Path
    import psutil
    from support.syncing import Installation
    here = Installation.embedded(Path(sys.argv[1]))
    def before(stage, run):
        if stage == "fetch_blobs":
            print("before", psutil.Process().memory_info().rss)
    here.sync("app", sys.argv[2], "app", before=before)
    # The high-water mark of this program; the one of getrusage is inherited from the process that started it.
    status = Path("/proc/self/status").read_text()
    print("peak", int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


@pytest.mark.slow
def test_a_blob_of_96_mebibytes_raises_the_resident_memory_by_less_than_32(
    tmp_path: Path, registry: RegistryServer
) -> None:
    """A third of the blob: what grows with a blob would have grown by all of it."""
    build = ContentBuilder(seed=11)
    build.tag("model", build.image([build.blob(96 << 20)]))
    place(registry, "app", build.content())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(tmp_path), registry.url],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    measured = dict(line.split() for line in done.stdout.splitlines())
    grown = int(measured["peak"]) - int(measured["before"])
    assert grown < 32 * 1024 * 1024, f"grew by {grown / 1048576:.0f} MiB"
