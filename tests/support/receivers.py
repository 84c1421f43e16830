"""Real receivers of metrics and traces, as ``make receivers`` builds them, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

PROGRAMS = Path(__file__).parents[2] / ".local/receivers/bin"
_HOST = "127.0.0.1"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """What ``found`` gives as soon as it is true; a URL that is not served yet gives nothing."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := found():
                return value
        except (URLError, OSError):
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def fetch(url: str, **query: str) -> str:
    """The body of a URL."""
    with urlopen(f"{url}?{urlencode(query)}" if query else url, timeout=10) as response:
        return str(response.read().decode())


def _listens(port: int) -> bool:
    with socket.create_connection((_HOST, port), 1):
        return True


@contextmanager
def running(log: Path, *command: str) -> Iterator[None]:
    """Runs a program until the end; what it prints is in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class StatsdExporter:
    """Prometheus' ``statsd_exporter``: StatsD to UDP ``port``, and what it made of it at ``url``."""

    port: int
    url: str

    def samples(self) -> dict[str, dict[str, float]]:
        """Values by name and by the labels as they are written, of registry-sync's metrics alone."""
        found: dict[str, dict[str, float]] = {}
        for line in fetch(self.url).splitlines():
            if line.startswith("airflow_registry_sync_"):
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                found.setdefault(name, {})[labels.rstrip("}")] = float(value)
        return found


@contextmanager
def statsd_exporter(folder: Path) -> Iterator[StatsdExporter]:
    """Runs it, without a mapping."""
    web, port = free_port(), free_port(socket.SOCK_DGRAM)
    url = f"http://{_HOST}:{web}/metrics"
    options = (f"--web.listen-address={_HOST}:{web}", f"--statsd.listen-udp={_HOST}:{port}", "--statsd.listen-tcp=")
    with running(folder / "statsd.log", str(PROGRAMS / "statsd_exporter"), *options):
        until(lambda: fetch(url), "statsd_exporter serves")
        yield StatsdExporter(port, url)


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that reads an exporter each second, with our alert rules."""

    url: str

    def query(self, expression: str) -> list[Any]:
        """The series of an expression at this moment; none for none."""
        found = json.loads(fetch(f"{self.url}/api/v1/query", query=expression))
        assert found["status"] == "success", found
        return list(found["data"]["result"])

    def rules(self) -> dict[str, str]:
        """The health of each alert rule, by its name."""
        groups = json.loads(fetch(f"{self.url}/api/v1/rules"))["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


@contextmanager
def prometheus(folder: Path, exporter: StatsdExporter, rules: Path) -> Iterator[Prometheus]:
    """Runs Debian's."""
    port = free_port()
    netloc = exporter.url.removeprefix("http://").removesuffix("/metrics")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "airflow", "static_configs": [{"targets": [netloc]}]}],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(configuration))
    options = (
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={_HOST}:{port}",
    )
    url = f"http://{_HOST}:{port}"
    with running(folder / "prometheus.log", "prometheus", *options):
        until(lambda: fetch(f"{url}/-/ready"), "Prometheus is ready")
        yield Prometheus(url)


@dataclass
class CollectorOutput:
    """What a real collector sent on, as OTLP in JSON; ``url`` is where it receives OTLP over HTTP."""

    url: str = ""
    documents: list[dict[str, Any]] = field(default_factory=list)

    def spans(self) -> list[dict[str, Any]]:
        """All spans, with their attributes as a mapping."""
        return [
            {**span, "attributes": _attributes(span.get("attributes", ()))}
            for document in list(self.documents)
            for resource in document.get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The attributes of the points of registry-sync's metrics, by the metric's name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for document in list(self.documents):
            for resource in document.get("resourceMetrics", ()):
                for metric in (each for scope in resource["scopeMetrics"] for each in scope["metrics"]):
                    if not metric["name"].startswith("airflow.registry_sync."):
                        continue
                    (data,) = (value for key, value in metric.items() if isinstance(value, dict) and key != "metadata")
                    points = [_attributes(point.get("attributes", ())) for point in data["dataPoints"]]
                    found.setdefault(metric["name"], []).extend(points)
        return found


def _attributes(listed: Any) -> dict[str, Any]:
    def value(typed: Mapping[str, Any]) -> Any:
        ((kind, found),) = typed.items()
        return int(found) if kind == "intValue" else found

    return {entry["key"]: value(entry["value"]) for entry in listed}


@contextmanager
def collector(folder: Path) -> Iterator[CollectorOutput]:
    """An OpenTelemetry collector that sends what it receives to this process."""
    output = CollectorOutput()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            output.documents.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_what: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((_HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = free_port()
    exporter = {
        "endpoint": f"http://{_HOST}:{server.server_port}",
        "encoding": "json",
        "compression": "none",
        "tls": {"insecure": True},
    }
    pipeline = {"receivers": ["otlp"], "exporters": ["otlp_http"]}
    configuration = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{_HOST}:{port}"}}}},
        "exporters": {"otlp_http": exporter},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": pipeline, "metrics": pipeline},
        },
    }
    output.url = f"http://{_HOST}:{port}"
    try:
        with running(
            folder / "collector.log", str(PROGRAMS / "collector"), "--config", f"yaml:{json.dumps(configuration)}"
        ):
            until(lambda: _listens(port), "the collector listens")
            yield output
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
