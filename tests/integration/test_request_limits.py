"""What a connection allows on a host is kept by all tasks of a stage together, at work at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from support.serving import serve
from support.shapes import wide
from support.timed_registry import TimedRegistry

pytestmark = pytest.mark.rule("A9.8")
NAME = "team/app"
CONTENT = wide(0.01, tags=12)
assert len(CONTENT.blobs) == 48


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of its own, and a shard of blobs for each MiB of work, of which each blob counts one."""
    values = {
        "SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'registry_sync.db'}",
        "BLOB_STORE": (tmp_path / "blobs").as_uri(),
        "MAX_SHARDS": "4",
        "MIN_SHARD_MIB": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__REGISTRY_SYNC__{name}", value)


@pytest.fixture
def registry() -> Iterator[TimedRegistry]:
    with TimedRegistry(service_seconds=0.02) as server:
        serve(server, NAME, CONTENT)
        yield server


Connect = Callable[..., str]


@pytest.fixture
def connect(registry: TimedRegistry, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Defines a connection to the registry with these fields, and gives its id."""

    def make(**extra: Any) -> str:
        connection = {"conn_type": "registry", "host": registry.base, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LIMITED", json.dumps(connection))
        return "limited"

    return make


class TaskInstance(SimpleNamespace):
    """What the operators ask of Airflow's, with what they hand on."""

    def __init__(self) -> None:
        super().__init__(
            dag_id="d", run_id="r", task_id="list_tags", map_index=-1, try_number=1, max_tries=4, returned={}
        )

    def xcom_push(self, key: str, value: Any) -> None:
        self.returned[key] = value


class Stages:
    """The operators of one sync, mapped ones at work at the same time as on several workers."""

    def __init__(self, registry: TimedRegistry, conn_id: str) -> None:
        self._registry = registry
        self._conn_id = conn_id
        self._sync_run = ""

    def list_tags(self) -> list[dict[str, Any]]:
        ti = TaskInstance()
        operator = ListTagsOperator(
            task_id="list_tags", repository="r", url=self._registry.base, upstream_name=NAME, conn_id=self._conn_id
        )
        dag_run = SimpleNamespace(conf=None)
        shards = operator.execute({"ti": ti, "dag_run": dag_run})  # type: ignore[typeddict-item]
        self._sync_run = ti.returned["sync_run"]
        return shards

    def plan_blobs(self) -> list[dict[str, Any]]:
        operator = PlanBlobsOperator(task_id="plan_blobs", sync_run=self._sync_run)
        return operator.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]

    def at_once(self, operator: type[Any], shards: list[dict[str, Any]]) -> list[dict[str, int]]:
        def work(shard: dict[str, Any]) -> dict[str, int]:
            task: Any = operator(task_id=f"task_{shard['shard']}", shard=shard)
            return dict(task.execute({"ti": TaskInstance()}))

        with ThreadPoolExecutor(len(shards)) as pool:
            return list(pool.map(work, shards))

    def commit(self) -> dict[str, Any]:
        operator = CommitVersionOperator(task_id="commit_version", sync_run=self._sync_run)
        events = {key: SimpleNamespace(add=lambda *_a, **_k: None) for key in operator.outlets}
        return operator.execute({"ti": TaskInstance(), "outlet_events": events})  # type: ignore[typeddict-item]

    def up_to_blobs(self) -> list[dict[str, Any]]:
        """Everything before the blobs; gives their shards."""
        self.at_once(FetchManifestsOperator, self.list_tags())
        return self.plan_blobs()


def test_mapped_tasks_together_keep_to_the_requests_per_second(registry: TimedRegistry, connect: Connect) -> None:
    rate = 60.0
    stages = Stages(registry, connect(requests_per_second=rate))
    shards = stages.up_to_blobs()
    assert [shard["shards"] for shard in shards] == [4, 4, 4, 4]
    registry.forget()
    fetched = stages.at_once(FetchBlobsOperator, shards)
    assert sum(counts["fetched_count"] for counts in fetched) == len(registry.came_at) == 48
    assert registry.duration_seconds >= (48 - len(shards)) / rate * 0.97
    # each task's first comes at once; another two for turns that were late and met the next
    assert registry.most_within(0.3) <= 0.3 * rate + len(shards) + 2
    assert len(stages.commit()["version"]["content_summary"]["present"]) == 3


def test_one_task_keeps_to_the_requests_per_second_in_every_second(registry: TimedRegistry, connect: Connect) -> None:
    rate = 30.0
    Stages(registry, connect(requests_per_second=rate)).at_once(
        FetchManifestsOperator, Stages(registry, "limited").list_tags()
    )
    count = len(registry.came_at)
    assert count >= 1 + 12 + 12, "a list, the HEADs and the manifests"
    assert registry.duration_seconds >= (count - 2) / rate * 0.97
    assert registry.most_within(0.3) <= 0.3 * rate + 2 + 1


def test_without_a_limit_the_same_is_faster_than_any_limit_here(registry: TimedRegistry, connect: Connect) -> None:
    """Else the two tests above would show nothing."""
    stages = Stages(registry, connect())
    shards = stages.up_to_blobs()
    registry.forget()
    stages.at_once(FetchBlobsOperator, shards)
    assert registry.most_within(0.3) > 0.3 * 60 + 4 + 2
    assert registry.most_at_work > 5


@pytest.mark.parametrize(("allowed", "tasks"), [(1, 1), (2, 2), (5, 4), (8, 4)])
def test_mapped_tasks_together_keep_to_the_requests_at_a_time(
    registry: TimedRegistry, connect: Connect, allowed: int, tasks: int
) -> None:
    stages = Stages(registry, connect(host_concurrency=allowed))
    shards = stages.up_to_blobs()
    assert len(shards) == tasks
    stages.at_once(FetchBlobsOperator, shards)
    assert 1 <= registry.most_at_work <= allowed
    assert stages.commit()["hold_count"] == 0
