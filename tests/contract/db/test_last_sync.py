"""Which sync settled last, and whether it was about the latest version: by the order of transactions, not by clocks.

Clocks of machines differ and are set back, so each test writes times into the database that say the opposite.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from registry_sync.db.database import Database
from registry_sync.db.tables import repository_versions, sync_runs
from registry_sync.db.versions.removal_guard import platforms_are_unchanged
from registry_sync.domain.platforms import Platform
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import SyncRun
from registry_sync.domain.version_history import CopyRequest
from support.metadata import Upstream, image, open_run, play_stages, sync

MIRROR = SyncMode.MIRROR
HOUR = timedelta(hours=1)


@pytest.fixture
def app(database: Database) -> Repository:
    return database.repositories.ensure("app")


def upstream(**tags: str) -> Upstream:
    made = Upstream()
    for name, text in tags.items():
        made.tag(name, image(text))
    return made


def settled(database: Database, repository: Repository, at: datetime, text: str = "a", **said: object) -> SyncRun:
    """A sync that has settled, whose machine said that it was this time."""
    run = open_run(database, repository, **said)  # type: ignore[arg-type]
    play_stages(database, run, upstream(latest=text))
    database.versions.commit(run.id)
    with database.writing() as connection:
        times = {"finished_at": at, "started_at": at}
        connection.execute(update(sync_runs).where(sync_runs.c.id == run.id).values(**times))
        is_made = repository_versions.c.sync_run_id == run.id
        connection.execute(update(repository_versions).where(is_made).values(created_at=at))
    return database.runs.get(run.id)


@pytest.mark.parametrize("text", ["a", "b"], ids=["unchanged", "another version"])
def test_a_sync_that_settled_later_on_a_slow_clock_is_the_last(database: Database, app: Repository, text: str) -> None:
    now = utc_now()
    settled(database, app, now, platforms=("linux/arm64",))
    last = settled(database, app, now - 9 * HOUR, text, platforms=("linux/amd64",))
    found = database.runs.latest_settled(app.id)
    assert found is not None
    assert found.id == last.id
    chosen = database.selections.selecting_remote(app.id, MIRROR)
    assert chosen is not None
    assert chosen.platforms == (Platform.parse("linux/amd64"),)
    with database.reading() as connection:
        assert platforms_are_unchanged(connection, app.id, last.remote)


def test_what_was_kept_by_the_last_sync_is_kept_by_its_policy(database: Database, app: Repository) -> None:
    now = utc_now()
    settled(database, app, now, policy=Policy.ON_DEMAND, name="one")
    settled(database, app, now - 9 * HOUR, "b", policy=Policy.IMMEDIATE, name="two")
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE blobs SET stored_at = NULL")
    assert len(database.blob_checks.lacking()) > 0


def test_a_version_that_a_copy_made_on_a_slow_clock_was_chosen_by_no_sync(database: Database, app: Repository) -> None:
    settled(database, app, utc_now() + 9 * HOUR)
    staging = database.repositories.ensure("staging")
    sync(database, staging, upstream(new="n"))
    request = CopyRequest(staging.id, None, TagFilter.parse(["new"]), SyncMode.ADDITIVE)
    assert database.versions.copy(app.id, request).version is not None
    assert database.selections.selecting_remote(app.id, MIRROR) is None


def test_a_rolled_back_version_was_chosen_by_no_sync_until_one_finds_it_right(
    database: Database, app: Repository
) -> None:
    settled(database, app, utc_now() + 9 * HOUR)
    settled(database, app, utc_now() + 9 * HOUR, "b")
    database.versions.roll_back(app.id, 1)
    assert database.selections.selecting_remote(app.id, MIRROR) is None
    settled(database, app, utc_now() - 9 * HOUR, platforms=("linux/amd64",))
    chosen = database.selections.selecting_remote(app.id, MIRROR)
    assert chosen is not None
    assert chosen.platforms == (Platform.parse("linux/amd64"),)


def test_after_the_latest_was_deleted_a_sync_that_finds_the_one_before_right_has_chosen_it(
    database: Database, app: Repository
) -> None:
    settled(database, app, utc_now())
    settled(database, app, utc_now(), "b")
    database.versions.delete(app.id, 2)
    assert database.selections.selecting_remote(app.id, MIRROR) is None
    settled(database, app, utc_now(), platforms=("linux/amd64",))
    chosen = database.selections.selecting_remote(app.id, MIRROR)
    assert chosen is not None
    assert chosen.platforms == (Platform.parse("linux/amd64"),)


@pytest.mark.slow
def test_the_last_sync_of_an_earlier_release_is_known_after_the_upgrade(
    database: Database, app: Repository, url: str
) -> None:
    """By the clock, as that release had nothing else."""
    now = utc_now()
    unchanged, copied = database.repositories.ensure("unchanged"), database.repositories.ensure("copied")
    never = database.repositories.ensure("never")
    runs = {
        app.id: [settled(database, app, now - 2 * HOUR), settled(database, app, now - HOUR, "b")],
        unchanged.id: [settled(database, unchanged, now - 2 * HOUR), settled(database, unchanged, now - HOUR)],
        copied.id: [settled(database, copied, now - HOUR)],
    }
    request = CopyRequest(app.id, 1, TagFilter.parse(["latest"]), SyncMode.MIRROR)
    settled(database, app, now, "b")
    database.versions.copy(copied.id, CopyRequest(app.id, None, request.tags, SyncMode.MIRROR))
    database.downgrade("0002")
    database.upgrade()
    assert database.runs.latest_settled(never.id) is None
    for repository, is_chosen in ((app, True), (unchanged, True), (copied, False)):
        found = database.runs.latest_settled(repository.id)
        assert found is not None
        assert found.id not in {run.id for run in runs[repository.id][:-1]}
        assert (database.selections.selecting_remote(repository.id, MIRROR) is not None) is is_chosen
