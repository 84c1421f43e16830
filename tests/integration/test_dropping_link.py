"""A large blob over a link that breaks again and again, and a task that is killed: no stored byte is fetched twice.

The registry is real, the link is a proxy that closes the connection after 4 MB of each body and notes what it
forwarded, the task is a process that is killed from outside, by SIGKILL, wherever it is.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.hooks.stores import open_blob_store
from registry_sync.oci.http.responses import CHUNK_BYTES, READ_BYTES
from support.dropping_link import SEND_BUFFER_BYTES, DroppingLink, Forwarded
from support.filling import place
from support.images import Blob, ContentBuilder
from support.object_store import s3_server
from support.registry import RegistryServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DROP_BYTES = 4_000_000
#: How long the parts are that an object store gets.
PART_BYTES = 2 << 20
#: What is forwarded and not written when a process is killed: what lies in the buffers of the two sockets of the link
#: (the system doubles what is asked for, and grows the receiving one up to its own bound), and in the process the
#: pieces of one chunk, which may end in a read that is larger than they need to be.
RECEIVE_BUFFER_BYTES = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
IN_FLIGHT_BYTES = 2 * SEND_BUFFER_BYTES + RECEIVE_BUFFER_BYTES + CHUNK_BYTES + READ_BYTES

SYNC = """
    import sys
    from pathlib import Path
    from registry_sync.hooks.stores import open_blob_store
    from registry_sync.db.database import Database
    from registry_sync.domain.references import RegistryUrl
    from registry_sync.oci.client import RegistryClient
    from registry_sync.sync.open_run import SyncRequest
    from support.syncing import Installation

    home, store, spool, url, part_bytes = sys.argv[1:]
    database = Database.connect(f"sqlite:///{home}/registry_sync.db")
    database.ready()
    here = Installation(database, open_blob_store(store, spool_folder=spool, part_bytes=int(part_bytes)))
    request = SyncRequest(repository="models", url=url, upstream_name="models")
    result = here.run(request, run_id="one", client=lambda remote: RegistryClient(remote.url))
    print("version", result.version.number, result.version.is_complete)
"""


@contextmanager
def syncing(*arguments: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that syncs; killed at the end if it still runs."""
    paths = f"{ROOT / 'plugins'}:{ROOT / 'tests'}"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SYNC), *arguments, str(PART_BYTES)],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def large_blob(registry: RegistryServer, size_bytes: int) -> Blob:
    """A blob in the registry, in an image of its own."""
    build = ContentBuilder(seed=31)
    build.tag("latest", build.image([build.blob(size_bytes)]))
    content = build.content()
    place(registry, "models", content)
    return max(content.blobs.values(), key=lambda blob: blob.size_bytes)


def is_stored(store: BlobStore, blob: Blob) -> bool:
    """Whether the store gives exactly the bytes of ``blob``, in pieces that fit into memory."""
    with store.open(blob.digest) as file:
        return all(file.read(len(piece)) == piece for piece in blob.pieces()) and not file.read(1)


def assert_in_a_row(responses: list[Forwarded], begin: int) -> int:
    """Each answer begins where the one before it ended, and none has more than the link lets through; the end."""
    for before, after in itertools.pairwise(responses):
        assert after.begin == before.end, "no byte twice, and none left out"
    assert responses[0].begin == begin
    assert all(response.byte_count <= DROP_BYTES for response in responses)
    return responses[-1].end


@pytest.mark.rule("A5.11")
def test_a_large_blob_over_a_link_that_breaks_and_across_a_kill_is_fetched_once(
    tmp_path: Path, registry: RegistryServer
) -> None:
    blob = large_blob(registry, 80 << 20)
    store = (tmp_path / "blobs").as_uri()
    with DroppingLink(registry.port, DROP_BYTES) as link:
        arguments = (str(tmp_path), store, str(tmp_path / "spool"), link.url)
        with syncing(*arguments, environment={}) as process:
            link.await_bytes(blob.digest, 38_000_000)
            process.kill()
            process.wait()
        link.await_end()
        before = link.of(blob.digest)
        (partial,) = (tmp_path / "blobs" / ".partials").iterdir()
        written = partial.stat().st_size
        assert not open_blob_store(store).has(blob.digest)
        with syncing(*arguments, environment={}) as process:
            said, _ = process.communicate(timeout=100)
        after = link.of(blob.digest)[len(before) :]

    assert said == "version 1 True\n"
    assert is_stored(open_blob_store(store), blob)
    forwarded = assert_in_a_row(before, 0)
    assert len(before) >= 10, "cut nine times at least, then killed"
    assert assert_in_a_row(after, written) == blob.size_bytes, "continued at the byte after the last that was written"
    in_flight = forwarded - written
    assert 0 <= in_flight <= IN_FLIGHT_BYTES
    assert sum(response.byte_count for response in before + after) == blob.size_bytes + in_flight


@pytest.mark.rule("A5.11")
def test_another_machine_fetches_only_what_the_object_store_lacks(
    tmp_path: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = large_blob(registry, 20 << 20)
    with s3_server() as s3, DroppingLink(registry.port, DROP_BYTES) as link:
        monkeypatch.setitem(fsspec.config.conf, "s3", s3.options)
        url = f"s3://{s3.new_bucket()}/mirror"
        with syncing(str(tmp_path), url, str(tmp_path / "one"), link.url, environment=s3.environment) as process:
            link.await_bytes(blob.digest, 14_000_000)
            process.kill()
            process.wait()
        link.await_end()
        before = link.of(blob.digest)
        filesystem = fsspec.filesystem("s3")
        kept = sum(part["size"] for part in filesystem.find(f"{url}/.partials", detail=True).values())
        with syncing(str(tmp_path), url, str(tmp_path / "other"), link.url, environment=s3.environment) as process:
            said, _ = process.communicate(timeout=100)
        after = link.of(blob.digest)[len(before) :]

        assert said == "version 1 True\n"
        store = open_blob_store(url, spool_folder=tmp_path / "third")
        assert is_stored(store, blob)
        assert [name for name in filesystem.find(url) if ".partials" in name] == []
    forwarded = assert_in_a_row(before, 0)
    assert kept >= PART_BYTES
    assert kept % PART_BYTES == 0
    assert assert_in_a_row(after, kept) == blob.size_bytes, "continued at the end of what the store has"
    lost = forwarded - kept
    assert lost <= 2 * PART_BYTES + IN_FLIGHT_BYTES
    assert sum(response.byte_count for response in before + after) == blob.size_bytes + lost
