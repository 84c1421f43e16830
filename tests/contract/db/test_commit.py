"""What a commit makes of a run, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.records import Hold, PageRequest, SyncMode
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import RunState
from registry_sync.errors import NothingSynced, RecordNotFound, VersionConflict
from support.metadata import LISTED_AT, Upstream, blobs_of, image, index, layer, open_run, play_stages, sync


def contents(database: Database, repository_id: str, relation: Relation, number: int | None = None) -> tuple:
    """Tags (name and digest), manifests and blobs of a version, as sets."""
    query = UnitQuery(repository_id, number, relation)
    everything = PageRequest(limit=10_000)
    return (
        {(unit.name, unit.digest) for unit in database.units.tags(query, everything).items},
        {unit.digest for unit in database.units.manifests(query, everything).items},
        {unit.digest for unit in database.units.blobs(query, everything).items},
    )


def test_the_first_version_is_number_one_and_holds_the_closure_of_the_tags(database: Database) -> None:
    repository = database.repositories.ensure("app")
    amd64, arm64 = image("base", "amd64"), image("base", "arm64")
    multi = index(amd64, arm64)
    upstream = Upstream()
    upstream.tag("latest", multi, amd64, arm64)
    upstream.tag("v1", multi)

    result = sync(database, repository, upstream)

    assert result.version is not None
    assert (result.version.number, result.version.base_number, result.holds) == (1, None, ())
    assert result.counts == {
        "added": {"docker.blob": 5, "docker.manifest": 3, "docker.tag": 2},
        "present": {"docker.blob": 5, "docker.manifest": 3, "docker.tag": 2},
        "removed": {},
    }
    tags, manifests, blobs = contents(database, repository.id, Relation.PRESENT)
    assert tags == {("latest", multi.digest), ("v1", multi.digest)}
    assert manifests == {amd64.digest, arm64.digest, multi.digest}
    assert blobs == blobs_of(amd64, arm64)
    assert database.repositories.get(repository.id).latest_number == 1


def test_a_moved_tag_is_one_removed_and_one_added_and_takes_along_what_nothing_else_needs(database: Database) -> None:
    repository = database.repositories.ensure("app")
    old, new = image("base", "old"), image("base", "new")
    upstream = Upstream()
    upstream.tag("latest", old)
    sync(database, repository, upstream)
    upstream.tag("latest", new)

    result = sync(database, repository, upstream)

    assert result.version is not None
    assert (result.version.number, result.version.base_number) == (2, 1)
    assert result.counts == {
        "added": {"docker.blob": 2, "docker.manifest": 1, "docker.tag": 1},
        "present": {"docker.blob": 3, "docker.manifest": 1, "docker.tag": 1},
        "removed": {"docker.blob": 2, "docker.manifest": 1, "docker.tag": 1},
    }
    assert contents(database, repository.id, Relation.ADDED)[1] == {new.digest}
    assert contents(database, repository.id, Relation.REMOVED)[1] == {old.digest}
    assert contents(database, repository.id, Relation.PRESENT, 1)[0] == {("latest", old.digest)}


def test_a_manifest_stays_while_another_index_or_tag_needs_it(database: Database) -> None:
    repository = database.repositories.ensure("app")
    shared, lone = image("shared"), image("lone")
    first, second = index(shared, lone), index(shared)
    upstream = Upstream()
    upstream.tag("first", first, shared, lone)
    upstream.tag("second", second)
    upstream.tag("direct", lone)
    sync(database, repository, upstream)
    del upstream.tags["first"]
    sync(database, repository, upstream)

    assert contents(database, repository.id, Relation.REMOVED) == ({("first", first.digest)}, {first.digest}, set())

    del upstream.tags["second"]
    sync(database, repository, upstream)
    assert contents(database, repository.id, Relation.REMOVED)[1] == {second.digest, shared.digest}


def test_nothing_is_made_when_nothing_differs(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    sync(database, repository, upstream)
    run = open_run(database, repository)
    play_stages(database, run, upstream)

    assert database.versions.commit(run.id).version is None
    assert database.runs.get(run.id).state is RunState.UNCHANGED
    assert database.versions.commit(run.id).version is None
    assert database.versions.page(repository.id).total_count == 1


def test_a_repeated_commit_gives_the_same_version(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    upstream.tag("broken", image("b"))
    run = open_run(database, repository)
    play_stages(database, run, upstream, held={"broken": "the registry answered 500"})

    first = database.versions.commit(run.id)
    assert first.holds == (Hold("broken", None, "the registry answered 500"),)
    assert database.versions.commit(run.id) == first
    ended = database.runs.get(run.id)
    assert (ended.state, ended.version_number) == (RunState.COMPLETED, 1)
    assert (ended.counts.tag_count, ended.counts.held_tag_count, ended.counts.stored_blob_count) == (2, 1, 2)
    assert database.runs.progress(run.id) == ended.counts
    assert database.runs.tags_of_shard(run.id, 0) == []


def test_a_held_tag_keeps_its_digest_and_does_not_lose_the_others(database: Database) -> None:
    repository = database.repositories.ensure("app")
    old = image("old")
    upstream = Upstream()
    upstream.tag("held", old)
    sync(database, repository, upstream)
    upstream.tag("held", image("new"))
    upstream.tag("good", image("good"))

    result = sync(database, repository, upstream, held={"held": "digest mismatch"})

    assert result.holds == (Hold("held", old.digest, "digest mismatch"),)
    assert database.versions.tags(repository.id) == {"good": upstream.tags["good"].digest, "held": old.digest}
    assert not database.versions.get(repository.id, 2).is_complete
    assert database.versions.get(repository.id, 1).is_complete


def test_nothing_synced_says_why_when_all_that_changed_is_held(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))

    with pytest.raises(NothingSynced, match="latest: no route to the registry"):
        sync(database, repository, upstream, held={"latest": "no route to the registry"})
    assert database.versions.latest(repository.id) is None


def test_a_changed_tag_that_lacks_a_blob_is_held_with_the_reason_and_others_are_not(database: Database) -> None:
    repository = database.repositories.ensure("app")
    broken, child = layer("broken"), image("fine")
    bad = image(broken)
    multi = index(bad, child)
    upstream = Upstream()
    upstream.tag("multi", multi, bad, child)
    upstream.tag("fine", child)

    result = sync(database, repository, upstream, failing={broken.digest: "the registry answered 404"})

    assert result.holds == (Hold("multi", None, f"blob {broken.digest}: the registry answered 404"),)
    assert database.versions.tags(repository.id) == {"fine": child.digest}
    assert contents(database, repository.id, Relation.PRESENT)[1] == {child.digest}


def test_foreign_layers_are_listed_and_do_not_hold_a_tag(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("windows", image(layer("base", is_foreign=True), "app"))

    result = sync(database, repository, upstream)

    assert result.holds == ()
    assert result.counts["present"]["docker.blob"] == 3
    assert database.versions.missing_blob_count(repository.id) == 0


def test_lacking_blobs_hold_nothing_unless_the_policy_is_immediate(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a", "b"))

    result = sync(database, repository, upstream, policy=Policy.ON_DEMAND)

    assert result.version is not None
    assert result.holds == ()
    assert database.versions.missing_blob_count(repository.id) == 3


def test_a_tag_that_vanished_after_the_listing_is_removed_by_a_mirror(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("stays", image("a"))
    upstream.tag("goes", image("b"))
    sync(database, repository, upstream)
    upstream.tag("goes", image("c"))

    sync(database, repository, upstream, gone=["goes"])

    assert set(database.versions.tags(repository.id)) == {"stays"}


def test_an_additive_sync_keeps_what_is_gone_upstream_and_replaces_what_moved(database: Database) -> None:
    repository = database.repositories.ensure("app")
    first, second = image("one"), image("two")
    upstream = Upstream()
    upstream.tag("gone", first)
    upstream.tag("moves", first)
    sync(database, repository, upstream, mode=SyncMode.ADDITIVE)
    del upstream.tags["gone"]
    upstream.tag("moves", second)

    result = sync(database, repository, upstream, mode=SyncMode.ADDITIVE)

    assert database.versions.tags(repository.id) == {"gone": first.digest, "moves": second.digest}
    assert result.counts["removed"] == {"docker.tag": 1}
    assert result.counts["present"] == {"docker.blob": 4, "docker.manifest": 2, "docker.tag": 2}


def test_a_mirror_removes_what_additive_syncs_left_behind(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("moves", image("one"))
    sync(database, repository, upstream, mode=SyncMode.ADDITIVE)
    upstream.tag("moves", image("two"))
    sync(database, repository, upstream, mode=SyncMode.ADDITIVE)

    result = sync(database, repository, upstream)

    assert result.counts["removed"] == {"docker.blob": 2, "docker.manifest": 1}
    assert result.counts["present"] == {"docker.blob": 2, "docker.manifest": 1, "docker.tag": 1}
    assert sync(database, repository, upstream).version is None


def test_a_unit_that_comes_back_is_present_again_and_absent_in_between(database: Database) -> None:
    repository = database.repositories.ensure("app")
    old, new = image("old"), image("new")
    upstream = Upstream()
    for manifest in (old, new, old):
        upstream.tag("latest", manifest)
        sync(database, repository, upstream)

    found = [contents(database, repository.id, Relation.PRESENT, number)[1] for number in (1, 2, 3)]
    assert found == [{old.digest}, {new.digest}, {old.digest}]


def test_pending_tags_are_held_when_a_task_did_not_come_to_them(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("done", image("a"))
    upstream.tag("lost", image("b"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    database.runs.resolve_tags(run.id, {"lost": image("never stored").digest})

    assert database.versions.commit(run.id).holds == (Hold("lost", None, "the manifest of the tag was not stored"),)


def test_a_commit_of_an_unknown_run_is_refused(database: Database) -> None:
    with pytest.raises(RecordNotFound):
        database.versions.commit("no-such-run")


def test_repositories_share_content_and_keep_their_own_versions(database: Database) -> None:
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    one, two = database.repositories.ensure("one"), database.repositories.ensure("two")
    sync(database, one, upstream)
    result = sync(database, two, upstream)

    assert result.version is not None
    assert result.version.number == 1
    database.repositories.delete(one.id)
    assert contents(database, two.id, Relation.PRESENT)[1] == {upstream.tags["latest"].digest}


def test_a_run_that_listed_earlier_than_the_latest_version_says_so_and_changes_nothing(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("old"))
    slow = open_run(database, repository)
    play_stages(database, slow, upstream)
    upstream.tag("latest", image("new"))
    quick = open_run(database, repository)
    play_stages(database, quick, upstream, listed_at=LISTED_AT + timedelta(seconds=1))
    assert database.versions.commit(quick.id).version is not None

    with pytest.raises(VersionConflict, match="version 1"):
        database.versions.commit(slow.id)

    assert database.versions.tags(repository.id) == {"latest": image("new").digest}
    assert database.repositories.get(repository.id).latest_number == 1


@pytest.mark.slow
def test_only_the_newest_versions_are_kept_and_they_read_as_before(database: Database) -> None:
    """Their tags, what they added and what they removed; the oldest kept one names no base any more."""
    repository = database.repositories.ensure("app")
    database.repositories.update(repository.id, replace(repository.spec, retain_versions=2))
    upstream, before = Upstream(), {}
    for number in range(1, 6):
        upstream.tag("latest", image("base", f"release {number}"))
        upstream.tag(f"v{number}", image("base", f"release {number}"))
        if number > 2:
            del upstream.tags[f"v{number - 2}"]
        assert sync(database, repository, upstream).version is not None
        before[number] = [
            contents(database, repository.id, relation, number)
            for relation in (Relation.PRESENT, Relation.ADDED, Relation.REMOVED)
        ]

    kept = database.versions.page(repository.id).items

    assert [(version.number, version.base_number) for version in kept] == [(5, 4), (4, None)]
    for version in kept:
        after = [
            contents(database, repository.id, relation, version.number)
            for relation in (Relation.PRESENT, Relation.ADDED, Relation.REMOVED)
        ]
        assert after == before[version.number]
        counts = version.summary.counts()
        for part, units in zip(("present", "added", "removed"), after, strict=True):
            assert [counts[part].get(f"docker.{kind}", 0) for kind in ("tag", "manifest", "blob")] == [*map(len, units)]
    with pytest.raises(RecordNotFound):
        database.versions.get(repository.id, 3)
    assert database.repositories.get(repository.id).latest_number == 5
