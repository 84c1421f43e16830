"""The pull server beside Debian's docker-registry: the same blobs on the same disk, in turn, by the same clients.

Ours checks a token, access and the version of each request; docker-registry runs without any access control. Ratios of
one run are what counts: seconds are those of this machine, and of whatever else runs on it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import psutil

from benchmarks import load
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DistributionSpec
from support import filling
from support.images import ContentBuilder, RepositoryContent
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation

LARGE_BYTES = 1024 * 1024 * 1024
SMALL_BYTES, SMALL_PER_IMAGE = 7000, 100
CLIENT_COUNT, MANY_CLIENTS = 20, 200
WORKERS = 2
_NAME = "team/bench"
#: How long clients that read nothing are waited for.
_HELD_SECONDS = 3.0
_PART_BYTES = 4 * 1024 * 1024
_PART = {"Range": f"bytes=1-{_PART_BYTES}"}
_ACCEPT = {"Accept": ", ".join(media_types.ACCEPTED_MANIFEST_TYPES)}
#: The peer's access log is read by tests and would only be counted against it here.
_QUIET = {"log": {"level": "error", "accesslog": {"disabled": True}}}


@dataclass(frozen=True)
class Counts:
    """How many small blobs and HEADs are asked for in one run."""

    small: int = 2000
    heads: int = 5000


@dataclass(frozen=True)
class Scenario:
    """What is asked for, by how many clients at once."""

    label: str
    method: str
    paths: list[str]
    clients: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class PullResult:
    """Seconds of each run by the clock and of the servers' and the clients' CPU, and the most memory of one of our
    workers, in bytes.
    """

    label: str
    request_count: int
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    ours_cpu: list[float] = field(default_factory=list)
    peer_cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)
    worker_bytes: int = 0
    body_bytes: int = 0

    @property
    def speed_ratio(self) -> float:
        """How many times as fast as the peer, by medians; more is better."""
        return statistics.median(self.peer) / statistics.median(self.ours)

    def as_json(self) -> dict[str, Any]:
        """Every number."""
        return {**vars(self), "speed_ratio": self.speed_ratio if self.ours else None}

    def __str__(self) -> str:
        if not self.ours:
            return f"{self.label:<46} a worker {self.worker_bytes / 2**20:.0f} MiB"
        ours, peer = statistics.median(self.ours), statistics.median(self.peer)

        def rate(seconds: float) -> str:
            if self.body_bytes > LARGE_BYTES // 2:
                return f"{self.body_bytes / seconds / 1e9:.2f} GB/s"
            return f"{self.request_count / seconds:,.0f}/s"

        return (
            f"{self.label:<46} ours {ours:.2f} s ({rate(ours)}), docker-registry {peer:.2f} s ({rate(peer)}), "
            f"{self.speed_ratio:.2f} times as fast; CPU {_median(self.ours_cpu)} and {_median(self.peer_cpu)}; "
            f"a worker {self.worker_bytes / 2**20:.0f} MiB"
        )


def measure(
    runs: int, say: Callable[[str], None], *, large_bytes: int = LARGE_BYTES, counts: Counts = Counts()
) -> list[PullResult]:
    """Each scenario ``runs`` times, ours and the peer in turn, after one run of each that is not counted."""
    with TemporaryDirectory() as folder, _both(Path(folder), large_bytes, counts) as (ours, peer, content):
        results = []
        for scenario in _scenarios(content, large_bytes, counts):
            result = PullResult(scenario.label, len(scenario.paths))
            for number in range(runs + 1):
                say(f"{scenario.label}: {number} of {runs}")
                _measure_once(scenario, result, ours, peer, is_counted=number > 0)
            results.append(result)
        say(f"{MANY_CLIENTS} downloads that wait for their clients")
        large = next(path for path in _scenarios(content, large_bytes, counts))
        held = PullResult(f"{MANY_CLIENTS} clients that wait in a blob of {large_bytes // 2**20} MiB", MANY_CLIENTS)
        token = ours.token(_NAME, ours.robot)
        for headers in ({}, _PART):
            with _Memory(ours) as memory, load.held(ours.port, large.paths[0], MANY_CLIENTS, token | headers):
                time.sleep(_HELD_SECONDS)
            held.worker_bytes = max(held.worker_bytes, memory.most_bytes)
        return [*results, held]


def _measure_once(
    scenario: Scenario, result: PullResult, ours: _Served, peer: RegistryServer, *, is_counted: bool
) -> None:
    token = ours.token(_NAME, ours.robot)  # one lives for some minutes
    asked = (scenario.method, scenario.paths, scenario.clients)
    with _Memory(ours) as memory, _Cpu(ours.processes()) as ours_cpu:
        own = load.run(ours.port, *asked, {**_ACCEPT, **scenario.headers, **token})
    with _Cpu(peer.processes()) as peer_cpu:
        other = load.run(peer.port, *asked, {**_ACCEPT, **scenario.headers})
    if own.body_bytes != other.body_bytes:
        raise RuntimeError(f"{scenario.label}: {own.body_bytes} bytes, and {other.body_bytes} of the peer")
    result.worker_bytes = max(result.worker_bytes, memory.most_bytes)
    result.body_bytes = own.body_bytes
    if is_counted:
        result.ours.append(own.seconds)
        result.peer.append(other.seconds)
        result.ours_cpu.append(ours_cpu.seconds)
        result.peer_cpu.append(peer_cpu.seconds)
        result.client_cpu.append(own.cpu_seconds)


def _scenarios(content: RepositoryContent, large_bytes: int, counts: Counts) -> Iterator[Scenario]:
    blobs = {digest: f"/v2/{_NAME}/blobs/{digest}" for digest in content.blobs}
    large = next(path for digest, path in blobs.items() if content.blobs[digest].size_bytes == large_bytes)
    small = [path for digest, path in blobs.items() if content.blobs[digest].size_bytes == SMALL_BYTES]
    tags = [f"/v2/{_NAME}/manifests/{tag}" for tag in content.tags]
    heads = [tags[number % len(tags)] for number in range(counts.heads)]
    mebibytes = large_bytes // 2**20
    yield Scenario(f"a blob of {mebibytes} MiB, 1 client", "GET", [large], 1)
    yield Scenario(f"a blob of {mebibytes} MiB, 4 clients", "GET", [large] * 4, 4)
    yield Scenario(f"{counts.small} blobs of {SMALL_BYTES} bytes, {CLIENT_COUNT} clients", "GET", small, CLIENT_COUNT)
    yield Scenario(f"{counts.heads} HEADs of tags, {CLIENT_COUNT} clients", "HEAD", heads, CLIENT_COUNT)
    yield Scenario(f"{counts.small} blobs, {MANY_CLIENTS} clients", "GET", small, MANY_CLIENTS)
    label = f"{_PART_BYTES // 2**20} MiB of a blob of {mebibytes} MiB, {MANY_CLIENTS} clients"
    yield Scenario(label, "GET", [large] * MANY_CLIENTS, MANY_CLIENTS, _PART)


class _Served(PullServer):
    robot: tuple[str, str]


@contextmanager
def _both(
    folder: Path, large_bytes: int, counts: Counts
) -> Iterator[tuple[_Served, RegistryServer, RepositoryContent]]:
    content = _content(large_bytes, counts)
    with RegistryServer(folder / "peer", config=_QUIET) as peer:
        filling.place(peer, _NAME, content)
        here = Installation.embedded(folder)
        here.sync("bench", peer.url, _NAME)
        repository = here.database.repositories.by_name("bench")
        here.database.distributions.create(DistributionSpec("bench", _NAME, repository.id))
        _, secret = here.database.robots.create("bench", ["team/*"])
        here.database.close()
        ours = _Served(folder, workers=WORKERS)
        ours.robot = ("bench", secret)
        with ours:
            yield ours, peer, content


def _content(large_bytes: int, counts: Counts) -> RepositoryContent:
    build = ContentBuilder(46)
    build.tag("large", build.image([build.blob(large_bytes)]))
    for number in range(counts.small // SMALL_PER_IMAGE):
        layers: list[Digest] = [build.blob(SMALL_BYTES) for _ in range(SMALL_PER_IMAGE)]
        build.tag(f"small-{number}", build.image(layers))
    return build.content()


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s" if seconds else "unknown"


class _Cpu:
    """The processor's time of processes between ``with`` and its end, which other programs of the machine change less
    than the time by the clock.
    """

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self.seconds = 0.0

    def __enter__(self) -> _Cpu:
        self.seconds = -self._used()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds += self._used()

    def _used(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


class _Memory:
    """The most memory that one worker of a server had between ``with`` and its end."""

    def __init__(self, server: PullServer) -> None:
        self._workers = [found for found in server.processes() if found.num_threads() > 1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.most_bytes = 0

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _sample(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(0.1)
            self.most_bytes = max([self.most_bytes, *(_resident(worker) for worker in self._workers)])


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)
