"""What it costs that others watch: the same syncs by three Airflows in turn, one of which sends all that it can.

One sends metrics to StatsD, spans to a collector, a message of each new version to a webhook, and lineage to an HTTP
server from a thread of the task, as ``make up`` sets it. One does the same with the default of Airflow's provider for
OpenLineage, which forks a process at the start and end of each task. One sends all but lineage, and one nothing. All
have the same mirror, of one registry, and the receivers are on the same machine. Asset events are sent by all, as they
always are. The ratios are medians of pairs: of a sync, and of the one beside it that sends nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.results import Passes
from local_airflow.layout import CHECKOUT
from support import filling, shapes
from support.airflow_instance import AirflowInstance
from support.registry import RegistryServer

DAG_ID = "mirror.watched"
PLAIN, WITHOUT_LINEAGE, FORKED, ALL = "nothing", "all but lineage", "all, lineage by forks", "all"
LINEAGE = CHECKOUT / ".local/lineage"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ObservedShape:
    """The passes of one shape, first and unchanged, with everything switched on and without."""

    shape: str
    first: dict[str, Passes] = field(default_factory=dict)
    again: dict[str, Passes] = field(default_factory=dict)
    #: Datagrams of StatsD and requests of the other receivers, of all passes together.
    received: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        passes = {"first": self.first, "unchanged": self.again}
        return {
            "shape": self.shape,
            "received": self.received,
            **{which: {name: one.as_json() for name, one in by.items()} for which, by in passes.items()},
        }

    def __str__(self) -> str:
        lines = []
        for which, by_name in (("first", self.first), ("unchanged", self.again)):
            plain = by_name[PLAIN]
            for name in (WITHOUT_LINEAGE, FORKED, ALL):
                watched = by_name[name]
                ratio = statistics.median(a / b for a, b in zip(watched.seconds, plain.seconds, strict=True))
                medians = f"{watched.median:.2f} s for {plain.median:.2f}"
                lines.append(f"{self.shape}, {which}, {name}: {medians}, {ratio:.3f}")
        return "\n".join([*lines, f"received: {self.received}"])


class _Sink(BaseHTTPRequestHandler):
    """Takes any POST and counts it by the first part of its path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count(self.path.strip("/").partition("/")[0])  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_what: Any) -> None:
        """Nothing."""


class _Receivers(ThreadingHTTPServer):
    """One HTTP server for spans, lineage and messages, and a socket for StatsD; ``received`` counts what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Sink)
        self.received: dict[str, int] = {}
        self._lock = threading.Lock()
        self.statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.statsd.bind(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, what: str) -> None:
        with self._lock:
            self.received[what] = self.received.get(what, 0) + 1

    def count_datagrams(self) -> None:
        """Counts those of registry-sync until the socket is closed."""
        while data := self.statsd.recv(65536):
            if b"registry_sync." in data:
                self.count("statsd")

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.statsd.getsockname())
        self.shutdown()
        self.server_close()


@contextmanager
def _receivers() -> Iterator[_Receivers]:
    server = _Receivers()
    threads = [threading.Thread(target=run) for run in (server.serve_forever, server.count_datagrams)]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        server.close()
        for thread in threads:
            thread.join()
        server.statsd.close()


def measure(names: list[str], runs: int, say: Callable[[str], None]) -> list[ObservedShape]:
    """First and unchanged syncs of each shape, by each Airflow in turn."""
    results = []
    with TemporaryDirectory() as folder, RegistryServer(Path(folder) / "registry") as registry:
        for name in names:
            say(f"Building and placing {name}")
            filling.place(registry, name, shapes.SHAPES[name]())
            results.append(_measure_shape(name, runs, registry.url, Path(folder) / name, say))
    return results


def _measure_shape(name: str, runs: int, registry_url: str, folder: Path, say: Callable[[str], None]) -> ObservedShape:
    result = ObservedShape(name)
    with ExitStack() as closing:
        receivers = closing.enter_context(_receivers())
        airflows = {
            which: closing.enter_context(_airflow(folder / which, f"{registry_url}/{name}", receivers, which))
            for which in (PLAIN, WITHOUT_LINEAGE, FORKED, ALL)
        }
        for airflow in airflows.values():  # the first run of an Airflow imports what later ones have
            airflow.await_dag(DAG_ID)
            _sync(airflow)
        receivers.received.clear()
        for number in range(runs):
            for which in list(airflows)[:: -1 if number % 2 else 1]:  # each as often before as after the others
                shutil.rmtree(airflows[which].home / "registry_sync", ignore_errors=True)
                for passes in (result.first, result.again):
                    passes.setdefault(which, Passes()).seconds.append(_sync(airflows[which]))
                say(f"{name}, {which}: {result.first[which].seconds[-1]:.2f} {result.again[which].seconds[-1]:.2f}")
        result.received.update(receivers.received)
    return result


@contextmanager
def _airflow(folder: Path, source: str, receivers: _Receivers, which: str) -> Iterator[AirflowInstance]:
    folder.mkdir(parents=True)
    is_observed = which != PLAIN
    notify = "\n    notify: [{on: [changed, held, guard, failed, throttled], to: hook}]" if is_observed else ""
    (folder / "mirrors.yaml").write_text(
        f"version: 1\nmirrors:\n  - repository: watched\n    source: {source}\n    retries: 0{notify}\n"
    )
    settings: dict[str, dict[str, str]] = {"registry_sync": {"fleet_path": str(folder / "mirrors.yaml")}}
    env: dict[str, str] = {}
    if is_observed:
        port = receivers.statsd.getsockname()[1]
        settings["metrics"] = {
            "statsd_on": "True",
            "statsd_host": "127.0.0.1",
            "statsd_port": str(port),
            "statsd_influxdb_enabled": "True",
        }
        settings["traces"] = {"otel_on": "True"}
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receivers.url,
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "AIRFLOW_CONN_HOOK": json.dumps({"conn_type": "http", "host": f"{receivers.url}/message"}),
        }
    if which in (FORKED, ALL):
        settings["openlineage"] = {
            "transport": json.dumps({"type": "http", "url": receivers.url, "endpoint": "lineage"})
        }
        if which == FORKED:
            settings["openlineage"]["execute_in_thread"] = "False"
        env["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT / "plugins"), str(LINEAGE)])
    with AirflowInstance(folder / "airflow", settings=settings, env=env) as airflow:
        yield airflow


def _sync(airflow: AirflowInstance) -> float:
    """Seconds of one run, from its start to its end, by Airflow's clock. Raises :class:`RuntimeError`."""
    run_id = airflow.trigger(DAG_ID)
    state = airflow.wait(run_id)
    if state != "success":
        raise RuntimeError(f"the run failed: {airflow.reasons(run_id)}")
    run = airflow.api("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}")
    time.sleep(_POLL_SECONDS)
    return float(run["duration"])
