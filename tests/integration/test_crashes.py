"""A process that dies in the middle of a sync: the repeat completes it, and nothing half-made is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from support.filling import place, push
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.shapes import big, wide
from support.syncing import Installation

ROOT = Path(__file__).parents[2]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in an interpreter of its own, which may kill itself."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT / 'tests'}"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def stored_digests(here: Installation) -> set[Digest]:
    """What the store holds, each blob read and hashed."""
    found = set()
    for digest in here.store.digests():
        with here.store.open(digest) as blob:
            assert digest.matches(blob.read()), f"{digest} holds other bytes"
        found.add(digest)
    return found


DIE_BETWEEN_BLOBS = """
    import os, signal, sys
    from pathlib import Path
    from support.syncing import Installation, new_client
    here = Installation.embedded(Path(sys.argv[1]))

    class Dying:
        def __init__(self, store):
            self.store, self.left = store, int(sys.argv[3])
        def has(self, *arguments):
            return self.store.has(*arguments)
        def writer(self, *arguments, **options):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.store.writer(*arguments, **options)

    here.store = Dying(here.store)
    here.sync("app", sys.argv[2], "app", run_id="one")
"""

DIE_INSIDE_A_BLOB = """
    import os, signal, sys
    from pathlib import Path
    from registry_sync.blobs import local
    from support.syncing import Installation
    here = Installation.embedded(Path(sys.argv[1]))
    written = 0

    class Dying:
        def __init__(self, writer):
            self.writer = writer
        def __getattr__(self, name):
            return getattr(self.writer, name)
        def write(self, chunk):
            global written
            self.writer.write(chunk)
            written += len(chunk)
            if written > int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)

    class Store:
        def __init__(self, store):
            self.store = store
        def has(self, *arguments):
            return self.store.has(*arguments)
        def writer(self, *arguments, **options):
            from contextlib import contextmanager
            @contextmanager
            def opened():
                with self.store.writer(*arguments, **options) as writer:
                    yield Dying(writer)
            return opened()

    here.store = Store(here.store)
    here.sync("app", sys.argv[2], "app", run_id="one", download_concurrency="1")
"""

DIE_BEFORE = """
    import os, signal, sys
    from pathlib import Path
    from support.syncing import Installation
    here = Installation.embedded(Path(sys.argv[1]))
    def before(stage, run):
        if stage == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
    here.sync("app", sys.argv[2], "app", run_id="one", before=before)
"""


@pytest.mark.parametrize("stage", ["fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"])
def test_a_kill_before_a_stage_leaves_no_version_and_the_repeat_completes_it(
    tmp_path: Path, registry: RegistryServer, stage: str
) -> None:
    content = wide(0.05, tags=10)
    push(registry, "app", content)
    died = run_python(DIE_BEFORE, str(tmp_path), registry.url, stage)
    assert died.returncode == -signal.SIGKILL, died.stderr
    here = Installation.embedded(tmp_path)
    assert here.database.repositories.by_name("app").latest_number is None
    version = here.sync("app", registry.url, "app", run_id="one")
    assert version is not None
    assert version.number == 1
    assert here.database.versions.tags(version.repository_id) == content.tags
    assert stored_digests(here) == set(content.blobs)
    here.database.close()


def test_a_kill_among_the_blobs_leaves_only_whole_ones_and_the_repeat_fetches_the_rest(
    tmp_path: Path, registry: RegistryServer
) -> None:
    content = wide(0.5, tags=20)
    push(registry, "app", content)
    died = run_python(DIE_BETWEEN_BLOBS, str(tmp_path), registry.url, "40")
    assert died.returncode == -signal.SIGKILL, died.stderr
    here = Installation.embedded(tmp_path)
    whole = stored_digests(here)
    assert 0 < len(whole) < len(content.blobs)
    assert here.database.repositories.by_name("app").latest_number is None
    registry.reset_counts()
    version = here.sync("app", registry.url, "app", run_id="one")
    assert version is not None
    assert version.is_complete
    assert registry.log().blob_get_count == len(content.blobs) - len(whole), "what was whole is not fetched again"
    assert stored_digests(here) == set(content.blobs)
    here.database.close()


def test_a_kill_inside_a_large_blob_is_continued_by_a_range(tmp_path: Path, registry: RegistryServer) -> None:
    content = big(0.02)
    place(registry, "app", content)
    # Bytes are written by the mebibyte at most, so that something of the blob's 2.6 MiB is left.
    killed_after = 3 * 1024 * 1024 // 2
    died = run_python(DIE_INSIDE_A_BLOB, str(tmp_path), registry.url, str(killed_after))
    assert died.returncode == -signal.SIGKILL, died.stderr
    here = Installation.embedded(tmp_path)
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
    here.database.close()


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
    done = run_python(MEASURE, str(tmp_path), registry.url)
    assert done.returncode == 0, done.stderr
    measured = dict(line.split() for line in done.stdout.splitlines())
    grown = int(measured["peak"]) - int(measured["before"])
    assert grown < 32 * 1024 * 1024, f"grew by {grown / 1048576:.0f} MiB"
