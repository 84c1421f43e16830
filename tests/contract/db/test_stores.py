"""Repositories and remotes on both databases."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import update

from registry_sync.db.database import Database
from registry_sync.db.tables import repositories
from registry_sync.domain.records import PageRequest, Repository, RepositorySpec
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.errors import ConfigurationError, InvalidReference, NameTaken, RecordNotFound
from support.metadata import Upstream, image, open_run, sync

FULL = RemoteSpec.parse(
    name="hub",
    url="https://registry-1.docker.io",
    upstream_name="library/hello-world",
    include_tags=("v*", "latest"),
    exclude_tags=("*-rc",),
    policy=Policy.ON_DEMAND,
    download_concurrency=7,
    conn_id="hub",
    proxy_url="http://proxy.example:3128",
    ssl_validation=False,
    ssl_ca_certificate="-----BEGIN CERTIFICATE-----",
    ssl_client_certificate="-----BEGIN CERTIFICATE-----",
    platforms=("linux/amd64",),
    include_referrers=False,
    labels={"team": "büro"},
    allow_sparse=True,
    allow_schema1=True,
    include_foreign_layers=True,
    max_held_share=0.25,
    max_removed_share=None,
    max_removed_tags=3,
    max_total_bytes=50_000_000_000,
)


def as_an_earlier_release_made_it(database: Database, name: str) -> Repository:
    """A repository of a name that no registry could serve."""
    made = database.repositories.create(RepositorySpec(f"made-{secrets.token_hex(4)}"))
    with database.writing() as connection:
        connection.execute(update(repositories).where(repositories.c.id == made.id).values(name=name))
    return database.repositories.get(made.id)


@pytest.mark.parametrize("name", ["Hello", "a b", "a//b", "a_", "-a", "/", "a:latest", "a" * 256, ""])
def test_a_new_name_of_a_repository_is_one_that_a_registry_could_serve(database: Database, name: str) -> None:
    app = database.repositories.create(RepositorySpec("app"))
    for give in (
        lambda: database.repositories.create(RepositorySpec(name)),
        lambda: database.repositories.ensure(name),
        lambda: database.repositories.update(app.id, RepositorySpec(name)),
    ):
        with pytest.raises(InvalidReference, match="lower-case letters and digits, parts joined by"):
            give()
    assert database.repositories.page().items == (app,)


@pytest.mark.parametrize("count", [-1, 0, 2**31])
def test_a_number_that_keeps_no_version_removes_none(database: Database, count: int) -> None:
    """Elsewhere -1 is no limit: taken as a number, it would leave the latest version alone."""
    with pytest.raises(ConfigurationError, match="not a number of versions to keep: give 1 to"):
        database.repositories.create(RepositorySpec("app", retain_versions=count))
    app, upstream = database.repositories.create(RepositorySpec("app")), Upstream()
    for tag in ("a", "b"):
        upstream.tag(tag, image(tag))
        sync(database, app, upstream)
    with pytest.raises(ConfigurationError, match="or no number to keep them all"):
        database.repositories.change(app.id, lambda spec: replace(spec, retain_versions=count))
    assert database.versions.page(app.id).total_count == 2


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[31m", "a" * 256])
def test_a_new_name_of_a_remote_is_printable(database: Database, name: str) -> None:
    hub = database.remotes.create(FULL)
    for give in (
        lambda: database.remotes.create(replace(FULL, name=name)),
        lambda: database.remotes.change(hub.id, lambda spec: replace(spec, name=name)),
    ):
        with pytest.raises(InvalidReference, match="give the name of the remote, at most 255 printable"):
            give()
    assert [remote.spec.name for remote in database.remotes.page().items] == ["hub"]


def test_a_name_of_an_earlier_release_is_kept_until_it_is_changed(database: Database) -> None:
    old = as_an_earlier_release_made_it(database, "My Images")
    assert database.repositories.ensure("My Images") == old
    changed = database.repositories.change(old.id, lambda spec: replace(spec, description="new"))
    assert (changed.name, changed.description) == ("My Images", "new")
    with pytest.raises(InvalidReference):
        database.repositories.change(old.id, lambda spec: replace(spec, name="Our Images"))
    assert database.repositories.change(old.id, lambda spec: replace(spec, name="images")).name == "images"


def test_ensure_gives_the_same_repository_however_often(database: Database) -> None:
    first = database.repositories.ensure("app")
    assert database.repositories.ensure("app") == first
    assert database.repositories.get(first.id) == first == database.repositories.by_name("app")
    assert first.latest_number is None


def test_times_are_aware_utc_and_now(database: Database) -> None:
    created_at = database.repositories.ensure("app").created_at
    assert created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - created_at) < timedelta(minutes=1)


def test_a_repository_keeps_everything_that_was_said_of_it(database: Database) -> None:
    spec = RepositorySpec("app", "ein Spiegel", 3, {"team": "a"})
    created = database.repositories.create(spec)
    assert created.spec == spec
    changed = database.repositories.update(created.id, RepositorySpec("renamed"))
    assert (changed.spec, changed.created_at) == (RepositorySpec("renamed"), created.created_at)
    assert changed.updated_at > created.updated_at


def test_names_of_repositories_and_remotes_are_taken_once(database: Database) -> None:
    database.repositories.create(RepositorySpec("app"))
    other = database.repositories.create(RepositorySpec("other"))
    with pytest.raises(NameTaken, match="'app'"):
        database.repositories.create(RepositorySpec("app"))
    with pytest.raises(NameTaken, match="'app'"):
        database.repositories.update(other.id, RepositorySpec("app"))
    database.remotes.create(FULL)
    second = database.remotes.create(RemoteSpec.parse("second", "https://registry.example", "app"))
    with pytest.raises(NameTaken, match="'hub'"):
        database.remotes.create(FULL)
    with pytest.raises(NameTaken, match="'hub'"):
        database.remotes.update(second.id, FULL)


def test_what_is_not_there_is_not_found(database: Database) -> None:
    for asking in (
        database.repositories.get,
        database.repositories.by_name,
        database.repositories.delete,
        database.remotes.get,
        database.remotes.by_name,
        database.remotes.delete,
        database.runs.get,
        database.runs.progress,
        database.versions.latest,
        database.versions.tags,
    ):
        with pytest.raises(RecordNotFound, match="nowhere"):
            asking("nowhere")
    with pytest.raises(RecordNotFound):
        database.repositories.update("nowhere", RepositorySpec("a"))
    with pytest.raises(RecordNotFound):
        database.remotes.update("nowhere", FULL)


def test_a_remote_keeps_everything_that_was_said_of_it(database: Database) -> None:
    created = database.remotes.create(FULL)
    assert created.spec == FULL
    plain = RemoteSpec.parse("plain", "https://registry.example", "app")
    assert database.remotes.update(created.id, plain).spec == plain
    assert database.remotes.by_name("plain").id == created.id
    database.remotes.delete(created.id)
    with pytest.raises(RecordNotFound):
        database.remotes.get(created.id)


def test_an_empty_list_of_tags_is_not_the_same_as_none(database: Database) -> None:
    for number, tags in enumerate((None, (), ("a",))):
        spec = RemoteSpec.parse(f"remote-{number}", "https://registry.example", "app", include_tags=tags)
        assert database.remotes.ensure(spec).spec.include_tags == tags


def test_ensuring_a_remote_brings_it_up_to_date_and_touches_it_only_when_it_differs(database: Database) -> None:
    first = database.remotes.ensure(FULL)
    assert database.remotes.ensure(FULL) == first
    changed = database.remotes.ensure(RemoteSpec.parse("hub", "https://registry.example", "app"))
    assert (changed.id, changed.spec.url.written) == (first.id, "https://registry.example")
    assert changed.updated_at > first.updated_at


def test_lists_are_pages_with_totals_in_the_order_requested(database: Database) -> None:
    for name in ("b", "a_", "A", "c%"):
        as_an_earlier_release_made_it(database, name)
        database.remotes.ensure(RemoteSpec.parse(name, "https://registry.example", "app"))
    for store in (database.repositories, database.remotes):

        def names(page: object) -> list[str]:
            return [getattr(item, "name", None) or item.spec.name for item in page.items]  # type: ignore[attr-defined]

        assert names(store.page()) == ["A", "a_", "b", "c%"], "bytes decide, not a language"
        second = store.page(PageRequest(offset=1, limit=2, ordering="-name"))
        assert (names(second), second.total_count) == (["b", "a_"], 4)
        assert names(store.page(PageRequest(ordering="created_at"))) == ["b", "a_", "A", "c%"]
        assert names(store.page(name="A")) == ["A"]
        assert names(store.page(name_contains="a")) == ["A", "a_"]
        assert names(store.page(name_contains="%")) == ["c%"], "no character is a wildcard"
        assert store.page(PageRequest(limit=0)).total_count == 4
        for wrong in (PageRequest(ordering="labels"), PageRequest(offset=-1), PageRequest(limit=-1)):
            with pytest.raises(InvalidReference):
                store.page(wrong)


def test_deleting_a_remote_keeps_what_was_synced_from_it(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    sync(database, repository, upstream)
    run = open_run(database, repository)
    assert run.remote_id is not None
    database.remotes.delete(run.remote_id)
    assert database.runs.get(run.id).remote_id is None
    assert database.versions.latest(repository.id) is not None


def test_a_repository_names_its_remote_until_that_is_deleted(database: Database) -> None:
    kept, gone = database.remotes.create(FULL), database.remotes.create(replace(FULL, name="gone"))
    named = database.repositories.create(RepositorySpec("named", remote_id=gone.id))
    other = database.repositories.create(RepositorySpec("other", remote_id=kept.id))
    assert named.spec.remote_id == gone.id
    database.remotes.delete(gone.id)
    assert database.repositories.get(named.id).remote_id is None
    assert database.repositories.get(other.id).remote_id == kept.id


def test_deleting_a_repository_takes_its_versions_and_runs_along(database: Database) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    upstream.tag("held", image("b"))
    sync(database, repository, upstream, held={"held": "reason"})
    run = open_run(database, repository)
    database.repositories.delete(repository.id)
    with pytest.raises(RecordNotFound):
        database.versions.get(repository.id, 1)
    with pytest.raises(RecordNotFound):
        database.runs.get(run.id)
    assert database.contents.manifest(upstream.tags["latest"].digest).data == upstream.tags["latest"].data


def test_repositories_are_counted_in_the_order_of_their_creation(database: Database) -> None:
    made = [database.repositories.ensure(secrets.token_hex(4)) for _ in range(3)]
    first = database.repositories.count_created_before(made[0])
    assert [database.repositories.count_created_before(one) for one in made] == [first, first + 1, first + 2]
    database.repositories.delete(made[1].id)
    assert database.repositories.count_created_before(made[2]) == first + 1


def test_what_is_written_together_is_there_as_a_whole_or_not_at_all(database: Database) -> None:
    def write(*, fails: bool) -> None:
        with database.together():
            repository = database.repositories.create(RepositorySpec("app"))
            assert database.repositories.get(repository.id) == repository, "it reads what it has written"
            with database.together():
                database.repositories.create(RepositorySpec("web"))
            if fails:
                raise RecordNotFound("something else")

    with pytest.raises(RecordNotFound):
        write(fails=True)
    assert database.repositories.page().total_count == 0
    write(fails=False)
    assert database.repositories.page().total_count == 2


def test_other_threads_do_not_see_what_is_not_yet_written_together(database: Database) -> None:
    with ThreadPoolExecutor(1) as pool, database.together():
        database.repositories.create(RepositorySpec("app"))
        assert pool.submit(lambda: database.repositories.page().total_count).result() == 0


def test_many_threads_write_in_turn(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: database.repositories.create(RepositorySpec(f"app-{number}")), range(40)))
    assert len({one.id for one in made}) == database.repositories.page().total_count == 40
