"""Versions compared, promoted and rolled back to by operators: what they hand on, tell, skip and refuse."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAlias
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from registry_sync.db.database import Database
from registry_sync.domain.asset_names import PUBLICATIONS_ALIAS
from registry_sync.domain.records import Repository
from registry_sync.domain.serving import DistributionSpec
from registry_sync.operators.compare_versions import CompareVersionsOperator
from registry_sync.operators.promote_tags import PromoteTagsOperator
from registry_sync.operators.publish_version import PublishVersionOperator
from registry_sync.operators.roll_back_version import RollBackVersionOperator
from support.metadata import Upstream, image, sync, two_versions
from support.ready_databases import filled
from support.task_contexts import TaskContext


@pytest.fixture
def hello(database: Database) -> Repository:
    """``hello`` with two versions: latest moved, old gone and new came with the second."""
    return filled(database, two_versions, "hello")


def tags(database: Database, name: str) -> list[str]:
    return sorted(database.versions.tags(database.repositories.by_name(name).id))


# -- rolled back ------------------------------------------------------------------------------------------------


def roll_back(context: TaskContext, **parameters: Any) -> dict[str, Any]:
    return RollBackVersionOperator(task_id="roll_back", **parameters).execute(context.given())  # type: ignore[arg-type]


def test_a_rollback_makes_a_version_and_updates_assets(database: Database, hello: Repository) -> None:
    context = TaskContext()
    returned = roll_back(context, repository="hello", number="1", description="latest does not start")
    assert (returned["repository"], returned["version"]["number"]) == ("hello", 3)
    assert (returned["unchanged_version"], returned["missing_blob_count"]) == (None, 0)
    made = database.versions.get(hello.id, 3)
    assert (made.description, made.origin.created_by) == ("latest does not start", "anna")
    assert tags(database, "hello") == ["latest", "old"]
    (told,) = context.reported()
    assert (told["repository"], told["number"], told["hold_count"]) == ("hello", 3, 0)


def test_a_rollback_to_what_is_there_makes_and_updates_nothing(database: Database, hello: Repository) -> None:
    context = TaskContext()
    returned = roll_back(context, repository="hello", number=2)
    assert (returned["version"], returned["unchanged_version"]["number"]) == (None, 2)
    assert context.reported() == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"repository": "hello", "number": "7"}, "RecordNotFound: there is no version 7"),
        ({"repository": "hello", "number": "first"}, "InvalidReference: 'first' is not the number of a version"),
        ({"repository": "hello", "number": ""}, "InvalidReference: number: give the version"),
        ({"repository": "nowhere", "number": "1"}, "RecordNotFound: there is no repository 'nowhere'"),
    ],
)
def test_a_rollback_that_cannot_be_made_fails_at_once(
    database: Database, hello: Repository, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        roll_back(TaskContext(), **parameters)
    assert database.repositories.get(hello.id).latest_number == 2


# -- promoted ---------------------------------------------------------------------------------------------------


def promote(context: TaskContext, **parameters: Any) -> dict[str, Any]:
    return PromoteTagsOperator(task_id="promote", **parameters).execute(context.given())  # type: ignore[arg-type]


def test_tags_are_promoted_into_a_repository_that_is_made_for_them(database: Database, hello: Repository) -> None:
    context = TaskContext()
    returned = promote(context, source="hello", target="production", number="1", tags="la*, old", exclude_tags="old")
    assert returned["version"]["number"] == 1
    assert tags(database, "production") == ["latest"]
    assert [told["repository"] for told in context.reported()] == ["production"]
    made = database.versions.get(database.repositories.by_name("production").id, 1)
    assert (made.origin.repository_id, made.origin.number, made.origin.created_by) == (hello.id, 1, "anna")
    again = TaskContext()
    assert promote(again, source="hello", target="production", number="1", tags="latest")["version"] is None
    assert again.reported() == []


def test_a_version_names_who_approved_it_rather_than_who_began_the_run(database: Database, hello: Repository) -> None:
    promote(TaskContext(user=None), source="hello", target="production", created_by="bela")
    made = database.versions.get(database.repositories.by_name("production").id, 1)
    assert made.origin.created_by == "bela"
    roll_back(TaskContext(), repository="hello", number=1, created_by=" ")
    assert database.versions.get(hello.id, 3).origin.created_by == "anna"


def test_additive_keeps_and_mirror_removes_what_else_is_there(database: Database, hello: Repository) -> None:
    promote(TaskContext(), source="hello", target="production", number=1)
    promote(TaskContext(), source="hello", target="production")
    assert tags(database, "production") == ["latest", "new", "old"]
    promote(TaskContext(), source="hello", target="production", mode="mirror")
    assert tags(database, "production") == ["latest", "new"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"tags": "nothing"}, "RecordNotFound: .*has no tag 'nothing'"),
        ({"tags": "no/tag"}, "InvalidReference: 'no/tag' is neither"),
        ({"mode": "all"}, "ConfigurationError: mode is 'all'; it is one of mirror, additive"),
        ({"target": " "}, "InvalidReference: target: give the name"),
        ({"target": "hello"}, "InvalidReference: .*copied into itself"),
        ({"source": "empty"}, "RecordNotFound: repository 'empty' has no version yet"),
    ],
)
def test_a_promotion_that_cannot_be_made_fails_at_once(
    database: Database, hello: Repository, parameters: dict[str, Any], said: str
) -> None:
    database.repositories.ensure("empty")
    with pytest.raises(AirflowFailException, match=said):
        promote(TaskContext(), **{"source": "hello", "target": "production", **parameters})
    assert [row.name for row in database.repositories.page().items if row.latest_number] == ["hello"]


# -- published ---------------------------------------------------------------------------------------------------


def publish(context: TaskContext, **parameters: Any) -> dict[str, Any]:
    given = {"base_path": "stable/hello", "repository": "hello", **parameters}
    return PublishVersionOperator(task_id="publish", **given).execute(context.given())  # type: ignore[arg-type]


def test_a_version_is_published_and_an_event_says_so(database: Database, hello: Repository) -> None:
    context = TaskContext()
    returned = publish(context, number="1")
    made = database.distributions.by_name("stable/hello")
    assert (made.base_path, made.repository_id, made.version_number, made.is_private) == (
        "stable/hello", hello.id, 1, True,
    )  # fmt: skip
    assert (returned["is_changed"], returned["previous_number"]) == (True, None)
    assert returned["distribution"]["repository_version"].endswith(f"{hello.id}/versions/1/")
    (event,) = context.reported(PUBLICATIONS_ALIAS)
    assert (event["base_path"], event["repository"], event["number"]) == ("stable/hello", "hello", 1)
    (emitted,) = context.events[AssetAlias(PUBLICATIONS_ALIAS)].asset_alias_events
    assert emitted.dest_asset_key.name == "registry_sync_published/stable/hello"


def test_a_promotion_says_what_takes_it_back_and_a_repeat_does_nothing(database: Database, hello: Repository) -> None:
    publish(TaskContext(), number=1, private="False")
    promoted = publish(TaskContext(), number="2")
    again = TaskContext()
    repeated = publish(again, number=2)
    assert (promoted["is_changed"], promoted["previous_number"]) == (True, 1)
    assert (repeated["is_changed"], repeated["previous_number"], again.reported(PUBLICATIONS_ALIAS)) == (False, 2, [])
    back = publish(TaskContext(), number=promoted["previous_number"])
    assert back["is_changed"]
    made = database.distributions.by_name("stable/hello")
    assert (made.version_number, made.is_private) == (1, False)
    followed = publish(TaskContext(), number="latest")
    assert followed["distribution"]["repository"].endswith(f"{hello.id}/")
    assert publish(TaskContext(), number=1)["previous_number"] == "latest"


def test_the_event_of_a_try_that_failed_after_its_change_is_not_lost(database: Database, hello: Repository) -> None:
    publish(TaskContext(), number=1)
    repeat = TaskContext(try_number=2, max_tries=3)
    given = repeat.given()
    changed_at = database.distributions.by_name("stable/hello").updated_at
    assert changed_at is not None
    for began_at, count in ((changed_at + timedelta(seconds=1), 0), (changed_at, 1)):
        given["dag_run"].start_date = began_at
        operator = PublishVersionOperator(task_id="publish", base_path="stable/hello", repository="hello", number=1)
        assert operator.execute(given)["is_changed"] is False  # type: ignore[arg-type]
        assert len(repeat.reported(PUBLICATIONS_ALIAS)) == count


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"number": "7"}, "RecordNotFound: there is no version 7"),
        ({"number": "first"}, "InvalidReference: 'first' is not the number of a version"),
        ({"number": " "}, "InvalidReference: number: give the version to publish, or 'latest'"),
        ({"number": None}, "InvalidReference: number: give the version to publish, or 'latest'"),
        ({"repository": "nowhere"}, "RecordNotFound: there is no repository 'nowhere'"),
        ({"base_path": "Stable"}, "InvalidReference: 'Stable' is not a repository name"),
        ({"base_path": "a/versions/1"}, "InvalidReference: .*is the name of a version"),
        ({"base_path": "taken"}, "NameTaken: .*serves 'other' and not 'hello'"),
        ({"private": "maybe"}, "ConfigurationError: private is 'maybe'"),
    ],
)
def test_what_cannot_be_published_fails_at_once(
    database: Database, hello: Repository, parameters: dict[str, Any], said: str
) -> None:
    other = two_versions(database, "other")
    database.distributions.create(DistributionSpec("taken", "taken", other.id))
    with pytest.raises(AirflowFailException, match=said):
        publish(TaskContext(), **{"number": 1, **parameters})
    assert [found.name for found in database.distributions.page().items] == ["taken"]


def test_another_repository_is_published_where_the_author_says_that_it_may(
    database: Database, hello: Repository
) -> None:
    other = two_versions(database, "other")
    database.distributions.create(DistributionSpec("taken", "taken", other.id, 2))
    returned = publish(TaskContext(), base_path="taken", number=1, replace_repository="true")
    assert (returned["is_changed"], returned["previous_number"]) == (True, None)


# -- compared ---------------------------------------------------------------------------------------------------


def compare(context: TaskContext, **parameters: Any) -> dict[str, Any]:
    """Before a gate and a promotion, which it may skip."""
    with DAG(dag_id="promote", schedule=None):
        operator = CompareVersionsOperator(task_id="compare", **parameters)
        operator >> BaseOperator(task_id="approve") >> BaseOperator(task_id="promote")
    return operator.execute(context.given())  # type: ignore[arg-type]


def test_a_comparison_says_what_differs_for_people_and_for_tasks(database: Database, hello: Repository) -> None:
    compared = compare(TaskContext(), repository="hello")
    assert (compared["number"], compared["base_number"], compared["is_equal"]) == (2, 1, False)
    assert compared["names"] == {"added": ["new"], "removed": ["old"], "moved": ["latest"]}
    assert compared["counts"] == {"added": 1, "removed": 1, "moved": 1}
    before, after = (database.versions.tags(hello.id, number)["latest"] for number in (1, 2))  # type: ignore[index]
    assert f"- **1 tag moved**: latest (`{before[:19]}` to `{after[:19]}`)" in compared["markdown"]


def test_a_version_is_compared_with_another_repository_that_may_not_exist_yet(
    database: Database, hello: Repository
) -> None:
    gate = {"repository": "hello", "base_repository": "production"}
    assert compare(TaskContext(), **gate)["counts"] == {"added": 2, "removed": 0, "moved": 0}
    database.repositories.ensure("production")
    assert compare(TaskContext(), **gate)["base_number"] == 0
    promote(TaskContext(), source="hello", target="production", number="1")
    assert compare(TaskContext(), **gate, mode="additive")["counts"] == {"added": 1, "removed": 0, "moved": 1}
    assert compare(TaskContext(), **gate, tags="new")["names"]["added"] == ["new"]
    assert compare(TaskContext(), **gate, number="1")["markdown"] == "No tag differs."


def test_what_comes_after_is_skipped_only_when_nothing_differs(database: Database, hello: Repository) -> None:
    differs = TaskContext()
    assert compare(differs, repository="hello", skip_when_equal="True")["is_equal"] is False
    same = TaskContext()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        compare(same, repository="hello", base_number="2", skip_when_equal=True)
    assert skipped.value.tasks == [("approve", -1), ("promote", -1)]
    assert same.returned["return_value"]["is_equal"] is True


def test_what_is_returned_stays_small_however_much_differs(database: Database) -> None:
    repository, upstream = database.repositories.ensure("large"), Upstream()
    for number in range(300):
        upstream.tag(f"tag-{number:03}", image("a"))
    sync(database, repository, upstream)
    compared = compare(TaskContext(), repository="large")
    assert (compared["counts"]["added"], len(compared["names"]["added"])) == (300, 20)
    assert compared["markdown"].endswith("tag-019 and 280 more")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"base_repository": "nowhere", "base_number": "1"}, "there is no repository 'nowhere'"),
        ({"base_repository": "empty", "base_number": "1"}, "there is no version 1"),
        ({"number": "7"}, "there is no version 7"),
        ({"skip_when_equal": "maybe"}, "skip_when_equal is 'maybe'; it is true or false"),
    ],
)
def test_what_cannot_be_compared_fails_at_once(
    database: Database, hello: Repository, parameters: dict[str, Any], said: str
) -> None:
    database.repositories.ensure("empty")
    with pytest.raises(AirflowFailException, match=said):
        compare(TaskContext(), repository="hello", **parameters)
