"""Counters summed over processes, as Prometheus reads them."""

from __future__ import annotations

import multiprocessing
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from registry_sync.domain.serving import PullRecord
from registry_sync.errors import ConfigurationError
from registry_sync.serve.metrics import (
    BUCKETS,
    CONTENT_TYPE,
    ON_DEMAND,
    MetricsServer,
    PullMetrics,
    check_address,
    metrics_address,
)
from unit.serve.conftest import PullDesk, client

PULL = PullRecord(
    at=datetime(2026, 3, 1, tzinfo=timezone.utc),
    method="GET",
    kind="manifests",
    status=200,
    seconds=0.003,
    sent_bytes=700,
    tag="latest",
)
_LINE = re.compile(r'[a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? [0-9.e+-]+')


def _samples(metrics: PullMetrics) -> dict[str, float]:
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.text().splitlines()
        if not line.startswith("#")
    }


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[PullMetrics]:
    metrics = PullMetrics(tmp_path / "numbers")
    yield metrics
    metrics.close()


def test_a_pull_is_counted_by_kind_status_and_way(metrics: PullMetrics) -> None:
    metrics.count(PULL)
    metrics.count(replace(PULL, tag=None))
    metrics.count(replace(PULL, kind="blobs", tag=None, sent_bytes=300))
    metrics.count(replace(PULL, method="HEAD", sent_bytes=0))
    samples = _samples(metrics)
    assert samples['registry_sync_requests_total{kind="manifests",method="GET",status="200"}'] == 2
    assert samples['registry_sync_requests_total{kind="manifests",method="HEAD",status="200"}'] == 1
    assert samples['registry_sync_pulls_total{by="tag"}'] == 1
    assert samples['registry_sync_pulls_total{by="digest"}'] == 1
    assert samples["registry_sync_blob_pulls_total"] == 1
    assert samples["registry_sync_sent_bytes_total"] == 1700


def test_an_error_is_counted_by_its_code(metrics: PullMetrics) -> None:
    metrics.count(replace(PULL, status=404, code="MANIFEST_UNKNOWN"))
    metrics.count(replace(PULL, status=418, code="A_CODE_OF_TOMORROW", kind="a kind of tomorrow", method="BREW"))
    samples = _samples(metrics)
    assert samples['registry_sync_errors_total{code="MANIFEST_UNKNOWN"}'] == 1
    assert samples['registry_sync_errors_total{code="other"}'] == 1
    assert samples['registry_sync_requests_total{kind="other",method="other",status="other"}'] == 1
    assert samples['registry_sync_pulls_total{by="tag"}'] == 0


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (300.0, "300.0"), (301.0, "+Inf")]
)
def test_a_latency_is_in_every_bucket_from_its_bound_on(metrics: PullMetrics, seconds: float, bound: str) -> None:
    metrics.count(replace(PULL, seconds=seconds))
    samples, bounds = _samples(metrics), [*map(repr, BUCKETS), "+Inf"]
    name = "registry_sync_request_seconds"
    counted = [samples[f'{name}_bucket{{kind="manifests",le="{each}"}}'] for each in bounds]
    first = bounds.index(bound)
    assert counted == [0] * first + [1] * (len(bounds) - first)
    assert samples[f'{name}_count{{kind="manifests"}}'] == 1
    assert samples[f'{name}_sum{{kind="manifests"}}'] == seconds
    assert samples[f'{name}_count{{kind="blobs"}}'] == 0


def test_what_is_fetched_on_demand_is_counted(metrics: PullMetrics) -> None:
    for amount, event in enumerate(ON_DEMAND, start=1):
        metrics.count_on_demand(event, amount)
    samples = _samples(metrics)
    assert [samples[name] for name, _ in ON_DEMAND.values()] == [1, 2, 3, 4]


def test_the_text_is_that_of_the_format(metrics: PullMetrics) -> None:
    metrics.count(PULL)
    lines = metrics.text().splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in lines:
        assert re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|histogram))", line) or _LINE.fullmatch(line)
        assert line.startswith("#") or any(line.startswith(family) for family in families)
    assert metrics.text().endswith("\n")


def _count_many(path: Path, count: int) -> None:
    metrics = PullMetrics(path)
    for _ in range(count):
        metrics.count(PULL)
    metrics.close()


@pytest.mark.slow
def test_processes_count_together_and_what_an_ended_one_counted_stays(tmp_path: Path, metrics: PullMetrics) -> None:
    path, context = tmp_path / "numbers", multiprocessing.get_context("fork")
    for _ in range(2):
        workers = [context.Process(target=_count_many, args=(path, 500)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
    metrics.count(PULL)
    assert _samples(metrics)['registry_sync_pulls_total{by="tag"}'] == 3001


def test_threads_of_a_process_lose_nothing(metrics: PullMetrics) -> None:
    threads = [
        threading.Thread(target=lambda: [metrics.count_on_demand("bytes", 1) for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _samples(metrics)["registry_sync_upstream_bytes_total"] == 8000


def test_metrics_are_had_at_an_address_of_their_own_and_nothing_else_is(metrics: PullMetrics) -> None:
    server = MetricsServer(metrics, "127.0.0.1", 0)
    try:
        metrics.count(PULL)
        with requests.Session() as session:
            session.trust_env = False
            found = session.get(f"http://127.0.0.1:{server.port}/metrics", timeout=10)
            assert (found.status_code, found.headers["Content-Type"]) == (200, CONTENT_TYPE)
            assert 'registry_sync_pulls_total{by="tag"} 1' in found.text
            assert session.get(f"http://127.0.0.1:{server.port}/v2/", timeout=10).status_code == 404
            assert session.post(f"http://127.0.0.1:{server.port}/metrics", timeout=10).status_code == 501
    finally:
        server.close()


def test_the_pull_port_has_no_metrics(desk: PullDesk, metrics: PullMetrics) -> None:
    async def story() -> tuple[int, int]:
        async with client(desk.make(observers=[metrics.count])) as http:
            return (await http.get("/metrics")).status_code, (await http.get("/v2/app/manifests/latest")).status_code

    assert desk.play(story()) == (404, 200)
    samples = _samples(metrics)
    assert samples['registry_sync_errors_total{code="NOT_FOUND"}'] == 1
    assert samples['registry_sync_pulls_total{by="tag"}'] == 1


def test_an_address_that_another_program_has_is_found_out_before_the_server_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9105", ("127.0.0.1", 9105)), ("[::1]:9105", ("::1", 9105)), ("metrics.local:0", ("metrics.local", 0))],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert metrics_address(text) == address


@pytest.mark.parametrize("text", ["9105", ":9105", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        metrics_address(text)
