"""A repository is published by its sync: under a base path that is free, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.db.distributions import DistributionStore
from registry_sync.domain.records import Repository
from registry_sync.domain.runs import Authority, RunKey
from registry_sync.domain.serving import Distribution, DistributionSpec
from registry_sync.errors import InvalidReference, NameTaken, TriggerRefused
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.publish_version import PublishRequest, publish_version, would_change
from support.metadata import two_versions
from support.ready_databases import filled, ready_database

PLACE = {"url": "https://registry.example", "upstream_name": "team/app"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as database:
        yield database


@pytest.fixture
def app(database: Database) -> Repository:
    """``app`` with two versions."""
    return filled(database, two_versions, "app")


def begin(database: Database, publish_as: str | None, authority: Authority = Authority.AUTHOR, **said: Any) -> None:
    request = SyncRequest(**{"repository": "new", **PLACE, **said}, publish_as=publish_as)
    open_run(database, RunKey("registry_sync", f"{publish_as} {said} {authority}"), request, authority=authority)


def distributions(database: Database) -> list[Distribution]:
    return list(database.distributions.page().items)


def serve(database: Database, repository: Repository, base_path: str = "app", number: int | None = None) -> None:
    database.distributions.create(DistributionSpec(base_path, base_path, repository.id, number, is_private=False))


# -- by a sync ---------------------------------------------------------------------------------------------------------


def test_a_sync_publishes_its_repository_privately_and_a_repeat_changes_nothing(database: Database) -> None:
    for _ in range(2):
        begin(database, "team/new")
        (made,) = distributions(database)
        repository = database.repositories.by_name("new")
        assert made.spec == DistributionSpec("team/new", "team/new", repository.id)
        assert made.is_private
    begin(database, "team/new", Authority.TRIGGER, remote="new", url=None, upstream_name=None)
    assert distributions(database) == [made], "a trigger syncs what is published already"


def test_nothing_is_published_where_nobody_says_so(database: Database) -> None:
    begin(database, None)
    assert distributions(database) == []


def test_a_distribution_of_the_repository_stays_as_it_was_made(database: Database, app: Repository) -> None:
    """Somebody has made it public, and serves the version before."""
    serve(database, app, "stable", 1)
    before = distributions(database)
    begin(database, "stable", repository="app", replace_upstream="true")
    assert distributions(database) == before


@pytest.mark.parametrize("bad", ["Team/New", "team//new", "/new", "new/", "new:latest", "../new", "new/versions/3"])
def test_a_bad_base_path_is_refused_before_anything_is_written(database: Database, bad: str) -> None:
    with pytest.raises(InvalidReference):
        begin(database, bad)
    assert database.repositories.page().total_count == database.remotes.page().total_count == 0


@pytest.mark.parametrize("serves", ["another repository", "nothing"])
def test_the_base_path_of_another_distribution_is_not_taken_over(
    database: Database, app: Repository, serves: str
) -> None:
    serve(database, app)
    if serves == "nothing":
        database.repositories.delete(app.id)
    before = distributions(database)
    with pytest.raises(NameTaken, match=f"serves {'nothing' if serves == 'nothing' else chr(39) + 'app'}"):
        begin(database, "app")
    assert distributions(database) == before
    assert [found.name for found in database.repositories.page().items] == ([] if serves == "nothing" else ["app"])


def test_the_name_of_a_distribution_elsewhere_is_not_taken(database: Database, app: Repository) -> None:
    database.distributions.create(DistributionSpec("new", "elsewhere", app.id))
    with pytest.raises(NameTaken, match="a distribution 'new' exists already and serves the base path 'elsewhere'"):
        begin(database, "new")
    assert database.remotes.page().total_count == 1, "that of `app`"


def test_a_trigger_publishes_nothing(database: Database) -> None:
    with pytest.raises(TriggerRefused, match="nothing is published under 'team/new' yet"):
        begin(database, "team/new", Authority.TRIGGER)
    assert distributions(database) == []
    assert database.repositories.page().total_count == 0


def test_of_two_syncs_at_once_one_publishes_and_the_other_finds_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Database.together

    def after_another(writer: Database) -> AbstractContextManager[None]:
        monkeypatch.setattr(Database, "together", together)
        begin(database, "team/new", remote="second")
        return together(writer)

    monkeypatch.setattr(Database, "together", after_another)
    begin(database, "team/new")
    assert [made.base_path for made in distributions(database)] == ["team/new"]


# -- pointed at a version ----------------------------------------------------------------------------------------------


def test_a_version_is_published_by_one_row_and_taken_back_by_it(database: Database, app: Repository) -> None:
    first = publish_version(database, PublishRequest("stable/app", app, 1, is_private=False))
    assert (first.before, first.is_changed, first.distribution.version_number) == (None, True, 1)
    assert not first.distribution.is_private
    second = publish_version(database, PublishRequest("stable/app", app, 2))
    assert second.before is not None
    assert (second.before.version_number, second.distribution.version_number, second.is_changed) == (1, 2, True)
    assert not second.distribution.is_private, "who may pull is not a matter of versions"
    again = publish_version(database, PublishRequest("stable/app", app, 2))
    assert not again.is_changed
    assert again.distribution == second.distribution, "not even the time of the last change"
    assert not would_change(database, PublishRequest("stable/app", app, 2))
    assert would_change(database, PublishRequest("stable/app", app))


def test_another_repository_takes_a_base_path_only_where_that_is_said(database: Database, app: Repository) -> None:
    serve(database, app)
    other = two_versions(database, "other")
    with pytest.raises(NameTaken, match="serves 'app' and not 'other'"):
        publish_version(database, PublishRequest("app", other, 1))
    taken = publish_version(database, PublishRequest("app", other, 1, replace_repository=True))
    assert (taken.distribution.repository_id, taken.is_changed) == (other.id, True)


def test_a_distribution_that_is_pointed_elsewhere_at_the_same_time_is_not_taken_over(
    database: Database, app: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(database, app)
    other = two_versions(database, "other")
    change = DistributionStore.change

    def change_after_another(store: DistributionStore, *given: Any) -> Distribution:
        monkeypatch.setattr(DistributionStore, "change", change)
        publish_version(database, PublishRequest("app", other, replace_repository=True))
        return change(store, *given)

    monkeypatch.setattr(DistributionStore, "change", change_after_another)
    with pytest.raises(NameTaken, match="serves another repository and not 'app'"):
        publish_version(database, PublishRequest("app", app, 1))
    (found,) = distributions(database)
    assert found.repository_id == other.id
