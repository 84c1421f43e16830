"""Syncs of many mirrors that found nothing to change, read and written together, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from registry_sync.db.database import Database
from registry_sync.db.runs import unchanged_syncs
from registry_sync.db.runs.selections import API_REMEMBERED
from registry_sync.db.tables import blobs, manifests, repository_links, sync_runs
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import Confirmation, DigestListUse, LinkKind, RunKey, RunState, RunUsage, SyncRun
from registry_sync.domain.serving import DistributionSpec
from registry_sync.domain.settled_mirrors import DigestListNote, RecordedSyncs, SettledMirror, UnchangedSync
from registry_sync.errors import RunEnded
from support.emptied_databases import filled
from support.metadata import LISTED_AT, Upstream, artifact, image, new_key, open_run, play_stages, sync
from support.statements import counted_steps, planned_statements


def upstream(**tags: str) -> Upstream:
    made = Upstream()
    for name, text in tags.items():
        made.tag(name, image(text))
    return made


@pytest.fixture
def known(database: Database) -> SettledMirror:
    """A repository ``app`` whose only version is as its last sync left it."""
    filled(database, _synced)
    found = database.unchanged_syncs.settled({"app": new_key(), "unknown": new_key()})
    assert set(found) == {"app"}
    return found["app"]


def _synced(database: Database) -> None:
    sync(database, database.repositories.ensure("app"), upstream(latest="old", other="old"))


def unchanged(known: SettledMirror, **more: Any) -> UnchangedSync:
    now = utc_now()
    run = SyncRun(
        id=f"{known.repository.id[:-4]}beef",
        key=known.key,
        repository_id=known.repository.id,
        remote_id=known.remote.id,
        mode=known.latest.mode,
        remote=known.latest.remote,
        state=RunState.RUNNING,
        started_at=now,
        usage=RunUsage(head_count=2, received_bytes=7),
        repository_name="app",
        triggered_by="ana\x00",
        listing_began=known.listing_began,
    )
    result = MirrorResult(
        known.key.dag_id, known.key.run_id, "task", "app", 0, MirrorOutcome.UNCHANGED, now, now, sync_run_id=run.id
    )
    return UnchangedSync(run, known, LISTED_AT, result, **more)


def test_what_is_known_is_what_single_reads_say(database: Database, known: SettledMirror) -> None:
    repository = database.repositories.by_name("app")
    assert (known.repository, known.remote) == (repository, database.remotes.get(known.remote.id))
    assert known.latest == database.runs.latest_settled(repository.id)
    assert known.tags == database.versions.tags(repository.id)
    assert known.listing_began == open_run(database, repository).listing_began
    assert known.referrers == database.selections.referrers(repository.id)
    assert (known.has_referrers_api, known.is_private_at) == (None, {})


def test_distributions_and_findings_of_the_referrers_api_are_known(database: Database, known: SettledMirror) -> None:
    database.distributions.create(DistributionSpec("one", "pub/one", known.repository.id, is_private=True))
    database.selections.record_referrers_api(known.latest.id, exists=False)
    again = database.unchanged_syncs.settled({"app": new_key()})["app"]
    assert (again.has_referrers_api, again.is_private_at) == (False, {"pub/one": True})
    assert again.referrers == {}, "nobody asks for them"
    database.selections.record_referrers_api(known.latest.id, exists=True)
    assert database.unchanged_syncs.settled({"app": new_key()})["app"].has_referrers_api is True


def test_a_finding_of_the_referrers_api_counts_for_the_source_that_it_was_made_of(
    database: Database, known: SettledMirror
) -> None:
    found = unchanged(known, has_referrers_api=True)
    elsewhere = replace(found.run.remote, upstream_name="other/app")
    database.unchanged_syncs.record([replace(found, run=replace(found.run, remote=elsewhere))])
    assert not database.selections.knows_referrers_api(known.latest.id)
    sync(database, known.repository, upstream(latest="new"))
    assert database.unchanged_syncs.settled({"app": new_key()})["app"].has_referrers_api is None


def test_a_finding_of_the_referrers_api_is_known_for_a_week(database: Database, known: SettledMirror) -> None:
    database.selections.record_referrers_api(known.latest.id, exists=True)
    with database.writing() as connection:
        connection.execute(update(sync_runs).values(started_at=utc_now() - API_REMEMBERED - timedelta(hours=1)))
    assert database.unchanged_syncs.settled({"app": new_key()})["app"].has_referrers_api is None


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_is_known_costs_no_more_after_many_syncs(database: Database, known: SettledMirror) -> None:
    database.selections.record_referrers_api(known.latest.id, exists=True)

    def step_count() -> int:
        with counted_steps() as steps:
            [found] = database.unchanged_syncs.settled({"app": new_key()}).values()
            confirmed = database.confirmations.last_of_many([found.latest], problems_since=utc_now())
        assert found.has_referrers_api
        assert [one.listed_at for one in confirmed.values()] == [known.latest.listed_at]
        return sum(steps)

    few = step_count()
    with database.writing() as connection:
        last = connection.execute(select(sync_runs)).mappings().one()
        at, earlier = last["started_at"], [timedelta(hours=hours) for hours in range(1, 501)]
        assert at is not None
        connection.execute(
            insert(sync_runs),
            [
                {
                    **last,
                    "id": f"{number}",
                    "run_id": f"{number}",
                    "listing_number": -number,
                    "started_at": at - before,
                    "listed_at": last["listed_at"] - before,
                }
                for number, before in enumerate(earlier)
            ],
        )
    assert step_count() < 1.5 * few


def test_referrers_in_the_latest_version_are_known(database: Database) -> None:
    subject = image("signed")
    signature = artifact(subject, "signature", artifact_type="application/vnd.test")
    made = Upstream()
    made.tag("latest", subject)
    made.tag("signature", signature)
    for name in ("app", "web"):
        sync(database, database.repositories.ensure(name), made)
    with database.writing() as connection:
        of = {row.digest: row.id for row in connection.execute(select(manifests))}
        row = {
            "repository_id": database.repositories.by_name("app").id,
            "parent_id": of[subject.digest],
            "child_id": of[signature.digest],
            "child_digest": signature.digest,
            "kind": LinkKind.REFERRER.value,
            "version_added": 1,
        }
        connection.execute(insert(repository_links), [row])
    found = database.unchanged_syncs.settled({name: RunKey("dag", "run", name) for name in ("app", "web")})
    assert found["app"].referrers == {subject.digest: {signature.digest}, signature.digest: frozenset()}
    assert found["web"].referrers == {subject.digest: frozenset(), signature.digest: frozenset()}
    for known in found.values():
        assert known.referrers == database.selections.referrers(known.repository.id)


def test_an_unchanged_sync_is_a_settled_run_with_the_next_number_and_a_result(
    database: Database, known: SettledMirror
) -> None:
    note = DigestListNote(DigestListUse.USED, 2, "half of it")
    found = unchanged(known, digest_list=note, has_referrers_api=False)
    assert database.unchanged_syncs.record([found]) == RecordedSyncs(frozenset({found.run.id}), frozenset())
    run = database.runs.get(found.run.id)
    assert (run.state, run.usage, run.triggered_by) == (RunState.UNCHANGED, found.run.usage, "ana")
    assert (run.listed_at, run.version_number, run.finished_at is not None) == (LISTED_AT, None, True)
    assert database.runs.latest_settled(known.repository.id) == run
    results = database.mirror_results.of_task(known.key.dag_id, known.key.run_id, "task")
    assert results == {"app": found.result}
    assert database.selections.lacks_referrers_api(run.id)
    later = database.unchanged_syncs.settled({"app": new_key()})["app"]
    assert later.has_referrers_api is False
    assert later.listing_began == known.listing_began + 1
    assert database.confirmations.last(run, problems_since=LISTED_AT).used_count == 1


def moved(database: Database, known: SettledMirror) -> None:
    sync(database, known.repository, upstream(latest="new"))


def listed_again(database: Database, known: SettledMirror) -> None:
    run = open_run(database, known.repository)
    play_stages(database, run, upstream(latest="old", other="old"))


def rolled_back(database: Database, known: SettledMirror) -> None:
    moved(database, known)
    database.versions.roll_back(known.repository.id, 1)


def without_remote(database: Database, known: SettledMirror) -> None:
    database.remotes.delete(known.remote.id)


def without_bytes(database: Database, known: SettledMirror) -> None:
    with database.writing() as connection:
        connection.execute(update(blobs).values(stored_at=None))


def another_try(database: Database, known: SettledMirror) -> None:
    open_run(database, known.repository, key=known.key)


CHANGES = (moved, listed_again, rolled_back, without_remote, without_bytes, another_try)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_mirror_that_changed_since_it_was_read_is_not_recorded(
    database: Database, known: SettledMirror, change: Callable[[Database, SettledMirror], None]
) -> None:
    change(database, known)
    before = database.repositories.by_name("app"), database.runs.latest_settled(known.repository.id)
    assert database.unchanged_syncs.record([unchanged(known)]) == RecordedSyncs(frozenset(), frozenset())
    after = database.repositories.by_name("app"), database.runs.latest_settled(known.repository.id)
    assert after == before
    assert database.mirror_results.of_task(known.key.dag_id, known.key.run_id, "task") == {}


@pytest.mark.parametrize(
    "change", [rolled_back, without_remote, without_bytes, another_try], ids=lambda one: one.__name__
)
def test_a_mirror_that_is_not_in_order_is_not_among_the_known(
    database: Database, known: SettledMirror, change: Callable[[Database, SettledMirror], None]
) -> None:
    change(database, known)
    assert database.unchanged_syncs.settled({"app": known.key}) == {}


def test_a_deleted_repository_is_told_from_a_changed_one(database: Database, known: SettledMirror) -> None:
    database.repositories.delete(known.repository.id)
    found = unchanged(known)
    assert database.unchanged_syncs.record([found]) == RecordedSyncs(frozenset(), frozenset({found.run.id}))


def test_a_key_whose_repository_was_deleted_is_left_to_the_sync_that_refuses_it(database: Database) -> None:
    key = RunKey("dag", "run", "scope")
    repository = database.repositories.ensure("app")
    open_run(database, repository, key=key)
    database.repositories.delete(repository.id)
    sync(database, database.repositories.ensure("app"), upstream(latest="old"))
    assert database.unchanged_syncs.settled({"app": key}) == {}
    with pytest.raises(RunEnded):
        database.runs.find(key)


@pytest.mark.parametrize(("bound", "count"), [("MOST_TAGS", 2), ("MOST_MANIFESTS", 1)])
def test_a_large_mirror_is_not_read_with_others(
    database: Database, known: SettledMirror, monkeypatch: pytest.MonkeyPatch, bound: str, count: int
) -> None:
    monkeypatch.setattr(unchanged_syncs, bound, count - 1)
    assert database.unchanged_syncs.settled({"app": known.key}) == {}
    monkeypatch.setattr(unchanged_syncs, bound, count)
    assert set(database.unchanged_syncs.settled({"app": known.key})) == {"app"}


def test_others_are_recorded_beside_one_that_has_changed(database: Database, known: SettledMirror) -> None:
    sync(database, database.repositories.ensure("web"), upstream(latest="old"))
    web = database.unchanged_syncs.settled({"web": replace(known.key, scope="web")})["web"]
    moved(database, known)
    one, other = unchanged(known), unchanged(web)
    assert database.unchanged_syncs.record([one, other]) == RecordedSyncs(frozenset({other.run.id}), frozenset())


def _lists_of(database: Database, *names: str) -> dict[str, Confirmation]:
    """What is read of many mirrors at once of their registries' lists; each as a read of that one alone."""
    known = database.unchanged_syncs.settled({name: new_key() for name in names})
    runs = [one.latest for one in known.values()]
    found = database.confirmations.last_of_many(runs, problems_since=LISTED_AT)
    alone = {run.repository_id: database.confirmations.last(run, problems_since=LISTED_AT) for run in runs}
    assert found == {id_: one for id_, one in alone.items() if id_ in found}
    return {name: found[one.repository.id] for name, one in known.items() if one.repository.id in found}


def test_what_many_mirrors_know_of_their_registries_lists_is_what_single_reads_say(
    database: Database, known: SettledMirror
) -> None:
    sync(database, database.repositories.ensure("web"), upstream(latest="old"))
    assert _lists_of(database, "app", "web")["app"].used_count == 0
    database.unchanged_syncs.record([unchanged(known, digest_list=DigestListNote(DigestListUse.USED, 2))])
    found = _lists_of(database, "app", "web")
    assert (found["app"].used_count, found["web"].used_count) == (1, 0)
    assert found["app"].confirmed_at == known.latest.listed_at
    assert database.confirmations.last_of_many([], problems_since=LISTED_AT) == {}


@pytest.mark.parametrize("use", [use for use in DigestListUse if use.is_lasting])
def test_mirrors_with_a_problem_or_other_filters_are_read_one_by_one(
    database: Database, known: SettledMirror, use: DigestListUse
) -> None:
    sync(database, database.repositories.ensure("web"), upstream(latest="old"))
    found = unchanged(known)
    other = replace(found.run.remote, include_tags=("la*",))
    database.unchanged_syncs.record([replace(found, run=replace(found.run, remote=other))])
    [as_before] = database.unchanged_syncs.settled({"app": new_key()}).values()
    run = replace(as_before.latest, remote=known.latest.remote)
    assert database.confirmations.last_of_many([run], problems_since=LISTED_AT) == {}
    assert _lists_of(database, "app", "web").keys() == {"app", "web"}
    database.confirmations.record(as_before.latest.id, use, problem="it is refused")
    assert _lists_of(database, "app", "web").keys() == {"web"}


def test_the_tags_of_many_mirrors_that_have_moved_are_those_of_each(database: Database, known: SettledMirror) -> None:
    web = database.repositories.ensure("web")
    for text in ("old", "new", "newer"):
        sync(database, known.repository, upstream(latest=text, other="old", third=text))
        sync(database, web, upstream(latest="old"))
    sync(database, known.repository, upstream(latest="newest", other="old", third="newer"))
    ids = [known.repository.id, web.id]
    found = database.confirmations.moving_tags_of_many(ids)
    assert found == {known.repository.id: ["latest", "third"]}
    assert found[known.repository.id] == database.confirmations.moving_tags(known.repository.id, 9)
    assert database.confirmations.moving_tags(known.repository.id, 1) == ["latest"]
    assert database.confirmations.moving_tags(web.id, 9) == []


def test_the_last_sync_of_many_that_listed_late_counts(database: Database, known: SettledMirror) -> None:
    """It began before the sync that confirmed the tags, and listed after it."""
    used = unchanged(known, digest_list=DigestListNote(DigestListUse.USED, 2))
    late = LISTED_AT + timedelta(hours=1)
    run = replace(used.run, started_at=known.latest.started_at - timedelta(hours=1))
    database.unchanged_syncs.record([replace(used, run=run, listed_at=late)])
    assert _lists_of(database, "app") == {"app": Confirmation(known.latest.listed_at, late, 0)}


def test_what_is_known_of_many_lists_is_looked_up_in_indexes(database: Database, known: SettledMirror) -> None:
    with planned_statements(database) as plans:
        database.confirmations.last_of_many([known.latest], problems_since=LISTED_AT)
        database.confirmations.moving_tags_of_many([known.repository.id])
    assert len(plans) == 2
    for plan in plans:
        found = re.search(r"Seq Scan|SCAN (?:sync_runs|settled|confirmed|repositories|repository_tags)\b", plan)
        assert found is None, plan
