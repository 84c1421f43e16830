"""The asset events of new versions: what their extra holds, how large it gets, and what a DAG reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset

from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository
from registry_sync.errors import RecordNotFound
from registry_sync.operators import version_outputs
from registry_sync.operators.changed_tags import changed_tags, versions_of
from registry_sync.operators.promote_tags import PromoteTagsOperator
from registry_sync.operators.roll_back_version import RollBackVersionOperator
from registry_sync.operators.sync_repository import sync_repository
from registry_sync.pulp import version_events
from registry_sync.pulp.hrefs import version_href
from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event
from support.metadata import Upstream, image, sync, two_versions
from support.task_contexts import TaskContext


@pytest.fixture
def hello(database: Database) -> Repository:
    """``hello`` with two versions: latest moved, old gone and new came with the second."""
    return two_versions(database, "hello")


def event(database: Database, repository: Repository, number: int) -> dict[str, Any]:
    version = database.versions.get(repository.id, number)
    difference = database.versions.tag_difference(version, limit=version_events.MAX_EVENT_TAGS)
    return version_event(repository.name, version, difference)


def triggering(*extras: dict[str, Any]) -> dict[Any, Iterable[Any]]:
    """As Airflow gives them: each event once for its asset and once for its alias."""
    events = [SimpleNamespace(extra=extra) for extra in extras]
    return {"asset": events, "alias": list(reversed(events)), "other": [SimpleNamespace(extra={})]}


def test_an_event_has_the_version_and_what_became_of_each_tag(database: Database, hello: Repository) -> None:
    before, after = (database.versions.tags(hello.id, number) for number in (1, 2))
    extra = event(database, hello, 2)
    assert extra["tags"] == {
        "added": [{"name": "new", "digest": after["new"]}],
        "moved": [{"name": "latest", "digest": after["latest"], "previous_digest": before["latest"]}],
        "removed": [{"name": "old", "previous_digest": before["old"]}],
        "counts": {"added": 1, "moved": 1, "removed": 1},
        "is_complete": True,
        "href": f"{version_href(hello.id, 2)}diff/",
    }
    assert (extra["repository"], extra["number"], extra["base_number"], extra["origin"]) == ("hello", 2, 1, "sync")
    assert extra["counts"] == database.versions.get(hello.id, 2).summary.counts()
    assert json.loads(json.dumps(extra)) == extra
    first = event(database, hello, 1)
    assert (first["base_number"], first["tags"]["counts"]) == (None, {"added": 2, "moved": 0, "removed": 0})


def test_an_event_stays_small_and_lists_moved_tags_first(database: Database) -> None:
    upstream, repository = Upstream(), database.repositories.ensure("large")
    names = [f"{number:04}".ljust(128, "x") for number in range(MAX_EVENT_TAGS + 20)]
    for name in names:
        upstream.tag(name, image("a"))
    sync(database, repository, upstream)
    for name in names:
        upstream.tag(name.replace("x", "y"), image("a"))
    upstream.tag(names[-1], image("b"))
    sync(database, repository, upstream)
    tags = event(database, repository, 2)["tags"]
    assert [tag["name"] for tag in tags["moved"]] == [names[-1]]
    assert len(tags["added"]) == MAX_EVENT_TAGS - 1
    assert (tags["is_complete"], tags["removed"]) == (False, [])
    assert tags["counts"] == {"added": len(names), "moved": 1, "removed": 0}
    assert len(json.dumps(event(database, repository, 1))) < 40_000


def test_a_rollback_and_a_promotion_report_their_difference(database: Database, hello: Repository) -> None:
    rolled_back, promoted = TaskContext(), TaskContext()
    RollBackVersionOperator(task_id="back", repository="hello", number=1).execute(rolled_back.given())  # type: ignore[arg-type]
    (extra,) = rolled_back.reported()
    assert (extra["origin"], extra["tags"]["counts"]) == ("rollback", {"added": 1, "moved": 1, "removed": 1})
    PromoteTagsOperator(task_id="copy", source="hello", target="tested", tags=["latest"]).execute(promoted.given())  # type: ignore[arg-type]
    (extra,) = promoted.reported()
    assert (extra["repository"], extra["origin"]) == ("tested", "copy")
    assert [tag["name"] for tag in extra["tags"]["added"]] == ["latest"]


def test_changed_tags_are_those_that_differ_after_all_events_of_a_run(database: Database) -> None:
    upstream, repository = Upstream(), database.repositories.ensure("many")
    a, b, c = image("a"), image("b"), image("c")
    for moves in ({"x": a, "y": a, "z": a, "still": a}, {"x": b, "y": b, "z": b}, {"x": c, "y": a, "new": c}):
        for name, manifest in moves.items():
            upstream.tag(name, manifest)
        if "new" in moves:
            del upstream.tags["z"]
        sync(database, repository, upstream)
    second, third = event(database, repository, 2), event(database, repository, 3)
    assert changed_tags(triggering(third, second)) == [
        {"repository": "many", "name": "new", "digest": c.digest, "previous_digest": None, "number": 3},
        {"repository": "many", "name": "x", "digest": c.digest, "previous_digest": a.digest, "number": 3},
    ]
    assert [tag["name"] for tag in changed_tags(triggering(second))] == ["x", "y", "z"]
    assert changed_tags({}) == []


def test_changed_tags_are_complete_however_few_an_event_lists(
    database: Database, hello: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = changed_tags(triggering(event(database, hello, 1), event(database, hello, 2)))
    monkeypatch.setattr(version_events, "MAX_EVENT_TAGS", 1)
    monkeypatch.setattr("registry_sync.operators.changed_tags._PAGE", 1)
    cut = [event(database, hello, number) for number in (1, 2)]
    assert [extra["tags"]["is_complete"] for extra in cut] == [False, False]
    assert changed_tags(triggering(*cut)) == whole
    database.repositories.delete(hello.id)
    with pytest.raises(RecordNotFound):
        changed_tags(triggering(*cut))


def test_a_dag_shows_the_asset_of_a_repository_that_its_code_names() -> None:
    with DAG("declares") as dag:
        sync_repository("team/app", url="http://registry", upstream_name="app")
        sync_repository("small", url="http://registry", upstream_name="app", small=True)
        sync_repository("{{ params.name }}", url="http://registry", upstream_name="app", group_id="form")
        PromoteTagsOperator(task_id="promote", source="small", target="tested")
        RollBackVersionOperator(task_id="back", repository="tested", number=1)
    shown = {
        task.task_id: [outlet.name for outlet in task.outlets if isinstance(outlet, Asset)]
        for task in dag.tasks
        if task.outlets
    }
    assert versions_of("small") in dag.get_task("small.fetch_and_commit").outlets
    assert versions_of("büro").name == "registry_sync/b%C3%BCro"
    assert shown == {
        "team_app.commit_version": ["registry_sync/team/app"],
        "small.fetch_and_commit": ["registry_sync/small"],
        "form.commit_version": [],
        "promote": ["registry_sync/tested"],
        "back": ["registry_sync/tested"],
    }


def test_a_task_that_made_no_version_leaves_no_asset_for_airflow_to_report(
    database: Database, hello: Repository
) -> None:
    own = Asset("own")
    task = RollBackVersionOperator(
        task_id="back", repository="hello", number=2, outlets=[*version_outputs.version_outlets("hello"), own]
    )
    context = TaskContext()
    task.execute(context.given())  # type: ignore[arg-type]
    assert context.reported() == []
    assert [outlet for outlet in task.outlets if isinstance(outlet, Asset)] == [own]


@pytest.mark.parametrize("has_event", [False, True])
def test_the_event_of_a_promotion_that_was_killed_before_it_ended_is_not_lost(
    database: Database, hello: Repository, monkeypatch: pytest.MonkeyPatch, has_event: bool
) -> None:
    def promote(context: TaskContext, **dag_run: Any) -> list[dict[str, Any]]:
        given = context.given()
        vars(given["dag_run"]).update(dag_run)
        PromoteTagsOperator(task_id="copy", source="hello", target="tested").execute(given)  # type: ignore[arg-type]
        return context.reported()

    began_at = utc_now()
    assert len(promote(TaskContext(), start_date=began_at)) == 1
    asked: list[dict[str, Any]] = []

    def has_own(_context: Any, _alias: str, _made_at: Any, extra: dict[str, Any], *, by_any: bool = False) -> bool:
        asked.append(extra)
        return has_event

    monkeypatch.setattr(version_outputs, "_has_own", has_own)
    repeat = TaskContext(try_number=2, max_tries=3)
    assert len(promote(repeat, start_date=began_at)) == (0 if has_event else 1)
    assert len(asked) == 1
    later = TaskContext(try_number=2, max_tries=3)
    assert promote(later, start_date=utc_now() + timedelta(seconds=1)) == []
    assert len(asked) == 1, "a version from before this run is another run's"
