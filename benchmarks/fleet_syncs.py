"""A fleet of small mirrors in a real Airflow, and ``regsync once`` with the same content, from one registry.

Three passes: the first sync, one in which nothing has moved, and one in which a hundredth of the tags has. Both have as
many connections. ``regsync`` is left out where it is not installed.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from support import filling
from support.airflow_instance import AirflowInstance
from support.mirrors import small_repository
from support.registry import RegistryServer

DAG_ID = "benchmark_fleet"
TAGS = 10
CHUNKS = 4
CONNECTIONS = 20
REGSYNC = Path(".local/go/bin/regsync")
_POLL_SECONDS = 0.25
#: The DAG; its tasks also return the largest size of their process.
_DAG = """
from __future__ import annotations
import json, resource
from pathlib import Path
from airflow.sdk import DAG
from registry_sync.operators.sync_mirrors import SyncMirrorsOperator

class Measured(SyncMirrorsOperator):
    def execute(self, context):
        returned = super().execute(context)
        return {**returned, "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}

MIRRORS = json.loads((Path(__file__).parent / "fleet.json").read_text())
with DAG(dag_id="benchmark_fleet", schedule=None, catchup=False):
    Measured.partial(task_id="sync_mirrors", trust_triggers=True).expand(mirrors=MIRRORS)
"""


@dataclass(frozen=True)
class FleetPass:
    """One sync of all mirrors: seconds, tasks of Airflow (0 without), HEADs and other requests, the largest process."""

    contender: str
    which: str
    seconds: float
    task_count: int
    head_count: int
    request_count: int
    peak_mib: float

    def __str__(self) -> str:
        return (
            f"{self.which:<10} {self.contender:<14} {self.seconds:7.1f} s  {self.task_count:>2} tasks  "
            f"{self.head_count:>7,} HEADs  {self.request_count:>7,} requests  {self.peak_mib:6.0f} MiB"
        )


class _Contender(Protocol):
    name: str

    def sync(self) -> tuple[float, int, float]:
        """Seconds, tasks, and MiB of the largest process. Raises :class:`RuntimeError` when it fails."""
        ...


@dataclass
class _OwnFleet:
    """A DAG run with a task for each chunk, from the trigger to the run's end by Airflow's own clock."""

    airflow: AirflowInstance
    name: str = "registry-sync"

    def sync(self) -> tuple[float, int, float]:
        began = time.time()
        run_id = self.airflow.trigger(DAG_ID)
        path = f"/dags/{DAG_ID}/dagRuns/{run_id}"
        while (run := self.airflow.api("GET", path))["state"] not in ("success", "failed"):
            time.sleep(_POLL_SECONDS)
        seconds = dt.datetime.fromisoformat(run["end_date"].replace("Z", "+00:00")).timestamp() - began
        tasks = self.airflow.task_states(run_id)
        if run["state"] != "success":
            raise RuntimeError(f"the run failed: {self.airflow.reasons(run_id)}")
        peaks = [self.airflow.xcom(run_id, "sync_mirrors", map_index=index)["peak_kib"] for index in range(len(tasks))]
        return seconds, len(tasks), max(peaks) / 1024


@dataclass
class _Regsync:
    """``regsync once`` into OCI layouts."""

    netloc: str
    repositories: list[str]
    folder: Path
    name: str = "regsync"
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

    def sync(self) -> tuple[float, int, float]:
        began = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            command = [str(REGSYNC), "once", "-c", str(self._config), "-v", "error"]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-300:])
        return time.perf_counter() - began, 0, usage.ru_maxrss / 1024


def measure(mirror_count: int, say: Callable[[str], None]) -> list[FleetPass]:
    """All passes of both, in turn."""
    names = [f"team/app-{number:04}" for number in range(mirror_count)]
    with TemporaryDirectory() as folder, RegistryServer(Path(folder) / "registry") as server:
        say(f"Placing {mirror_count:,} repositories of {TAGS} tags")
        for number, name in enumerate(names):
            filling.place(server, name, small_repository(number, tags=TAGS))
        with _airflow(Path(folder), server.url, names) as airflow:
            contenders: list[_Contender] = [_OwnFleet(airflow)]
            if REGSYNC.exists():
                contenders.append(_Regsync(server.netloc, names, Path(folder) / "regsync"))
            found: list[FleetPass] = []
            for which in ("first", "unchanged", "1 % moved"):
                if which == "1 % moved":
                    _move(server, names)
                for contender in contenders:
                    found.append(_pass(contender, which, server))
                    say(str(found[-1]))
            return found


def _pass(contender: _Contender, which: str, server: RegistryServer) -> FleetPass:
    server.reset_counts()
    seconds, task_count, peak_mib = contender.sync()
    counts = server.log().counts
    heads = sum(count for (method, _), count in counts.items() if method == "HEAD")
    return FleetPass(contender.name, which, seconds, task_count, heads, sum(counts.values()), peak_mib)


def _move(server: RegistryServer, names: list[str]) -> None:
    """Moves one tag of every tenth repository: a hundredth of all."""
    for number in range(0, len(names), 10):
        filling.place(server, names[number], small_repository(number, tags=TAGS, moved=1))


@contextmanager
def _airflow(folder: Path, url: str, names: list[str]) -> Iterator[AirflowInstance]:
    dags = folder / "dags"
    dags.mkdir()
    mirrors: list[dict[str, Any]] = [{"repository": name, "url": url, "upstream_name": name} for name in names]
    size = -(-len(mirrors) // CHUNKS)
    chunks = [mirrors[start : start + size] for start in range(0, len(mirrors), size)]
    (dags / "fleet.json").write_text(json.dumps(chunks))
    (dags / "fleet.py").write_text(_DAG)
    with AirflowInstance(folder / "airflow", dags=dags) as airflow:
        airflow.await_dag(DAG_ID)
        yield airflow
    shutil.rmtree(folder / "airflow", ignore_errors=True)


def table(passes: list[FleetPass]) -> str:
    """A line for each pass, and ours as a multiple of the other's seconds."""
    lines = [str(one) for one in passes]
    by_pass: dict[str, dict[str, float]] = {}
    for one in passes:
        by_pass.setdefault(one.which, {})[one.contender] = one.seconds
    for which, seconds in by_pass.items():
        if len(seconds) > 1:
            lines.append(f"{which:<10} registry-sync / regsync: {seconds['registry-sync'] / seconds['regsync']:.2f}")
    return "\n".join(lines)
