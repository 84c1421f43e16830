"""Repositories and syncs at a glance, on both databases: what is shown, in which order, and by how many statements."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.overviews import Outcome, RepositoryOverview
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest, SyncMode
from registry_sync.domain.runs import DagRunEnd, RunState
from registry_sync.errors import InvalidReference, RecordNotFound
from support.metadata import Upstream, image, layer, open_run, stopped_run, sync, two_versions, upstream_with
from support.statements import executed_statements

MAX_STATEMENTS = 8


def shown(database: Database, ordering: str = "", **filters: object) -> list[str]:
    page = database.overviews.repositories(PageRequest(ordering=ordering), **filters)  # type: ignore[arg-type]
    assert page.total_count == len(page.items)
    return [one.repository.name for one in page.items]


def overview(database: Database, name: str) -> RepositoryOverview:
    found = {one.repository.name: one for one in database.overviews.repositories().items}
    alone = database.overviews.repository(found[name].repository.id)
    assert alone == found[name]
    return alone


def test_a_repository_is_shown_with_its_latest_version_and_its_last_sync(database: Database) -> None:
    repository = two_versions(database, "team/app")
    two_versions(database, "other/app")
    upstream = Upstream()
    upstream.tag("latest", image("c"))
    upstream.tag("new", image("a"))
    upstream.tag("a", image(layer("one", size_bytes=1_000), config="{}"))
    upstream.tag("b", image(layer("two", size_bytes=2_000), config="{}"))
    sync(database, repository, upstream, mode=SyncMode.MIRROR, held={"b": "its registry is down"})
    one = overview(database, "team/app")
    assert one.repository.id == repository.id
    assert one.version is not None
    assert (one.version.number, one.version.tag_count, one.version.held_count) == (3, 3, 1)
    assert (one.version.blob_count, one.version.size_bytes) == (
        6,
        1_002 + sum(len(text) for text in "ac") + _config("a") + _config("c"),
    )
    assert one.last_run is not None
    assert (one.last_run.state, one.last_run.version_number) == (RunState.COMPLETED, 3)
    assert one.synced_at == one.last_run.finished_at
    failed = open_run(database, repository)
    database.run_ends.end(
        failed.key.dag_id, failed.key.run_id, DagRunEnd.FAILED.state, "no space", started_at=utc_now()
    )
    after = overview(database, "team/app")
    assert after.last_run is not None
    assert (after.last_run.id, after.last_run.state) == (failed.id, RunState.FAILED)
    assert (after.synced_at, after.version) == (one.synced_at, one.version)


def test_a_repository_without_a_sync_is_shown_as_well(database: Database) -> None:
    database.repositories.ensure("empty")
    assert overview(database, "empty") == RepositoryOverview(database.repositories.by_name("empty"))
    with pytest.raises(RecordNotFound):
        database.overviews.repository("00000000-0000-0000-0000-000000000000")


def test_they_are_found_by_name_and_state_and_ordered_by_age(database: Database) -> None:
    for name in ("b/app", "a_b/app", "c_d"):
        database.repositories.ensure(name) if name == "c_d" else two_versions(database, name)
    opened = open_run(database, database.repositories.by_name("b/app"))
    assert opened.state is RunState.RUNNING
    assert shown(database) == ["a_b/app", "b/app", "c_d"]
    assert shown(database, "-name") == ["c_d", "b/app", "a_b/app"]
    assert shown(database, "synced_at") == ["c_d", "b/app", "a_b/app"]
    assert shown(database, "-synced_at") == ["a_b/app", "b/app", "c_d"]
    assert shown(database, name_contains="a_B") == ["a_b/app"]
    assert shown(database, name_contains="C_") == ["c_d"]
    assert shown(database, name_contains="%") == []
    assert shown(database, name_contains="app", outcomes=[Outcome.RUNNING]) == ["b/app"]
    assert shown(database, outcomes=[Outcome.COMPLETED, Outcome.UNCHANGED]) == ["a_b/app"]
    with pytest.raises(InvalidReference):
        shown(database, "size")


def test_the_last_result_of_a_mirror_is_shown(database: Database) -> None:
    database.repositories.ensure("team/app")
    at = utc_now()
    earlier = MirrorResult("fleet", "run-1", "sync_mirrors", "team/app", 0, MirrorOutcome.CHANGED, at, at)
    later = replace(earlier, run_id="run-2", outcome=MirrorOutcome.THROTTLED, finished_at=at + timedelta(hours=1))
    for result in (later, earlier, replace(later, repository="team/ap")):
        database.mirror_results.record(result)
    assert overview(database, "team/app").mirror == later


def test_bytes_of_many_blobs_are_added_up_for_one_repository_alone(database: Database) -> None:
    repository = two_versions(database, "team/app")
    (listed,) = database.overviews.repositories(max_added_blobs=3).items
    assert listed.version is not None
    assert (listed.version.blob_count, listed.version.size_bytes) == (4, None)
    alone = database.overviews.repository(repository.id).version
    assert alone is not None
    assert alone.size_bytes == database.disk_usage.repository(repository.id).blobs.size_bytes - len(b"b") - _config("b")


def _config(text: str) -> int:
    ((_, config),) = [blob for blob in image(text).blobs() if blob[0].value == "config"]
    return config.size_bytes


def test_syncs_are_shown_with_the_tags_of_their_versions(database: Database) -> None:
    repository = two_versions(database, "team/app")
    other = two_versions(database, "team/web")
    running = open_run(database, repository)
    page = database.overviews.syncs(PageRequest(limit=2, ordering="-started_at"), repository_id=repository.id)
    assert (page.total_count, page.items[0].run.id, page.items[0].tags_added) == (3, running.id, None)
    assert (page.items[1].repository_name, page.items[1].run.version_number) == ("team/app", 2)
    assert (page.items[1].tags_added, page.items[1].tags_removed) == (2, 2)
    assert {one.run.repository_id for one in database.overviews.syncs(name_contains="WEB").items} == {other.id}
    assert [one.run.id for one in database.overviews.syncs(outcomes=[Outcome.RUNNING]).items] == [running.id]
    # A version that is no longer kept.
    database.versions.delete(repository.id, 1)
    assert [one.tags_added for one in database.overviews.syncs(repository_id=repository.id).items] == [None, 2, None]


def test_a_sync_that_waits_for_an_approval_is_neither_running_nor_failed(database: Database) -> None:
    run = stopped_run(database, "team/app")
    running = open_run(database, two_versions(database, "team/web"))

    def found(outcome: Outcome) -> list[str]:
        syncs = database.overviews.syncs(outcomes=[outcome]).items
        assert [Outcome.of(one.run) for one in syncs] == [outcome] * len(syncs)
        names = shown(database, outcomes=[outcome])
        assert {one.repository_name for one in syncs} >= set(names)
        return names

    assert [found(outcome) for outcome in (Outcome.WAITING, Outcome.RUNNING, Outcome.FAILED)] == [
        ["team/app"],
        ["team/web"],
        [],
    ]
    database.runs.approve_removals(run.id, "anna")
    assert [found(Outcome.WAITING), found(Outcome.RUNNING)] == [[], ["team/app", "team/web"]]
    # One that nobody is asked about has failed.
    for each in (run, running):
        database.run_ends.end(
            each.key.dag_id, each.key.run_id, DagRunEnd.FAILED.state, "no answer", started_at=utc_now()
        )
    assert [found(Outcome.WAITING), found(Outcome.FAILED)] == [[], ["team/app", "team/web"]]


def test_every_state_of_a_sync_is_an_outcome() -> None:
    assert {outcome.value for outcome in Outcome} == {state.value for state in RunState} | {"waiting"}


def test_an_example_of_a_tag_is_the_one_people_expect(database: Database) -> None:
    repository = database.repositories.ensure("empty")
    assert database.overviews.a_tag(repository.id) is None
    sync(database, repository, upstream_with(3))
    assert database.overviews.a_tag(repository.id) == "tag-00"
    assert database.overviews.a_tag(two_versions(database, "team/app").id) == "latest"


def test_a_page_takes_the_same_few_statements_whatever_is_on_it(database: Database) -> None:
    two_versions(database, "team/0")

    def count() -> int:
        with executed_statements() as statements:
            database.overviews.repositories(PageRequest(limit=25))
            database.overviews.syncs(PageRequest(limit=25))
        return len([text for text in statements if text.startswith("SELECT")])

    few = count()
    for number in range(1, 6):
        two_versions(database, f"team/{number}")
    assert count() == few <= MAX_STATEMENTS + 2
