"""The notes of a sync run on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry_sync.db.database import Database
from registry_sync.db.runs.required_blobs import take
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import PageRequest, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import ListedTag, RequiredBlob, RunCounts, RunKey, RunState, RunUsage
from registry_sync.errors import NothingSynced, RecordNotFound, RemoteChanged, RunEnded
from support.metadata import LISTED_AT, Upstream, image, index, layer, new_key, open_run, play_stages, sync

DIGEST = Digest.of(b"a")


def test_a_run_is_started_once_for_each_key(database: Database) -> None:
    repository = database.repositories.ensure("app")
    key = new_key()
    run = open_run(database, repository, key=key)
    assert (run.state, run.key, run.policy) == (RunState.RUNNING, key, Policy.IMMEDIATE)
    assert open_run(database, repository, key=key).id == run.id
    assert open_run(database, repository, key=RunKey(key.dag_id, key.run_id, "second group")).id != run.id
    assert database.runs.by_key(key).id == run.id
    with pytest.raises(RecordNotFound):
        database.runs.by_key(RunKey("no", "such"))


@pytest.mark.parametrize(("upstream_name", "is_remembered"), [("library/app", True), ("team/other", False)])
def test_a_run_started_again_knows_of_referrers_what_the_same_upstream_said(
    database: Database, upstream_name: str, is_remembered: bool
) -> None:
    repository, key = database.repositories.ensure("app"), new_key()
    remote = database.remotes.create(RemoteSpec.parse("mine", "https://a.example", "library/app"))
    run = open_run(database, repository, key=key, remote=remote)
    database.selections.record_referrers_api(run.id, exists=False)
    database.selections.record_referrers_problem(run.id, "403")
    changed = database.remotes.change(remote.id, lambda spec: spec.changed(upstream_name=upstream_name))
    assert open_run(database, repository, key=key, remote=changed).id == run.id
    assert database.selections.lacks_referrers_api(run.id) is is_remembered
    upstream = Upstream()
    upstream.tag("v1", image("v1"))
    play_stages(database, run, upstream)
    version = database.versions.commit(run.id).version
    assert version is not None
    assert version.referrers_problem is None


def test_the_one_sync_of_a_dag_run_is_found_without_its_scope_and_several_are_named(database: Database) -> None:
    repository, key = database.repositories.ensure("app"), new_key()
    first = open_run(database, repository, key=RunKey(key.dag_id, key.run_id, "a.list_tags"))
    assert database.runs.by_key(key).id == first.id
    second = open_run(database, repository, key=RunKey(key.dag_id, key.run_id, "list_tags[1]"))
    with pytest.raises(RecordNotFound, match=r"started by a\.list_tags, list_tags\[1\]"):
        database.runs.by_key(key)
    assert database.runs.by_key(second.key).id == second.id
    with pytest.raises(RecordNotFound, match=r"started by a\.list_tags, list_tags\[1\]"):
        database.runs.by_key(RunKey(key.dag_id, key.run_id, "b.list_tags"))


def test_the_one_sync_of_a_dag_run_without_a_scope_is_found_by_the_task_that_lists(database: Database) -> None:
    only = open_run(database, database.repositories.ensure("app"), key=new_key())
    assert database.runs.by_key(RunKey(only.key.dag_id, only.key.run_id, "alpine.look")).id == only.id


def test_a_repeat_with_other_parameters_is_refused(database: Database) -> None:
    repository, other = database.repositories.ensure("app"), database.repositories.ensure("other")
    key = new_key()
    open_run(database, repository, key=key)
    with pytest.raises(RemoteChanged, match="another repository"):
        open_run(database, other, key=key)
    with pytest.raises(RemoteChanged, match="another mode"):
        open_run(database, repository, key=key, mode=SyncMode.ADDITIVE)
    with pytest.raises(RemoteChanged, match="another policy"):
        open_run(database, repository, key=key, policy=Policy.STREAMED)


def test_a_run_of_an_unknown_repository_or_remote_is_refused(database: Database) -> None:
    spec = RemoteSpec.parse("hub", "https://registry.example", "app")
    with pytest.raises(RecordNotFound, match="repository"):
        database.runs.begin(new_key(), repository_id="no", remote_id="no", remote=spec, mode=SyncMode.MIRROR)
    repository = database.repositories.ensure("app")
    with pytest.raises(RecordNotFound, match="remote"):
        database.runs.begin(new_key(), repository_id=repository.id, remote_id="no", remote=spec, mode=SyncMode.MIRROR)


def test_a_run_keeps_the_remote_as_it_was_when_it_began(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    assert run.remote_id is not None
    database.remotes.update(run.remote_id, RemoteSpec.parse("upstream", "https://moved.example", "library/app"))
    assert database.runs.get(run.id).remote == run.remote
    assert run.remote.url.written == "https://registry.example"


def test_tags_leave_a_shard_as_they_are_resolved_held_or_gone(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    names = [TagName(name) for name in ("a", "b", "c", "d", "e")]
    listed = [ListedTag(name, None, 0) for name in names] + [ListedTag(TagName("z"), DIGEST, 1)]
    listed.append(ListedTag(TagName("same"), DIGEST, None))
    database.runs.record_listing(run.id, LISTED_AT, listed)
    assert database.runs.get(run.id).listed_at == LISTED_AT
    for _ in range(2):
        database.runs.resolve_tags(run.id, {names[0]: DIGEST, names[1]: DIGEST})
        database.runs.hold_tags(run.id, {names[2]: "a reason with \x00 and \ud800"})
        database.runs.drop_tags(run.id, [names[3]])
    assert database.runs.tags_of_shard(run.id, 0) == [ListedTag(names[4], None, 0)]
    assert database.runs.tags_of_shard(run.id, 1) == [ListedTag(TagName("z"), DIGEST, 1)]
    assert database.runs.progress(run.id) == RunCounts(
        tag_count=7,
        pending_tag_count=2,
        unchanged_tag_count=1,
        resolved_tag_count=2,
        held_tag_count=1,
        gone_tag_count=1,
    )


def test_a_listing_replaces_what_an_earlier_attempt_noted(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("old"), None, 0)])
    database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("new"), None, 1)])
    assert database.runs.tags_of_shard(run.id, 0) == []
    assert database.runs.progress(run.id).tag_count == 1


def test_needed_blobs_are_the_closure_of_changed_tags_each_once_foreign_ones_flagged(database: Database) -> None:
    repository = database.repositories.ensure("app")
    foreign = layer("foreign", is_foreign=True)
    first, second = image("shared", foreign, config="one"), image("shared", "own", config="two")
    inner = index(first)
    upstream = Upstream()
    upstream.tag("multi", index(inner, second), first, second, inner)
    run = open_run(database, repository)
    play_stages(database, run, upstream)

    needed = {blob.digest: blob for blob in database.runs.required_blobs(run.id)}
    assert list(needed) == sorted(needed)
    assert set(needed) == {Digest.of(text) for text in (b"one", b"two", b"shared", b"own", b"foreign")}
    assert needed[foreign.digest] == RequiredBlob(
        foreign.digest, 7, foreign.media_type, is_foreign=True, is_stored=False
    )
    assert needed[Digest.of(b"own")].is_stored


def test_blobs_of_unchanged_tags_are_needed_again_when_the_store_lost_them(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a", "b", config="c"))
    sync(database, repository, upstream)
    database.contents.mark_missing([Digest.of(b"b")])
    assert database.versions.missing_blob_count(repository.id) == 1
    run = open_run(database, repository)
    database.runs.record_listing(
        run.id, LISTED_AT, [ListedTag(TagName("latest"), upstream.tags["latest"].digest, None)]
    )
    needed = database.runs.required_blobs(run.id)
    assert [blob.digest for blob in needed] == [Digest.of(b"b")]
    database.runs.record_plan(run.id, [(0, blob) for blob in needed])
    assert [blob.digest for blob in left_of_shard(database, run.id, 0)] == [Digest.of(b"b")]
    database.contents.mark_stored([Digest.of(b"b")])
    assert database.versions.commit(run.id).version is None
    assert database.versions.missing_blob_count(repository.id) == 0


def test_what_changed_and_what_was_lost_are_read_and_planned_in_batches_by_digest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that both need is there once, as the changed tag has it."""
    monkeypatch.setattr("registry_sync.db.runs.required_blobs._ROWS_AT_ONCE", 2)
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    lost = [f"lost-{number}" for number in range(4)]
    upstream.tag("kept", image("shared", *lost, config="kept config"))
    sync(database, repository, upstream)
    database.contents.mark_missing([Digest.of(name.encode()) for name in ("shared", *lost)])
    new = [f"new-{number}" for number in range(4)]
    moved = image(layer("shared", size_bytes=99), *new, config="new config")
    upstream.tag("moved", moved)
    run = open_run(database, repository)
    listed = [ListedTag(TagName("kept"), upstream.tags["kept"].digest, None), ListedTag(TagName("moved"), None, 0)]
    database.runs.record_listing(run.id, LISTED_AT, listed)
    database.contents.add_manifests([moved])
    database.runs.resolve_tags(run.id, {TagName("moved"): moved.digest})
    needed = list(database.runs.required_blobs(run.id))
    assert [blob.digest for blob in needed] == sorted(
        Digest.of(name.encode()) for name in ("shared", "new config", *lost, *new)
    )
    assert {blob.digest: blob.size_bytes for blob in needed}[Digest.of(b"shared")] == 99
    database.runs.record_plan(run.id, [(index % 2, blob) for index, blob in enumerate(needed)])
    taken = [blob for shard in range(2) for blob in left_of_shard(database, run.id, shard)]
    assert sorted(blob.digest for blob in taken) == [blob.digest for blob in needed]
    with pytest.raises(RecordNotFound, match="does not need"):
        database.runs.record_plan(
            run.id, [*((0, blob) for blob in needed), (0, RequiredBlob(Digest.of(b"unknown"), 7, "text/plain"))]
        )
    assert database.runs.progress(run.id).blob_count == len(needed), "a refused plan leaves the one before"


def left_of_shard(database: Database, run_id: str, shard: int) -> list[RequiredBlob]:
    """What a task of the shard would begin with."""
    database.runs.give_back_blobs(run_id, shard)
    taken = database.runs.take_blobs(run_id, shard, may_take_over=False)
    return [] if taken is None else list(taken.blobs)


def taken_mib(
    database: Database, run_id: str, shard: int, *, may_take_over: bool = True
) -> tuple[int, list[int]] | None:
    """The shard that blobs were taken from, and their sizes in MiB."""
    taken = database.runs.take_blobs(run_id, shard, may_take_over=may_take_over)
    return taken and (taken.shard, [blob.size_bytes // MIB for blob in taken.blobs])


MIB = 1024 * 1024


def planned_mib(database: Database, *shards: list[int]) -> str:
    """A run with a plan of blobs of these sizes; its id."""
    repository = database.repositories.ensure("app")
    layers = [
        [layer(f"{number}-{size}", size_bytes=size * MIB) for size in sizes] for number, sizes in enumerate(shards)
    ]
    upstream = Upstream()
    upstream.tag("latest", image(*(one for of_shard in layers for one in of_shard), config="c"))
    run = open_run(database, repository, policy=Policy.IMMEDIATE)
    database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("latest"), None, 0)])
    database.contents.add_manifests(list(upstream.catalog.values()))
    database.runs.resolve_tags(run.id, {TagName("latest"): upstream.tags["latest"].digest})
    needed = {blob.digest: blob for blob in database.runs.required_blobs(run.id)}
    plan = [(number, needed[one.digest]) for number, of_shard in enumerate(layers) for one in of_shard]
    database.runs.record_plan(run.id, plan)
    return run.id


def test_a_task_takes_half_of_what_is_left_of_its_shard_and_then_of_the_one_with_the_most(database: Database) -> None:
    run = planned_mib(database, [400, 300, 200, 100], [90], [500, 450])
    assert taken_mib(database, run, 0) == (0, [400, 300])
    assert taken_mib(database, run, 1) == (1, [90])
    assert taken_mib(database, run, 1) == (2, [500])
    assert taken_mib(database, run, 1) == (2, [450])
    assert taken_mib(database, run, 2) == (0, [200]), "its own shard has been taken over"
    assert taken_mib(database, run, 0) == (0, [100])
    assert [taken_mib(database, run, shard) for shard in range(3)] == [None] * 3


def test_a_task_without_others_takes_all_at_once(database: Database) -> None:
    run = planned_mib(database, [400, 300, 200])
    assert taken_mib(database, run, 0) == (0, [400, 300, 200])
    assert taken_mib(database, run, 0) is None
    database.runs.give_back_blobs(run, 0)
    assert taken_mib(database, run, 0) == (0, [400, 300, 200])


def test_small_blobs_are_taken_together(database: Database) -> None:
    run = planned_mib(database, [9, 8, 7, 6], [5])
    assert taken_mib(database, run, 1) == (1, [5])
    assert taken_mib(database, run, 1) == (0, [9, 8, 7, 6])


def test_what_a_task_had_begun_is_given_back_to_all_by_its_next_try(database: Database) -> None:
    run = planned_mib(database, [400, 300], [90])
    assert taken_mib(database, run, 0) == (0, [400])
    assert taken_mib(database, run, 1, may_take_over=False) == (1, [90])
    assert taken_mib(database, run, 1, may_take_over=False) is None
    assert taken_mib(database, run, 1) == (0, [300])
    assert taken_mib(database, run, 1) is None, "the rest is begun"
    database.runs.give_back_blobs(run, 0)
    assert taken_mib(database, run, 1) == (0, [400])
    database.runs.give_back_blobs(run, 1)
    assert taken_mib(database, run, 1) == (1, [400, 300, 90]), "nobody else has any now"


def test_a_shard_of_blobs_shrinks_as_they_are_stored_or_fail(database: Database) -> None:
    repository = database.repositories.ensure("app")
    sizes = {"small": 1, "middle": 20, "large": 300}
    layers = {name: layer(name, size_bytes=size) for name, size in sizes.items()}
    upstream = Upstream()
    upstream.tag("latest", image(*layers.values(), config="c"))
    run = open_run(database, repository, policy=Policy.IMMEDIATE)
    database.runs.record_listing(run.id, LISTED_AT, [ListedTag(TagName("latest"), None, 0)])
    database.contents.add_manifests(list(upstream.catalog.values()))
    database.runs.resolve_tags(run.id, {TagName("latest"): upstream.tags["latest"].digest})
    needed = {blob.digest: blob for blob in database.runs.required_blobs(run.id)}
    plan = [*((0, needed[layers[name].digest]) for name in sizes), (1, needed[Digest.of(b"c")])]
    for _ in range(2):
        database.runs.record_plan(run.id, plan)
    assert [blob.size_bytes for blob in left_of_shard(database, run.id, 0)] == [300, 20, 1]
    database.contents.mark_stored([layers["large"].digest])
    database.runs.fail_blobs(run.id, {layers["small"].digest: "404"})
    assert [blob.size_bytes for blob in left_of_shard(database, run.id, 0)] == [20]
    counts = database.runs.progress(run.id)
    assert (counts.blob_count, counts.blob_bytes) == (4, 322)
    assert (counts.stored_blob_count, counts.stored_blob_bytes, counts.failed_blob_count) == (1, 300, 1)
    database.runs.record_plan(run.id, [])
    assert left_of_shard(database, run.id, 0) == []
    with pytest.raises(RecordNotFound, match="does not need"):
        database.runs.record_plan(run.id, [(0, RequiredBlob(Digest.of(b"unknown"), 7, "text/plain"))])


def test_usage_adds_up_over_tasks(database: Database) -> None:
    run = open_run(database, database.repositories.ensure("app"))
    database.runs.add_usage(run.id, RunUsage(head_count=3, received_bytes=5_000_000_000))
    database.runs.add_usage(run.id, RunUsage(head_count=1, received_bytes=5_000_000_000, retry_count=2))
    database.runs.add_usage(run.id, RunUsage())
    assert database.runs.get(run.id).usage == RunUsage(head_count=4, received_bytes=10_000_000_000, retry_count=2)


def test_a_settled_run_stays_and_refuses_new_notes(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    database.versions.commit(run.id)
    database.runs.finish(run.id, RunState.FAILED, error="too late")
    assert database.runs.get(run.id).state is RunState.COMPLETED
    with pytest.raises(RunEnded):
        database.runs.record_listing(run.id, LISTED_AT, [])
    with pytest.raises(RunEnded):
        database.runs.record_plan(run.id, [])


def test_a_failed_run_says_why_and_may_be_committed_after_a_repeat(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    database.runs.finish(run.id, RunState.FAILED, error="the worker was lost")
    failed = database.runs.get(run.id)
    assert (failed.state, failed.error) == (RunState.FAILED, "the worker was lost")
    assert failed.finished_at is not None
    assert database.versions.commit(run.id).version is not None
    assert database.runs.get(run.id).error is None


def test_a_run_started_again_after_its_end_syncs_again_and_what_it_was_stays(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    key = new_key()
    run = open_run(database, repository, key=key)
    play_stages(database, run, upstream)
    database.versions.commit(run.id)
    first = database.provenance.version(repository.id, 1)
    upstream.tag("latest", image("b"))
    again = open_run(database, repository, key=key, platforms=("linux/amd64",))
    assert (again.attempt, again.state, again.version_number, again.finished_at) == (2, RunState.RUNNING, None, None)
    assert open_run(database, repository, key=key).id == again.id != run.id
    assert database.runs.by_key(key).id == again.id
    play_stages(database, again, upstream)
    version = database.versions.commit(again.id).version
    assert version is not None
    assert version.number == 2
    assert database.provenance.version(repository.id, 1) == first
    assert database.versions.commit(run.id).version == first.version
    third = open_run(database, repository, key=key)
    assert database.runs.settle_unchanged(third.id, LISTED_AT, latest_number=2)
    assert database.provenance.version(repository.id, 2).run == replace(
        database.runs.get(again.id), version_number=2, attempt=2
    )
    assert (third.attempt, database.runs.get(third.id).listed_at) == (3, LISTED_AT)


def test_a_sync_that_is_started_again_after_it_settled_may_say_otherwise(database: Database) -> None:
    """It is another one: its remote may have been changed or made again meanwhile."""
    repository = database.repositories.ensure("app")
    key = new_key()
    run = open_run(database, repository, key=key)
    assert database.runs.settle_unchanged(run.id, LISTED_AT, latest_number=None)
    again = open_run(database, repository, key=key, policy=Policy.STREAMED)
    assert (database.runs.get(run.id).policy, again.policy) == (Policy.IMMEDIATE, Policy.STREAMED)


def test_runs_are_listed_newest_first_by_repository_remote_and_state(database: Database) -> None:
    one, two = database.repositories.ensure("one"), database.repositories.ensure("two")
    first, second, third = open_run(database, one), open_run(database, two), open_run(database, one)
    database.runs.finish(first.id, RunState.UNCHANGED)
    assert [run.id for run in database.runs.page().items] == [third.id, second.id, first.id]
    assert [run.id for run in database.runs.page(repository_id=one.id).items] == [third.id, first.id]
    assert [run.id for run in database.runs.page(states=[RunState.UNCHANGED]).items] == [first.id]
    assert database.runs.page(PageRequest(limit=1), remote_id=first.remote_id).total_count == 3
    assert database.runs.page(remote_id="other").items == ()


def test_a_refused_commit_keeps_the_notes_for_a_repeat(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a", config="c"))
    run = open_run(database, repository)
    play_stages(database, run, upstream, failing={Digest.of(b"a"): "404"})
    with pytest.raises(NothingSynced, match="404"):
        database.versions.commit(run.id)
    database.contents.mark_stored([Digest.of(b"a")])
    assert database.versions.commit(run.id).version is not None


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_task_that_has_some_left_does_not_add_up_what_others_have(database: Database) -> None:
    def step_count(run_id: str) -> int:
        """How many steps SQLite's machine takes to start blobs of shard 0."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        with database.writing() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(step, 1)
            try:
                assert take(connection, run_id, 0, may_take_over=True) is not None
            finally:
                driver.set_progress_handler(None, 1)
        return steps

    few = step_count(planned_mib(database, [900, 800], list(range(1, 6))))
    many = step_count(planned_mib(database, [900, 800], list(range(1, 301))))
    assert many < few + 300
