"""Which sync a task works for, where a DAG has one and where it has several."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, task_group

from registry_sync.errors import ConfigurationError, StagesUnfinished
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.run_notes import about_sync
from registry_sync.operators.task_values import (
    find_sync_run,
    is_lone_sync,
    only_of_this_sync,
    refuse_lost_commit,
    run_key,
    task_ids_near,
)
from support.documents import DOCS


def sync(list_tags: str = "list_tags", **parameters: Any) -> tuple[Any, Any]:
    """The five tasks; the first and the last of them."""
    first = ListTagsOperator(task_id=list_tags, repository="app", **parameters)
    manifests = FetchManifestsOperator.partial(task_id="fetch_manifests").expand(shard=first.output)
    plan = PlanBlobsOperator(task_id="plan_blobs")
    blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(shard=plan.output)
    last = CommitVersionOperator(task_id="commit_version")
    first >> manifests >> plan >> blobs >> last
    manifests >> last
    return first, last


def dag_of(build: Callable[[], Any]) -> DAG:
    with DAG("several", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        build()
    return dag


def context(map_index: int = -1, **returned: str) -> dict[str, Any]:
    """A task instance; ``returned`` has the sync runs by listing task, dots as two underscores."""
    found = {name.replace("__", "."): run for name, run in returned.items()}

    def pull(*, task_ids: str, key: str, map_indexes: int) -> str | None:
        assert key == "sync_run"
        return found.get(task_ids if map_indexes < 0 else f"{task_ids}_{map_indexes}")

    return {"ti": SimpleNamespace(map_index=map_index, xcom_pull=pull)}


def two_groups() -> None:
    for name in ("a", "b"):
        with TaskGroup(name):
            sync()


def two_in_series() -> None:
    with TaskGroup("a"):
        _, last = sync()
    with TaskGroup("b"):
        first, _ = sync()
    last >> first


def test_the_task_that_lists_is_found_whatever_its_id() -> None:
    dag = dag_of(lambda: sync(list_tags="look"))
    for name in ("plan_blobs", "commit_version"):
        assert find_sync_run(dag.get_task(name), context(look="run 1"), None) == "run 1"
        assert find_sync_run(dag.get_task(name), context(look="run 1"), "run 2") == "run 2"
    with pytest.raises(ConfigurationError, match="'look' starts, and that task has not run"):
        find_sync_run(dag.get_task("commit_version"), context(), None)


@pytest.mark.parametrize("build", [two_groups, two_in_series])
def test_each_task_of_two_syncs_is_of_the_one_it_stands_below(build: Callable[[], None]) -> None:
    dag = dag_of(build)
    for name in ("a", "b"):
        given = context(a__list_tags="run a", b__list_tags="run b")
        for task in ("plan_blobs", "commit_version"):
            assert find_sync_run(dag.get_task(f"{name}.{task}"), given, None) == f"run {name}"
            assert is_lone_sync(dag.get_task(f"{name}.{task}"))


def test_a_task_below_two_or_none_says_which_there_are() -> None:
    def below_two() -> None:
        commit = CommitVersionOperator(task_id="commit_version")
        for name in ("one", "two"):
            ListTagsOperator(task_id=name, repository="app") >> commit
        CommitVersionOperator(task_id="alone")

    dag = dag_of(below_two)
    with pytest.raises(ConfigurationError, match="there is 'one' and 'two'"):
        find_sync_run(dag.get_task("commit_version"), context(), None)
    with pytest.raises(ConfigurationError, match="there is none"):
        find_sync_run(dag.get_task("alone"), context(), None)


def test_a_task_below_a_mapped_listing_is_to_be_mapped_as_well() -> None:
    def mapped() -> None:
        listed = ListTagsOperator.partial(task_id="list_tags", repository="app").expand(tags=[["a"], ["b"]])
        listed >> CommitVersionOperator(task_id="commit_version")

    dag = dag_of(mapped)
    assert not is_lone_sync(dag.get_task("commit_version"))
    with pytest.raises(ConfigurationError, match=r"'list_tags' is mapped and starts several"):
        find_sync_run(dag.get_task("commit_version"), context(list_tags="run 1"), None)
    assert find_sync_run(dag.get_task("commit_version"), context(1, list_tags_1="run 1"), None) == "run 1"


def test_what_waits_for_one_sync_alone_is_skipped_and_the_other_sync_is_not() -> None:
    def with_a_join() -> None:
        two_groups()

    dag = dag_of(with_a_join)
    join = EmptyOperator(task_id="join", dag=dag)
    report = EmptyOperator(task_id="tell", dag=dag)
    for name in ("a", "b"):
        dag.get_task(f"{name}.commit_version").set_downstream(join)
    dag.get_task("a.commit_version").set_downstream(report)
    stages = {"fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"}
    assert only_of_this_sync(dag.get_task("a.list_tags")) == {"tell", *(f"a.{stage}" for stage in stages)}
    series = dag_of(two_in_series)
    for name in ("a", "b"):
        expected = {f"{name}.{stage}" for stage in stages}
        assert only_of_this_sync(series.get_task(f"{name}.list_tags")) == expected


def one_group() -> None:
    with TaskGroup("a"):
        sync("look")


def one_in_a_group_and_one_outside() -> None:
    one_group()
    sync()


@pytest.mark.parametrize(
    ("build", "task_id", "map_index", "scope"),
    [
        (sync, "list_tags", -1, ""),
        (sync, "list_tags", 1, "list_tags[1]"),
        (one_group, "a.look", -1, ""),
        (two_groups, "a.list_tags", -1, "a.list_tags"),
        (one_in_a_group_and_one_outside, "a.look", -1, "a.look"),
        (one_in_a_group_and_one_outside, "list_tags", -1, "list_tags"),
    ],
)
def test_each_task_that_lists_and_each_of_its_instances_begins_a_sync(
    build: Callable[[], Any], task_id: str, map_index: int, scope: str
) -> None:
    task = dag_of(build).get_task(task_id)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=map_index)
    key = run_key({"ti": ti, "task": task})
    assert (key.dag_id, key.run_id, key.scope) == ("d", "r", scope)


def test_names_of_tasks_are_those_of_the_nearest_group() -> None:
    def nested() -> None:
        with TaskGroup("outer"):
            EmptyOperator(task_id="plan")
            with TaskGroup("inner"):
                EmptyOperator(task_id="look")
                EmptyOperator(task_id="blobs")
            with TaskGroup("bare", prefix_group_id=False):
                EmptyOperator(task_id="bare_look")
                EmptyOperator(task_id="bare_blobs")

    dag = dag_of(nested)
    look = dag.get_task("outer.inner.look")
    names = ["plan", "blobs", "outer.inner.blobs", "bare_blobs", "nobody"]
    assert task_ids_near(look, names) == [
        "outer.plan",
        "outer.inner.blobs",
        "outer.inner.blobs",
        "bare_blobs",
        "nobody",
    ]
    assert task_ids_near(dag.get_task("bare_look"), ["bare_blobs"]) == ["bare_blobs"]
    assert task_ids_near(EmptyOperator(task_id="alone"), ["plan"]) == ["plan"]


@pytest.mark.parametrize("operator", [FetchManifestsOperator, FetchBlobsOperator])
def test_a_group_that_is_expanded_is_refused_when_the_dag_is_read_with_what_to_do(operator: Any) -> None:
    @task_group
    def mirror(repository: str) -> None:
        listed = ListTagsOperator(task_id="list_tags", repository=repository)
        with TaskGroup("inside"):
            operator.partial(task_id="fetch").expand(shard=listed.output)

    with pytest.raises(ConfigurationError) as refused:
        dag_of(lambda: mirror.expand(repository=["a", "b"]))
    assert f"{operator.__name__} is expanded" in str(refused.value)
    assert "as 'mirror' is" in str(refused.value)
    assert "a loop of the DAG file" in str(refused.value)
    assert "TriggerDagRunOperator.partial(…).expand(conf=…)" in str(refused.value)
    guide = " ".join((DOCS / "how-to" / "schedule-a-sync.md").read_text(encoding="utf-8").split())
    shown = str(refused.value).partition(", as ")[0].replace(operator.__name__, "FetchManifestsOperator")
    assert shown in guide
    assert dag_of(lambda: [mirror.override(group_id=name)(name) for name in ("a", "b")]).has_task("b.inside.fetch")


def test_a_note_says_which_sync_it_is_of_where_there_are_several() -> None:
    assert about_sync("app", "") == "app"
    assert about_sync("app", "a.list_tags") == "app (a.list_tags)"


@pytest.mark.parametrize("name", ["list_tags", "fetch_manifests"])
def test_a_commit_that_stays_skipped_is_missed_by_its_own_sync_alone(name: str) -> None:
    """In a series the commit of the second sync comes after the first one too, and makes no version of it."""
    states = {"a.commit_version": "skipped", "b.commit_version": None}

    def get_task_states(*, task_ids: list[str], **_which: Any) -> dict[str, dict[str, str | None]]:
        return {"r": {task_id: states[task_id] for task_id in task_ids}}

    def context_of(task: Any) -> dict[str, Any]:
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id=task.task_id, get_task_states=get_task_states)
        return {"ti": ti, "task": task}

    dag = dag_of(two_in_series)
    with pytest.raises(StagesUnfinished, match=r"^a\.commit_version of this run was skipped"):
        refuse_lost_commit(context_of(dag.get_task(f"a.{name}")))
    refuse_lost_commit(context_of(dag.get_task(f"b.{name}")))
