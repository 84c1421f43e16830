"""Tags that stay as they are while their bytes are gone: a version that keeps bytes says so, whatever made it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Hold, Repository, SyncMode
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import RunState
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import NothingSynced
from support.emptied_databases import filled
from support.metadata import Upstream, image, index, layer, open_run, play_stages, sync

GONE = "NotFound: the registry has no such blob"


@pytest.fixture
def upstream() -> Upstream:
    """An index under two names, and an image beside it that shares nothing with it."""
    return _upstream()


def _upstream() -> Upstream:
    made, amd64, arm64 = Upstream(), image("base", "amd64"), image("base", "arm64")
    made.tag("latest", multi := index(amd64, arm64), amd64, arm64)
    made.tag("v1", multi)
    made.tag("other", image("other"))
    return made


@pytest.fixture
def repository(database: Database) -> Repository:
    return filled(database, _synced)


def _synced(database: Database) -> Repository:
    record = database.repositories.ensure("app")
    assert sync(database, record, _upstream()).version is not None
    return record


def lose(database: Database, *texts: str) -> dict[Digest, str]:
    """Takes the bytes of these layers away, as reclaiming does; why the upstream does not give them again."""
    database.contents.mark_missing(lost := [Digest.of(text.encode()) for text in texts])
    return dict.fromkeys(lost, GONE)


def holds(found: Iterable[Hold]) -> dict[str, tuple[Digest | None, str]]:
    return {hold.tag: (hold.digest, hold.reason) for hold in found}


def test_unchanged_tags_whose_bytes_cannot_be_had_again_are_held_by_the_next_version(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    failing = lose(database, "arm64")
    upstream.tag("new", image("new"))
    result = sync(database, repository, upstream, failing=failing)
    assert result.version is not None
    multi = upstream.tags["latest"].digest
    expected = (multi, f"blob {Digest.of(b'arm64')}: {GONE}")
    assert holds(result.holds) == {"latest": expected, "v1": expected}
    assert not result.version.is_complete
    assert database.versions.tags(repository.id).keys() == {"latest", "v1", "other", "new"}
    run = database.runs.page().items[0]
    assert (run.counts.held_tag_count, run.counts.unchanged_tag_count, run.counts.resolved_tag_count) == (2, 1, 1)


def test_a_run_that_finds_nothing_but_lost_bytes_fails_and_says_which(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    failing = lose(database, "other")
    with pytest.raises(NothingSynced, match=f"1 tag is held: other: blob {Digest.of(b'other')}: {GONE}"):
        sync(database, repository, upstream, failing=failing)
    assert sync(database, repository, upstream).version is None, "what the upstream gives again is whole"
    assert database.versions.missing_blob_count(repository.id) == 0


def test_a_tag_that_is_kept_though_it_is_gone_upstream_is_requested_again_and_held(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    failing = lose(database, "other")
    del upstream.tags["other"]
    upstream.tag("new", image("new"))
    result = sync(database, repository, upstream, mode=SyncMode.ADDITIVE, failing=failing)
    assert holds(result.holds) == {"other": (image("other").digest, f"blob {Digest.of(b'other')}: {GONE}")}
    upstream.tag("newer", image("newer"))
    assert sync(database, repository, upstream, mode=SyncMode.ADDITIVE).holds == ()


def test_what_a_mirror_is_about_to_remove_is_not_requested(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    lose(database, "other")
    del upstream.tags["other"]
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    assert list(database.runs.required_blobs(run.id)) == []
    result = database.versions.commit(run.id)
    assert result.version is not None
    assert result.holds == ()


def test_a_held_tag_whose_kept_bytes_are_lost_gets_them_again(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    lose(database, "other")
    upstream.tag("new", image("new"))
    result = sync(database, repository, upstream, held={"other": "the registry answered 500"})
    assert holds(result.holds) == {"other": (image("other").digest, "the registry answered 500")}
    assert database.contents.blob(Digest.of(b"other")).is_stored


def test_a_change_to_the_policy_that_keeps_bytes_does_not_hide_what_is_lacking(
    database: Database, upstream: Upstream
) -> None:
    repository = database.repositories.ensure("app")
    first = sync(database, repository, upstream, policy=Policy.ON_DEMAND)
    assert first.version is not None
    assert first.version.is_complete, "nothing was to be stored"
    with pytest.raises(NothingSynced, match="other"):
        sync(database, repository, upstream, failing={Digest.of(b"other"): GONE})
    assert sync(database, repository, upstream).version is None
    assert database.runs.page().items[0].state is RunState.UNCHANGED


def test_foreign_layers_are_lacking_where_they_are_wanted_alone(database: Database) -> None:
    repository, upstream = database.repositories.ensure("app"), Upstream()
    upstream.tag("windows", image(layer("foreign", is_foreign=True), "app"))
    assert sync(database, repository, upstream).version is not None
    failing = lose(database, "app")
    upstream.tag("new", image("new"))
    result = sync(database, repository, upstream, failing=failing)
    assert holds(result.holds)["windows"][1] == f"blob {Digest.of(b'app')}: {GONE}"
    database.contents.mark_stored(failing)
    upstream.tag("newer", image("newer"))
    assert sync(database, repository, upstream).holds == ()


@pytest.mark.parametrize("mode", list(SyncMode))
def test_a_copy_of_tags_whose_bytes_are_lost_holds_them(
    database: Database, repository: Repository, upstream: Upstream, mode: SyncMode
) -> None:
    lose(database, "arm64")
    target, further = database.repositories.ensure("target"), database.repositories.ensure("further")
    made = database.versions.copy(target.id, CopyRequest(repository.id, mode=mode))
    assert made.version is not None
    assert made.missing_blob_count == 1
    multi = upstream.tags["latest"].digest
    expected = dict.fromkeys(("latest", "v1"), (multi, f"blob {Digest.of(b'arm64')}: not stored"))
    assert holds(made.version.holds) == expected
    again = database.versions.copy(further.id, CopyRequest(target.id, mode=mode))
    assert again.version is not None
    assert holds(again.version.holds) == expected


def test_a_copy_of_what_is_fetched_when_it_is_pulled_holds_nothing(database: Database, upstream: Upstream) -> None:
    source = database.repositories.ensure("source")
    sync(database, source, upstream, policy=Policy.ON_DEMAND)
    target, further = database.repositories.ensure("target"), database.repositories.ensure("further")
    for origin, goal in ((source, target), (target, further)):
        made = database.versions.copy(goal.id, CopyRequest(origin.id))
        assert made.version is not None
        assert made.version.is_complete
        assert made.missing_blob_count > 0


def test_a_rollback_to_what_was_reclaimed_meanwhile_holds_the_tags_that_lack_bytes(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    upstream.tag("other", image("another"))
    sync(database, repository, upstream)
    lose(database, "other")
    made = database.versions.roll_back(repository.id, 1)
    assert made.version is not None
    assert holds(made.version.holds) == {"other": (image("other").digest, f"blob {Digest.of(b'other')}: not stored")}
    assert database.versions.get(repository.id, 1).holds == (), "what a version said stays said"


def test_tags_of_another_remote_that_are_fetched_when_they_are_pulled_are_left_to_that(
    database: Database, upstream: Upstream
) -> None:
    """One repository, filled by turns by a remote that keeps bytes and by one that does not."""
    repository, other = database.repositories.ensure("app"), Upstream()
    other.tag("pulled", image("pulled"))
    sync(database, repository, other, mode=SyncMode.ADDITIVE, policy=Policy.ON_DEMAND)
    run = open_run(database, repository, mode=SyncMode.ADDITIVE)
    play_stages(database, run, upstream)
    needed = {blob.digest for blob in database.runs.required_blobs(run.id)}
    result = database.versions.commit(run.id)
    assert Digest.of(b"pulled") not in needed
    assert result.version is not None
    assert result.version.is_complete
    assert not database.contents.blob(Digest.of(b"pulled")).is_stored


def test_a_copy_into_what_is_fetched_when_it_is_pulled_holds_nothing_of_that(
    database: Database, repository: Repository, upstream: Upstream
) -> None:
    target, other = database.repositories.ensure("target"), Upstream()
    other.tag("pulled", image("pulled"))
    sync(database, target, other, policy=Policy.ON_DEMAND)
    lose(database, "other")
    made = database.versions.copy(target.id, CopyRequest(repository.id))
    assert made.version is not None
    assert database.versions.tags(target.id).keys() == {"pulled", *upstream.tags}
    assert [hold.tag for hold in made.version.holds] == ["other"]
