"""The tasks of declared mirrors: the file says what they do, whatever the run or REST says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from registry_sync.db.database import Database
from registry_sync.domain.remote import Policy
from registry_sync.hooks.dag_runs import PLAN_KEY
from registry_sync.operators.check_fleet import CheckFleetOperator
from registry_sync.operators.list_mirror_tags import ListMirrorTagsOperator
from registry_sync.operators.run_notes import RUN_NOTE_KEY
from registry_sync.operators.sync_mirror_group import SyncMirrorGroupOperator, part_number
from support.hostile_registry import HostileRegistry
from support.serving import serve
from support.shapes import documented_example
from support.task_contexts import TaskContext

NAME = "team/app"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileRegistry]:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", str(tmp_path / "mirrors.yaml"))
    with HostileRegistry() as served:
        yield serve(served, NAME, documented_example())


def declare(folder: Path, registry: HostileRegistry) -> None:
    source = f"{registry.base}/{NAME}"
    (folder / "mirrors.yaml").write_text(
        "version: 1\ngroups: {g: {batch: true}}\nmirrors:\n"
        f"  - {{repository: app, source: {source}, tags: {{include: [latest]}}, guard: {{max_removed_tags: 1}}}}\n"
        f"  - {{repository: wrong, source: {source}, polici: x}}\n"
        f"  - {{repository: one, source: {source}, group: g, tags: {{include: [latest]}}}}\n"
        f"  - {{repository: two, source: {source}, group: g, tags: {{include: [linux]}}}}\n"
        f"  - {{repository: off, source: {source}, group: g, enabled: false}}\n"
        f"  - {{repository: gone, source: {registry.base}/team/gone, group: g}}\n"
    )


def run(operator: Any, context: TaskContext) -> Any:
    return operator.execute(context.given())


def test_a_mirror_is_listed_as_declared_whatever_conf_says(
    database: Database, registry: HostileRegistry, tmp_path: Path
) -> None:
    declare(tmp_path, registry)
    context = TaskContext(conf={"repository": "other", "tags": ["linux"]}, dag_id="mirror.app")
    (shard,) = run(ListMirrorTagsOperator(task_id="list_tags", repository="app"), context)
    assert shard["label"] == "1 tag"
    remote = database.remotes.by_name("app")
    assert (remote.spec.include_tags, remote.spec.max_removed_tags) == (("latest",), 1)
    assert database.repositories.page().total_count == 1


def test_what_was_changed_over_rest_is_set_back_and_in_the_note(
    database: Database, registry: HostileRegistry, tmp_path: Path
) -> None:
    declare(tmp_path, registry)
    run(ListMirrorTagsOperator(task_id="list_tags", repository="app"), TaskContext())
    remote = database.remotes.by_name("app")
    database.remotes.change(remote.id, lambda spec: replace(spec, policy=Policy.STREAMED))
    context = TaskContext(run_id="manual__2")
    run(ListMirrorTagsOperator(task_id="list_tags", repository="app"), context)
    assert database.remotes.by_name("app").spec.policy is Policy.IMMEDIATE
    assert "changed as mirrors.yaml:4 says: policy from streamed to immediate" in str(context.returned[RUN_NOTE_KEY])


@pytest.mark.slow
def test_a_dry_run_of_a_mirror_writes_nothing(database: Database, registry: HostileRegistry, tmp_path: Path) -> None:
    declare(tmp_path, registry)
    context = TaskContext()
    with pytest.raises(DownstreamTasksSkipped):
        run(ListMirrorTagsOperator(task_id="list_tags", repository="app", preview="True"), context)
    assert context.returned[PLAN_KEY]["tags"]["added"] == 1
    assert database.remotes.page().total_count == 0


def test_a_mirror_with_a_mistake_or_without_a_file_is_not_synced(
    database: Database, registry: HostileRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tmp_path, registry)
    with pytest.raises(AirflowFailException, match=r"'wrong' cannot be used: mirrors.yaml:5: there is no key 'polici'"):
        run(ListMirrorTagsOperator(task_id="list_tags", repository="wrong"), TaskContext())
    monkeypatch.delenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH")
    with pytest.raises(AirflowFailException, match=r"set .registry_sync. fleet_path"):
        run(ListMirrorTagsOperator(task_id="list_tags", repository="app"), TaskContext())


def test_a_group_syncs_what_is_enabled_and_one_that_is_gone_hurts_no_other(
    database: Database, registry: HostileRegistry, tmp_path: Path
) -> None:
    declare(tmp_path, registry)
    context = TaskContext(task_id="sync_mirrors", dag_id="mirrors.g")
    with pytest.raises(AirflowFailException, match="1 of 3 mirrors did not succeed"):
        run(SyncMirrorGroupOperator(task_id="sync_mirrors", group="g"), context)
    made = {repository.name: repository.latest_number for repository in database.repositories.page().items}
    assert made == {"one": 1, "two": 1, "gone": None}
    tags = database.versions.tags(database.repositories.by_name("two").id)
    assert list(tags) == ["linux"]


def test_a_part_of_a_group_has_its_own_mirrors(database: Database, registry: HostileRegistry, tmp_path: Path) -> None:
    declare(tmp_path, registry)
    number = part_number("one", 2)
    operator = SyncMirrorGroupOperator(
        task_id="sync_mirrors", group="g", part={"number": number, "parts": 2}, max_failed=None
    )
    returned = run(operator, TaskContext(task_id="sync_mirrors"))
    expected = [name for name in ("one", "two", "gone") if part_number(name, 2) == number]
    assert returned["mirror_count"] == len(expected)
    assert "one" in {repository.name for repository in database.repositories.page().items}
    with pytest.raises(AirflowFailException, match="no group 'none'"):
        run(SyncMirrorGroupOperator(task_id="sync_mirrors", group="none"), TaskContext())


def test_a_check_fails_with_the_mistakes(database: Database, registry: HostileRegistry, tmp_path: Path) -> None:
    declare(tmp_path, registry)
    context = TaskContext()
    with pytest.raises(AirflowFailException, match="there is no key 'polici'"):
        run(CheckFleetOperator(task_id="check"), context)
    assert "mirrors.yaml:5" in str(context.returned[RUN_NOTE_KEY])
    with pytest.raises(AirflowFailException, match="polici"):
        run(CheckFleetOperator(task_id="check", repository="wrong"), TaskContext())
    counts = run(CheckFleetOperator(task_id="check", repository="app"), TaskContext())
    assert counts == {"mirrors": 5, "groups": 1, "mistakes": 0}
