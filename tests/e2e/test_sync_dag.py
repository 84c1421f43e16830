"""The DAG through a real scheduler, API server and DAG processor, triggered over REST."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from support.airflow_instance import AirflowInstance
from support.filling import place, push
from support.hostile_registry import HostileRegistry, Raw, Request
from support.images import ContentBuilder, RepositoryContent
from support.registry import RegistryServer
from support.serving import serve
from support.shapes import application, documented_example, wide


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


def counts(version: dict[str, Any], part: str) -> dict[str, int]:
    return {kind: unit["count"] for kind, unit in version["content_summary"][part].items()}


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``condition`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
    return found


def database_path(airflow: AirflowInstance) -> Path:
    return airflow.home / "registry_sync" / "registry_sync.db"


def stored(airflow: AirflowInstance, digest: Digest) -> bool:
    folder = airflow.home / "registry_sync" / "blobs" / digest.algorithm
    return (folder / digest.encoded[:2] / digest.encoded).exists()


def test_a_first_sync_makes_the_documented_version_and_a_second_none(
    airflow: AirflowInstance, registry: RegistryServer
) -> None:
    push(registry, "library/hello-world", documented_example())
    run = {"repository": "documented-example", "url": registry.url, "upstream_name": "library/hello-world"}
    first = airflow.sync(**run)
    version = airflow.xcom(first, "commit_version")["version"]
    expected = {"docker.blob": 31, "docker.manifest": 21, "docker.tag": 8}
    assert (counts(version, "added"), counts(version, "present"), counts(version, "removed")) == (
        expected,
        expected,
        {},
    )
    assert (version["number"], version["base_version"]) == (1, None)
    registry.reset_counts()
    second = airflow.sync(**run)
    states = airflow.task_states(second)
    assert states.pop("list_tags") == "success"
    assert set(states.values()) == {"skipped"}
    assert airflow.xcom(second, "list_tags", key="summary")["unchanged_version"] == version
    log = registry.log()
    assert (log.manifest_head_count, log.manifest_get_count, log.blob_get_count) == (8, 0, 0)


def test_a_changed_upstream_makes_version_2(airflow: AirflowInstance, registry: RegistryServer) -> None:
    content = wide(0.01, tags=6)
    push(registry, "team/app", content.closure(["build-0", "build-1", "build-2"]))
    run = {"repository": "changed", "url": registry.url, "upstream_name": "team/app"}
    airflow.sync(**run)
    push(registry, "team/app", content.closure(["build-3"]))
    registry.delete_tag("team/app", "build-0")
    version = airflow.xcom(airflow.sync(**run), "commit_version")["version"]
    assert version["base_version"].endswith("/versions/1/")
    assert counts(version, "added") == {"docker.blob": 4, "docker.manifest": 1, "docker.tag": 1}
    assert counts(version, "removed") == {"docker.blob": 4, "docker.manifest": 1, "docker.tag": 1}
    assert counts(version, "present") == {"docker.blob": 12, "docker.manifest": 3, "docker.tag": 3}


@pytest.mark.slow
def test_a_large_repository_is_fetched_by_mapped_tasks_with_readable_labels(
    airflow: AirflowInstance, registry: RegistryServer
) -> None:
    content = application(0.05)
    place(registry, "team/large", content)
    run = airflow.sync(repository="large", url=registry.url, upstream_name="team/large")
    labels = {(task["task_id"], task["map_index"]): task["rendered_map_index"] for task in airflow.task_instances(run)}
    assert ("fetch_manifests", 0) not in labels, "the listing has fetched the manifests"
    dot = " \N{MIDDLE DOT} "
    shards = [label for (task, index), label in labels.items() if task == "fetch_blobs" and index >= 0]
    assert len(shards) >= 2
    assert all(re.fullmatch(rf"\d/{len(shards)}{dot}\d+ blobs{dot}[\d.]+ [KM]iB", label) for label in shards)
    version = airflow.xcom(run, "commit_version")["version"]
    assert counts(version, "present")["docker.blob"] == len(content.blobs)


@pytest.mark.parametrize(
    ("conf", "task", "words"),
    [
        ({"url": None, "upstream_name": None}, "list_tags", "where to sync from"),
        ({"upstream_name": "no/such"}, "list_tags", "has no repository no/such"),
        ({"url": "ftp://registry"}, "list_tags", "Registry (url): "),
        ({"remote": "nobody", "url": None, "upstream_name": None}, "list_tags", "nobody"),
    ],
)
def test_a_failure_names_the_task_and_the_reason_and_is_not_tried_again(
    airflow: AirflowInstance, upstream: RegistryServer, conf: dict[str, Any], task: str, words: str
) -> None:
    run = airflow.trigger(conf={"repository": "failing", "url": upstream.url, **conf})
    assert airflow.wait(run) == "failed"
    reasons = airflow.reasons(run)
    assert words in reasons[task]
    assert words in airflow.task_log(run, task)
    assert [t["try_number"] for t in airflow.task_instances(run) if t["task_id"] == task] == [1]


def test_a_form_that_breaks_its_rules_is_refused_when_it_is_sent(airflow: AirflowInstance) -> None:
    for conf in ({"mode": "both"}, {"download_concurrency": 0}, {"repository": ""}):
        with pytest.raises(Exception, match="400"):
            airflow.trigger(conf={"repository": "refused", **conf})


class SlowRegistry:
    """Serves one image whose layer comes in slow pieces until :attr:`is_fast` is set; takes ranges."""

    def __init__(self, content: RepositoryContent, layer: Digest) -> None:
        self.server = serve(HostileRegistry(), "slow", content)
        self.is_fast = False
        self._data = content.blobs[layer].data
        self.path = f"/v2/slow/blobs/{layer}"
        self.server.on("GET", self.path, self._layer)

    def _layer(self, request: Request) -> Raw:
        start = int((request.header("range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        data, size = self._data[start:], len(self._data)
        status = f"206 Partial\r\nContent-Range: bytes {start}-{size - 1}/{size}" if start else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nContent-Type: application/octet-stream\r\n\r\n"
        pieces: list[bytes | float] = [head.encode()]
        for offset in range(0, len(data), 1 << 20):
            pieces += [data[offset : offset + (1 << 20)], 0.0 if self.is_fast else 0.25]
        return Raw(tuple(pieces), closes=True)


@pytest.fixture
def slow() -> Iterator[tuple[SlowRegistry, RepositoryContent, Digest]]:
    build = ContentBuilder(seed=time.time_ns() % 1_000_000)
    layer = build.blob(64 << 20)
    build.tag("latest", build.image([layer]))
    content = build.content()
    registry = SlowRegistry(content, layer)
    with registry.server:
        yield registry, content, layer


def test_a_task_killed_in_the_middle_of_a_blob_is_retried_and_continues_it(
    airflow: AirflowInstance, slow: tuple[SlowRegistry, RepositoryContent, Digest]
) -> None:
    registry, content, layer = slow
    run = airflow.trigger(conf={"repository": "killed", "url": registry.server.base, "upstream_name": "slow"})
    until(lambda: registry.server.asked("GET", registry.path))
    time.sleep(2)
    airflow.kill_task(run, "list_tags")
    assert not stored(airflow, layer), "no partial blob under a digest"
    registry.is_fast = True
    assert airflow.wait(run, timeout_seconds=180) == "success"
    version = airflow.xcom(run, "commit_version")["version"]
    assert counts(version, "present") == {
        "docker.blob": len(content.blobs),
        "docker.manifest": len(content.manifests),
        "docker.tag": 1,
    }
    assert version["number"] == 1
    assert stored(airflow, layer)
    again = registry.server.asked("GET", registry.path)[1]
    start = int((again.header("range") or "").removeprefix("bytes=").rstrip("-"))
    assert start >= 4 << 20, "what was there was not asked for again"


def test_a_task_killed_just_before_the_commit_is_retried_and_gives_the_same_version(
    airflow: AirflowInstance, registry: RegistryServer
) -> None:
    """The commit is kept waiting by a lock on the database, and killed while it waits."""
    content = wide(0.01, tags=3)
    push(registry, "team/commit", content)
    airflow.sync(repository="first-use", url=registry.url, upstream_name="team/commit")
    run = airflow.trigger(conf={"repository": "commit-killed", "url": registry.url, "upstream_name": "team/commit"})
    airflow.await_task(run, "list_tags", state="success")
    lock = sqlite3.connect(database_path(airflow), timeout=30, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    airflow.await_task(run, "commit_version", state="running")
    time.sleep(0.5)
    airflow.kill_task(run, "commit_version")
    lock.execute("ROLLBACK")
    lock.close()
    assert airflow.wait(run, timeout_seconds=180) == "success"
    assert [t["try_number"] for t in airflow.task_instances(run) if t["task_id"] == "commit_version"] == [2]
    version = airflow.xcom(run, "commit_version")["version"]
    assert version["number"] == 1
    assert counts(version, "present") == {
        "docker.blob": len(content.blobs),
        "docker.manifest": len(content.manifests),
        "docker.tag": 3,
    }
