"""A sync ends with its DAG run, however that ends; it goes on with one begun anew, and not after its repository."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import insert, select, text

from registry_sync.db.database import Database
from registry_sync.db.tables import sync_runs
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, RepositorySpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import ListedTag, RunKey, RunState, RunTrigger, SyncRun
from registry_sync.domain.storage_reports import ContentKind
from registry_sync.errors import RunEnded, StagesUnfinished
from support.metadata import LISTED_AT, Upstream, image, new_key, open_run, play_stages, sync
from support.statements import planned_statements

FIRST = datetime(2026, 5, 1, 3, 0, 0, 123_456, tzinfo=timezone.utc)
AGAIN = FIRST + timedelta(hours=1)


@pytest.fixture
def repository(database: Database) -> Repository:
    return database.repositories.ensure("app")


def begin(database: Database, repository: Repository, key: RunKey, started_at: datetime) -> SyncRun:
    """A run as the first task of a DAG run begins it."""
    remote = database.remotes.ensure(open_run(database, repository, key=new_key()).remote)
    return database.runs.begin(
        key,
        repository_id=repository.id,
        remote_id=remote.id,
        remote=remote.spec,
        mode=open_run(database, repository, key=new_key()).mode,
        by=RunTrigger(repository.name, "anna", started_at),
    )


def upstream(*names: str) -> Upstream:
    made = Upstream()
    for name in names:
        made.tag(name, image(f"layer of {name}"))
    return made


def test_a_sync_started_with_its_first_try_and_anew_with_a_dag_run_that_is_cleared(
    database: Database, repository: Repository
) -> None:
    key = new_key()
    run = begin(database, repository, key, FIRST)
    assert begin(database, repository, key, FIRST).started_at == run.started_at, "a task was tried again"
    database.run_ends.end(key.dag_id, key.run_id, RunState.FAILED, "marked", started_at=FIRST)
    assert begin(database, repository, key, AGAIN).started_at > run.started_at


def test_a_running_sync_ends_with_its_dag_run_and_keeps_its_notes_for_those_who_go_on(
    database: Database, repository: Repository
) -> None:
    run = begin(database, repository, new_key(), FIRST)
    play_stages(database, run, upstream("a"))
    (ended,) = database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "marked", started_at=FIRST)
    assert (ended.id, ended.state, ended.error) == (run.id, RunState.FAILED, "marked")
    assert ended.finished_at is not None
    assert database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "marked", started_at=FIRST) == []
    assert database.run_ends.resume(run.id, AGAIN).state is RunState.RUNNING
    assert database.versions.commit(run.id).version is not None


def test_what_an_ended_sync_noted_keeps_nothing_after_the_grace(database: Database, repository: Repository) -> None:
    run = begin(database, repository, new_key(), FIRST)
    play_stages(database, run, upstream("a"))
    later = utc_now() + timedelta(days=1)
    assert database.orphans.release_runs(later) == 0, "a sync under way keeps what it brought"
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "marked", started_at=FIRST)
    assert database.orphans.release_runs(later) == 1
    database.orphans.record(ContentKind.MANIFEST, utc_now())
    assert [due.digest for due in database.orphans.due(ContentKind.MANIFEST, later)] == [upstream("a").tags["a"].digest]


def test_a_task_that_was_at_work_when_its_dag_run_ended_changes_nothing(
    database: Database, repository: Repository
) -> None:
    run = begin(database, repository, new_key(), FIRST)
    play_stages(database, run, upstream("a"))
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.CANCELED, "stopped", started_at=FIRST)
    for act in (
        lambda: database.versions.commit(run.id),
        lambda: database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("b"), None, 0)]),
        lambda: database.runs.record_plan(run.id, []),
        lambda: database.run_ends.resume(run.id, FIRST),
        lambda: begin(database, repository, run.key, FIRST),
    ):
        with pytest.raises(RunEnded, match="has ended"):
            act()
    database.runs.finish(run.id, RunState.FAILED, error="ServerUnavailable: killed in mid-air")
    database.runs.finish(run.id, RunState.UNCHANGED)
    assert (database.runs.get(run.id).state, database.runs.get(run.id).error) == (RunState.CANCELED, "stopped")
    assert database.versions.latest(repository.id) is None


def test_a_dag_run_that_was_started_again_starts_or_continues(database: Database, repository: Repository) -> None:
    run = begin(database, repository, new_key(), FIRST)
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "marked", started_at=FIRST)
    again = begin(database, repository, run.key, AGAIN)
    assert (again.id, again.state, again.error) == (run.id, RunState.RUNNING, None)
    database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.CANCELED, "deleted")
    resumed = database.run_ends.resume(run.id, FIRST)
    assert (resumed.state, resumed.error, resumed.finished_at) == (RunState.RUNNING, None, None)


def test_what_a_task_noted_and_what_has_settled_stays(database: Database, repository: Repository) -> None:
    failed, settled = begin(database, repository, new_key(), FIRST), begin(database, repository, new_key(), FIRST)
    database.runs.finish(failed.id, RunState.FAILED, error="NotFound: why it failed")
    play_stages(database, settled, upstream("a"))
    database.versions.commit(settled.id)
    for run, count in ((failed, 1), (settled, 0)):
        ended = database.run_ends.end(run.key.dag_id, run.key.run_id, RunState.FAILED, "?", started_at=FIRST)
        assert len(ended) == count
    assert database.runs.get(failed.id).error == "NotFound: why it failed"
    assert database.runs.get(settled.id).state is RunState.COMPLETED
    # Another task of the same run that failed is tried again: the sync has failed all the same.
    other = begin(database, repository, new_key(), FIRST)
    database.runs.finish(other.id, RunState.FAILED, error="NotFound: why")
    assert database.run_ends.resume(other.id, FIRST).state is RunState.FAILED


def test_syncs_that_are_said_to_be_running_are_found(database: Database, repository: Repository) -> None:
    other = database.repositories.ensure("other")
    runs = [open_run(database, repository), open_run(database, other)]
    sync(database, repository, upstream("a"))
    assert [run.id for run in database.run_ends.unended()] == [run.id for run in runs]
    assert [run.id for run in database.run_ends.unended(repository_id=other.id)] == [runs[1].id]


def test_running_syncs_are_looked_up_in_an_index_of_their_own(database: Database, repository: Repository) -> None:
    """However many have ended."""
    open_run(database, repository)
    with database.writing() as connection:
        running = dict(connection.execute(select(sync_runs)).mappings().one())
        ended = [{**running, "id": str(number), "run_id": str(number), "state": "completed"} for number in range(300)]
        connection.execute(insert(sync_runs), ended)
    with planned_statements(database) as plans:
        database.run_ends.unended()
    [plan] = plans
    assert "ix_sync_runs_running" in plan, plan


def test_a_stage_that_was_skipped_makes_no_version(database: Database, repository: Repository) -> None:
    run = open_run(database, repository)
    digest = upstream("a").tags["a"].digest
    database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("a"), digest, 0), ListedTag(TagName("b"), None)])
    with pytest.raises(StagesUnfinished, match=r"1 tag of this sync was not fetched.*fetch_manifests"):
        database.versions.commit(run.id)
    run = open_run(database, repository)
    play_stages(database, run, upstream("a", "b"))
    database.contents.mark_missing([Digest.of(b"layer of a"), Digest.of(b"layer of b")])
    with pytest.raises(StagesUnfinished, match=r"2 blobs of this sync were not fetched.*fetch_blobs"):
        database.versions.commit(run.id)
    assert database.versions.latest(repository.id) is None


def test_a_run_of_a_repository_that_was_deleted_does_not_begin_again(
    database: Database, repository: Repository
) -> None:
    run = begin(database, repository, new_key(), FIRST)
    play_stages(database, run, upstream("a"))
    database.repositories.delete(repository.id)
    again = database.repositories.ensure("app")
    for act in (
        lambda: database.runs.find(run.key),
        lambda: begin(database, again, run.key, AGAIN),
        lambda: database.run_ends.resume(run.id, FIRST),
        lambda: database.runs.record_plan(run.id, []),
        lambda: database.versions.commit(run.id),
    ):
        with pytest.raises(RunEnded, match="'app' was deleted"):
            act()
    assert database.runs.find(new_key()) is None
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM deleted_runs")).scalar_one() == 2 + 1


def test_names_that_a_repository_had_are_known_until_another_has_them(
    database: Database, repository: Repository
) -> None:
    assert database.repositories.former_names(repository.id) == ()
    for name in ("second", "third", "app"):
        database.repositories.update(repository.id, RepositorySpec(name))
    assert database.repositories.former_names(repository.id) == ("third", "second")
    database.repositories.ensure("second")
    assert database.repositories.former_names(repository.id) == ("third",)


def test_an_approval_that_was_not_needed_is_not_reported(database: Database, repository: Repository) -> None:
    sync(database, repository, upstream(*(f"tag-{number}" for number in range(30))))
    needless = open_run(database, repository)
    play_stages(database, needless, upstream(*(f"tag-{number}" for number in range(31))))
    database.runs.approve_removals(needless.id, "bert", in_advance=True)
    assert database.versions.commit(needless.id).removals_approved_by is None
    needed = open_run(database, repository)
    play_stages(database, needed, upstream("tag-0"))
    database.runs.approve_removals(needed.id, "anna", in_advance=True)
    for _ in range(2):
        assert database.versions.commit(needed.id).removals_approved_by == "anna"
    assert database.runs.get(needed.id).removals_approved_by == "anna"
