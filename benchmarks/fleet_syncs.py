"""A fleet of small mirrors in a real Airflow, and ``regsync once`` with the same content, from one registry.

Three passes: the first sync, one in which nothing has moved, and one in which a hundredth of the tags has; the latter
two several times, each with its medians. Both have as many connections, those of ours in equal parts for its tasks.
``regsync`` is left out where it is not installed. The registry is Debian's docker-registry, or one that lists tags with
their digests: our own pull server, which asks for tokens as public registries do. It is reached on loopback, or over a
link with a round trip, a proxy in a process of its own.

What Airflow itself takes is measured beside them: in each pass a DAG of the same tasks, with the same mirrors, whose
bodies are empty.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from benchmarks.syncs.upstreams import LINKS, LOOPBACK
from registry_sync.domain.serving import DistributionSpec
from support import filling
from support.airflow_instance import AirflowInstance
from support.delaying_proxy import DelayingProxy
from support.images import RepositoryContent
from support.memory_registry import MemoryRegistry
from support.mirrors import small_repository
from support.pull_server import PullServer
from support.registry import RegistryServer
from support.syncing import Installation

OWN, EMPTY, OTHER = "registry-sync", "empty tasks", "regsync"
#: The DAGs of the contenders that are run by Airflow.
DAG_IDS = {OWN: "benchmark_fleet", EMPTY: "benchmark_empty_tasks"}
PASSES = ("first", "unchanged", "1 % moved")
TAGS = 10
CHUNKS = 4
#: To the registry at once, of each contender.
CONNECTIONS = 20
REGSYNC = Path(".local/go/bin/regsync")
_POLL_SECONDS = 0.25
#: A DAG; its tasks also return when they began, the largest size of their process, and its time of the processor.
_DAG = """
from __future__ import annotations
import json, resource, time
from pathlib import Path
from airflow.sdk import DAG
from registry_sync.operators.sync_mirrors import SyncMirrorsOperator

class Measured(SyncMirrorsOperator):
    def execute(self, context):
        began_at = time.time()
        returned = super().execute(context) if {is_whole} else {{}}
        used = resource.getrusage(resource.RUSAGE_SELF)
        measured = {{"peak_kib": used.ru_maxrss, "cpu_seconds": used.ru_utime + used.ru_stime, "began_at": began_at}}
        return {{**returned, **measured}}

MIRRORS = json.loads((Path(__file__).parent / "fleet.json").read_text())
with DAG(dag_id="{dag_id}", schedule=None, catchup=False):
    Measured.partial(task_id="sync_mirrors", concurrency={concurrency}, trust_triggers=True).expand(mirrors=MIRRORS)
"""


@dataclass(frozen=True)
class FleetPass:
    """One sync of all mirrors: seconds, tasks of Airflow (0 without), HEADs and other requests, the largest process.

    ``cpu_seconds`` are those of the processes that sync: of all tasks, without Airflow's own and the registry.
    ``start_seconds`` is how long it took from the trigger to the first line of a task; 0 without Airflow.
    """

    contender: str
    which: str
    seconds: float
    cpu_seconds: float
    task_count: int
    head_count: int
    request_count: int
    peak_mib: float
    start_seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.which:<10} {self.contender:<14} {self.seconds:7.1f} s  {self.cpu_seconds:6.1f} CPU-s  "
            f"{self.task_count:>2} tasks  {self.head_count:>7,} HEADs  {self.request_count:>7,} requests  "
            f"{self.peak_mib:6.0f} MiB"
            + (f"  {self.start_seconds:5.2f} s until the first task" if self.task_count else "")
        )


@dataclass(frozen=True)
class _Sync:
    """Seconds, those of the processor, tasks, MiB of the largest process, and seconds until the first task began."""

    seconds: float
    cpu_seconds: float
    task_count: int
    peak_mib: float
    start_seconds: float = 0.0


class _Contender(Protocol):
    name: str

    def sync(self) -> _Sync:
        """Syncs all mirrors. Raises :class:`RuntimeError` when it fails."""
        ...


@dataclass
class _AirflowRun:
    """A DAG run with a task for each chunk, from the trigger to the run's end by Airflow's own clock."""

    airflow: AirflowInstance
    name: str

    def sync(self) -> _Sync:
        dag_id = DAG_IDS[self.name]
        began = time.time()
        run_id = self.airflow.trigger(dag_id)
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        while (run := self.airflow.api("GET", path))["state"] not in ("success", "failed"):
            time.sleep(_POLL_SECONDS)
        seconds = dt.datetime.fromisoformat(run["end_date"].replace("Z", "+00:00")).timestamp() - began
        tasks = self.airflow.task_states(run_id)
        if run["state"] != "success":
            raise RuntimeError(f"the run failed: {self.airflow.reasons(run_id)}")
        used = [self.airflow.xcom(run_id, "sync_mirrors", map_index=index) for index in range(len(tasks))]
        cpu_seconds = sum(task["cpu_seconds"] for task in used)
        started_at = min(task["began_at"] for task in used)
        peak_mib = max(task["peak_kib"] for task in used) / 1024
        return _Sync(seconds, cpu_seconds, len(tasks), peak_mib, started_at - began)


@dataclass
class _Regsync:
    """``regsync once`` into OCI layouts."""

    netloc: str
    repositories: list[str]
    folder: Path
    name: str = OTHER
    _config: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config = self.folder / "regsync.yml"
        entries = [
            {"source": f"{self.netloc}/{name}", "target": f"ocidir://{self.folder}/{name}", "type": "repository"}
            for name in self.repositories
        ]
        creds = [{"registry": self.netloc, "tls": "disabled", "reqConcurrent": CONNECTIONS}]
        defaults = {"parallel": CONNECTIONS}
        self._config.write_text(json.dumps({"version": 1, "creds": creds, "defaults": defaults, "sync": entries}))

    def sync(self) -> _Sync:
        began = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            command = [str(REGSYNC), "once", "-c", str(self._config), "-v", "error"]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-300:])
        seconds = time.perf_counter() - began
        return _Sync(seconds, usage.ru_utime + usage.ru_stime, 0, usage.ru_maxrss / 1024)


class _Upstream(Protocol):
    """The registry that both sync from; ``url`` and ``netloc`` are known once it runs."""

    url: str
    netloc: str

    def place(self, contents: Mapping[str, RepositoryContent]) -> None:
        """Gives repositories their content."""
        ...

    def counts(self) -> dict[str, int]:
        """The requests since it started, by method."""
        ...


class _DockerRegistry:
    """Debian's docker-registry, whose list of tags has no digests."""

    def __init__(self, server: RegistryServer) -> None:
        self._server = server
        self.url, self.netloc = server.url, server.netloc

    def place(self, contents: Mapping[str, RepositoryContent]) -> None:
        """Onto its disk."""
        for name, content in contents.items():
            filling.place(self._server, name, content)

    def counts(self) -> dict[str, int]:
        """By its access log."""
        found: Counter[str] = Counter()
        for (method, _kind), count in self._server.log().counts.items():
            found[method] += count
        return found


class _ListingRegistry:
    """Our pull server, whose list of tags has digests; what it serves is synced from a registry in memory."""

    def __init__(self, here: Installation, origin: MemoryRegistry, server: PullServer, log: Path) -> None:
        self._here, self._origin, self._log = here, origin, log
        self.url, self.netloc = server.url, server.netloc

    def place(self, contents: Mapping[str, RepositoryContent]) -> None:
        """By a sync of each."""
        for name, content in contents.items():
            self._origin.serve(name, content)
            self._here.sync(name, self._origin.url, name)
            if self._here.database.distributions.by_base_path(name) is None:
                repository = self._here.database.repositories.by_name(name)
                said = DistributionSpec(name, name, repository.id, is_private=False)
                self._here.database.distributions.create(said)

    def counts(self) -> dict[str, int]:
        """By its access log."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return Counter(json.loads(line)["method"] for line in lines)


@contextmanager
def _upstream(folder: Path, *, lists_digests: bool) -> Iterator[_Upstream]:
    if not lists_digests:
        with RegistryServer(folder / "registry") as server:
            yield _DockerRegistry(server)
        return
    (folder / "upstream").mkdir()
    here, log = Installation.embedded(folder / "upstream"), folder / "upstream.log"
    with MemoryRegistry() as origin, PullServer(folder / "upstream", access_log=str(log)) as pulls:
        yield _ListingRegistry(here, origin, pulls, log)
    here.database.close()


#: Networks over which a fleet can be measured.
FLEET_NETWORKS = (LOOPBACK, *LINKS)


def measure(
    mirror_count: int,
    runs: int,
    say: Callable[[str], None],
    *,
    lists_digests: bool = False,
    network: str = LOOPBACK,
) -> list[FleetPass]:
    """All passes of both, in turn; those after the first ``runs`` times, of which each has the medians."""
    names = [f"team/app-{number:04}" for number in range(mirror_count)]
    with ExitStack() as closing:
        folder = Path(closing.enter_context(TemporaryDirectory()))
        server = closing.enter_context(_upstream(folder, lists_digests=lists_digests))
        reached = closing.enter_context(_reached(server.netloc, network, say))
        say(f"Placing {mirror_count:,} repositories of {TAGS} tags")
        server.place({name: small_repository(number, tags=TAGS) for number, name in enumerate(names)})
        airflow = closing.enter_context(_airflow(folder, f"http://{reached[OWN]}", names))
        contenders: list[_Contender] = [_AirflowRun(airflow, EMPTY), _AirflowRun(airflow, OWN)]
        if REGSYNC.exists():
            contenders.append(_Regsync(reached[OTHER], names, folder / "regsync"))
        found: list[FleetPass] = []
        for which, number in [(PASSES[0], 1), *((which, number) for which in PASSES[1:] for number in range(runs))]:
            if which == PASSES[2]:
                # Another tag than those of the passes before, in each tenth repository.
                moved = {
                    name: small_repository(seed, tags=TAGS, moved=number + 1)
                    for seed, name in enumerate(names)
                    if seed % 10 == 0
                }
                server.place(moved)
            for contender in contenders:
                found.append(_pass(contender, which, server))
                say(str(found[-1]))
        return medians(found)


def medians(passes: Iterable[FleetPass]) -> list[FleetPass]:
    """One of each pass of each contender, with the medians of what was measured of it."""
    by_pass: dict[tuple[str, str], list[FleetPass]] = {}
    for one in passes:
        by_pass.setdefault((one.which, one.contender), []).append(one)
    return [_median(same) for same in by_pass.values()]


def _median(passes: Sequence[FleetPass]) -> FleetPass:
    values = [asdict(one) for one in passes]
    measured = {
        name: type(value)(median(one[name] for one in values))
        for name, value in values[0].items()
        if not isinstance(value, str)
    }
    return replace(passes[0], **measured)


def _pass(contender: _Contender, which: str, server: _Upstream) -> FleetPass:
    before = server.counts()
    done = contender.sync()
    counts = Counter(server.counts())
    counts.subtract(before)
    return FleetPass(contender.name, which, **vars(done), head_count=counts["HEAD"], request_count=sum(counts.values()))


@contextmanager
def _reached(netloc: str, network: str, say: Callable[[str], None]) -> Iterator[Mapping[str, str]]:
    """Where each contender reaches the registry: itself, or a link of its own to it."""
    if network == LOOPBACK:
        yield dict.fromkeys((OWN, OTHER), netloc)
        return
    port, link = int(netloc.rpartition(":")[2]), LINKS[network]
    proxies = {name: DelayingProxy(port, link.round_trip_seconds, link.bits_per_second) for name in (OWN, OTHER)}
    with ExitStack() as closing:
        for proxy in proxies.values():
            closing.enter_context(proxy)
        yield {name: proxy.netloc for name, proxy in proxies.items()}
    for name, proxy in proxies.items():
        count, most, cpu = proxy.connection_count, proxy.most_waiting, proxy.cpu_seconds
        say(f"{name}: {count:,} connections, at most {most} requests at once; {cpu:.1f} CPU-s of the link")


@contextmanager
def _airflow(folder: Path, url: str, names: list[str]) -> Iterator[AirflowInstance]:
    dags = folder / "dags"
    dags.mkdir()
    # As regsync by default, without referrers: at a registry that lists them each manifest would be asked for its own.
    of_all = {"url": url, "include_referrers": False, "download_concurrency": CONNECTIONS // CHUNKS}
    mirrors: list[dict[str, Any]] = [{"repository": name, "upstream_name": name, **of_all} for name in names]
    size = -(-len(mirrors) // CHUNKS)
    chunks = [mirrors[start : start + size] for start in range(0, len(mirrors), size)]
    (dags / "fleet.json").write_text(json.dumps(chunks))
    for name, dag_id in DAG_IDS.items():
        (dags / f"{dag_id}.py").write_text(_dag(name))
    with AirflowInstance(folder / "airflow", dags=dags) as airflow:
        for dag_id in DAG_IDS.values():
            airflow.await_dag(dag_id)
        yield airflow
    shutil.rmtree(folder / "airflow", ignore_errors=True)


def _dag(name: str) -> str:
    """The DAG file of a contender."""
    return _DAG.format(dag_id=DAG_IDS[name], is_whole=name == OWN, concurrency=CONNECTIONS // CHUNKS)


@dataclass(frozen=True)
class Comparison:
    """One pass of ours beside another program's: ``airflow_seconds`` are those of the same tasks with empty bodies."""

    which: str
    seconds: float
    other_seconds: float
    airflow_seconds: float

    @property
    def beyond_seconds(self) -> float:
        """How much longer than the other and Airflow together; not above zero where the start explains the rest."""
        return self.seconds - self.other_seconds - self.airflow_seconds

    @property
    def ratio(self) -> float:
        """How many times as fast as the other, without what Airflow itself takes; infinite where that is all."""
        own = self.seconds - self.airflow_seconds
        return self.other_seconds / own if own > 0 else math.inf

    def __str__(self) -> str:
        verdict = "no longer" if self.beyond_seconds <= 0 else f"{self.beyond_seconds:.1f} s longer"
        return (
            f"{self.which:<10} {OWN} / {OTHER}: {self.seconds / self.other_seconds:.2f}; {verdict} than {OTHER} "
            f"({self.other_seconds:.1f} s) and {EMPTY} ({self.airflow_seconds:.1f} s) together; "
            f"without these {self.ratio:.2f} times as fast"
        )


def comparisons(passes: Iterable[FleetPass]) -> list[Comparison]:
    """Of the passes that all have made."""
    by_pass: dict[str, dict[str, float]] = {}
    for one in passes:
        by_pass.setdefault(one.which, {})[one.contender] = one.seconds
    return [
        Comparison(which, seconds[OWN], seconds[OTHER], seconds[EMPTY])
        for which, seconds in by_pass.items()
        if seconds.keys() >= {OWN, OTHER, EMPTY}
    ]


def table(passes: Sequence[FleetPass]) -> str:
    """A line for each pass, and one for each beside the other program."""
    return "\n".join(map(str, [*passes, *comparisons(passes)]))


def as_json(
    passes: Sequence[FleetPass], mirror_count: int, *, lists_digests: bool, network: str = LOOPBACK
) -> dict[str, Any]:
    """What was measured of one registry over one network."""
    return {
        "mirror_count": mirror_count,
        "registry": "our pull server, which lists digests" if lists_digests else "docker-registry",
        "network": network,
        "passes": [vars(one) for one in passes],
        "comparisons": [{**vars(one), "beyond_seconds": one.beyond_seconds} for one in comparisons(passes)],
    }
