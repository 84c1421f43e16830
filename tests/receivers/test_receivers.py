"""What a real Airflow's syncs send, received by a real StatsD, Prometheus and OpenTelemetry collector.

``make receivers`` builds these programs, and runs this.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local_airflow.layout import CHECKOUT
from registry_sync.hooks.sync_metrics import METRICS, TIMER
from support.airflow_instance import AirflowInstance
from support.hostile_registry import Raw, Request
from support.memory_over_http import over_http
from support.memory_registry import HELD, MemoryRegistry, refusal
from support.receivers import PROGRAMS, collector, prometheus, statsd_exporter, until
from support.shapes import documented_example, wide

DOCS = CHECKOUT / "docs/monitoring"
NAME = "library/hello-world"


@contextmanager
def upstream() -> Iterator[str]:
    """The URL of a registry that says how many pulls it allows, throttles a request once, and cannot send a blob."""
    registry = MemoryRegistry()
    content = documented_example()
    registry.serve(NAME, content)
    registry.serve("team/wide", wide(0.01, tags=3))
    registry.on("HEAD", "manifest", min(content.tags), refusal(429, retry_after_seconds=1), HELD)
    missing = next(iter(content.blobs))
    registry.on("GET", "blob", str(missing), refusal(404, "BLOB_UNKNOWN"))

    def with_limit(_request: Request, respond: Callable[[], Raw]) -> Raw:
        found = respond()
        head = found.pieces[0].replace(
            b"\r\n", b"\r\nRateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: 87;w=21600\r\n", 1
        )
        return Raw((head, *found.pieces[1:]))

    with over_http(registry, with_limit) as server:
        yield server.base


@contextmanager
def airflow(
    folder: Path, database: Path, settings: dict[str, dict[str, str]], env: dict[str, str] | None = None
) -> Iterator[AirflowInstance]:
    with AirflowInstance(folder, database=database, settings=settings, env=env or {}) as instance:
        yield instance


def sync_twice(instance: AirflowInstance, url: str) -> None:
    """A sync in stages with a held tag, and one whose blobs are in the store in part."""
    instance.sync(repository="hello", url=url, upstream_name=NAME)
    instance.sync(repository="library/again", url=url, upstream_name=NAME)


def test_statsd_and_prometheus_receive_every_metric_with_its_tags(tmp_path: Path, airflow_database: Path) -> None:
    with (
        statsd_exporter(tmp_path) as exporter,
        prometheus(tmp_path, exporter, DOCS / "registry-sync-alerts.yaml") as watcher,
        upstream() as url,
    ):
        statsd = {
            "statsd_on": "True",
            "statsd_host": "127.0.0.1",
            "statsd_port": str(exporter.port),
            "statsd_influxdb_enabled": "True",
        }
        with airflow(tmp_path / "airflow", airflow_database, {"metrics": statsd}) as instance:
            sync_twice(instance, url)
            received = exporter.samples()
            until(lambda: watcher.query("airflow_registry_sync_mirror_version"), "Prometheus has read the exporter")
            failing = instance.trigger(conf={"repository": "none", "url": url, "upstream_name": "no/such"})
            assert instance.wait(failing) == "failed"
            instance.sync(repository="wide", url=url, upstream_name="team/wide")
        for metric in METRICS.values():
            name = metric.name.replace(".", "_")
            series = received[f"airflow_{name}{'_count' if metric.kind == TIMER else ''}"]
            assert {tuple(sorted(re.findall(r'(\w+)="', labels))) for labels in series} == {tuple(sorted(metric.tags))}
        (version,) = watcher.query('airflow_registry_sync_mirror_version{mirror="hello"}')
        assert version["value"][1] == "1"
        assert version["metric"]["registry"] == url.removeprefix("http://").replace(":", "_")
        assert watcher.rules() == dict.fromkeys(watcher.rules(), "ok")
        board = json.loads((DOCS / "registry-sync-dashboard.json").read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                expression = re.sub(r"\$(registry|mirror)\b", ".*", target["expr"]).replace("$__rate_interval", "1m")
                assert until(lambda asked=expression: watcher.query(asked), panel["title"], 20)  # type: ignore[misc]


def test_a_collector_receives_metrics_and_the_spans_of_stages_below_those_of_tasks(
    tmp_path: Path, airflow_database: Path
) -> None:
    with collector(tmp_path) as received, upstream() as url:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        env |= {"OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_SERVICE_NAME": "airflow"}
        settings = {"metrics": {"otel_on": "True"}, "traces": {"otel_on": "True"}}
        with airflow(tmp_path / "airflow", airflow_database, settings, env) as instance:
            run = instance.sync(repository="hello", url=url, upstream_name=NAME)
            stages = ("list_tags", "fetch_manifests", "commit_version")
            spans = until(lambda: all_of(received.spans(), stages), "the spans of the stages")
            metrics = received.metrics()
            until(lambda: len(received.metrics()) >= 8, "the metrics")
            metrics = received.metrics()
    tasks = {
        span["name"].removeprefix("worker.").removesuffix("[0]"): span
        for span in received.spans()
        if "worker." in span["name"]
    }
    for stage in stages:
        span = spans[f"registry_sync.{stage}"]
        assert span["parentSpanId"] == tasks[stage]["spanId"]
        assert tasks[stage]["attributes"]["airflow.dag_run.run_id"] == run
        assert span["attributes"]["registry_sync.repository"] == "hello"
        assert span["attributes"]["registry_sync.registry"] == url.removeprefix("http://")
    assert len({span["traceId"] for span in spans.values()}) == 1
    assert spans["registry_sync.list_tags"]["attributes"]["registry_sync.requests.head"] == 8
    assert spans["registry_sync.list_tags"]["attributes"]["registry_sync.retries"] == 1
    assert spans["registry_sync.commit_version"]["attributes"]["registry_sync.version"] == 1
    names = {metric.name: set(metric.tags) for metric in METRICS.values()}
    sent = {name.removeprefix("airflow."): points for name, points in metrics.items()}
    assert {"registry_sync.requests", "registry_sync.stage.duration", "registry_sync.mirror.version"} <= sent.keys()
    for name, points in sent.items():
        assert {frozenset(point) for point in points} == {frozenset(names[name])}, name


def all_of(spans: list[dict[str, Any]], stages: tuple[str, ...]) -> dict[str, Any] | None:
    """The spans of the stages by name, once all are there."""
    found = {span["name"]: span for span in spans if span["name"].startswith("registry_sync.")}
    return found if found.keys() >= {f"registry_sync.{stage}" for stage in stages} else None


def test_grafanas_own_library_takes_the_dashboard_and_refuses_a_field_that_there_is_not() -> None:
    text = (DOCS / "registry-sync-dashboard.json").read_text()
    panels = len(json.loads(text)["panels"])

    def read(board: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAMS / "dashboard"], input=board, capture_output=True, text=True, check=False)

    assert (read(text).stdout, read(text).stderr) == (f"{panels} panels\n", "")
    assert "unexpected field 'gridPlace'" in read(text.replace('"gridPos"', '"gridPlace"')).stderr


@pytest.mark.parametrize("program", ["collector", "dashboard", "statsd_exporter"])
def test_the_programs_are_built(program: str) -> None:
    assert (PROGRAMS / program).exists()
