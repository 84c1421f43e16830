"""A dry run in a DAG: one task finds the plan, the others are skipped, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from registry_sync.db.database import Database
from registry_sync.hooks.dag_runs import PLAN_KEY
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.run_notes import RUN_NOTE_KEY
from registry_sync.operators.task_values import SYNC_RUN_KEY
from support.hostile_registry import HostileRegistry
from support.serving import serve
from support.shapes import documented_example
from support.task_contexts import TaskContext, rendered, sync_dag

NAME = "team/app"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    """Serves the documented example, and nothing for its blobs."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    with HostileRegistry() as served:
        yield serve(served, NAME, documented_example())


def test_the_form_runs_dry_and_skips_what_follows(database: Database, registry: HostileRegistry) -> None:
    conf = {"repository": "app", "url": registry.base, "upstream_name": NAME, "dry_run": True, "platforms": []}
    context = TaskContext(conf=conf, dag_id="registry_sync", run_id="manual__dry")
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.execute(rendered(task, context))
    names = {name for name, _ in skipped.value.tasks}
    assert names == {"fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"}
    plan = context.returned[PLAN_KEY]
    assert (plan["outcome"], plan["number"], plan["creates"]) == ("version", 1, ["repository", "remote"])
    assert plan["tags"]["added"] == len(documented_example().tags)
    assert plan["downloads"]["requests"]["blobs"] == plan["downloads"]["blobs"] == len(documented_example().blobs)
    note = context.returned[RUN_NOTE_KEY]
    assert note["about"] == "app"
    assert note["summary"].startswith(
        "dry run, nothing was changed: would make version 1, 8 tags added; downloads 21 manif"
    )
    assert SYNC_RUN_KEY not in context.returned
    assert database.repositories.page().total_count == 0
    assert not [request for request in registry.requests if "/blobs/" in request.path]


def test_a_mapped_task_does_not_run_dry(database: Database, registry: HostileRegistry) -> None:
    operator = ListTagsOperator(
        task_id="list_tags", repository="app", url=registry.base, upstream_name=NAME, preview=True
    )
    with pytest.raises(AirflowFailException, match="preview is not for a mapped task"):
        operator.execute(TaskContext(map_index=0).given())  # type: ignore[arg-type]
    assert registry.requests == []


def test_a_dry_run_goes_no_further_than_its_trigger_may(database: Database, registry: HostileRegistry) -> None:
    conf = {"repository": "app", "url": registry.base, "upstream_name": NAME, "dry_run": True, "publish_as": "app"}
    context = TaskContext(conf=conf, dag_id="registry_sync", run_id="manual__dry")
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    with pytest.raises(AirflowFailException, match="TriggerRefused"):
        task.execute(rendered(task, context))
