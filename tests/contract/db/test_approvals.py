"""Approvals of removals: for exactly what a run was refused for, or in advance for whatever goes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from registry_sync.db.database import Database
from registry_sync.db.tables import sync_runs
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import NothingToApprove, RunEnded, TooFewTags, TooManyRemovals
from support.emptied_databases import filled
from support.metadata import LISTED_AT, Upstream, image, new_key, open_run, play_stages, sync

FOUR = ("v1", "v2", "v3", "v4")


@pytest.fixture
def repository(database: Database) -> Repository:
    """A mirror of four tags."""
    return filled(database, _of_four_tags)


def _of_four_tags(database: Database) -> Repository:
    repository = database.repositories.ensure("app")
    sync(database, repository, tagged(*FOUR))
    return repository


def tagged(*names: str) -> Upstream:
    upstream = Upstream()
    for name in names:
        upstream.tag(name, image(name))
    return upstream


def left(database: Database, repository: Repository, *names: str, hours: int = 1) -> SyncRun:
    """A mirror, ready to be committed, of an upstream that has these tags left."""
    run = open_run(database, repository)
    play_stages(database, run, tagged(*names), listed_at=LISTED_AT + timedelta(hours=hours))
    return run


def refused(database: Database, run: SyncRun, match: str | None = None) -> str:
    with pytest.raises(TooManyRemovals, match=match) as caught:
        database.versions.commit(run.id)
    return str(caught.value)


def promote(database: Database, repository: Repository, *names: str) -> None:
    """Tags that come from another repository: no listing, which a commit would conflict with."""
    source = database.repositories.ensure("staging")
    sync(database, source, tagged(*names))
    request = CopyRequest(source.id, None, TagFilter.parse(list(names)), SyncMode.ADDITIVE)
    database.versions.copy(repository.id, request)


def test_a_run_that_was_not_refused_cannot_be_approved(database: Database, repository: Repository) -> None:
    started = open_run(database, repository)
    listed = left(database, repository, "v1")
    for run in (started, listed):
        with pytest.raises(NothingToApprove, match=f"{run.key.run_id!r} .*nothing to approve.*TooManyRemovals"):
            database.runs.approve_removals(run.id, "anna")
    refused(database, listed)
    assert len(database.versions.tags(repository.id)) == 4


def test_what_was_refused_may_be_approved_once_and_goes(database: Database, repository: Repository) -> None:
    run = left(database, repository, "v1")
    assert database.runs.get(run.id).refused_removals is None
    refused(database, run)
    refused(database, run)
    assert database.runs.get(run.id).removals_approved_at is None
    began = utc_now()
    for name in ("anna", "bert"):
        database.runs.approve_removals(run.id, name)
    approved_at = database.runs.get(run.id).removals_approved_at
    assert approved_at is not None
    assert began <= approved_at <= utc_now()
    assert database.versions.commit(run.id).removals_approved_by == "bert"
    assert database.runs.get(run.id).removals_approved_at == approved_at
    assert set(database.versions.tags(repository.id)) == {"v1"}
    with pytest.raises(RunEnded, match=f"{run.key.run_id!r}.*{run.key.dag_id!r}.*completed") as ended:
        database.runs.approve_removals(run.id, "carl")
    assert run.id not in str(ended.value), "a run is known by its DAG run"


def test_an_approval_is_not_for_tags_that_were_promoted_since(database: Database, repository: Repository) -> None:
    run = left(database, repository, "v1")
    refused(database, run, "3 of 4 tags are gone upstream")
    database.runs.approve_removals(run.id, "anna")
    promote(database, repository, "w1")
    refused(database, run, "^anna approved the removal of other tags.* 4 of 5 tags are gone upstream.*w1")
    dropped = database.runs.get(run.id)
    assert (dropped.removals_approved_by, dropped.removals_approved_at) == (None, None)
    refused(database, run, "^4 of 5 tags are gone upstream")
    assert len(database.versions.tags(repository.id)) == 5
    database.runs.approve_removals(run.id, "bert")
    assert database.versions.commit(run.id).removals_approved_by == "bert"
    assert set(database.versions.tags(repository.id)) == {"v1"}


def test_an_approval_is_not_for_a_tag_that_has_moved_since(database: Database, repository: Repository) -> None:
    run = left(database, repository, "v1")
    refused(database, run)
    database.runs.approve_removals(run.id, "anna")
    source, moved = database.repositories.ensure("staging"), Upstream()
    moved.tag("v2", image("fixed by hand"))
    sync(database, source, moved)
    request = CopyRequest(source.id, None, TagFilter.parse(["v2"]), SyncMode.ADDITIVE)
    database.versions.copy(repository.id, request)
    refused(database, run, "^anna approved the removal of other tags")
    assert len(database.versions.tags(repository.id)) == 4


def test_an_approval_is_not_for_what_is_held_no_more(database: Database, repository: Repository) -> None:
    run = open_run(database, repository)
    play_stages(database, run, tagged("v1", "v2"), held={"v2": "no such blob"})
    database.runs.drop_tags(run.id, [])
    promote(database, repository, "w1")
    refused(database, run, "3 of 5 tags")
    database.runs.approve_removals(run.id, "anna")
    database.runs.drop_tags(run.id, ["v2"])  # type: ignore[list-item]
    refused(database, run, "^anna approved the removal of other tags.* 4 of 5 tags")


def test_an_approval_is_not_for_what_a_run_lists_when_it_begins_anew(
    database: Database, repository: Repository
) -> None:
    key = new_key()
    run = open_run(database, repository, key=key)
    play_stages(database, run, tagged("v1"))
    refused(database, run)
    database.runs.approve_removals(run.id, "anna")
    again = open_run(database, repository, key=key)
    assert (again.id, again.refused_removals, again.removals_approved_by) == (run.id, None, None)
    with pytest.raises(NothingToApprove):
        database.runs.approve_removals(run.id, "anna")


def test_who_looked_at_other_removals_approves_none(database: Database, repository: Repository) -> None:
    run = left(database, repository, "v1")
    refused(database, run)
    seen = database.runs.get(run.id).refused_removals
    promote(database, repository, "w1")
    refused(database, run)
    with pytest.raises(NothingToApprove, match="stopped again since, for other tags"):
        database.runs.approve_removals(run.id, "anna", seen=seen)
    database.runs.approve_removals(run.id, "anna", seen=database.runs.get(run.id).refused_removals)
    assert database.versions.commit(run.id).version is not None


def test_an_approval_in_advance_is_for_whatever_goes(database: Database, repository: Repository) -> None:
    run = left(database, repository, "v1")
    database.runs.approve_removals(run.id, "the author", in_advance=True)
    promote(database, repository, "w1")
    assert database.versions.commit(run.id).removals_approved_by == "the author"
    assert set(database.versions.tags(repository.id)) == {"v1"}


def test_an_approval_in_advance_takes_the_place_of_one_for_what_was_refused(
    database: Database, repository: Repository
) -> None:
    run = left(database, repository, "v1")
    refused(database, run)
    database.runs.approve_removals(run.id, "anna")
    database.runs.approve_removals(run.id, "the author", in_advance=True)
    promote(database, repository, "w1")
    assert database.versions.commit(run.id).removals_approved_by == "the author"


def test_an_approval_that_comes_while_the_same_is_refused_again_stands(
    database: Database, repository: Repository
) -> None:
    """A cleared task that was still at work: its refusal is noted after the approval of the one before."""
    from registry_sync.db.versions.commit import record_refusal

    run = left(database, repository, "v1")
    with pytest.raises(TooManyRemovals) as same:
        database.versions.commit(run.id)
    database.runs.approve_removals(run.id, "anna")
    with database.writing() as connection:
        record_refusal(connection, run.id, same.value)
    assert database.versions.commit(run.id).removals_approved_by == "anna"


def test_a_refusal_of_a_run_that_has_settled_meanwhile_changes_nothing(
    database: Database, repository: Repository
) -> None:
    from registry_sync.db.versions.commit import record_refusal

    run = left(database, repository, "v1")
    with pytest.raises(TooManyRemovals) as refusal:
        database.versions.commit(run.id)
    database.runs.approve_removals(run.id, "anna")
    database.versions.commit(run.id)
    other = replace_fingerprint(refusal.value)
    with database.writing() as connection:
        record_refusal(connection, run.id, other)
        row = connection.execute(select(sync_runs).where(sync_runs.c.id == run.id)).one()
    assert (row.state, row.removals_approved_by) == (RunState.COMPLETED.value, "anna")


def replace_fingerprint(refusal: TooManyRemovals) -> TooManyRemovals:
    other = refusal.with_message(str(refusal))
    other.fingerprint = "sha256:" + "0" * 64
    return other


def test_a_run_whose_dag_run_has_ended_may_be_approved_and_then_goes_on(
    database: Database, repository: Repository
) -> None:
    run = left(database, repository, "v1")
    refused(database, run)
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "the DAG run failed")
    database.runs.approve_removals(run.id, "anna")
    database.run_ends.resume(run.id, None)
    assert database.versions.commit(run.id).removals_approved_by == "anna"


@pytest.mark.slow
def test_an_approval_of_an_earlier_release_that_no_commit_has_used_is_requested_again(
    database: Database, repository: Repository, url: str
) -> None:
    """That release let approve a run before anything was refused, for whatever would go."""
    done, waiting = left(database, repository, *FOUR[:3]), left(database, repository, "v1", hours=2)
    for run in (done, waiting):
        database.runs.approve_removals(run.id, "anna", in_advance=True)
    with database.writing() as connection:
        settled = {"state": RunState.UNCHANGED.value}
        connection.execute(update(sync_runs).where(sync_runs.c.id == done.id).values(**settled))
    database.downgrade("0002")
    database.upgrade()
    refused(database, waiting)
    database.runs.approve_removals(waiting.id, "anna")
    assert database.versions.commit(waiting.id).version is not None
    assert database.runs.get(done.id).removals_approved_by == "anna"


def test_a_first_version_of_few_tags_is_approved_for_these_tags(database: Database) -> None:
    few = database.repositories.ensure("few")
    remote = database.remotes.ensure(RemoteSpec.parse("few", "https://registry.example", "few", min_tags=3))
    run = database.runs.begin(
        new_key(), repository_id=few.id, remote_id=remote.id, remote=remote.spec, mode=SyncMode.ADDITIVE
    )
    play_stages(database, run, tagged("v1"))
    for _ in range(2):
        with pytest.raises(TooFewTags, match="would have 1 tag") as caught:
            database.versions.commit(run.id)
    assert [name for name, _ in caught.value.tags] == ["v1"]
    database.runs.approve_removals(run.id, "anna", seen=caught.value.fingerprint)
    promote(database, few, "w1")
    with pytest.raises(TooFewTags, match=r"^anna approved a version with other tags, not this .* 2 tags"):
        database.versions.commit(run.id)
    database.runs.approve_removals(run.id, "bert")
    assert database.versions.commit(run.id).removals_approved_by == "bert"
    assert set(database.versions.tags(few.id)) == {"v1", "w1"}


def test_one_approval_is_for_removals_and_for_the_few_tags_that_are_left(
    database: Database, repository: Repository
) -> None:
    remote = database.remotes.ensure(RemoteSpec.parse("app", "https://registry.example", "app", min_tags=2))
    run = database.runs.begin(
        new_key(), repository_id=repository.id, remote_id=remote.id, remote=remote.spec, mode=SyncMode.MIRROR
    )
    play_stages(database, run, tagged("v1"), listed_at=LISTED_AT + timedelta(hours=1))
    refused(database, run, "3 of 4 tags .*; 1 tag would be left, fewer than min_tags 2")
    database.runs.approve_removals(run.id, "anna")
    assert database.versions.commit(run.id).removals_approved_by == "anna"
