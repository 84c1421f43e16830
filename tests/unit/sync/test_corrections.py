"""A remote that a sync made and that nothing came from yet: a typing error in it is corrected without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import Authority, RunKey, RunState, SyncRun
from registry_sync.errors import OtherUpstream, TriggerRefused
from registry_sync.sync.open_run import SyncRequest, open_run
from support.metadata import Upstream, image, play_stages
from support.ready_databases import ready_database

URL = "https://registry.example"
TYPED = SyncRequest("app", url=URL, upstream_name="team/ap", include_tags=("3.*",))
MEANT = replace(TYPED, upstream_name="team/app")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


def begin(database: Database, request: SyncRequest, run_id: str, authority: Authority = Authority.AUTHOR) -> SyncRun:
    return open_run(database, RunKey("registry_sync", run_id), request, authority=authority)


def failed(database: Database, request: SyncRequest, run_id: str = "typed") -> SyncRun:
    run = begin(database, request, run_id)
    database.runs.finish(run.id, RunState.FAILED, error="NotFound: there is no repository team/ap")
    return run


def commit(database: Database, run: SyncRun) -> None:
    upstream = Upstream()
    upstream.tag("3.1", image(run.key.run_id))
    play_stages(database, run, upstream)
    database.versions.commit(run.id)


def stored(database: Database) -> RemoteSpec:
    return database.remotes.by_name("app").spec


@pytest.mark.parametrize(
    "meant", [MEANT, replace(TYPED, url="https://other.example"), replace(MEANT, url="http://registry.example")]
)
def test_a_typing_error_in_the_upstream_is_corrected_without_a_word(database: Database, meant: SyncRequest) -> None:
    failed(database, TYPED)
    run = begin(database, meant, "meant")
    assert (stored(database).url.written, stored(database).upstream_name) == (meant.url, meant.upstream_name)
    assert (run.remote_changes or "").startswith("remote 'app' changed: ")
    commit(database, run)
    assert database.repositories.by_name("app").latest_number == 1


def test_several_typing_errors_one_after_the_other(database: Database) -> None:
    for number, name in enumerate(("team/ap", "team/aap", "taem/app")):
        failed(database, replace(TYPED, upstream_name=name), f"typed {number}")
    assert begin(database, MEANT, "meant").remote.upstream_name == "team/app"


def test_a_repeat_of_the_correcting_task_goes_on(database: Database) -> None:
    failed(database, TYPED)
    remote = database.remotes.by_name("app")
    database.remotes.correct(remote.id, lambda spec: spec.changed(upstream_name="team/app"))
    run = begin(database, MEANT, "meant")
    assert begin(database, MEANT, "meant").id == run.id, "it had died before it was recorded, and then again"
    assert stored(database).upstream_name == "team/app"


@pytest.mark.parametrize(
    "earlier", [TYPED, replace(TYPED, upstream_name="team/aap"), replace(TYPED, include_tags=("4.*",))]
)
def test_a_repeat_of_what_was_corrected_takes_nothing_back(database: Database, earlier: SyncRequest) -> None:
    """Also where it had changed the remote itself."""
    failed(database, TYPED, "first")
    failed(database, earlier, "earlier")
    run = begin(database, MEANT, "meant")
    database.runs.finish(run.id, RunState.FAILED, error="RateLimited: later")
    with pytest.raises(OtherUpstream):
        begin(database, earlier, "earlier")
    assert stored(database).upstream_name == "team/app"


def test_what_was_corrected_makes_no_version_any_more(database: Database) -> None:
    """It had fetched all, failed before its commit, and is continued after the correction."""
    typed = begin(database, TYPED, "typed")
    upstream = Upstream()
    upstream.tag("3.1", image("of the wrong one"))
    play_stages(database, typed, upstream)
    database.runs.finish(typed.id, RunState.FAILED, error="BlobStoreFull: later")
    meant = begin(database, MEANT, "meant")
    with pytest.raises(OtherUpstream, match="was corrected after this sync"):
        database.versions.commit(typed.id)
    commit(database, meant)
    assert database.repositories.by_name("app").latest_number == 1


def test_what_a_trigger_made_takes_the_word(database: Database) -> None:
    """Its filters and its connection are not the author's."""
    run = begin(database, replace(TYPED, include_tags=("evil",)), "triggered", Authority.TRIGGER)
    database.runs.finish(run.id, RunState.FAILED, error="NotFound: there is no repository team/ap")
    with pytest.raises(OtherUpstream, match="replace_upstream"):
        begin(database, MEANT, "meant")


def test_what_holds_content_takes_the_word(database: Database) -> None:
    commit(database, begin(database, TYPED, "first"))
    with pytest.raises(OtherUpstream, match="replace_upstream"):
        begin(database, MEANT, "meant")
    assert stored(database).upstream_name == "team/ap"


def test_a_remote_whose_content_went_into_a_repository_that_is_deleted_takes_the_word(database: Database) -> None:
    run = begin(database, TYPED, "first")
    commit(database, run)
    database.repositories.delete(run.repository_id)
    with pytest.raises(OtherUpstream):
        begin(database, MEANT, "meant")


def test_a_remote_that_fed_another_repository_takes_the_word(database: Database) -> None:
    failed(database, TYPED)
    commit(database, begin(database, SyncRequest("other", remote="app"), "other"))
    with pytest.raises(OtherUpstream):
        begin(database, MEANT, "meant")


def test_a_remote_that_was_found_unchanged_takes_the_word(database: Database) -> None:
    commit(database, begin(database, replace(TYPED, remote="first"), "first"))
    run = begin(database, TYPED, "second")
    assert database.runs.settle_unchanged(run.id, run.started_at, latest_number=1)
    with pytest.raises(OtherUpstream):
        begin(database, MEANT, "meant")


def test_a_remote_that_a_person_made_takes_the_word(database: Database) -> None:
    database.remotes.create(RemoteSpec.parse("app", URL, "team/ap"))
    failed(database, TYPED)
    with pytest.raises(OtherUpstream):
        begin(database, MEANT, "meant")


def test_a_remote_that_a_person_changed_since_takes_the_word(database: Database) -> None:
    run = failed(database, TYPED)
    assert database.remotes.by_name("app").is_provisional
    changed = database.remotes.change(run.remote_id or "", lambda spec: spec.changed(download_concurrency=2))
    assert not changed.is_provisional
    with pytest.raises(OtherUpstream):
        begin(database, MEANT, "meant")


def test_a_sync_that_is_under_way_is_not_taken_its_remote(database: Database) -> None:
    run = begin(database, TYPED, "typed")
    with pytest.raises(OtherUpstream, match=r"is under way: DAG run 'typed'.*mark it as failed"):
        begin(database, MEANT, "meant")
    assert stored(database).upstream_name == "team/ap"
    database.run_ends.end("registry_sync", "typed", RunState.CANCELED, "interrupted")
    assert begin(database, MEANT, "meant").remote_id == run.remote_id


def test_of_two_corrections_at_once_one_is_refused(database: Database) -> None:
    remote_id = failed(database, TYPED).remote_id or ""
    begin(database, TYPED, "between")
    with pytest.raises(OtherUpstream, match="another sync uses it"):
        database.remotes.correct(remote_id, lambda spec: spec.changed(upstream_name="x"))
    assert stored(database).upstream_name == "team/ap"


def test_a_repository_without_content_takes_any_upstream(database: Database) -> None:
    """An upstream without tags is synced well, and leaves a repository that holds nothing."""
    run = begin(database, TYPED, "typed")
    assert database.runs.settle_unchanged(run.id, run.started_at, latest_number=None)
    assert begin(database, replace(MEANT, remote="another"), "other remote").state is RunState.RUNNING
    assert begin(database, replace(TYPED, upstream_name="team/aap"), "same remote").state is RunState.RUNNING


def test_a_trigger_that_is_not_trusted_corrects_nothing(database: Database) -> None:
    failed(database, TYPED)
    with pytest.raises(TriggerRefused, match="upstream_name of remote 'app' would change"):
        begin(database, MEANT, "meant", Authority.TRIGGER)
