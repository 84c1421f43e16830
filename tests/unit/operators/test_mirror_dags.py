"""The DAGs of a fleet: one for each mirror or group, without a database, and a mistake breaks its own DAG alone."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, CronTriggerTimetable
from airflow.serialization.serialized_objects import DagSerialization

from registry_sync.domain.mirrors import MAX_DAG_ID, mirror_dag_id
from registry_sync.errors import ConfigurationError
from registry_sync.operators import mirror_dags as module
from registry_sync.operators.mirror_dags import mirror_dags
from registry_sync.operators.repository_timetables import (
    RepositoryCronTimetable,
    RepositoryIntervalTimetable,
    RepositoryManualTimetable,
)
from registry_sync.operators.stage import RegistryRetryPolicy
from registry_sync.operators.sync_mirror_group import PART_SIZE, part_number, parts_of

TEXT = """\
version: 1
defaults: {owner: platform, timezone: Europe/Berlin}
groups:
  base: {batch: true, schedule: "@daily", pool: hub, retries: 2, labels: {team: base}}
mirrors:
  - {source: quay.io/a/daily, schedule: "30 3 * * *", priority: 7, labels: {tier: one}, description: d, retries: 0}
  - {source: quay.io/a/interval, schedule: 5h}
  - {source: quay.io/a/asset, schedule: {asset: "oci://quay.io/a/b"}}
  - {source: quay.io/a/by.hand}
  - {source: quay.io/a/off, schedule: "@daily", enabled: false}
  - {source: quay.io/a/wrong, shedule: "@daily"}
  - {source: quay.io/b/one, group: base}
  - {source: quay.io/b/two, group: base}
"""
STAGES = {"list_tags", "fetch_manifests", "plan_blobs", "fetch_blobs", "commit_version"}


def declared(folder: Path, text: str = TEXT) -> dict[str, DAG]:
    """The DAGs of a file with this text; each can be stored by Airflow."""
    (folder / "mirrors.yaml").write_text(text)
    dags = mirror_dags(folder / "mirrors.yaml")
    for dag in dags.values():
        DagSerialization.to_dict(dag)
    return dags


@pytest.fixture
def dags(tmp_path: Path) -> dict[str, DAG]:
    return declared(tmp_path)


def test_each_mirror_has_a_dag_and_a_batch_has_one(dags: dict[str, DAG]) -> None:
    assert list(dags) == [
        "registry_sync_fleet",
        "mirrors.base",
        "mirror.a.daily",
        "mirror.a.interval",
        "mirror.a.asset",
        "mirror.a.by..hand",
        "mirror.a.off",
        "mirror.a.wrong",
    ]
    assert all(name == dag.dag_id for name, dag in dags.items())


def test_a_mirror_is_synced_in_stages_as_it_is_declared(dags: dict[str, DAG]) -> None:
    dag = dags["mirror.a.daily"]
    assert set(dag.task_ids) == STAGES
    assert (dag.dag_display_name, dag.description, dag.max_active_runs, dag.catchup) == ("a/daily", "d", 1, False)
    assert set(dag.tags) == {"registry-sync", "tier:one"}
    task: Any = dag.get_task("list_tags")
    assert (task.repository, task.retries, task.owner, task.priority_weight, task.weight_rule) == (
        "a/daily", 0, "platform", 8, "absolute",
    )  # fmt: skip
    assert task.downstream_task_ids == {"fetch_manifests"}
    assert dags["mirror.a.interval"].get_task("list_tags").retries == 4


def test_each_task_waits_as_long_as_registries_ask(dags: dict[str, DAG]) -> None:
    for dag_id in ("mirror.a.daily", "mirrors.base"):
        for task in dags[dag_id].tasks:
            given: Any = task.partial_kwargs if task.is_mapped else vars(task)
            policy = given.get("retry_policy") or getattr(task, "retry_policy", None)
            assert isinstance(policy, RegistryRetryPolicy), task.task_id


def test_schedules_are_those_of_the_file(dags: dict[str, DAG]) -> None:
    named: dict[str, Any] = {
        "a/daily": RepositoryCronTimetable("30 3 * * *", timezone="Europe/Berlin"),
        "a/interval": RepositoryIntervalTimetable(timedelta(hours=5)),
        "a/by.hand": RepositoryManualTimetable(),
        "a/off": RepositoryManualTimetable(),
    }
    for repository, schedule in named.items():
        made: Any = dags[mirror_dag_id(repository)].schedule
        assert type(made) is type(schedule)
        assert made.serialize() == {**schedule.serialize(), "repository": repository}
    assert dags["mirror.a.asset"].schedule == [Asset("oci://quay.io/a/b")]
    group: Any = dags["mirrors.base"].schedule
    assert (type(group), group.expression) == (CronTriggerTimetable, "0 0 * * *")


def test_a_group_is_one_mapped_task(dags: dict[str, DAG]) -> None:
    dag = dags["mirrors.base"]
    task: Any = dag.get_task("sync_mirrors")
    assert task.is_mapped
    assert task.partial_kwargs["group"] == "base"
    assert (task.partial_kwargs["pool"], task.partial_kwargs["retries"]) == ("hub", 2)
    assert "team:base" in dag.tags


def test_a_mirror_with_a_mistake_keeps_its_dag_which_says_it(dags: dict[str, DAG]) -> None:
    dag = dags["mirror.a.wrong"]
    assert dag.schedule is None
    assert dag.task_ids == ["mistakes"]
    assert "mistake" in dag.tags
    assert "mirrors.yaml:11: there is no key 'shedule': did you mean 'schedule'?" in str(dag.description)
    assert "`mirrors.yaml:11` there is no key 'shedule'" in str(dag.doc_md)
    check = dags["registry_sync_fleet"]
    assert "mistake" in check.tags
    assert "shedule" in str(check.doc_md)


def test_without_mistakes_nothing_is_marked(tmp_path: Path) -> None:
    dags = declared(tmp_path, "version: 1\nmirrors: [{source: quay.io/a/b}]\n")
    assert not [dag for dag in dags.values() if "mistake" in dag.tags]


def test_in_a_task_only_its_own_dag_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parsing:
        dag_id: str | None = "mirror.a.daily"

    monkeypatch.setattr(module, "get_parsing_context", Parsing)
    (dag,) = declared(tmp_path).values()
    assert dag.dag_id == "mirror.a.daily"
    assert type(dag.schedule) is CronTriggerTimetable, "no task imports the timetables of Airflow's scheduler"
    monkeypatch.setattr(Parsing, "dag_id", "mirror.gone")
    assert declared(tmp_path) == {}


def test_a_file_that_cannot_be_read_at_all_is_an_import_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="this is not YAML"):
        declared(tmp_path, "version: [\n")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        mirror_dags(tmp_path / "gone.yaml")


def test_a_fleet_beside_its_dag_file_has_tasks_that_read_it_and_a_check_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    path.write_text("version: 1\nmirrors: [{source: quay.io/a/b}]\n")
    dags = mirror_dags(path, check_dag_id="team_fleet")
    assert list(dags) == ["team_fleet", "mirror.a.b"]
    tasks: list[Any] = [dags["team_fleet"].get_task("check"), dags["mirror.a.b"].get_task("list_tags")]
    assert [task.fleet_path for task in tasks] == [str(path)] * 2


def test_without_the_setting_there_are_no_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__REGISTRY_SYNC__FLEET_PATH", raising=False)
    assert mirror_dags() == {}


@pytest.mark.parametrize(
    ("one", "other"), [("a/b", "a.b"), ("a/b.c", "a.b/c"), ("a/b/c", "a.b.c"), ("a" * 255, "a" * 254)]
)
def test_ids_of_dags_are_as_different_as_names(one: str, other: str) -> None:
    ids = {mirror_dag_id(one), mirror_dag_id(other)}
    assert len(ids) == 2
    assert max(map(len, ids)) <= MAX_DAG_ID


def test_a_group_is_divided_by_names_and_not_by_places() -> None:
    assert parts_of(0) == [{"number": 0, "parts": 1}]
    assert len(parts_of(PART_SIZE)) == 1
    assert len(parts_of(1000)) == 4
    names = [f"team/app-{number}" for number in range(1000)]
    sizes = [sum(part_number(name, 4) == number for name in names) for number in range(4)]
    assert sum(sizes) == 1000
    assert min(sizes) > 200


def test_a_freshness_that_somebody_is_to_be_notified_of_is_a_deadline_of_the_runs(tmp_path: Path) -> None:
    dags = declared(
        tmp_path,
        """\
version: 1
groups:
  base: {batch: true}
mirrors:
  - {source: quay.io/a/one, freshness: 36h, notify: [{on: [stale, failed], to: mail}]}
  - {source: quay.io/a/nobody, freshness: 36h, notify: [{on: failed, to: mail}]}
  - {source: quay.io/b/one, group: base, freshness: 2d, notify: [{on: stale, to: mail}]}
  - {source: quay.io/b/two, group: base, freshness: 1d, notify: [{on: stale, to: mail}]}
  - {source: quay.io/b/three, group: base}
""",
    )

    def deadlines(dag_id: str) -> list[tuple[timedelta, dict[str, Any]]]:
        return [(alert.interval, alert.callback.kwargs) for alert in dags[dag_id].deadline or []]

    path = str(tmp_path / "mirrors.yaml")
    assert deadlines("mirror.a.one") == [(timedelta(hours=36), {"fleet_path": path, "repository": "a/one"})]
    assert deadlines("mirror.a.nobody") == []
    assert deadlines("mirrors.base") == [(timedelta(days=days), {"fleet_path": path}) for days in (1, 2)]
    called = import_module(module._PASSED.rpartition(".")[0])
    assert getattr(called, module._PASSED.rpartition(".")[2]) is called.notify_of_passed_deadline


def test_ages_are_checked_by_a_dag_of_their_own_where_somebody_is_to_be_notified(tmp_path: Path) -> None:
    promised = "version: 1\nmirrors: [{source: quay.io/a/b, freshness: 1d, notify: [{on: %s, to: mail}]}]\n"
    assert "registry_sync_fleet_freshness" not in declared(tmp_path, promised % "failed")
    dag = declared(tmp_path, promised % "stale")["registry_sync_fleet_freshness"]
    schedule: Any = dag.schedule
    assert (dag.task_ids, schedule.expression) == (["check_ages"], "7 * * * *")
