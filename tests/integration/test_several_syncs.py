"""Several syncs in one DAG run: task groups, a mapped listing, one after the other. Each is a sync of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry_sync.hooks.stores import open_database
from support.dag_runs import InProcessSync, runner_of
from support.filling import push
from support.images import ContentBuilder
from support.registry import RegistryServer

DAGS = """
from airflow.sdk import DAG, TaskGroup, task
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator

SAID = {"repository": "app", "url": "URL", "upstream_name": "app", "mode": "additive"}


def sync(tags, **parameters):
    fetch = ["fetch_manifests", "plan_blobs", "fetch_blobs"]
    listed = ListTagsOperator(task_id="list_tags", tags=tags, fetch_tasks=fetch, **SAID, **parameters)
    manifests = FetchManifestsOperator.partial(
        task_id="fetch_manifests", blob_tasks=["plan_blobs", "fetch_blobs"]
    ).expand(shard=listed.output)
    plan = PlanBlobsOperator(task_id="plan_blobs")
    blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(shard=plan.output)
    version = CommitVersionOperator(task_id="commit_version")
    listed >> manifests >> plan >> blobs >> version
    manifests >> version
    return listed, version


with DAG(dag_id="two_groups", schedule=None):
    for name, tags in (("numbers", ["1.*"]), ("names", ["latest"])):
        with TaskGroup(name):
            sync(tags)

with DAG(dag_id="in_series", schedule=None):
    with TaskGroup("numbers"):
        _, first = sync(["1.*"])
    with TaskGroup("names"):
        second, _ = sync(["latest"], trigger_rule="none_failed")
    first >> second

with DAG(dag_id="mapped", schedule=None):

    @task
    def together(parts):
        return [entry for part in parts for entry in part]

    @task
    def syncs(ti=None):
        return ti.xcom_pull(task_ids="list_tags", key="sync_run", map_indexes=[0, 1])

    listed = ListTagsOperator.partial(task_id="list_tags", **SAID).expand(tags=[["1.*"], ["latest"]])
    manifests = FetchManifestsOperator.partial(
        task_id="fetch_manifests", blob_tasks=["plan_blobs", "fetch_blobs"]
    ).expand(shard=together.override(task_id="shards")(listed.output))
    runs = syncs()
    listed >> runs
    plan = PlanBlobsOperator.partial(task_id="plan_blobs").expand(sync_run=runs)
    manifests >> plan
    blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(
        shard=together.override(task_id="blob_shards", trigger_rule="none_failed")(plan.output)
    )
    version = CommitVersionOperator.partial(task_id="commit_version").expand(sync_run=runs)
    blobs >> version
"""


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


def fill(registry: RegistryServer, *names: str, seed: int = 5) -> None:
    build = ContentBuilder(seed=seed)
    for name in names:
        build.tag(name, build.image([build.blob(500)]))
    push(registry, "app", build.content())


@pytest.fixture
def run(
    sync_in_process: InProcessSync,
    registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Runs one of the DAGs above, to its end."""
    return runner_of(DAGS.replace("URL", registry.url), tmp_path / "several", monkeypatch)


def app_tags() -> set[str]:
    with open_database() as database:
        return set(database.versions.tags(database.repositories.by_name("app").id))


@pytest.mark.parametrize("dag_id", ["two_groups", "in_series", "mapped"])
def test_each_sync_of_a_dag_run_counts(run: Any, registry: RegistryServer, dag_id: str) -> None:
    fill(registry, "1.0", "1.1", "latest", "other")
    first = run(dag_id)
    assert first.state == "success", first.tasks
    assert app_tags() == {"1.0", "1.1", "latest"}
    with open_database() as database:
        assert {found.key.scope for found in database.runs.page().items} == {
            "two_groups": {"numbers.list_tags", "names.list_tags"},
            "in_series": {"numbers.list_tags", "names.list_tags"},
            "mapped": {"list_tags[0]", "list_tags[1]"},
        }[dag_id]
        assert [version.number for version in database.versions.page(first_repository(database)).items] == [2, 1]
        assert database.versions.missing_blob_count(first_repository(database)) == 0
    fill(registry, "latest", seed=6)
    again = run(dag_id)
    assert again.state == "success", again.tasks
    with open_database() as database:
        versions = database.versions.page(first_repository(database)).items
        assert [version.number for version in versions] == [3, 2, 1], "that one found nothing hinders not the other"
        assert database.versions.missing_blob_count(first_repository(database)) == 0


def first_repository(database: Any) -> str:
    return str(database.repositories.by_name("app").id)
