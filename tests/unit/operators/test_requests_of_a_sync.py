"""How many requests a sync over all its tasks makes before it may read: one that is refused, a token for each task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import SkipDownstreamTasks

from registry_sync.db.database import Database
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.sync_repository import FETCH_TASKS, add_stages
from registry_sync.operators.task_values import SYNC_RUN_KEY
from support.filling import place
from support.guarded import challenge
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.shapes import application
from support.task_contexts import TaskContext

NAME = "team/app"
TOKEN = "Bearer let-me-in"


class Door:
    """A registry that asks for a token, and counts whom it refuses."""

    def __init__(self, memory: MemoryRegistry) -> None:
        self.refused_count = self.token_count = 0
        self.server: HostileRegistry = over_http(memory, self._admit)
        self._lock = threading.Lock()

    def _admit(self, request: Request, respond: Callable[[], Raw]) -> Raw:
        if request.header("authorization") == TOKEN:
            return respond()
        with self._lock:
            self.refused_count += 1
        return challenge(f'Bearer realm="{self.server.base}/token",service="s"')

    def give(self, _request: Request) -> Raw:
        with self._lock:
            self.token_count += 1
        return json_reply({"token": "let-me-in", "expires_in": 300})


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MIN_SHARD_MIB", "16")
    with MemoryRegistry() as memory:
        place(memory, NAME, application(0.001, releases=6))
        found = Door(memory)
        with found.server:
            found.server.on("GET", "/token", found.give)
            yield found


def execute(operator: Any) -> tuple[Any, TaskContext]:
    context = TaskContext(dag_id="registry_sync")
    return operator.execute(context.given()), context


@pytest.mark.slow
def test_all_tasks_of_a_sync_are_refused_once_together(database: Database, door: Door) -> None:
    listing = ListTagsOperator(
        task_id="list_tags", repository="app", url=door.server.base, upstream_name=NAME, trust_triggers=True
    )
    shards, context = execute(listing)
    sync_run = context.returned[SYNC_RUN_KEY]
    for shard in shards:
        execute(FetchManifestsOperator(task_id="fetch_manifests", shard=shard))
    planned, _ = execute(PlanBlobsOperator(task_id="plan_blobs", sync_run=sync_run))
    assert len(planned) > 1
    for shard in planned:
        execute(FetchBlobsOperator(task_id="fetch_blobs", shard=shard))
    execute(CommitVersionOperator(task_id="commit_version", sync_run=sync_run))
    repository = database.repositories.by_name("app")
    assert database.versions.tags(repository.id) == application(0.001, releases=6).tags
    assert door.refused_count == 1
    assert door.token_count == 1 + len(shards) + len(planned), "one for each task that reads"


@pytest.mark.slow
def test_a_small_sync_is_two_tasks_with_one_token(
    database: Database, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = TaskContext(dag_id="registry_sync")
    with DAG("registry_sync", schedule=None):
        add_stages(
            listing := ListTagsOperator(
                task_id="list_tags",
                repository="app",
                url=door.server.base,
                upstream_name=NAME,
                trust_triggers=True,
                fetch_tasks=FETCH_TASKS,
            ),
            {},
        )
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MIN_SHARD_MIB", "1024")
    sent: list[Any] = []
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=sent.append), raising=False)
    (shard,) = listing.execute(context.given())  # type: ignore[arg-type]
    assert [{name for name, _ in message.tasks} for message in sent if isinstance(message, SkipDownstreamTasks)] == [
        set(FETCH_TASKS)
    ]
    assert shard["label"] == "7 tags", "for a task that is cleared"
    assert context.returned["fetched"]["tag_count"] == 7
    execute(CommitVersionOperator(task_id="commit_version", sync_run=context.returned[SYNC_RUN_KEY]))
    repository = database.repositories.by_name("app")
    assert database.versions.tags(repository.id) == application(0.001, releases=6).tags
    assert (door.refused_count, door.token_count) == (1, 1)


def test_a_listing_whose_tasks_serve_another_sync_too_fetches_nothing(database: Database, door: Door) -> None:
    said = {"url": door.server.base, "upstream_name": NAME, "trust_triggers": True, "fetch_tasks": ["plan_blobs"]}
    with DAG("two", schedule=None):
        one, two = (ListTagsOperator(task_id=name, repository=name, **said) for name in ("one", "two"))
        [one, two] >> PlanBlobsOperator(task_id="plan_blobs")
    context = TaskContext(dag_id="two")
    assert one.execute(context.given())[0]["label"] == "7 tags"  # type: ignore[arg-type]
    assert "fetched" not in context.returned


def test_a_sync_that_is_started_again_learns_again(database: Database, door: Door) -> None:
    listing = ListTagsOperator(
        task_id="list_tags", repository="app", url=door.server.base, upstream_name=NAME, trust_triggers=True
    )
    _, context = execute(listing)
    recorded = database.runs.get(context.returned[SYNC_RUN_KEY]).challenge
    assert recorded is not None
    assert recorded["realm"] == f"{door.server.base}/token"
    assert TOKEN.split()[1] not in str(recorded)
    execute(listing)
    assert door.refused_count == 2
