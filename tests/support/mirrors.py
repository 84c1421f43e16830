"""A fleet of small mirrors: what they hold, and one task of them on an installation of the test's own."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from registry_sync.domain.mirror_results import MirrorResult
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import UNKNOWN_TRIGGER, RunKey, SyncRun
from registry_sync.domain.settled_mirrors import SettledMirror
from registry_sync.oci.client import RegistryReader
from registry_sync.sync.mirror_tasks import MirrorSync, MirrorTask
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.sync_mirrors import MirrorsSynced, sync_mirrors
from registry_sync.sync.unchanged_mirrors import expected_run
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.ready_databases import RenewedDatabase
from support.syncing import Installation, new_client


@functools.cache
def small_repository(seed: int, *, tags: int = 10, moved: int = 0) -> RepositoryContent:
    """``tags`` images of two small blobs, as most mirrors of a fleet; ``moved`` of them are at other images.

    The same object for the same arguments: registries and tests change nothing of it.
    """
    build = ContentBuilder(seed=seed)
    layer = build.blob(300)
    for number in range(tags):
        build.tag(f"1.{number}", build.image([layer]))
    for number in range(moved):
        build.tag(f"1.{number}", build.image([layer, build.blob(200)]))
    return build.content()


def names(count: int) -> list[str]:
    """``team/app-000`` and so on."""
    return [f"team/app-{number:03}" for number in range(count)]


@dataclass
class Fleet:
    """Mirrors of one registry, synced into ``here``; ``pauses`` are those that a task made between its tries."""

    here: Installation
    registry: MemoryRegistry
    repositories: Sequence[str]
    priorities: dict[str, int] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    on_pause: Callable[[float], None] = lambda _seconds: None
    connect: Callable[[RemoteSpec], Any] | None = None
    client_options: dict[str, Any] = field(default_factory=dict)
    url: str | None = None
    urls: dict[str, str] = field(default_factory=dict)
    on_round: Callable[[], None] = lambda: None
    closing: tuple[Callable[[], None], ...] = ()

    def fill(self, *, tags: int = 3, first_seed: int = 0) -> Fleet:
        """Gives every repository its content."""
        for seed, name in enumerate(self.repositories, first_seed):
            self.registry.serve(name, small_repository(seed, tags=tags))
        return self

    def mirrors(self) -> list[MirrorSync]:
        """The mirrors as an operator passes them on."""
        return [
            MirrorSync(name, partial(self._start, name), self.priorities.get(name, 0), partial(self._expected, name))
            for name in self.repositories
        ]

    def _start(self, name: str, key: RunKey) -> SyncRun:
        return open_run(self.here.database, key, self._request(name))

    def _expected(self, name: str, known: SettledMirror) -> SyncRun | None:
        return expected_run(self._request(name), known, UNKNOWN_TRIGGER)

    def _request(self, name: str) -> SyncRequest:
        options, url = self.options.get(name, {}), self.urls.get(name, self.url or self.registry.url)
        return SyncRequest(name, url=url, upstream_name=name, **options)

    @contextmanager
    def _connect(self, remote: RemoteSpec) -> Iterator[tuple[RegistryReader, RemoteSpec]]:
        with new_client(remote, **{"max_attempts": 1, **self.client_options}) as client:
            yield client, remote

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.on_pause(seconds)

    def sync(self, run_id: str = "run-1", *, dag_id: str = "fleet", **more: Any) -> MirrorsSynced:
        """One try of a task."""
        given: dict[str, Any] = {
            "concurrency": 1,
            "min_shard_bytes": 16 * 1024 * 1024,
            "is_last_try": False,
            "report": self.here.lines,
            "pause": self._pause,
            "on_round": self.on_round,
        }
        task = MirrorTask(dag_id, run_id, "sync_mirrors")
        connect = self.connect or self._connect
        return sync_mirrors(self.here.database, self.here.store, self.mirrors(), task, connect, **{**given, **more})

    def outcomes(self, synced: MirrorsSynced) -> dict[str, str]:
        """The outcome of each mirror, in the order of the results."""
        return {result.repository: result.outcome.value for result in synced.results}

    def result(self, synced: MirrorsSynced, name: str) -> MirrorResult:
        """The result of one mirror."""
        return next(result for result in synced.results if result.repository == name)


class RenewedFleets:
    """Fleets on one database, one after the other, that begin with syncs that are run once and put back then.

    What they are is below ``folder``.
    """

    #: Of the registries, so that the mirrors of one are those of the next.
    NETLOC = "memory-fleet.test"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._renewed = RenewedDatabase(folder / "registry_sync.db")
        self._kept: dict[Hashable, tuple[bytes, Path]] = {}

    def begin(self, registry: MemoryRegistry, folder: Path, repositories: Sequence[str]) -> Fleet:
        """A fleet that was never synced; its blobs are below ``folder``."""
        return Fleet(Installation.on(self._renewed.renewed(), folder), registry, repositories)

    def once(self, fleet: Fleet, folder: Path, key: Hashable, act: Callable[[], object]) -> None:
        """Lets ``act`` sync ``fleet``, which has just begun, or puts database and blobs back as they were after that.

        Nothing else may depend on it: what it changes of ``fleet`` itself and of its registry stays undone.
        """
        assert fleet.registry.netloc == self.NETLOC
        if key not in self._kept:
            act()
            copied = self._folder / str(len(self._kept))
            shutil.copytree(folder / "blobs", copied)
            self._kept[key] = self._renewed.kept(), copied
            return
        data, copied = self._kept[key]
        self._renewed.renewed(data)
        shutil.copytree(copied, folder / "blobs", dirs_exist_ok=True)

    def close(self) -> None:
        self._renewed.close()
