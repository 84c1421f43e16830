"""A sync in one call: the tasks it makes, and what it refuses when the DAG is parsed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAlias, TaskGroup, task, task_group
from airflow.serialization.serialized_objects import DagSerialization

from registry_sync.errors import ConfigurationError
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.sync_repository import sync_repository
from registry_sync.operators.task_values import find_sync_run, is_lone_sync, task_ids_near
from registry_sync.operators.triggered import TriggeredTask

UPSTREAM = {"url": "https://registry.example", "upstream_name": "team/app"}
FIVE = ["list_tags", "fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"]


def dag_of(build: Callable[[], Any], **arguments: Any) -> DAG:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with DAG("syncs", schedule=None, start_date=start, **arguments) as dag:
        build()
    DagSerialization.to_dict(dag)  # as Airflow does after it has parsed the file
    return dag


def below(dag: DAG, name: str) -> set[str]:
    return dag.get_task(name).downstream_task_ids


# -- what it makes ------------------------------------------------------------------------------------------------


def test_it_makes_the_five_tasks_of_the_delivered_dag_in_a_group_named_after_the_repository() -> None:
    dag = dag_of(lambda: sync_repository("library/app", **UPSTREAM))
    assert dag.task_ids == [f"library_app.{name}" for name in FIVE]
    assert below(dag, "library_app.list_tags") == {"library_app.fetch_manifests"}
    assert below(dag, "library_app.fetch_manifests") == {"library_app.plan_blobs", "library_app.commit_version"}
    assert below(dag, "library_app.plan_blobs") == {"library_app.fetch_blobs"}
    assert below(dag, "library_app.fetch_blobs") == {"library_app.commit_version"}
    fetch = dag.get_task("library_app.fetch_manifests")
    assert task_ids_near(fetch, fetch.partial_kwargs["blob_tasks"]) == [
        "library_app.plan_blobs", "library_app.fetch_blobs"
    ]  # fmt: skip
    assert (
        dag.task_group.children["library_app"].tooltip == "Syncs library/app from team/app at https://registry.example"
    )


def test_a_small_one_is_two_tasks() -> None:
    dag = dag_of(lambda: sync_repository("app", **UPSTREAM, small=True, approve_removals=True))
    assert dag.task_ids == ["app.list_tags", "app.fetch_and_commit"]
    assert below(dag, "app.list_tags") == {"app.fetch_and_commit"}
    assert dag.get_task("app.fetch_and_commit").approve_removals is True


def test_parameters_are_those_of_the_listing_task() -> None:
    given = {
        "remote": "main", "tags": ["1.*"], "exclude_tags": "1.0", "policy": "on_demand", "mode": "additive",
        "conn_id": "hub", "download_concurrency": 5, "ssl_validation": False, "platforms": ["linux/amd64"],
        "include_referrers": False, "max_total_bytes": 10, "replace_upstream": True, "publish_as": "team/app",
        "trust_triggers": True, **UPSTREAM,
    }  # fmt: skip
    dag = dag_of(lambda: sync_repository("app", **given))
    listing = dag.get_task("app.list_tags")
    assert {name: getattr(listing, name) for name in given} == given
    assert dag.get_task("app.commit_version").trust_triggers is True


def test_tasks_stand_before_and_after_it() -> None:
    def build() -> None:
        first, last = EmptyOperator(task_id="first"), EmptyOperator(task_id="last")
        first >> sync_repository("app", **UPSTREAM) >> last

    dag = dag_of(build)
    assert below(dag, "first") == {"app.list_tags"}
    assert below(dag, "app.commit_version") == {"last"}


def test_several_stand_in_one_dag_and_in_groups_each_with_its_own_tasks() -> None:
    def build() -> None:
        sync_repository("a/b", **UPSTREAM)
        sync_repository("a_b", **UPSTREAM)
        sync_repository("a.b", **UPSTREAM, small=True)
        with TaskGroup("more"):
            sync_repository("a/b", **UPSTREAM, group_id="own", small=True)

    dag = dag_of(build)
    groups = sorted({name.rpartition(".")[0] for name in dag.task_ids})
    assert groups == ["a_b", "a_b__1", "a_b__2", "more.own"]
    assert all(is_lone_sync(task) for task in dag.tasks)


def test_one_after_another_starts_by_the_rule_it_is_given() -> None:
    def build() -> None:
        sync_repository("a", **UPSTREAM) >> sync_repository("b", **UPSTREAM, trigger_rule="none_failed")

    dag = dag_of(build)
    assert dag.get_task("b.list_tags").trigger_rule == "none_failed"
    assert dag.get_task("b.plan_blobs").trigger_rule == "none_failed", "its own"
    assert dag.get_task("b.fetch_manifests").trigger_rule == "all_success"


@pytest.mark.parametrize("small", [False, True])
def test_arguments_of_airflow_are_those_of_each_task_and_outlets_those_of_the_last(small: bool) -> None:
    report = Asset("report")
    dag = dag_of(
        lambda: sync_repository(
            "app", **UPSTREAM, small=small, pool="hub", queue="far", retries=7, outlets=[report], priority_weight=3
        )
    )
    assert {(task.pool, task.queue, task.retries, task.priority_weight) for task in dag.tasks} == {("hub", "far", 7, 3)}
    *others, last = dag.tasks
    aliases = [AssetAlias("registry_sync_versions"), AssetAlias("registry_sync_former_names")]
    declared = Asset(name="registry_sync/app", uri="x-registry-sync://repositories/app")
    assert last.outlets == [*aliases, declared, report]
    assert [task.outlets for task in others] == [[]] * len(others)


def test_tasks_are_retried_unless_the_dag_or_a_group_says_otherwise() -> None:
    def build() -> None:
        sync_repository("a", **UPSTREAM)
        with TaskGroup("group", default_args={"retries": 1, "conn_id": "of_the_group"}):
            sync_repository("b", **UPSTREAM)
            sync_repository("c", **UPSTREAM, default_args={"retries": 2}, conn_id="given")

    dag = dag_of(build, default_args={"retry_delay": timedelta(seconds=3), "conn_id": "of_the_dag", "owner": "team"})
    for name, retries, conn_id in (("a", 4, "of_the_dag"), ("group.b", 1, "of_the_group"), ("group.c", 2, "given")):
        tasks = [dag.get_task(f"{name}.{stage}") for stage in FIVE]
        assert {task.retries for task in tasks} == {retries}
        assert {task.retry_delay for task in tasks} == {timedelta(seconds=3)}
        assert {task.owner for task in tasks} == {"team"}
        assert tasks[0].conn_id == conn_id


def test_the_upstream_may_come_from_default_args() -> None:
    dag = dag_of(lambda: sync_repository("a", upstream_name="team/a"), default_args={"url": "https://registry.example"})
    assert dag.get_task("a.list_tags").url == "https://registry.example"


def test_it_takes_templates_and_outputs_of_other_tasks() -> None:
    def build() -> None:
        @task
        def found() -> str:
            return "app"

        sync_repository("{{ params.name }}", remote="{{ params.name }}", policy="{{ params.policy }}")
        sync_repository(found(), **UPSTREAM, small=True)

    dag = dag_of(build, params={"name": "app", "policy": "immediate"})
    assert dag.get_task("sync.list_tags").repository == "{{ params.name }}"
    assert below(dag, "found") == {"sync__1.list_tags"}


def test_outside_a_with_block_it_is_given_the_dag() -> None:
    dag = DAG("outside", schedule=None)
    sync_repository("app", **UPSTREAM, dag=dag)
    assert dag.task_ids == [f"app.{name}" for name in FIVE]


# -- an expanded group --------------------------------------------------------------------------------------------


def expanded(**arguments: Any) -> DAG:
    def build() -> None:
        @task_group
        def mirror(name: Any) -> None:
            sync_repository(name, url="https://registry.example", upstream_name=name, **arguments)

        mirror.expand(name=["a", "b"])

    return dag_of(build)


def test_a_small_one_may_be_expanded_over_repositories() -> None:
    dag = expanded(small=True)
    listing, last = dag.tasks
    assert isinstance(listing, ListTagsOperator)

    class Instance:
        map_index = 1

        def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> str:
            return f"{task_ids} {key} {map_indexes}"

    assert find_sync_run(last, {"ti": Instance()}, None) == "mirror.sync.list_tags sync_run 1"


def test_one_of_five_tasks_may_not_and_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"call sync_repository\(…, small=True\)"):
        expanded()


def test_what_is_expanded_counts_as_the_authors_like_the_output_of_a_task() -> None:
    listing = expanded(small=True).tasks[0]
    assert isinstance(listing, TriggeredTask)
    written = {name: getattr(listing, name) for name in listing.template_fields}
    assert listing._is_authors(written, frozenset())
    assert not listing._is_authors({**written, "tags": "{{ dag_run.conf.tags }}"}, frozenset())


# -- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"upstream": "a"}, r"no parameter 'upstream' \(did you mean 'upstream_name'\?\)"),
        ({"exclude_tag": "a"}, r"'exclude_tag' \(did you mean 'exclude_tags'\?\)"),
        ({"retires": 3}, r"'retires' \(did you mean 'retries'\?\)"),
        (
            {"zzz": 1},
            r"no parameter 'zzz'; of a sync it has approval_timeout, approve_.*upstream_name, url, and it takes",
        ),
        ({"task_id": "a"}, "takes no task_id; give group_id"),
        ({"url": "https://a.example/mirror"}, r"sync_repository\('app', …\): .*a\.example"),
        ({"url": None}, "url and upstream_name belong together: url is missing"),
        ({"upstream_name": None}, "belong together: upstream_name is missing"),
        ({"url": None, "upstream_name": None}, "say where to sync from"),
        ({"upstream_name": "Team/App"}, "Team/App"),
        ({"mode": "miror"}, "mode is 'miror'"),
        ({"policy": "ondemand"}, "policy is 'ondemand'"),
        ({"tags": ["a b"]}, "a b"),
        ({"tags": {"a": 1}}, "give text with commas or a list, not dict"),
        ({"platforms": ["linux"]}, "linux"),
        ({"download_concurrency": 1000}, "download_concurrency is '1000'; give a number from 1 to 100"),
        ({"max_total_bytes": "50 GB"}, "max_total_bytes is '50 GB'"),
        ({"ssl_validation": "maybe"}, "maybe"),
        ({"publish_as": "a/versions/1"}, "a/versions/1"),
    ],
)
def test_what_cannot_be_right_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        dag_of(lambda: sync_repository("app", **{**UPSTREAM, **arguments}))


@pytest.mark.parametrize("name", ["", "  ", "App", "a b"])
def test_a_repository_has_a_name_that_clients_can_ask_for(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"repository is empty|repository name"):
        dag_of(lambda: sync_repository(name, **UPSTREAM))
