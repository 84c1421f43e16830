"""What a listing has asked for serves another try of the same listing, and nothing later."""

from __future__ import annotations

from datetime import timedelta

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CachedHead, ListedTag, RunKey, RunState, SyncRun
from support.metadata import LISTED_AT, new_key, open_run

pytestmark = pytest.mark.rule("A9.13")
A, B, C = TagName("a"), TagName("b"), TagName("c")
DIGEST, OTHER = Digest.of(b"a"), Digest.of(b"b")
MINUTE = timedelta(minutes=1)


def started(database: Database, key: RunKey | None = None) -> SyncRun:
    return open_run(database, database.repositories.ensure("app"), key=key or new_key())


def test_another_try_finds_what_was_requested(database: Database) -> None:
    key = new_key()
    run = started(database, key)
    database.heads.keep(run.id, {A: DIGEST, B: None}, LISTED_AT)
    database.heads.keep(run.id, {B: OTHER, C: OTHER}, LISTED_AT + MINUTE)
    database.heads.keep(run.id, {}, LISTED_AT)
    again = started(database, key)
    assert again.id == run.id
    assert database.heads.since(run.id, LISTED_AT) == {
        A: CachedHead(DIGEST, LISTED_AT),
        B: CachedHead(None, LISTED_AT),
        C: CachedHead(OTHER, LISTED_AT + MINUTE),
    }
    assert database.heads.since(run.id, LISTED_AT + MINUTE).keys() == {C}, "older ones are of another moment"
    assert database.heads.since(started(database).id, LISTED_AT) == {}


def test_a_listing_that_was_recorded_meanwhile_makes_them_worthless(database: Database) -> None:
    key = new_key()
    run = started(database, key)
    database.heads.keep(run.id, {A: DIGEST}, LISTED_AT)
    database.runs.record_listing(started(database).id, LISTED_AT, [ListedTag(A, OTHER)])
    assert started(database, key).id == run.id
    assert database.heads.since(run.id, LISTED_AT) == {}


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELED])
def test_a_sync_that_is_started_again_after_its_end_forgets_them(database: Database, state: RunState) -> None:
    key = new_key()
    run = started(database, key)
    database.heads.keep(run.id, {A: DIGEST}, LISTED_AT)
    database.runs.finish(run.id, state)
    assert database.heads.since(started(database, key).id, LISTED_AT) == {}


def test_they_go_when_the_listing_is_recorded_or_found_unchanged_or_forgotten(database: Database) -> None:
    runs = [started(database) for _ in range(3)]
    for run in runs:
        database.heads.keep(run.id, {A: DIGEST}, LISTED_AT)
    database.heads.forget(runs[0].id)
    database.runs.record_listing(runs[1].id, LISTED_AT, [ListedTag(A, DIGEST)])
    assert database.runs.settle_unchanged(runs[2].id, LISTED_AT, latest_number=None)
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM run_heads").scalar() == 0


@pytest.mark.parametrize("change", [{"upstream_name": "team/other"}, {"url": "https://b.example"}, {"conn_id": "b"}])
def test_heads_of_another_upstream_or_another_account_are_forgotten(database: Database, change: dict[str, str]) -> None:
    key, repository = new_key(), database.repositories.ensure("app")
    remote = database.remotes.create(RemoteSpec.parse("mine", "https://a.example", "team/app", conn_id="a"))
    run = open_run(database, repository, key=key, remote=remote)
    database.heads.keep(run.id, {A: DIGEST}, LISTED_AT)
    changed = database.remotes.change(remote.id, lambda spec: spec.changed(**change))
    assert open_run(database, repository, key=key, remote=changed).id == run.id
    assert database.heads.since(run.id, LISTED_AT) == {}


def test_a_lost_try_keeps_nothing_for_the_one_that_began_after_it(database: Database) -> None:
    key = new_key()
    lost = started(database, key)
    database.runs.record_listing(started(database).id, LISTED_AT, [ListedTag(A, OTHER)])
    again = started(database, key)
    database.heads.keep(lost.id, {A: DIGEST}, LISTED_AT, listing_began=lost.listing_began)
    assert database.heads.since(again.id, LISTED_AT) == {}
    database.heads.keep(again.id, {A: OTHER}, LISTED_AT, listing_began=again.listing_began)
    assert database.heads.since(again.id, LISTED_AT) == {A: CachedHead(OTHER, LISTED_AT)}
