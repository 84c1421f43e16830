"""A sync in one process: tried again as tasks are, canceled by the user, and ended when its process has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import LOCAL_DAG_ID, DagRunEnd, RunKey, RunState, SyncRun
from registry_sync.errors import RepositoryUnavailable, ServerUnavailable
from registry_sync.oci.client import RegistryReader
from registry_sync.sync.local_run import TRIES, sync_here
from registry_sync.sync.maintenance.collect import end_lost_runs, local_key, local_run_end
from registry_sync.sync.open_run import SyncRequest, open_run
from support.choosing import NAME
from support.memory_registry import HELD, MemoryRegistry, refusal
from support.shapes import documented_example
from support.syncing import Installation, Lines, new_client

NOW = datetime(2026, 11, 25, 3, tzinfo=timezone.utc)


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.serve(NAME, documented_example())
    return registry


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation.embedded(tmp_path)
    with installation.database:
        yield installation


@contextmanager
def connect(remote: RemoteSpec) -> Iterator[tuple[RegistryReader, RemoteSpec]]:
    with new_client(remote, max_attempts=1) as client:
        yield client, remote


def opened(here: Installation, registry: MemoryRegistry) -> SyncRun:
    return open_run(here.database, local_key(NOW), SyncRequest("app", None, registry.url, NAME))


def run_stages(here: Installation, run: SyncRun, pause: Callable[[float], None], lines: Lines) -> int | None:
    result = sync_here(here.database, here.store, run, connect, min_shard_bytes=1, report=lines, pause=pause)
    return None if result is None or result.version is None else result.version.number


def test_all_stages_make_a_version_and_a_repeat_makes_none(here: Installation, registry: MemoryRegistry) -> None:
    pauses: list[float] = []
    assert run_stages(here, opened(here, registry), pauses.append, Lines()) == 1
    run = here.database.runs.page().items[0]
    assert (run.state, run.key.dag_id, run.version_number) == (RunState.COMPLETED, LOCAL_DAG_ID, 1)
    assert run.usage.blob_get_count == len(documented_example().blobs)
    again = open_run(here.database, local_key(NOW + timedelta(hours=1)), SyncRequest("app", "app"))
    assert run_stages(here, again, pauses.append, Lines()) is None
    assert pauses == []


def test_a_temporary_failure_is_tried_again_with_longer_pauses_or_the_one_that_is_asked_for(
    here: Installation, registry: MemoryRegistry
) -> None:
    unavailable = refusal(503, "UNAVAILABLE")
    registry.on("GET", "tags", "", unavailable, unavailable, refusal(429, retry_after_seconds=77), HELD)
    pauses, lines = list[float](), Lines()
    assert run_stages(here, opened(here, registry), pauses.append, lines) == 1
    assert pauses == [5.0, 10.0, 77.0]
    assert lines.warnings[0].endswith("next try in 5.0 s")


def test_what_does_not_end_fails_the_run_with_its_reason(here: Installation, registry: MemoryRegistry) -> None:
    registry.on("GET", "tags", "", refusal(503, "UNAVAILABLE"))
    pauses: list[float] = []
    with pytest.raises(ServerUnavailable):
        run_stages(here, opened(here, registry), pauses.append, Lines())
    assert len(pauses) == TRIES - 1
    run = here.database.runs.page().items[0]
    assert run.state is RunState.FAILED
    assert str(run.error).startswith("ServerUnavailable: ")


def test_what_no_try_mends_is_tried_once(here: Installation) -> None:
    registry = MemoryRegistry(basic_auth=True)
    with pytest.raises(RepositoryUnavailable):
        run_stages(here, opened(here, registry), lambda _seconds: pytest.fail("it paused"), Lines())


def test_an_interruption_cancels_the_run_and_the_next_one_continues(
    here: Installation, registry: MemoryRegistry
) -> None:
    registry.on("GET", "tags", "", refusal(503, "UNAVAILABLE"), HELD)

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(here, opened(here, registry), interrupted, Lines())
    assert here.database.runs.page().items[0].state is RunState.CANCELED
    again = open_run(here.database, local_key(NOW + timedelta(hours=1)), SyncRequest("app", "app"))
    assert run_stages(here, again, interrupted, Lines()) == 1


def test_a_run_is_lost_once_its_process_has_gone(here: Installation, registry: MemoryRegistry) -> None:
    run = opened(here, registry)
    asked: list[RunKey] = []

    def end_of(other: SyncRun) -> DagRunEnd:
        asked.append(other.key)
        return DagRunEnd.GONE

    assert end_lost_runs(here.database.run_ends, end_of, report=here.lines) == 0
    assert asked == [], "Airflow knows nothing of it"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = ended.stdout.decode().strip()
    key = RunKey(LOCAL_DAG_ID, run.key.run_id.removesuffix(str(os.getpid())) + pid)
    open_run(here.database, key, SyncRequest("app", "app"))
    assert end_lost_runs(here.database.run_ends, end_of, report=here.lines) == 1
    lost = here.database.runs.by_key(key)
    assert (lost.state, lost.error) == (RunState.FAILED, DagRunEnd.LOST.reason)


def test_a_run_of_another_host_is_lost_after_a_day(here: Installation, registry: MemoryRegistry) -> None:
    run = opened(here, registry)
    other = replace(run, key=RunKey(LOCAL_DAG_ID, f"local__{NOW.isoformat()}__elsewhere__1"), started_at=NOW)
    assert local_run_end(other, NOW + timedelta(hours=23)) is None
    assert local_run_end(other, NOW + timedelta(hours=25)) is DagRunEnd.LOST
