"""Which listing wins where several syncs of a repository are under way at once, whatever the clocks say."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from registry_sync.db.database import Database
from registry_sync.db.tables import sync_runs
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import NothingSynced, RunEnded, VersionConflict
from support.emptied_databases import filled
from support.metadata import LISTED_AT, Upstream, image, index, new_key, open_run, play_stages, sync


def upstream(**tags: str) -> Upstream:
    """Tags by name, each an image of one layer."""
    made = Upstream()
    for name, text in tags.items():
        made.tag(name, image(text))
    return made


def listed(database: Database, repository: Repository, content: Upstream, **said: Any) -> SyncRun:
    """A run that has listed and fetched, and has not committed."""
    at = said.pop("listed_at", LISTED_AT)
    run = open_run(database, repository, **said)
    play_stages(database, run, content, listed_at=at)
    return run


def held_now(database: Database, repository: Repository) -> dict[str, str]:
    """The tags of the latest version, each by the digest it stands for."""
    return {str(name): str(digest) for name, digest in database.versions.tags(repository.id).items()}


def digests(**tags: str) -> dict[str, str]:
    return {name: str(image(text).digest) for name, text in tags.items()}


@pytest.fixture
def app(database: Database) -> Repository:
    """A repository whose only version has ``latest`` of an old image."""
    return filled(database, _of_one_version)


def _of_one_version(database: Database) -> Repository:
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream(latest="old"))
    return repository


@pytest.mark.parametrize("seconds", [-3600, 0, 3600], ids=["clock went back", "same second", "clock went on"])
def test_an_older_listing_does_not_undo_a_later_one_whatever_the_clock_says(
    database: Database, app: Repository, seconds: int
) -> None:
    slow = listed(database, app, upstream(latest="older"))
    quick = listed(database, app, upstream(latest="new"), listed_at=LISTED_AT + timedelta(seconds=seconds))
    database.versions.commit(quick.id)
    with pytest.raises(VersionConflict, match=r"another sync of registry\.example/library/app .* made version 2"):
        database.versions.commit(slow.id)
    assert held_now(database, app) == digests(latest="new")


@pytest.mark.parametrize("seconds", [-3600, 0, 3600], ids=["clock went back", "same second", "clock went on"])
def test_a_later_listing_wins_over_one_that_was_committed_meanwhile_whatever_the_clock_says(
    database: Database, app: Repository, seconds: int
) -> None:
    slow = listed(database, app, upstream(latest="older"))
    quick = listed(database, app, upstream(latest="new"), listed_at=LISTED_AT + timedelta(seconds=seconds))
    database.versions.commit(slow.id)
    assert database.versions.commit(quick.id).version is not None
    assert held_now(database, app) == digests(latest="new")


def test_listings_that_were_made_at_the_same_time_do_not_undo_each_other(database: Database, app: Repository) -> None:
    """Either may have asked for a tag first: the one that commits first stands."""
    first, second = open_run(database, app), open_run(database, app)
    play_stages(database, second, upstream(latest="one"))
    play_stages(database, first, upstream(latest="other"))
    database.versions.commit(second.id)
    with pytest.raises(VersionConflict):
        database.versions.commit(first.id)
    assert held_now(database, app) == digests(latest="one")


def test_a_copy_made_meanwhile_does_not_hide_a_later_listing(database: Database, app: Repository) -> None:
    source = database.repositories.ensure("source")
    sync(database, source, upstream(extra="extra"))
    slow = listed(database, app, upstream(latest="older"))
    database.versions.commit(listed(database, app, upstream(latest="new")).id)
    request = CopyRequest(source.id, 1, TagFilter.parse(None), SyncMode.ADDITIVE)
    assert database.versions.copy(app.id, request).version is not None
    with pytest.raises(VersionConflict, match="made version 2"):
        database.versions.commit(slow.id)
    assert held_now(database, app) == digests(latest="new", extra="extra")


def test_versions_that_are_not_kept_any_more_still_count(database: Database, app: Repository) -> None:
    database.repositories.update(app.id, replace(app.spec, retain_versions=1))
    source = database.repositories.ensure("source")
    sync(database, source, upstream(extra="extra"))
    slow = listed(database, app, upstream(latest="older"))
    rolled = listed(database, app, upstream(latest="older"))
    database.versions.commit(listed(database, app, upstream(latest="new")).id)
    request = CopyRequest(source.id, 1, TagFilter.parse(None), SyncMode.ADDITIVE)
    assert database.versions.copy(app.id, request).version is not None
    for run in (slow, rolled):
        with pytest.raises(VersionConflict):
            database.versions.commit(run.id)


def test_a_rollback_stands_also_when_its_version_is_not_kept_any_more(database: Database, app: Repository) -> None:
    sync(database, app, upstream(latest="bad"))
    slow = listed(database, app, upstream(latest="bad", more="bad"))
    database.versions.roll_back(app.id, 1)
    database.repositories.update(app.id, replace(database.repositories.get(app.id).spec, retain_versions=1))
    source = database.repositories.ensure("source")
    sync(database, source, upstream(extra="extra"))
    request = CopyRequest(source.id, 1, TagFilter.parse(None), SyncMode.ADDITIVE)
    database.versions.copy(app.id, request)
    with pytest.raises(VersionConflict, match=r"was rolled back after"):
        database.versions.commit(slow.id)
    assert held_now(database, app) == digests(latest="old", extra="extra")


def test_a_rollback_while_tags_are_listed_stands(database: Database, app: Repository) -> None:
    sync(database, app, upstream(latest="bad"))
    run = open_run(database, app)
    database.versions.roll_back(app.id, 1)
    play_stages(database, run, upstream(latest="bad"), listed_at=LISTED_AT + timedelta(days=9999))
    with pytest.raises(VersionConflict):
        database.versions.commit(run.id)


def test_additive_syncs_of_other_tags_at_once_both_count(database: Database, app: Repository) -> None:
    content = upstream(v1="one", v2="two")
    additive = {"mode": SyncMode.ADDITIVE}
    one = listed(database, app, upstream(v1="one"), include_tags=("v1",), **additive)
    two = listed(database, app, upstream(v2="two"), include_tags=("v2",), **additive)
    assert database.versions.commit(two.id).version is not None
    assert database.versions.commit(one.id).version is not None
    assert held_now(database, app) == digests(latest="old", v1="one", v2="two")
    assert content.tags.keys() <= held_now(database, app).keys()


def test_additive_syncs_whose_filters_overlap_both_count_where_they_agree(database: Database, app: Repository) -> None:
    shared, moved = index(image("shared")), index(image("moved"))
    content, later = Upstream(), Upstream()
    for into in (content, later):
        into.tag("both", shared, image("shared"))
    content.tag("v1", index(image("one")), image("one"))
    one = listed(database, app, content, include_tags=("v1", "both"), mode=SyncMode.ADDITIVE)
    late = listed(database, app, content, include_tags=("v1", "both"), mode=SyncMode.ADDITIVE)
    later.tag("v2", index(image("two")), image("two"))
    two = listed(database, app, later, include_tags=("v2", "both"), mode=SyncMode.ADDITIVE)
    database.versions.commit(two.id)
    assert database.versions.commit(one.id).version is not None
    assert held_now(database, app).keys() == {"latest", "both", "v1", "v2"}
    later.tag("both", moved, image("moved"))
    database.versions.commit(listed(database, app, later, include_tags=("both",), mode=SyncMode.ADDITIVE).id)
    with pytest.raises(VersionConflict):
        database.versions.commit(late.id)


def test_a_mirror_does_not_remove_what_a_later_additive_sync_has_just_brought(
    database: Database, app: Repository
) -> None:
    mirror = listed(database, app, upstream(latest="new"))
    additive = listed(database, app, upstream(v1="one"), include_tags=("v1",), mode=SyncMode.ADDITIVE)
    database.versions.commit(additive.id)
    with pytest.raises(VersionConflict):
        database.versions.commit(mirror.id)
    assert held_now(database, app) == digests(latest="old", v1="one")


def test_an_additive_sync_does_not_bring_back_what_a_later_mirror_did_not_find(
    database: Database, app: Repository
) -> None:
    additive = listed(database, app, upstream(gone="gone"), mode=SyncMode.ADDITIVE)
    database.versions.commit(listed(database, app, upstream(latest="new")).id)
    with pytest.raises(VersionConflict):
        database.versions.commit(additive.id)


def test_other_upstreams_into_one_repository_do_not_hinder_each_other(database: Database, app: Repository) -> None:
    """What counts is the upstream, not the name of the remote: another remote of the same upstream does."""
    run = listed(database, app, upstream(latest="older"))
    other = database.remotes.ensure(replace(run.remote, name="other", upstream_name="library/other"))
    elsewhere = database.runs.begin(
        new_key(), repository_id=app.id, remote_id=other.id, remote=other.spec, mode=SyncMode.ADDITIVE
    )
    play_stages(database, elsewhere, upstream(other="other"))
    database.versions.commit(elsewhere.id)
    assert database.versions.commit(run.id).version is not None


def test_another_remote_of_the_same_upstream_counts(database: Database, app: Repository) -> None:
    run = listed(database, app, upstream(latest="older"))
    twin = database.remotes.ensure(replace(run.remote, name="twin"))
    later = database.runs.begin(
        new_key(), repository_id=app.id, remote_id=twin.id, remote=twin.spec, mode=SyncMode.MIRROR
    )
    play_stages(database, later, upstream(latest="new"))
    database.versions.commit(later.id)
    database.remotes.delete(twin.id)
    with pytest.raises(VersionConflict):
        database.versions.commit(run.id)


def test_catch_up_runs_of_which_nothing_differs_are_unchanged(database: Database, app: Repository) -> None:
    content = upstream(latest="new", v1="one")
    runs = [listed(database, app, content, listed_at=LISTED_AT - timedelta(hours=number)) for number in range(5)]
    for run in reversed(runs):
        database.versions.commit(run.id)
    states = [database.runs.get(run.id).state for run in runs]
    assert states == [RunState.UNCHANGED] * 4 + [RunState.COMPLETED]
    assert database.repositories.get(app.id).latest_number == 2


def test_nothing_that_differs_is_unchanged_after_a_rollback_too(database: Database, app: Repository) -> None:
    sync(database, app, upstream(latest="bad"))
    run = listed(database, app, upstream(latest="old"))
    database.versions.roll_back(app.id, 1)
    assert database.versions.commit(run.id).version is None
    assert database.runs.get(run.id).state is RunState.UNCHANGED


def test_a_tag_that_was_unchanged_when_it_was_listed_and_moved_since_is_a_conflict_and_no_hold(
    database: Database, app: Repository
) -> None:
    slow = listed(database, app, upstream(latest="old", v1="one"))
    database.versions.commit(listed(database, app, upstream(latest="new", v1="one")).id)
    with pytest.raises(VersionConflict):
        database.versions.commit(slow.id)
    with pytest.raises(NothingSynced):
        sync(database, app, upstream(latest="newer", v1="one"), held={"latest": "not there"})


def test_a_listing_that_found_nothing_to_change_counts_as_well(database: Database, app: Repository) -> None:
    """Upstream moved a tag and moved it back: who saw it in between is late."""
    slow = listed(database, app, upstream(latest="between"))
    later = open_run(database, app)
    assert database.runs.settle_unchanged(later.id, LISTED_AT, latest_number=1)
    with pytest.raises(VersionConflict, match="found nothing to change"):
        database.versions.commit(slow.id)
    assert held_now(database, app) == digests(latest="old")


def test_what_was_compared_with_an_older_version_is_not_said_to_be_unchanged(
    database: Database, app: Repository
) -> None:
    slow = listed(database, app, upstream(latest="between"))
    later = open_run(database, app)
    database.versions.commit(slow.id)
    assert not database.runs.settle_unchanged(later.id, LISTED_AT, latest_number=1)
    assert database.runs.get(later.id).state is RunState.RUNNING


def test_a_sync_that_lists_again_is_later_than_what_made_it_list_again(database: Database, app: Repository) -> None:
    run = open_run(database, app)
    database.versions.commit(listed(database, app, upstream(latest="between")).id)
    assert not database.runs.settle_unchanged(run.id, LISTED_AT, latest_number=1)
    play_stages(database, run, upstream(latest="newest"))
    assert database.versions.commit(run.id).version is not None
    assert held_now(database, app) == digests(latest="newest")


def test_a_sync_that_lists_again_undoes_nothing_that_is_listed_after_that(database: Database, app: Repository) -> None:
    run = open_run(database, app)
    database.versions.commit(listed(database, app, upstream(latest="between")).id)
    assert not database.runs.settle_unchanged(run.id, LISTED_AT, latest_number=1)
    database.versions.commit(listed(database, app, upstream(latest="newest")).id)
    play_stages(database, run, upstream(latest="older"))
    with pytest.raises(VersionConflict):
        database.versions.commit(run.id)


def test_a_rollback_while_a_sync_lists_stands_though_it_lists_again(database: Database, app: Repository) -> None:
    sync(database, app, upstream(latest="bad"))
    run = open_run(database, app)
    database.versions.roll_back(app.id, 1)
    assert not database.runs.settle_unchanged(run.id, LISTED_AT, latest_number=2)
    play_stages(database, run, upstream(latest="bad"))
    with pytest.raises(VersionConflict, match="rolled back"):
        database.versions.commit(run.id)


def begun_twice(database: Database, app: Repository) -> tuple[SyncRun, SyncRun]:
    """A try that lost its worker and lists on, and the next one of the same task; another sync was between them."""
    key = new_key()
    lost = open_run(database, app, key=key)
    database.versions.commit(listed(database, app, upstream(latest="between")).id)
    again = open_run(database, app, key=key)
    assert (again.id, again.listing_began > lost.listing_began) == (lost.id, True)
    return lost, again


def test_a_try_whose_worker_was_lost_says_nothing_for_the_one_that_began_after_it(
    database: Database, app: Repository
) -> None:
    lost, again = begun_twice(database, app)
    began = lost.listing_began
    with pytest.raises(RunEnded, match="was restarted while this task still listed"):
        database.runs.record_listing(lost.id, LISTED_AT, [], listing_began=began)
    for number in (1, 2):
        with pytest.raises(RunEnded, match="was restarted while this task still listed"):
            database.runs.settle_unchanged(lost.id, LISTED_AT, latest_number=number, listing_began=began)
    assert database.runs.get(again.id).listing_began == again.listing_began
    assert database.runs.settle_unchanged(again.id, LISTED_AT, latest_number=2, listing_began=again.listing_began)


def test_a_lost_try_that_would_list_again_makes_the_next_one_no_later(database: Database, app: Repository) -> None:
    """Else the next try undoes what was listed after it had begun."""
    lost, again = begun_twice(database, app)
    database.versions.commit(listed(database, app, upstream(latest="newest")).id)
    with pytest.raises(RunEnded):
        database.runs.settle_unchanged(lost.id, LISTED_AT, latest_number=1, listing_began=lost.listing_began)
    play_stages(database, again, upstream(latest="between"))
    with pytest.raises(VersionConflict):
        database.versions.commit(again.id)
    assert held_now(database, app) == digests(latest="newest")


def test_a_sync_whose_dag_run_has_ended_does_not_list_again(database: Database, app: Repository) -> None:
    run = open_run(database, app)
    database.versions.commit(listed(database, app, upstream(latest="between")).id)
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.CANCELED, "canceled")
    with pytest.raises(RunEnded, match="has ended"):
        database.runs.settle_unchanged(run.id, LISTED_AT, latest_number=1)
    assert database.runs.get(run.id).listing_began == run.listing_began


def end_while(database: Database, run: SyncRun, act: Callable[[], object], **values: Any) -> Future[object]:
    """What ``act`` comes to that begins while somebody else ends the run, and holds its row until it is done."""
    with ThreadPoolExecutor(1) as thread, database.writing() as connection:
        connection.execute(update(sync_runs).where(sync_runs.c.id == run.id).values(**values))
        acting = thread.submit(act)
        wait([acting], timeout=0.3)
    return acting


def test_a_sync_that_is_canceled_while_it_is_found_unchanged_stays_canceled(
    database: Database, app: Repository
) -> None:
    run = open_run(database, app)
    settle = partial(database.runs.settle_unchanged, run.id, LISTED_AT, latest_number=1)
    acting = end_while(database, run, settle, state=RunState.CANCELED.value, is_dag_run_over=True)
    with pytest.raises(RunEnded):
        acting.result()
    assert database.runs.get(run.id).state is RunState.CANCELED


def test_a_sync_that_settles_while_a_lost_task_of_it_fails_stays_settled(database: Database, app: Repository) -> None:
    run = open_run(database, app)
    fail = partial(database.runs.finish, run.id, RunState.FAILED, error="lost")
    end_while(database, run, fail, state=RunState.COMPLETED.value, version_number=1).result()
    ended = database.runs.get(run.id)
    assert (ended.state, ended.version_number, ended.error) == (RunState.COMPLETED, 1, None)


def test_a_cleared_run_lists_anew_and_then_wins(database: Database, app: Repository) -> None:
    key = new_key()
    slow = listed(database, app, upstream(latest="older"), key=key)
    database.versions.commit(listed(database, app, upstream(latest="new")).id)
    with pytest.raises(VersionConflict):
        database.versions.commit(slow.id)
    again = listed(database, app, upstream(latest="newest"), key=key)
    assert again.id == slow.id
    assert database.versions.commit(again.id).version is not None


@pytest.mark.slow
@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_sync_under_way_undoes_nothing_later_after_an_upgrade(database: Database, url: str, rolls_back: bool) -> None:
    """Of the schema before, which had no numbers: what settled is numbered by its time, and so is a rollback."""
    hour = timedelta(hours=1)
    app = database.repositories.ensure("app")
    for hours, tags in ((1, {"a": "1"}), (2, {"a": "1", "b": "1"})):
        run = listed(database, app, upstream(**tags), listed_at=LISTED_AT - 9 * hour + hours * hour)
        assert database.versions.commit(run.id).version is not None
    slow = listed(database, app, upstream(a="1", b="1", c="old"))
    quick = listed(database, app, upstream(a="1", b="1", c="new"), listed_at=LISTED_AT + hour)
    later = listed(database, app, upstream(a="1", b="1", c="newest"), listed_at=utc_now() + hour)
    if rolls_back:
        database.versions.roll_back(app.id, 1)
    else:
        database.versions.commit(quick.id)
    database.downgrade("0002")
    database.upgrade()
    with pytest.raises(VersionConflict):
        database.versions.commit(slow.id)
    assert database.versions.commit(later.id).version is not None
    assert held_now(database, app)["c"] == digests(c="newest")["c"]
