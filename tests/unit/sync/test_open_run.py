"""How a sync begins: what was said is done and nothing else, and nothing of another upstream in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.db.runs.dag_run_stores import KEPT
from registry_sync.domain.records import RepositorySpec, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import Policy, Remote, RemoteSpec
from registry_sync.domain.runs import Authority, RequestedSync, RunKey, RunState, RunTrigger, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import ConfigurationError, OtherUpstream, RecordNotFound, TriggerRefused
from registry_sync.sync.open_run import SyncRequest, open_requested_run, open_run
from support.metadata import Upstream, image, play_stages
from support.ready_databases import ready_database

STORED = RemoteSpec.parse(
    "app",
    "https://registry.example",
    "team/app",
    include_tags=("3.*", "latest"),
    exclude_tags=("*_rc*",),
    policy=Policy.ON_DEMAND,
    download_concurrency=8,
    conn_id="hub",
    platforms=("linux/amd64",),
    include_referrers=False,
)
PLACE: dict[str, Any] = {"url": STORED.url.written, "upstream_name": STORED.upstream_name}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


@pytest.fixture
def remote(database: Database) -> Remote:
    """A stored remote, from which the repository ``app`` got its content."""
    remote = database.remotes.create(STORED)
    settle(database, begin(database, SyncRequest("app", remote="app"), run_id="first"))
    return remote


def begin(
    database: Database, request: SyncRequest, *, run_id: str = "again", authority: Authority = Authority.AUTHOR
) -> SyncRun:
    return open_run(database, RunKey("registry_sync", run_id), request, authority=authority)


def settle(database: Database, run: SyncRun) -> None:
    """Ends a run in a version."""
    upstream = Upstream()
    upstream.tag("latest", image(run.key.run_id))
    play_stages(database, run, upstream)
    database.versions.commit(run.id)
    assert database.runs.get(run.id).state is RunState.COMPLETED


def stored(database: Database, name: str = "app") -> RemoteSpec:
    return database.remotes.by_name(name).spec


# -- only what was said ------------------------------------------------------------------------------------------------


def test_what_is_not_said_of_a_remote_stays_as_it_is(database: Database, remote: Remote) -> None:
    run = begin(database, SyncRequest("app", **PLACE))
    assert stored(database) == STORED == run.remote
    assert run.remote_changes is None
    assert database.remotes.get(remote.id).updated_at == remote.updated_at


def test_what_is_said_is_changed_and_the_run_says_what(database: Database, remote: Remote) -> None:
    said = SyncRequest("app", policy="immediate", include_tags=("*",), ssl_validation="false", **PLACE)
    run = begin(database, said)
    assert stored(database) == STORED.changed(policy=Policy.IMMEDIATE, include_tags=("*",), ssl_validation=False)
    assert run.remote_changes == (
        "remote 'app' changed: tags from 3.*, latest to *; policy from on_demand to immediate; "
        "ssl_validation from true to false"
    )
    assert begin(database, said).remote_changes == run.remote_changes, "a repeat of the task has not forgotten"
    assert begin(database, said, run_id="next").remote_changes is None


def test_another_spelling_of_the_upstream_changes_nothing(database: Database, remote: Remote) -> None:
    run = begin(database, SyncRequest("app", url="HTTPS://Registry.Example:443/", upstream_name="team/app"))
    assert (stored(database), run.remote_changes) == (STORED, None)


# -- another upstream --------------------------------------------------------------------------------------------------

OTHER: dict[str, Any] = {"url": "https://other.example", "upstream_name": "team/app"}


@pytest.mark.parametrize(
    "place", [OTHER, {**PLACE, "upstream_name": "team/other"}, {**PLACE, "url": "http://registry.example"}]
)
def test_another_upstream_of_a_remote_takes_a_word(database: Database, remote: Remote, place: dict[str, Any]) -> None:
    with pytest.raises(OtherUpstream, match=r"remote 'app' is team/app at https://registry.example.*replace_upstream"):
        begin(database, SyncRequest("app", **place))
    assert stored(database) == STORED
    run = begin(database, SyncRequest("app", replace_upstream="true", **place))
    assert stored(database).url.written == place["url"]
    assert "remote 'app' changed: " in (run.remote_changes or "")


def test_another_upstream_of_a_repository_takes_a_word(database: Database, remote: Remote) -> None:
    database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    for said in (SyncRequest("app", remote="elsewhere"), SyncRequest("app", remote="new", **OTHER)):
        with pytest.raises(OtherUpstream, match=r"came from registry.example/team/app"):
            begin(database, said)
        assert (
            begin(database, replace(said, replace_upstream=True), run_id=f"for {said.remote}").state is RunState.RUNNING
        )


def test_a_refused_upstream_leaves_nothing_behind(database: Database, remote: Remote) -> None:
    with pytest.raises(OtherUpstream):
        begin(database, SyncRequest("app", remote="new", **OTHER))
    assert [found.spec.name for found in database.remotes.page().items] == ["app"]
    assert database.runs.page().total_count == 1


def test_a_remote_that_was_moved_over_rest_goes_on(database: Database, remote: Remote) -> None:
    """Whoever changed the remote has said the word."""
    database.remotes.update(remote.id, STORED.changed(**OTHER))
    assert begin(database, SyncRequest("app", remote="app")).remote.url.written == OTHER["url"]


def test_a_connection_that_belongs_to_a_remote_serves_no_other(database: Database) -> None:
    own = "registry_sync_remote_0123"
    database.remotes.create(STORED.changed(conn_id=own))
    assert begin(database, SyncRequest("app", remote="app")).remote.conn_id == own
    for said in (
        SyncRequest("app", remote="app", conn_id="registry_sync_remote_4567"),
        SyncRequest("new", conn_id=own, **PLACE),
        SyncRequest("new", conn_id=own.upper(), **PLACE),
    ):
        with pytest.raises(ConfigurationError, match="belongs to the remote it was made for"):
            begin(database, said, run_id="other")


# -- what a trigger may say --------------------------------------------------------------------------------------------


def by_trigger(database: Database, request: SyncRequest, *, run_id: str = "again") -> SyncRun:
    return begin(database, request, run_id=run_id, authority=Authority.TRIGGER)


def test_a_trigger_makes_what_is_new_and_says_it_again(database: Database) -> None:
    said = SyncRequest("new", include_tags=("1.*",), policy="streamed", **PLACE)
    for run_id in ("one", "one", "two"):
        assert by_trigger(database, said, run_id=run_id).authority is Authority.TRIGGER
    assert stored(database, "new") == RemoteSpec.parse("new", include_tags=("1.*",), policy=Policy.STREAMED, **PLACE)


def test_a_trigger_syncs_what_is_there_as_it_is_stored(database: Database, remote: Remote) -> None:
    for number, said in enumerate(
        [
            SyncRequest("app", remote="app"),
            SyncRequest("app", **PLACE),
            SyncRequest("app", remote="app", policy="on_demand", conn_id="hub", include_tags=("3.*", "latest")),
            SyncRequest("another", remote="app", mode="additive"),
        ]
    ):
        assert by_trigger(database, said, run_id=str(number)).remote == STORED


@pytest.mark.parametrize(
    "less",
    [
        {"download_concurrency": "2"},
        {"max_total_bytes": "1000000"},
        {"mode": "additive", "include_tags": ("3.*",)},
        {"mode": "additive", "include_tags": ("3.18", "latest")},
        {"mode": "additive", "exclude_tags": ("*_rc*", "3.1*")},
    ],
)
def test_a_trigger_may_ask_for_less_where_that_harms_nobody(
    database: Database, remote: Remote, less: dict[str, Any]
) -> None:
    run = by_trigger(database, SyncRequest("app", remote="app", **less))
    assert run.remote != STORED
    assert stored(database) == STORED


def test_a_trigger_may_lower_a_limit_and_not_raise_it(database: Database, remote: Remote) -> None:
    database.remotes.update(remote.id, STORED.changed(max_total_bytes=1_000))
    lower = by_trigger(database, SyncRequest("app", remote="app", max_total_bytes="999"), run_id="lower")
    assert lower.remote.max_total_bytes == 999
    assert stored(database).max_total_bytes == 1_000
    with pytest.raises(TriggerRefused, match="max_total_bytes may only be lower than that of remote 'app'"):
        by_trigger(database, SyncRequest("app", remote="app", max_total_bytes="1001"), run_id="higher")


TOO_FAR: list[tuple[dict[str, Any], str]] = [
    ({**PLACE, "url": "https://evil.example"}, "url of remote 'app' would change"),
    ({**PLACE, "upstream_name": "evil/app"}, "upstream_name of remote 'app' would change"),
    ({**PLACE, "include_tags": ("3.18",)}, "tags of remote 'app' would change"),
    (
        {**PLACE, "policy": "immediate", "platforms": ("linux/arm64",)},
        "policy and platforms of remote 'app' would change",
    ),
    ({**PLACE, "ssl_validation": "false"}, "ssl_validation would be turned off"),
    ({**PLACE, "conn_id": "other"}, "conn_id of remote 'app' would change"),
    ({**PLACE, "download_concurrency": "2"}, "download_concurrency of remote 'app' would change"),
    ({**PLACE, "max_total_bytes": "2"}, "max_total_bytes of remote 'app' would change"),
    ({**PLACE, "remote": "new"}, "a new remote would be synced into repository 'app', which exists"),
    ({"remote": "elsewhere"}, "repository 'app' did not get its content from remote 'elsewhere'"),
    ({"remote": "elsewhere", "mode": "additive"}, "repository 'app' did not get its content from remote 'elsewhere'"),
    ({"remote": "elsewhere", "replace_upstream": "true"}, "replace_upstream is not allowed for a trigger"),
    ({"remote": "app", "ssl_validation": "false"}, "ssl_validation would be turned off"),
    ({"remote": "app", "conn_id": "other"}, "conn_id would differ"),
    ({"remote": "app", "policy": "streamed"}, "policy would differ"),
    ({"remote": "app", "platforms": ("linux/arm64",)}, "platforms would differ"),
    ({"remote": "app", "include_referrers": "true"}, "include_referrers would differ"),
    ({"remote": "app", "download_concurrency": "100"}, "download_concurrency may only be lower"),
    ({"remote": "app", "include_tags": ("3.18",)}, "tags may only narrow"),
    ({"remote": "app", "include_tags": ("*",), "mode": "additive"}, "tags may only narrow"),
    ({"remote": "app", "include_tags": ("2.0",), "mode": "additive"}, "tags may only narrow"),
    ({"remote": "app", "include_tags": ("3.1_rc1",), "mode": "additive"}, "tags may only narrow"),
    ({"remote": "app", "exclude_tags": ("x",), "mode": "additive"}, "exclude_tags may only narrow"),
]


@pytest.mark.parametrize(("said", "told"), TOO_FAR)
def test_a_trigger_changes_nothing_that_is_there(
    database: Database, remote: Remote, said: dict[str, Any], told: str
) -> None:
    elsewhere = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    with pytest.raises(TriggerRefused) as refused:
        by_trigger(database, SyncRequest("app", **said))
    assert told in str(refused.value)
    assert "over REST" in str(refused.value)
    found = database.remotes.page().items
    assert found == (database.remotes.get(remote.id), elsewhere)
    assert found[0].spec == STORED
    assert database.runs.page().total_count == 1


def test_a_trigger_does_not_put_a_remote_in_the_place_of_what_was_copied(database: Database) -> None:
    """A repository with versions of which no sync is known, such as one that tags are promoted to."""
    database.remotes.create(STORED)
    settle(database, begin(database, SyncRequest("source", remote="app"), run_id="first"))
    source = database.repositories.by_name("source")
    target = database.repositories.create(RepositorySpec("production"))
    database.versions.copy(target.id, CopyRequest(source.id, 1, TagFilter.parse(), SyncMode.MIRROR), by="anna")
    with pytest.raises(TriggerRefused, match="did not get its content from remote 'app'"):
        by_trigger(database, SyncRequest("production", remote="app"))


def test_a_new_remote_of_a_trigger_checks_certificates_and_requests_its_connection(database: Database) -> None:
    with pytest.raises(TriggerRefused, match="ssl_validation would be turned off"):
        by_trigger(database, SyncRequest("new", ssl_validation="false", **PLACE))
    asked: list[RemoteSpec] = []

    def refuse(remote: RemoteSpec) -> None:
        asked.append(remote)
        raise ConfigurationError("it has no host")

    with pytest.raises(ConfigurationError):
        open_run(
            database,
            RunKey("registry_sync", "x"),
            SyncRequest("new", conn_id="aws_prod", **PLACE),
            authority=Authority.TRIGGER,
            check_connection=refuse,
        )
    assert [remote.conn_id for remote in asked] == ["aws_prod"]
    assert database.remotes.page().total_count == database.repositories.page().total_count == 0


# -- what was asked for over REST --------------------------------------------------------------------------------------


def requested(database: Database, remote: Remote, **more: Any) -> RequestedSync:
    asked = RequestedSync(
        id="11111111-2222-3333-4444-555555555555",
        dag_id="registry_sync",
        repository_id=database.repositories.by_name("app").id,
        remote_id=remote.id,
        mode=SyncMode.ADDITIVE,
        requested_by="anna",
        may_replace_upstream=False,
        requested_at=datetime.now(timezone.utc),
    )
    kept = replace(asked, **more)
    database.requests.add(kept)
    return database.requests.get("registry_sync", kept.id)


def carried_out(
    database: Database,
    asked: RequestedSync,
    overrides: SyncRequest | None = None,
    *,
    user: str = "anna",
    is_cleared: bool = False,
) -> SyncRun:
    key = RunKey("registry_sync", f"registry_sync__{asked.id}")
    by = RunTrigger(triggered_by=user, is_cleared=is_cleared)
    return open_requested_run(database, key, asked, overrides, by=by)


def test_a_request_is_about_those_objects_even_after_a_rename(database: Database, remote: Remote) -> None:
    asked = requested(database, remote)
    repository = database.repositories.get(asked.repository_id)
    database.repositories.update(repository.id, replace(repository.spec, name="renamed"))
    database.remotes.update(remote.id, STORED.changed(name="moved"))
    swapped = database.repositories.create(RepositorySpec("app"))
    database.remotes.create(STORED.changed(**OTHER))
    run = carried_out(database, asked)
    assert (run.repository_id, run.remote_id, run.mode) == (repository.id, remote.id, SyncMode.ADDITIVE)
    assert (run.remote.url, run.authority) == (STORED.url, Authority.REQUEST)
    assert database.repositories.get(swapped.id).latest_number is None


@pytest.mark.parametrize("kind", ["repository", "remote"])
def test_what_is_gone_fails_and_does_not_come_back_as_another(database: Database, remote: Remote, kind: str) -> None:
    asked = requested(database, remote)
    if kind == "repository":
        database.repositories.delete(asked.repository_id)
        database.repositories.create(RepositorySpec("app"))
    else:
        database.remotes.delete(asked.remote_id)
        database.remotes.create(STORED)
    with pytest.raises(RecordNotFound, match=f"the {kind} of this request is gone"):
        carried_out(database, asked)


def test_another_remote_takes_the_place_only_where_the_user_may_replace_it(database: Database, remote: Remote) -> None:
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other)
    with pytest.raises(OtherUpstream, match="takes the right to change repositories"):
        carried_out(database, asked)
    assert carried_out(database, replace(asked, may_replace_upstream=True)).remote_id == other.id


def test_what_the_dags_code_says_for_every_run_counts(database: Database, remote: Remote) -> None:
    run = carried_out(database, requested(database, remote), SyncRequest("", policy="streamed"))
    assert (run.remote.policy, stored(database).policy) == (Policy.STREAMED, Policy.ON_DEMAND)


def test_a_request_is_one_dags_and_is_forgotten_in_the_end(database: Database, remote: Remote) -> None:
    asked = requested(database, remote)
    with pytest.raises(RecordNotFound, match="was not requested over REST"):
        database.requests.get("another_dag", asked.id)
    database.requests.record_error(asked.id, "RecordNotFound: gone")
    assert database.requests.by_ids([asked.id, "unknown"])[asked.id].error == "RecordNotFound: gone"
    database.requests.add(replace(asked, id="b", requested_at=asked.requested_at + KEPT, path_form="container"))
    assert {found.path_form for found in database.requests.by_ids([asked.id, "b"]).values()} == {"docker", "container"}
    database.requests.get("registry_sync", asked.id)
    database.requests.add(replace(asked, id="c", requested_at=asked.requested_at + KEPT * 1.1))
    with pytest.raises(RecordNotFound):
        database.requests.get("registry_sync", asked.id)


@pytest.mark.parametrize("end", [RunState.COMPLETED, RunState.CANCELED])
def test_the_right_to_replace_is_good_for_one_sync(database: Database, remote: Remote, end: RunState) -> None:
    """Whoever has a run of that id once more, by clearing it or by triggering it again, is not who asked."""
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other, may_replace_upstream=True)
    run = carried_out(database, asked)
    assert carried_out(database, asked).id == run.id, "another try of the same sync"
    if end is RunState.COMPLETED:
        settle(database, run)
        settle(database, begin(database, SyncRequest("app", remote="app", replace_upstream=True), run_id="back"))
    else:
        database.runs.finish(run.id, end)
    with pytest.raises(OtherUpstream, match="takes the right to change repositories"):
        carried_out(database, asked)


def test_a_request_grants_nothing_to_a_sync_after_its_own(database: Database, remote: Remote) -> None:
    """Not even to one that was let go on while the remote fed the repository, and failed."""
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other, may_replace_upstream=True)
    settle(database, carried_out(database, asked))
    again = carried_out(database, asked)
    assert (again.attempt, again.authority) == (2, Authority.TRIGGER)
    database.runs.finish(again.id, RunState.FAILED)
    settle(database, begin(database, SyncRequest("app", remote="app", replace_upstream=True), run_id="back"))
    with pytest.raises(OtherUpstream, match="takes the right to change repositories"):
        carried_out(database, asked)


def test_a_request_grants_nothing_to_a_run_that_somebody_else_triggers_by_its_id(
    database: Database, remote: Remote
) -> None:
    """The DAG run of who asked failed, and was deleted."""
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other, may_replace_upstream=True)
    run = carried_out(database, asked)
    database.runs.finish(run.id, RunState.FAILED)
    with pytest.raises(OtherUpstream, match="takes the right to change repositories"):
        carried_out(database, asked, user="mallory")


@pytest.mark.parametrize("is_cleared", [True, False])
def test_the_right_to_replace_is_gone_when_a_run_is_cleared(
    database: Database, remote: Remote, is_cleared: bool
) -> None:
    """Who may change runs may clear any, whatever who asked has decided since; what needs no right goes on."""
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other, may_replace_upstream=True)
    run = carried_out(database, asked)
    database.runs.finish(run.id, RunState.FAILED)
    with pytest.raises(OtherUpstream, match="not with a run that is cleared"):
        carried_out(database, asked, is_cleared=is_cleared)
    fed = requested(database, remote, id="22222222-2222-3333-4444-555555555555")
    assert carried_out(database, fed).authority is Authority.REQUEST
    assert carried_out(database, fed, is_cleared=True).authority is Authority.REQUEST


def test_a_run_that_is_cleared_before_it_had_started_replaces_nothing(database: Database, remote: Remote) -> None:
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    asked = requested(database, other, may_replace_upstream=True)
    with pytest.raises(OtherUpstream, match="not with a run that is cleared"):
        carried_out(database, asked, is_cleared=True)


# -- what came from elsewhere while a sync was under way ---------------------------------------------------------------


def started(database: Database, kind: str, other: Remote) -> SyncRun:
    """A run from ``other`` into the repository ``new``, which is there and empty."""
    repository = database.repositories.by_name("new")
    if kind == "trigger":
        request = SyncRequest("new", remote=other.spec.name)
        return begin(database, request, run_id="theirs", authority=Authority.TRIGGER)
    return carried_out(
        database, requested(database, other, repository_id=repository.id, may_replace_upstream=kind == "replacing")
    )


@pytest.mark.parametrize("kind", ["trigger", "request", "replacing"])
@pytest.mark.parametrize("equals", [False, True])
def test_what_came_from_another_remote_meanwhile_is_not_replaced(
    database: Database, remote: Remote, kind: str, equals: bool
) -> None:
    """An empty repository is for every remote, and only for the first one to fill it.

    Nor is it taken for that other remote's from now on because this one happens to have the same.
    """
    other = database.remotes.create(STORED.changed(name="elsewhere", **OTHER))
    new = database.repositories.create(RepositorySpec("new"))
    run = started(database, kind, other)
    settle(database, begin(database, SyncRequest("new", remote="app"), run_id="owner"))
    upstream = Upstream()
    upstream.tag("latest", image("owner" if equals else "theirs"))
    play_stages(database, run, upstream)
    if kind == "replacing":
        assert database.versions.commit(run.id).version is None or not equals
        return
    with pytest.raises(OtherUpstream, match=r"came from registry\.example/team/app after this sync"):
        database.versions.commit(run.id)
    with pytest.raises(OtherUpstream, match=r"came from registry\.example/team/app after this sync"):
        database.runs.settle_unchanged(run.id, datetime.now(timezone.utc), latest_number=1)
    latest = database.runs.latest_settled(new.id)
    assert latest is not None
    assert latest.remote_id == remote.id


def test_a_trigger_goes_on_with_what_its_remote_has_brought_meanwhile(database: Database, remote: Remote) -> None:
    """Also when that remote has been pointed elsewhere since."""
    database.remotes.update(remote.id, STORED.changed(**OTHER))
    run = begin(database, SyncRequest("app", remote="app"), run_id="theirs", authority=Authority.TRIGGER)
    settle(database, run)
    later = begin(database, SyncRequest("app", remote="app", mode="additive"), authority=Authority.TRIGGER)
    settle(database, begin(database, SyncRequest("app", remote="app", mode="additive"), run_id="schedule"))
    database.remotes.delete(remote.id)
    play_stages(database, later, Upstream())
    assert database.versions.commit(later.id).version is None
