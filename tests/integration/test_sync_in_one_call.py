"""``sync_repository`` in DAG runs: both forms make the same version, repeat it for nothing, and stand in one DAG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.hooks.stores import open_database
from support.dag_runs import FinishedRun, InProcessSync, runner_of
from support.filling import push
from support.images import ContentBuilder
from support.registry import RegistryServer

DAGS = """
from airflow.sdk import DAG, task, task_group
from registry_sync.operators.sync_repository import sync_repository

HUB = {"url": "URL"}

with DAG(dag_id="both", schedule=None, default_args={"retries": 0, "url": "URL"}):
    five = sync_repository("five", upstream_name="app", publish_as="five")
    two = sync_repository("two", upstream_name="app", small=True, publish_as="two", trigger_rule="none_failed")
    five >> two

with DAG(dag_id="expanded", schedule=None, default_args={"retries": 0}):

    @task
    def names():
        return ["app", "other"]

    @task_group
    def mirror(name):
        sync_repository(name, upstream_name=name, small=True, mode="mirror", **HUB)

    mirror.expand(name=names())

with DAG(dag_id="guarded", schedule=None, default_args={"retries": 0}):
    sync_repository("guarded", upstream_name="guarded", small=True, **HUB)
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry") as server:
        yield server


@pytest.fixture
def run(
    sync_in_process: InProcessSync,
    registry: RegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], FinishedRun]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "False")
    return runner_of(DAGS.replace("URL", registry.url), tmp_path / "dags", monkeypatch)


def fill(registry: RegistryServer, name: str, *tags: str, seed: int = 5) -> None:
    build = ContentBuilder(seed=seed)
    for tag in tags:
        build.tag(tag, build.image([build.blob(500)]))
    push(registry, name, build.content())


def numbers(database: Database, name: str) -> list[int]:
    found = database.repositories.by_name(name)
    assert database.versions.missing_blob_count(found.id) == 0
    return [version.number for version in database.versions.page(found.id).items]


def content(run: FinishedRun, task_id: str, **which: Any) -> dict[str, int]:
    summary = run.xcom(task_id, **which)["version"]["content_summary"]["present"]
    return {kind: unit["count"] for kind, unit in summary.items()}


def asset_events(name: str) -> list[dict[str, Any]]:
    """The extras of the events that Airflow has registered with an asset, in order."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        of_asset = select(AssetModel.id).where(AssetModel.name == name)
        return list(
            session.scalars(select(AssetEvent.extra).where(AssetEvent.asset_id.in_(of_asset)).order_by(AssetEvent.id))
        )


def test_both_forms_make_the_same_version_and_an_unchanged_run_ends_after_the_listing(
    run: Callable[[str], FinishedRun], registry: RegistryServer
) -> None:
    fill(registry, "app", "1.0", "1.1")
    # Of other files' repositories of these names: Airflow's own database is the process's.
    earlier = {name: len(asset_events(f"registry_sync/{name}")) for name in ("five", "two")}
    first = run("both")
    assert first.state == "success", first.tasks
    assert first.tasks == {
        "five.list_tags": "success",
        "five.fetch_manifests": "skipped",
        "five.plan_blobs": "skipped",
        "five.fetch_blobs": "skipped",
        "five.commit_version": "success",
        "two.list_tags": "success",
        "two.fetch_and_commit": "success",
    }
    assert content(first, "five.commit_version") == content(first, "two.fetch_and_commit")
    assert first.xcom("two.fetch_and_commit", key="summary")["tag_count"] == 2
    with open_database() as database:
        for name in ("five", "two"):
            assert numbers(database, name) == [1]
            published = database.distributions.by_base_path(name)
            assert published is not None
            assert published.is_private
    again = run("both")
    assert again.state == "success"
    for name in ("five", "two"):  # declared by the DAG, and yet an event for the version alone
        (event,) = asset_events(f"registry_sync/{name}")[earlier[name] :]
        assert [tag["name"] for tag in event["tags"]["added"]] == ["1.0", "1.1"]
    assert {task for task, state in again.tasks.items() if state != "skipped"} == {"five.list_tags", "two.list_tags"}


def test_each_instance_of_an_expanded_group_is_a_sync_of_its_own_and_what_the_code_gives_it_its_authors(
    run: Callable[[str], FinishedRun], registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where triggers are not trusted, too: the author may change the tags of a remote that exists."""
    fill(registry, "app", "1.0")
    fill(registry, "other", "a", "b", seed=6)
    first = run("expanded")
    assert first.state == "success", first.tasks
    for index, tags in enumerate((1, 2)):
        assert content(first, "mirror.sync.fetch_and_commit", map_index=index)["docker.tag"] == tags
    fill(registry, "other", "c", seed=7)
    fill(registry, "other", "cc", seed=8)
    code = DAGS.replace("URL", registry.url).replace('mode="mirror"', 'exclude_tags=["cc"]')
    second = runner_of(code, tmp_path / "changed", monkeypatch)("expanded")
    assert second.tasks == {
        "names": "success",
        "mirror.sync.list_tags[0]": "success",
        "mirror.sync.list_tags[1]": "success",
        "mirror.sync.fetch_and_commit[0]": "success",
        "mirror.sync.fetch_and_commit[1]": "success",
    }
    unchanged = second.xcom("mirror.sync.fetch_and_commit", map_index=0)
    assert (unchanged["version"], unchanged["unchanged_version"]["number"]) == (None, 1)
    with open_database() as database:
        assert (numbers(database, "app"), numbers(database, "other")) == ([1], [2, 1])
        assert database.remotes.by_name("other").spec.exclude_tags == ("cc",)


def test_a_small_sync_stops_before_it_removes_too_much_and_says_what_to_do(
    run: Callable[[str], FinishedRun], registry: RegistryServer
) -> None:
    fill(registry, "guarded", "1", "2", "3")
    assert run("guarded").state == "success"
    for tag in ("1", "2"):
        registry.delete_tag("guarded", tag)
    stopped = run("guarded")
    assert stopped.tasks["guarded.fetch_and_commit"] == "failed"
    with open_database() as database:
        found = database.runs.page().items[0]
        assert found.error is not None
        assert "2 of 3 tags" in json.dumps(found.error)
        assert numbers(database, "guarded") == [1]
