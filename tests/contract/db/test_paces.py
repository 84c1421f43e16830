"""How many requests at once a registry has served, from one sync of a repository to the next, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from registry_sync.db.database import Database
from registry_sync.db.tables import sync_runs
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.registry_pace import REMEMBERED, RegistryPace
from registry_sync.domain.runs import RunState, RunUsage, SyncRun
from support.metadata import new_key, open_run

PACE = RegistryPace(64, utc_now(), {"HEAD manifests": 0.08})
CHALLENGE = {"scheme": "bearer", "realm": "https://auth.example/token", "sent_by": "https://registry.example/v2/"}


def learned(database: Database, pace: RegistryPace | None, **said: Any) -> SyncRun:
    """A sync that has sent 61 HEADs and learned ``pace``, and a token service."""
    run = open_run(database, database.repositories.ensure("app"), **said)
    database.runs.add_usage(run.id, RunUsage(head_count=61))
    database.runs.record_learned(run.id, CHALLENGE, pace)
    assert open_run(database, database.repositories.ensure("other")).pace is None
    return database.runs.get(run.id)


def following(database: Database, **said: Any) -> SyncRun:
    return open_run(database, database.repositories.ensure("app"), **said)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.FAILED, RunState.CANCELED])
def test_the_next_sync_begins_with_it_however_the_one_before_ended(database: Database, state: RunState) -> None:
    run = learned(database, PACE)
    assert (run.challenge, run.pace) == (CHALLENGE, PACE)
    if state is not RunState.RUNNING:
        database.runs.finish(run.id, state, error="")
    after = following(database)
    assert after.pace == RegistryPace(64, PACE.found_at, PACE.usual_seconds, 61)
    assert after.challenge == CHALLENGE
    assert database.runs.get(after.id) == after
    assert following(database).pace == RegistryPace(64, PACE.found_at, PACE.usual_seconds, 0), "of that after it"


def test_a_challenge_for_the_password_itself_is_left_to_no_other_sync(database: Database) -> None:
    run = learned(database, PACE)
    database.runs.record_learned(run.id, {**CHALLENGE, "scheme": "basic"}, PACE)
    after = following(database)
    assert (after.pace is None, after.challenge) == (False, None)


@pytest.mark.parametrize("said", [{"upstream_name": "library/other", "name": "other"}, {"conn_id": "hub"}])
def test_another_remote_begins_without(database: Database, said: dict[str, Any]) -> None:
    learned(database, PACE)
    assert following(database, **said).pace is None


@pytest.mark.parametrize("pace", [None, RegistryPace(0, utc_now()), RegistryPace(64, utc_now() - REMEMBERED)])
def test_nothing_is_passed_on_after_a_refusal_and_after_a_time(database: Database, pace: RegistryPace | None) -> None:
    learned(database, PACE)
    assert learned(database, pace).pace == pace
    after = following(database)
    assert (after.pace, after.challenge) == (None, None), "a challenge is left with a pace alone"
    assert following(database).pace is None, "nor what was found before"


def test_a_sync_that_is_started_again_knows_that_it_was_refused_and_forgets_the_challenge(database: Database) -> None:
    key, refused = new_key(), RegistryPace(0, utc_now() - timedelta(days=30))
    assert learned(database, refused, key=key).pace == refused
    again = following(database, key=key)
    assert (again.pace, again.challenge) == (refused, None)


@pytest.mark.parametrize("challenge", [None, {}, CHALLENGE])
def test_without_a_pace_the_column_is_as_earlier_releases_have_written_it(
    database: Database, challenge: dict[str, Any] | None
) -> None:
    run = following(database)
    database.runs.record_learned(run.id, challenge)
    stored = select(sync_runs.c.challenge).where(sync_runs.c.id == run.id)
    with database.reading() as connection:
        assert connection.execute(stored).scalar_one() == challenge
    assert (database.runs.get(run.id).challenge, database.runs.get(run.id).pace) == (challenge, None)


def test_a_pace_of_a_release_to_come_is_none(database: Database) -> None:
    run = following(database)
    to_come = {"challenge": {}, "pace": {"per_second": 9}}
    with database.writing() as connection:
        connection.execute(update(sync_runs).where(sync_runs.c.id == run.id).values(challenge=to_come))
    assert (database.runs.get(run.id).challenge, database.runs.get(run.id).pace) == ({}, None)
    assert following(database).pace is None
