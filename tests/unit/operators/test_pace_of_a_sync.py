"""How many requests at once a sync begins with: as many as the one before has found, unless it was refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.domain.runs import SyncRun
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.task_values import SYNC_RUN_KEY
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply
from support.images import ContentBuilder
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.task_contexts import TaskContext

NAME = "team/app"
#: So many that the number of requests at once is doubled twice, and served.
TAG_COUNT = 200
PATIENCE_SECONDS = 5.0


class Far:
    """A registry whose responses take long; of the HEADs since a list the ``refused_number``-th is refused.

    ``connection_counts`` has how many connections were open when a list of tags was sent, and ``at_once_counts`` how
    many HEADs came before the first response to one. Both wait until as many are there as are ``expected``.
    """

    def __init__(self, memory: MemoryRegistry) -> None:
        self.seconds, self.refused_number, self.expected = 0.15, 0, 0
        self.server: HostileRegistry = over_http(memory, self._respond)
        self.connection_counts: list[int] = []
        self.at_once_counts: list[int] = []
        self._lock = threading.Lock()
        self._head_count, self._connections_before = 0, 0

    def _respond(self, request: Request, respond: Callable[[], Raw]) -> Raw:
        is_head = request.method == "HEAD"
        with self._lock:
            self._head_count += is_head
            is_refused = is_head and self._head_count == self.refused_number
        is_list, until = request.path.endswith("/tags/list"), time.monotonic() + PATIENCE_SECONDS
        time.sleep(self.seconds)
        while time.monotonic() < until and self.expected > (self._opened_count if is_list else self._head_count):
            time.sleep(0.01)
        with self._lock:
            if is_list:
                self.connection_counts.append(self._opened_count)
                self._head_count = 0
            elif is_head and len(self.at_once_counts) < len(self.connection_counts):
                self.at_once_counts.append(self._head_count)
        return errors_reply(429, "TOOMANYREQUESTS") if is_refused else respond()

    @property
    def _opened_count(self) -> int:
        return self.server.connection_count - self._connections_before

    def sync(self, database: Database, run_id: str, **said: Any) -> SyncRun:
        """The run of a listing."""
        self._connections_before = self.server.connection_count
        listing = ListTagsOperator(
            task_id="list_tags",
            repository="app",
            url=self.server.base,
            upstream_name=NAME,
            trust_triggers=True,
            **said,
        )
        context = TaskContext(dag_id="registry_sync", run_id=run_id)
        shards = listing.execute(context.given())  # type: ignore[arg-type]
        assert shards
        return database.runs.get(context.returned[SYNC_RUN_KEY])


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    build = ContentBuilder(seed=61)
    image = build.image([build.blob(100)])
    for number in range(TAG_COUNT):
        build.tag(f"v{number}", image)
    with MemoryRegistry() as memory:
        memory.add(NAME, build.content())
        found = Far(memory)
        with found.server:
            yield found


@pytest.mark.slow
def test_a_sync_begins_where_the_one_before_has_ended(database: Database, far: Far) -> None:
    first = far.sync(database, "first")
    assert first.pace is not None
    assert first.pace.at_once >= 40
    # The list opens one of its own, unless its thread was so late that it finds one.
    far.expected = first.pace.at_once - 1
    far.sync(database, "second")
    far.expected = 0
    assert far.connection_counts[0] == 1
    assert far.at_once_counts[0] <= 20
    at_once = (first.pace.at_once - 1, first.pace.at_once)
    assert far.connection_counts[1] in at_once, "opened while the list was on its way"
    assert far.at_once_counts[1] in at_once
    far.expected, far.seconds = 5, 0.02
    bounded = far.sync(database, "third", download_concurrency=5)
    assert (far.connection_counts[2], bounded.pace) == (5, None), "what the user set is the most"


@pytest.mark.slow
def test_after_a_refusal_the_next_sync_begins_with_few(database: Database, far: Far) -> None:
    far.sync(database, "first")
    far.refused_number = TAG_COUNT
    refused = far.sync(database, "second")
    far.refused_number = 0
    assert refused.pace is not None
    assert refused.pace.at_once == 0
    again = far.sync(database, "second")
    assert again.id == refused.id
    assert again.pace == refused.pace, "a repeat of the same sync has been refused, too"
    third = far.sync(database, "third")
    assert far.connection_counts[2:] == [1, 1]
    assert max(far.at_once_counts[2:]) <= 20
    assert third.pace is not None
    assert third.pace.at_once >= 40, "found anew"


@pytest.mark.slow
def test_a_registry_nearby_leaves_nothing_and_nothing_more_is_written(database: Database, far: Far) -> None:
    far.seconds = 0.0
    assert far.sync(database, "first").pace is None
    far.sync(database, "second")
    assert far.connection_counts == [1, 1]


def test_the_tasks_of_a_stage_share_it(database: Database, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr("registry_sync.oci.client.RegistryClient.begin_at", lambda _client, pace: begun.append(pace))
    run = far.sync(database, "first")
    pace = RegistryPace(64, datetime(2026, 12, 1, tzinfo=timezone.utc), {"HEAD manifests": 0.06}, 7)
    database.runs.record_learned(run.id, {}, pace)
    shard = {"sync_run": run.id, "shard": 0, "shards": 4, "label": "1/4"}
    FetchManifestsOperator(task_id="fetch_manifests", shard=shard).execute(TaskContext().given())  # type: ignore[arg-type]
    assert begun == [None, pace.shared(4)]
    assert database.runs.get(run.id).pace == pace, "what one of several found is not for one alone"
