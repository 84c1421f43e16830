"""What the operators share: parameters as templates give them, and errors as Airflow takes them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from registry_sync.domain.runs import RunKey
from registry_sync.errors import ConfigurationError, NotFound, RegistrySyncError, RunEnded, ServerUnavailable
from registry_sync.operators.run_notes import RUN_NOTE_KEY, RunNote, compose
from registry_sync.operators.stage import open_stage, read_shard, skip
from registry_sync.operators.task_values import as_list, as_text


def context(try_number: int = 1, max_tries: int = 4) -> dict[str, Any]:
    return {"ti": SimpleNamespace(dag_id="d", run_id="r", try_number=try_number, max_tries=max_tries)}


class TaskInstances:
    """A task instance that Airflow tells of others: ``states`` by instance, as it says them."""

    dag_id, run_id = "d", "r"

    def __init__(self, states: dict[str, str | None], try_number: int) -> None:
        self._states, self.try_number = states, try_number

    def get_task_states(self, dag_id: str, *, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        assert self.try_number > 1, "a request that has no answer"
        assert (dag_id, run_ids) == ("d", ["r"])
        assert task_ids == sorted(task_ids)
        return {"r": self._states} if self._states else {}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, None),
        ("", None),
        (" , ", None),
        ("a, b,,c ", ("a", "b", "c")),
        (["a", " b "], ("a", "b")),
        ([], None),
        (("1.0",), ("1.0",)),
    ],
)
def test_lists_come_as_text_with_commas_or_as_lists(given: object, read: object) -> None:
    assert as_list(given) == read


@pytest.mark.parametrize("given", [{"a": 1}, 7, True, ["a", ["b"]], [{"a": 1}]])
def test_a_list_of_another_kind_is_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r", not (dict|int|bool|list)"):
        as_list(given)


@pytest.mark.parametrize("given", [[], ["a"], ("a",), {"a": 1}, {"a"}])
def test_several_values_are_no_text(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"give one text, not (list|tuple|dict|set)"):
        as_text(given)


@pytest.mark.parametrize(("given", "read"), [(None, None), ("", None), ("None", None), (" x ", "x"), (20, "20")])
def test_text_that_says_nothing_is_none(given: object, read: object) -> None:
    assert as_text(given) == read


def test_a_permanent_error_is_not_tried_again_and_keeps_kind_and_message() -> None:
    with pytest.raises(AirflowFailException, match="NotFound: no such repository"), open_stage(context()):
        raise NotFound("no such repository", kind="repository")


def test_a_temporary_error_reaches_airflow_as_it_is() -> None:
    with pytest.raises(ServerUnavailable), open_stage(context()):
        raise ServerUnavailable("down")


def test_another_error_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), open_stage(context()):
        raise ZeroDivisionError


@pytest.mark.parametrize(("try_number", "last"), [(1, False), (4, False), (5, True)])
def test_the_last_try_is_known(try_number: int, last: bool) -> None:
    with open_stage(context(try_number)) as stage:
        assert stage.is_last_try is last


@pytest.mark.parametrize("error", [NotFound("gone"), ServerUnavailable("down")])
def test_a_final_failure_is_recorded_with_the_run_and_one_that_is_tried_again_is_not(error: RegistrySyncError) -> None:
    noted: list[tuple[str, str, str | None]] = []

    class Runs:
        def finish(self, run_id: str, state: Any, *, error: str | None = None) -> None:
            noted.append((run_id, state.value, error))

    pushed: list[dict[str, Any]] = []
    repositories = SimpleNamespace(get=lambda _id: SimpleNamespace(name="app"))

    def fail(try_number: int) -> None:
        given = context(try_number)
        given["ti"].xcom_push = lambda key, value: pushed.append({key: value})
        with open_stage(given) as stage:
            stage.__dict__["database"] = SimpleNamespace(runs=Runs(), repositories=repositories)
            run = SimpleNamespace(id="run-1", remote=object(), repository_id="1", key=RunKey("d", "r", "x.list"))
            stage.use(run)  # type: ignore[arg-type]
            raise error

    for try_number in (1, 5):
        with pytest.raises((AirflowFailException, ServerUnavailable)):
            fail(try_number)
    expected = ("run-1", "failed", f"{type(error).__name__}: {error}")
    assert noted == [expected] * (1 if error.is_temporary else 2)
    note = {"about": "app (x.list)", "summary": f"failed: {error}", "details": []}
    assert pushed == [{RUN_NOTE_KEY: note}] * len(noted)


class Pushed:
    """A task instance that keeps what is pushed."""

    dag_id, run_id, try_number, max_tries = "d", "r", 1, 4

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def xcom_push(self, key: str, value: Any) -> None:
        assert key == RUN_NOTE_KEY
        self.notes.append(value)


@pytest.mark.parametrize(("about", "called"), [(lambda: "app", "app"), (None, "")])
def test_a_failure_before_there_is_a_run_is_noted_also_where_no_stage_could_be_opened(
    about: Any, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ti, dag = Pushed(), SimpleNamespace(dag_id="d", params={"tags": None})
    given = {"ti": ti, "dag": dag, "dag_run": SimpleNamespace(conf={"tgas": "x"})}
    with pytest.raises(AirflowFailException, match="no parameter 'tgas'"), open_stage(given, "list_tags", about):
        pass
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MAX_SHARDS", "many")
    with pytest.raises(AirflowFailException, match="max_shards"), open_stage({"ti": ti}, "list_tags", about):
        pass
    assert [note["about"] for note in ti.notes] == [called, called]
    unknown, setting = (note["summary"] for note in ti.notes)
    assert unknown.startswith("failed: the DAG 'd' has no parameter 'tgas' (did you mean 'tags'?)")
    assert setting.startswith("failed: ")
    assert "max_shards" in setting


def test_an_unavailable_database_is_noted_by_the_last_try_alone() -> None:
    ti = Pushed()
    for ti.try_number in (1, 5):
        with pytest.raises(ServerUnavailable), open_stage({"ti": ti}, "list_tags", lambda: "app"):
            raise ServerUnavailable("the database does not respond")
    assert ti.notes == [{"about": "app", "summary": "failed: the database does not respond", "details": []}]


def test_what_ended_a_sync_counts_more_than_that_a_task_found_it_ended() -> None:
    ti = Pushed()
    with pytest.raises(AirflowFailException, match="RunEnded"), open_stage({"ti": ti}, "fetch_blobs"):
        raise RunEnded("the sync has ended failed")
    found = replace(RunNote.of_xcom(ti.notes[0]), about="app")
    why = RunNote("app", "failed: no such blob")
    assert compose([found]) == "app: failed: the sync has ended failed"
    assert compose([found, why]) == compose([why, found]) == "app: failed: no such blob"


def test_what_is_skipped_are_tasks_and_all_that_an_earlier_try_had_mapped() -> None:
    with pytest.raises(DownstreamTasksSkipped) as caught:
        skip({"ti": TaskInstances({}, try_number=1)}, {"b", "a"})
    assert caught.value.tasks == [("a", -1), ("b", -1)]
    states = {"a_0": None, "a_1": "removed", "a_12": "upstream_failed", "a_b_0": None, "b": None, "a_x": None}
    with pytest.raises(DownstreamTasksSkipped) as caught:
        skip({"ti": TaskInstances(states, try_number=2)}, {"b", "a"})
    assert caught.value.tasks == [("a", -1), ("a", 0), ("a", 1), ("a", 12), ("b", -1)]


@pytest.mark.parametrize(
    ("given", "told"), [(None, "nothing"), ([{"sync_run": "1"}], "list"), ({"sync_run": "1"}, "dict"), ("x", "str")]
)
def test_a_task_without_a_shard_says_so(given: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"no shard, but {told}: map it over the output of PlanBlobs"):
        read_shard(given, "PlanBlobs")
