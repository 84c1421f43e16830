"""The task of many mirrors: green only when all are done, bounded in what it passes on, and waiting its turn."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from registry_sync.db.database import Database
from registry_sync.errors import ConfigurationError, MirrorsUnfinished
from registry_sync.operators.run_notes import RUN_NOTE_KEY, RunNote, compose
from registry_sync.operators.stage import RegistryRetryPolicy
from registry_sync.operators.sync_mirrors import COUNTS_KEY, SyncMirrorsOperator
from registry_sync.sync.sync_mirrors import sync_mirrors
from support.memory_registry import HELD, MemoryRegistry, refusal
from support.mirrors import names, small_repository
from support.received_metrics import receiving
from support.syncing import new_client
from support.task_contexts import TaskContext


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryRegistry]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    with MemoryRegistry() as registry:
        for number, name in enumerate(names(4)):
            registry.serve(name, small_repository(number, tags=2))

        class InMemory:
            """Stands for the clients of an account, which need a registry that speaks HTTP."""

            def __init__(self, **_options: Any) -> None:
                pass

            def __enter__(self) -> InMemory:
                return self

            def __exit__(self, *_raised: object) -> None:
                pass

            def connect(self, remote: Any) -> Any:
                return nullcontext((new_client(remote, max_attempts=1), remote))

        monkeypatch.setattr("registry_sync.hooks.shared_clients.SharedClients", InMemory)
        monkeypatch.setattr("registry_sync.sync.sync_mirrors.FIRST_PAUSE_SECONDS", 0.0)
        yield registry


def mirrors(registry: MemoryRegistry, **more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "repository": name,
            "url": registry.url,
            "upstream_name": name,
            **more.get(name.replace("/", "_").replace("-", "_"), {}),
        }
        for name in names(4)
    ]


def task(given: Any, **options: Any) -> SyncMirrorsOperator:
    return SyncMirrorsOperator(task_id="sync_mirrors", mirrors=given, trust_triggers=True, **options)


def run(operator: SyncMirrorsOperator, context: TaskContext) -> dict[str, Any]:
    return operator.execute(context.given())  # type: ignore[arg-type]


def note(context: TaskContext) -> str:
    return compose([RunNote.of_xcom(context.returned[RUN_NOTE_KEY])])


def test_all_mirrors_are_synced_and_the_counts_are_passed_on(database: Database, registry: MemoryRegistry) -> None:
    context = TaskContext(task_id="sync_mirrors")
    returned = run(task(mirrors(registry)), context)
    assert (returned["counts"], returned["mirror_count"], returned["failed"]) == ({"changed": 4}, 4, [])
    assert note(context) == "sync_mirrors: 4 changed"
    assert {event["repository"] for event in context.reported()} == set(names(4))
    again = TaskContext(task_id="sync_mirrors", run_id="manual__2")
    assert run(task(mirrors(registry)), again)["counts"] == {"unchanged": 4}
    assert again.reported() == []


@pytest.mark.slow
def test_objects_of_before_the_task_are_left_out_of_searches_for_garbage_while_it_runs(
    database: Database, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def measured(*arguments: Any, **options: Any) -> Any:
        counts.append(gc.get_freeze_count())
        return sync_mirrors(*arguments, **options)

    monkeypatch.setattr("registry_sync.sync.sync_mirrors.sync_mirrors", measured)
    gc.unfreeze()
    try:
        run(task(mirrors(registry)), TaskContext(task_id="sync_mirrors"))
        assert counts[0] > 1000
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()  # as before, for the tests that follow


def test_the_state_of_each_mirror_that_succeeded_is_sent_as_metrics(
    database: Database, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository="team/app-001")
    sent: list[tuple[str, str]] = []
    with receiving() as received:
        monkeypatch.setattr(received, "gauge", lambda stat, _value, tags: sent.append((stat, tags["mirror"])))
        operator = task(mirrors(registry))
        with pytest.raises(AirflowFailException):
            run(operator, TaskContext(task_id="sync_mirrors", max_tries=4))
    expected = [name for name in names(4) if name != "team/app-001"]
    for gauge in ("last_success", "version", "held_tags"):
        assert sorted(mirror for stat, mirror in sent if stat == f"registry_sync.mirror.{gauge}") == sorted(expected)


def test_a_failed_mirror_fails_the_task_for_good_when_no_repeat_helps(
    database: Database, registry: MemoryRegistry
) -> None:
    registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository="team/app-001")
    context = TaskContext(task_id="sync_mirrors", max_tries=4)
    with pytest.raises(AirflowFailException, match=r"1 of 4 mirrors did not succeed.*team/app-001 failed: NotFound"):
        run(task(mirrors(registry)), context)
    assert note(context).startswith("sync_mirrors: 3 changed, 1 failed: team/app-001\n\n- team/app-001 failed: ")
    assert context.returned[COUNTS_KEY] == {"changed": 3, "failed": 1}


@pytest.mark.slow
def test_what_a_repeat_may_mend_is_repeated_and_events_of_earlier_tries_are_not_lost(
    database: Database, registry: MemoryRegistry
) -> None:
    registry.on("GET", "tags", "", refusal(503, "UNAVAILABLE"), repository="team/app-001")
    context = TaskContext(task_id="sync_mirrors", max_tries=4)
    with pytest.raises(MirrorsUnfinished) as raised:
        run(task(mirrors(registry)), context)
    assert raised.value.is_temporary
    registry.on("GET", "tags", "", HELD, repository="team/app-001")
    repeat = TaskContext(task_id="sync_mirrors", max_tries=4, try_number=2)
    assert run(task(mirrors(registry)), repeat)["counts"] == {"changed": 4}
    assert {event["repository"] for event in repeat.reported()} == set(names(4))


@pytest.mark.parametrize(("max_failed", "fails"), [(0, True), (1, False), (0.25, False), (0.2, True), (None, False)])
def test_some_may_be_allowed_to_fail(
    database: Database, registry: MemoryRegistry, max_failed: float | None, fails: bool
) -> None:
    registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository="team/app-001")
    operator, context = task(mirrors(registry), max_failed=max_failed), TaskContext(task_id="sync_mirrors")
    if fails:
        with pytest.raises(AirflowFailException):
            run(operator, context)
    else:
        assert run(operator, context)["failed_count"] == 1


@pytest.mark.slow
def test_a_long_limit_ends_the_task_without_using_up_a_try(database: Database, registry: MemoryRegistry) -> None:
    registry.on("GET", "tags", "", refusal(429, retry_after_seconds=1800), HELD, repository="team/app-001")
    with pytest.raises(AirflowRescheduleException) as raised:
        run(task(mirrors(registry)), TaskContext(task_id="sync_mirrors"))
    left = raised.value.reschedule_date - datetime.now(timezone.utc)
    assert timedelta(minutes=29) < left < timedelta(minutes=31)
    assert run(task(mirrors(registry)), TaskContext(task_id="sync_mirrors"))["counts"] == {"changed": 4}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"polcy": "immediate"}, r"a mirror has no field 'polcy' \(did you mean 'policy'\?\)"),
        ({"tags": "2.*"}, r"none of its 2 tags passes the filters include_tags 2\.\*"),
        ({"url": "ftp://x"}, r"url: "),
    ],
)
def test_a_mirror_that_is_declared_wrongly_fails_alone_and_says_what_is_wrong(
    database: Database, registry: MemoryRegistry, said: dict[str, Any], message: str
) -> None:
    given = mirrors(registry, team_app_002=said)
    with pytest.raises(AirflowFailException, match=message):
        run(task(given), TaskContext(task_id="sync_mirrors"))
    known = database.mirror_results.of_task("promote", "manual__1", "sync_mirrors")
    assert [name for name, one in known.items() if one.outcome.is_success] == [
        "team/app-000",
        "team/app-001",
        "team/app-003",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("app", "mirrors is str"),
        ([{"url": "https://r.example"}], "mirror 0 has no repository"),
        ([{"repository": "a", "priority": "high"}], "priority of 'a' is 'high'"),
        ([{"repository": "a"}] * 5001, "5,001 mirrors are too many"),
    ],
)
def test_what_is_no_list_of_mirrors_is_refused_with_what_to_give(database: Database, given: Any, message: str) -> None:
    with pytest.raises(AirflowFailException, match=message):
        run(task(given), TaskContext(task_id="sync_mirrors"))


@pytest.mark.slow
def test_what_is_passed_on_is_bounded_however_many_fail(database: Database, registry: MemoryRegistry) -> None:
    url = registry.url
    given = [{"repository": f"r{number}", "url": url, "upstream_name": f"gone{number}"} for number in range(60)]
    context = TaskContext(task_id="sync_mirrors")
    returned = run(task(given, max_failed=None), context)
    assert (returned["failed_count"], len(returned["failed"])) == (60, 20)
    assert len(json.dumps(returned)) < 10_000
    assert len(note(context)) < 6_000
    assert "and 50 more: airflow registry-sync fleet status --failed" in note(context)


def test_the_note_of_a_mapped_task_has_the_counts_of_all_its_indexes(
    database: Database, registry: MemoryRegistry
) -> None:
    every = mirrors(registry)
    contexts = [TaskContext(task_id="sync_mirrors", map_index=index) for index in range(2)]
    for context in contexts:
        run(task(every[2 * context.map_index :][:2]), context)
    assert (
        compose([RunNote.of_xcom(context.returned[RUN_NOTE_KEY]) for context in contexts]) == "sync_mirrors: 4 changed"
    )


@pytest.mark.slow
def test_large_mirrors_are_handed_over_to_the_sync_dag(
    database: Database, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MIN_SHARD_MIB", "1")
    started: list[tuple[str, str, dict[str, Any]]] = []
    start: Callable[..., None] = lambda *given: started.append(given)  # noqa: E731
    monkeypatch.setattr("registry_sync.hooks.dag_runs.start_from_task", start)
    returned = run(task(mirrors(registry)), TaskContext(task_id="sync_mirrors"))
    assert returned["counts"] == {"handed_over": 4}
    dag_id, run_id, conf = min(started, key=lambda one: one[2]["repository"])
    known = database.mirror_results.of_task("promote", "manual__1", "sync_mirrors")
    assert (dag_id, run_id) == ("registry_sync", known["team/app-000"].handed_over_to)
    assert conf == {"repository": "team/app-000", "remote": "team/app-000", "mode": "mirror"}
    own = run(task(mirrors(registry), hand_over=False), TaskContext(task_id="sync_mirrors", run_id="manual__2"))
    assert own["counts"] == {"changed": 4}


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"concurrency": 65}, {"max_failed": -1}])
def test_impossible_options_are_refused_when_the_dag_is_parsed(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        task([], **options)


def test_a_registry_that_asks_to_wait_is_waited_for_by_the_retry_too() -> None:
    error = MirrorsUnfinished("two of three")
    error.retry_after_seconds = 90.0
    decision = RegistryRetryPolicy().evaluate(error, 1, 4)
    assert decision.retry_delay is not None
    assert decision.retry_delay.total_seconds() == 90
