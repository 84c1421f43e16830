"""What needs no Airflow, each pass in an interpreter of its own: our stages, and the bare loop.

Imports are not measured, nor the start of the interpreter. Size is that of the whole interpreter at its largest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.results import TookTooLong, Usage
from benchmarks.syncs.bare_loop import BareLoop
from benchmarks.syncs.contender import FIRST, PASSES, UNCHANGED, Source, empty_folder
from benchmarks.syncs.outcome import check_blobs
from benchmarks.syncs.own_storage import check_installation
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.early_heads import begin_early
from registry_sync.sync.fetch_blobs import fetch_blobs
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.listed_content import fetch_listed
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from support.images import RepositoryContent
from support.ready_databases import ready_database
from support.syncing import Installation

_ALL_IN_ONE_BYTES = 1 << 60


@dataclass
class _InProcess:
    """Runs :func:`main` for each pass; its files are below ``folder``."""

    source: Source
    folder: Path
    passes: ClassVar[tuple[str, ...]] = PASSES

    def empty(self) -> None:
        empty_folder(self.folder)

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _run(self, work: str, timeout_seconds: float) -> Usage:
        source = {"url": self.source.url, "repository": self.source.repository}
        ca_path = None if self.source.ca_path is None else str(self.source.ca_path)
        task = json.dumps({"work": work, "source": source, "ca_path": ca_path, "folder": str(self.folder)})
        command = [sys.executable, "-m", "benchmarks.syncs.in_process", task]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                output, errors = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired:
                raise TookTooLong(timeout_seconds) from None
            finally:
                process.send_signal(signal.SIGKILL)
        if process.returncode:
            raise RuntimeError(errors.strip().splitlines()[-1][:300])
        return Usage(**json.loads(output))


class Stages(_InProcess):
    """Our stages, one after the other as a task of a small repository runs them, with SQLite and local files."""

    name = "our stages"

    def empty(self) -> None:
        super().empty()
        ready_database(self.folder / "registry_sync.db").close()

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        return self._run("stages", timeout_seconds)

    def check(self, content: RepositoryContent) -> None:
        installation = Installation.embedded(self.folder)
        try:
            check_installation(installation.database, self.folder / "blobs", self.source.repository, content)
        finally:
            installation.database.close()


class Bare(_InProcess):
    """The bare loop. It checks digests itself and keeps no manifests, so that it knows no difference."""

    name = "bare loop"
    passes = (FIRST, UNCHANGED)

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        return self._run({FIRST: "bare first", UNCHANGED: "bare unchanged"}[which], timeout_seconds)

    def check(self, content: RepositoryContent) -> None:
        check_blobs(self.folder, content.closure(content.tags).blobs)


def run_stages(source: Source, folder: Path) -> Callable[[], None]:
    """A sync of ``source`` by our stages, without Airflow; what it uses is open already."""
    installation = Installation.embedded(folder)
    verify = True if source.ca_path is None else str(source.ca_path)
    request = SyncRequest(repository=source.repository, url=source.url, upstream_name=source.repository)

    def run() -> None:
        database = installation.database
        sync_run = open_run(database, RunKey("registry_sync", f"run {time.time_ns()}"), request)
        remote = sync_run.remote
        assert remote is not None
        options = ClientOptions(concurrency=remote.download_concurrency, verify=verify)
        with RegistryClient(remote.url, None, options) as client:
            client.begin_with(sync_run.challenge)
            client.begin_at(sync_run.pace)
            is_unchanged = _fetch_all(client, installation, sync_run, remote)
            database.runs.add_usage(sync_run.id, client.usage.counts())
            if client.pace() != sync_run.pace:
                database.runs.record_learned(sync_run.id, client.learned(), client.pace())
        if not is_unchanged:
            commit_version(database, sync_run, report=_ignore)

    return run


def _fetch_all(client: RegistryClient, installation: Installation, sync_run: SyncRun, remote: RemoteSpec) -> bool:
    """Lists, and fetches what is new; whether nothing is."""
    database, store = installation.database, installation.store
    early = begin_early(client, database, sync_run, remote)
    listed = list_tags(client, database, sync_run, remote, max_shards=1, report=_ignore, early=early)
    if listed.is_unchanged:
        return True
    fetched = fetch_listed(
        client,
        store,
        database,
        sync_run,
        remote,
        shard_count=len(listed.shards),
        min_shard_bytes=_ALL_IN_ONE_BYTES,
        report=_ignore,
    )
    if not fetched.is_whole:  # after a minute; in Airflow the tasks that follow go on
        planned = plan_blobs(store, database, sync_run, max_shards=1, min_shard_bytes=_ALL_IN_ONE_BYTES, report=_ignore)
        for shard in planned.shards:
            work = (client, store, database, sync_run, remote)
            fetch_blobs(*work, shard=shard.number, is_last_try=True, report=_ignore)
    return False


def _ignore(_line: str) -> None:
    """What stages report."""


def peak_mib() -> float:
    """The largest size that this interpreter had. Not as ``getrusage``, which has that of who started it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("Linux does not say how large this process is")


def main(task: dict[str, Any]) -> None:
    """Does what the argument says, and prints what it took as JSON."""
    folder, ca_path = Path(task["folder"]), task["ca_path"]
    source = Source(**task["source"], ca_path=None if ca_path is None else Path(ca_path))
    if task["work"] == "stages":
        work = run_stages(source, folder)
    else:
        loop = BareLoop(source, folder)
        work = loop.first if task["work"] == "bare first" else loop.unchanged
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
