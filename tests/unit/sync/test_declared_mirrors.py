"""The stored records of a mirror are as the file says when its sync starts; what REST alone can say stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from registry_sync.db.database import Database
from registry_sync.db.tables import repository_versions
from registry_sync.domain.mirrors import Mirror, Publication, Retention
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import RepositorySpec, SyncMode
from registry_sync.domain.remote import OWN_CONNECTION_PREFIX, Policy, RemoteSpec
from registry_sync.domain.runs import Authority, RunKey, RunTrigger
from registry_sync.domain.serving import DistributionSpec
from registry_sync.errors import NameTaken, OtherUpstream, RecordNotFound
from registry_sync.sync.declared_mirrors import declare, expected_mirror_run, planned_mirror_names, start_mirror
from support.metadata import Upstream, image, play_stages, two_versions
from support.ready_databases import ready_database

BY = RunTrigger(triggered_by="scheduler")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "db.sqlite") as opened:
        yield opened


def mirror(*, upstream: str = "team/app", **more: Any) -> Mirror:
    options = more.pop("options", {})
    document = {"name": "app", "url": "https://quay.io", "upstream_name": upstream, **options}
    return Mirror(
        **{"repository": "app", "remote_name": "app", "remote_document": document, "place": "m.yaml:3", **more}
    )


def test_the_first_sync_creates_what_is_declared(database: Database) -> None:
    declared = mirror(
        description="d", labels={"a": "b"}, retention=Retention(versions=5), publication=Publication("pub/app")
    )
    made = declare(database, declared)
    assert made.changes == ()
    assert made.remote.spec == declared.remote
    repository = database.repositories.by_name("app")
    assert (repository.description, repository.labels, repository.retain_versions) == ("d", {"a": "b"}, 5)
    assert repository.remote_id == made.remote.id
    found = database.distributions.by_base_path("pub/app")
    assert found is not None
    assert (found.repository_id, found.version_number, found.is_private) == (repository.id, None, True)


def test_a_repeat_writes_nothing(database: Database) -> None:
    declared = mirror(
        labels={"a": "b"}, publication=Publication("pub/app", is_private=False), retention=Retention(3, 9)
    )
    first = declare(database, declared)
    second = declare(database, declared)
    assert (second.repository, second.remote, second.changes) == (first.repository, first.remote, ())


def test_what_was_changed_over_rest_is_set_back_and_reported(database: Database) -> None:
    stored = declare(database, mirror(options={"include_tags": ["3.*"]}, publication=Publication("pub/app")))
    database.remotes.change(
        stored.remote.id, lambda spec: replace(spec, policy=Policy.STREAMED, include_referrers=False)
    )
    declared = mirror(
        options={"include_tags": ["4.*"], "labels": {"x": "y"}}, publication=Publication("pub/app", is_private=False)
    )
    made = declare(database, declared)
    assert made.remote.spec == declared.remote
    of_remote = "tags from 3.* to 4.*; policy from streamed to immediate; include_referrers from false to true; labels"
    assert made.changes == (
        f"remote 'app' changed as m.yaml:3 says: {of_remote}",
        "'pub/app' is public now, as m.yaml:3 says",
    )


def test_what_the_file_cannot_say_stays(database: Database) -> None:
    remote = declare(database, mirror()).remote
    own = f"{OWN_CONNECTION_PREFIX}{remote.id.replace('-', '')}_1"
    database.remotes.change(remote.id, lambda spec: replace(spec, conn_id=own, ssl_client_certificate="PEM"))
    made = declare(database, mirror())
    assert made.changes == ()
    assert (made.remote.spec.conn_id, made.remote.spec.ssl_client_certificate) == (own, "PEM")
    assert declare(database, mirror(options={"conn_id": "hub"})).remote.spec.conn_id == "hub"
    assert declare(database, mirror()).remote.spec.conn_id is None


def test_a_remote_by_name_is_used_as_it_is(database: Database) -> None:
    by_name = mirror(remote_document=None, remote_name="hub")
    with pytest.raises(RecordNotFound, match=r"m.yaml:3: there is no remote 'hub'"):
        declare(database, by_name)
    remote = database.remotes.create(RemoteSpec.parse("hub", "https://quay.io", "a/b", policy="streamed"))
    assert declare(database, by_name).remote == remote


def test_a_fixed_version_stays_fixed_and_another_repository_keeps_its_base_path(database: Database) -> None:
    other = database.repositories.create(RepositorySpec("other"))
    database.distributions.create(DistributionSpec("pub/app", "pub/app", other.id))
    with pytest.raises(NameTaken, match="pub/app"):
        declare(database, mirror(publication=Publication("pub/app")))
    assert database.remotes.page().total_count == 0
    assert database.repositories.page().total_count == 1


def test_content_of_another_source_is_replaced_only_if_the_file_says_so(database: Database) -> None:
    two_versions(database, "app")
    moved = mirror(upstream="team/other")
    with pytest.raises(OtherUpstream, match="say replace_upstream: true"):
        declare(database, moved)
    assert not [remote for remote in database.remotes.page().items if remote.spec.name == "app"]
    made = declare(database, replace(moved, replaces_upstream=True))
    assert made.remote.spec.upstream == "team/other"
    run = start_mirror(database, replace(moved, replaces_upstream=True), RunKey("d", "r"), BY)
    assert run.remote.upstream == "team/other"


def test_a_source_may_be_corrected_before_there_is_content(database: Database) -> None:
    declare(database, mirror(upstream="team/wrong"))
    made = declare(database, mirror())
    assert made.remote.spec.upstream == "team/app"
    assert "upstream_name from team/wrong to team/app" in made.changes[0]


def test_days_and_a_number_of_versions_keep_what_either_keeps(database: Database) -> None:
    repository = two_versions(database, "app")
    assert database.versions.latest_number(repository.id) == 2

    def kept(retention: Retention, after: timedelta = timedelta()) -> int | None:
        declared = mirror(replaces_upstream=True, retention=retention)
        return declare(database, declared, utc_now() + after).repository.retain_versions

    assert kept(Retention(versions=9)) == 9
    assert kept(Retention(days=1)) == 3
    assert kept(Retention(versions=2, days=1)) == 3
    assert kept(Retention(versions=2, days=1), timedelta(days=3)) == 2
    assert database.versions.page(repository.id).total_count == 2
    assert kept(Retention(days=1), timedelta(days=9)) == 1
    assert database.versions.page(repository.id).total_count == 1


def test_the_run_has_the_mode_and_the_remote_of_the_file(database: Database) -> None:
    run = start_mirror(database, mirror(mode=SyncMode.ADDITIVE), RunKey("mirror.app", "r"), BY)
    assert (run.repository_name, run.remote.name, run.mode, run.authority) == (
        "app", "app", SyncMode.ADDITIVE, Authority.AUTHOR,
    )  # fmt: skip
    assert run.remote_changes is None


def test_the_run_says_what_was_set_back(database: Database) -> None:
    remote = declare(database, mirror()).remote
    database.remotes.change(remote.id, lambda spec: replace(spec, policy=Policy.STREAMED))
    run = start_mirror(database, mirror(), RunKey("mirror.app", "r"), BY)
    assert run.remote_changes == "remote 'app' changed as m.yaml:3 says: policy from streamed to immediate"


def test_a_copy_for_a_dry_run_has_the_records_of_the_mirror() -> None:
    names = planned_mirror_names(mirror(publication=Publication("pub/app")))
    assert (names.repository, names.remotes, names.base_path) == ("app", ("app",), "pub/app")


@pytest.mark.parametrize("lost", ["remotes", "repositories"])
def test_two_that_create_at_once_agree(database: Database, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    store = getattr(database, lost)
    create: Callable[..., Any] = store.create

    def late(spec: Any, **named: Any) -> Any:
        monkeypatch.setattr(store, "create", create)
        create(spec, **named)
        return create(spec, **named)

    monkeypatch.setattr(store, "create", late)
    assert declare(database, mirror()).repository.name == "app"


@pytest.mark.parametrize(
    ("changed", "is_expected"),
    [
        ({}, True),
        ({"retention": Retention(versions=5)}, True),
        ({"retention": Retention(versions=6)}, False),
        ({"retention": Retention(versions=5, days=3)}, True),
        ({"retention": Retention(days=3)}, False),
        ({"labels": {"a": "c"}}, False),
        ({"description": "other"}, False),
        ({"publication": Publication("pub/app", is_private=False)}, False),
        ({"publication": Publication("pub/other")}, False),
        ({"publication": None}, True),
        ({"options": {"include_tags": ["4.*"]}}, False),
        ({"upstream": "team/other"}, False),
        ({"mode": SyncMode.ADDITIVE}, False),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_a_run_is_expected_where_the_records_are_as_declared(
    database: Database, changed: dict[str, Any], is_expected: bool
) -> None:
    said = {
        "labels": {"a": "b"},
        "retention": Retention(versions=5),
        "publication": Publication("pub/app"),
        "options": {"include_referrers": False},
    }
    run = start_mirror(database, mirror(**said), RunKey("dag", "run-1"), BY)
    play_stages(database, run, one_tag())
    database.versions.commit(run.id)
    known = database.unchanged_syncs.settled({"app": RunKey("dag", "run-2")})["app"]
    given = mirror(**{**said, **changed, "options": {**said["options"], **changed.get("options", {})}})  # type: ignore[dict-item]
    found = expected_mirror_run(database, given, known, BY)
    assert (found is not None) is is_expected
    if found is not None:
        started = start_mirror(database, given, RunKey("dag", "run-2"), BY)
        assert replace(found, id=started.id, started_at=started.started_at) == started


def test_a_run_is_expected_until_another_number_of_versions_is_young_enough(database: Database) -> None:
    declared = mirror(retention=Retention(days=3))
    for number in range(2):
        run = start_mirror(database, declared, RunKey("dag", f"run-{number}"), BY)
        play_stages(database, run, one_tag(f"image {number}"))
        database.versions.commit(run.id)

    def is_expected() -> bool:
        known = database.unchanged_syncs.settled({"app": RunKey("dag", "run-9")})["app"]
        return expected_mirror_run(database, declared, known, BY) is not None

    assert not is_expected(), "one more is kept than before the last version"
    declare(database, declared)
    assert is_expected()
    with database.writing() as connection:
        oldest = repository_versions.c.number == 1
        connection.execute(update(repository_versions).where(oldest).values(created_at=utc_now() - timedelta(days=4)))
    assert not is_expected()


def one_tag(text: str = "some") -> Upstream:
    made = Upstream()
    made.tag("latest", image(text))
    return made
