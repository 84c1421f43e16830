"""Distributions, robots and what pulls look up, on both databases."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from registry_sync.db.database import Database
from registry_sync.db.pulls import PublishedTag
from registry_sync.db.serving_tables import robots
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, RepositorySpec
from registry_sync.domain.references import TagName
from registry_sync.domain.serving import Distribution, DistributionSpec, PublishedVersion
from registry_sync.errors import InvalidReference, NameTaken, RecordNotFound, VersionServed
from support.emptied_databases import filled
from support.metadata import Upstream, artifact, image, index, sync, two_versions, upstream_with
from support.statements import await_lock, listening, planned_statements

AMD64, ARM64 = image("base", "amd64", config="x"), image("base", "arm64", config="y")
OLD, NEW = index(AMD64, ARM64), index(ARM64)
LATEST = TagName("latest")


@pytest.fixture
def repository(database: Database) -> Repository:
    """Two versions: ``latest`` leads to two platforms in the first, to one of them in the second."""
    return filled(database, _of_two_versions)


def _of_two_versions(database: Database) -> Repository:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    for tagged, *children in ((OLD, AMD64, ARM64), (NEW, ARM64)):
        upstream.tag("latest", tagged, *children)
        sync(database, repository, upstream)
    return database.repositories.get(repository.id)


def names_of(tags: list[PublishedTag]) -> list[str]:
    return [tag.name for tag in tags]


def _serve(database: Database, repository: Repository, name: str = "app", number: int | None = None) -> Distribution:
    return database.distributions.create(DistributionSpec(name, name, repository.id, number))


def _published(database: Database, name: str) -> PublishedVersion:
    return database.pulls.published([name])[name]


def test_a_commit_of_anybody_is_counted_where_that_costs_nothing(
    database: Database, repository: Repository, dialect: str
) -> None:
    """PostgreSQL would have to be asked over its connection, which is not cheaper than the question itself."""
    counter = database.commit_counter()
    before = counter.read()
    assert (before is None) is (dialect == "postgresql")
    assert counter.read() == before
    _serve(database, repository)
    assert (counter.read() != before) is (before is not None)
    after = counter.read()
    database.pulls.published(["app"])
    assert counter.read() == after, "reading is no commit"
    counter.close()
    assert counter.read() is None


def test_a_name_stands_for_the_latest_version_for_one_by_number_or_for_a_fixed_one(
    database: Database, repository: Repository
) -> None:
    _serve(database, repository)
    _serve(database, repository, "stable", 1)
    found = database.pulls.published(
        [
            "app",
            "app/versions/1",
            "app/versions/3",
            "stable",
            "stable/versions/1",
            "stable/versions/2",
            "other",
            "app/x",
        ]
    )
    numbers = {name: (version.number, version.is_fixed) for name, version in found.items()}
    assert numbers == {
        "app": (2, False),
        "app/versions/1": (1, True),
        "stable": (1, True),
        "stable/versions/1": (1, True),
    }
    assert database.pulls.tag(found["app"], LATEST) == NEW.digest
    assert database.pulls.tag(found["stable"], LATEST) == OLD.digest
    assert database.pulls.tag(found["stable"], TagName("none")) is None


def test_without_a_version_a_repository_is_served_and_has_no_tags(database: Database) -> None:
    _serve(database, database.repositories.ensure("empty"), "empty")
    version = _published(database, "empty")
    assert version.number is None
    assert database.pulls.tag(version, LATEST) is None
    assert names_of(database.pulls.tags(version, None, 10)) == []
    assert database.pulls.manifest(version, NEW.digest) is None


@pytest.mark.rule("B2.8")
def test_content_is_had_by_digest_as_long_as_a_version_of_the_repository_holds_it(
    database: Database, repository: Repository
) -> None:
    """A client that asked for a tag just before a sync goes on with what the tag led to then."""
    _serve(database, repository)
    only_in_first = Digest.of(b"amd64")
    version = _published(database, "app")
    held = database.pulls.manifest(version, OLD.digest)
    assert held is not None
    assert (held.data, held.media_type) == (OLD.data, OLD.media_type)
    assert database.pulls.blob(version, only_in_first) is not None
    database.versions.delete(repository.id, 1)
    after = _published(database, "app")
    assert after.state != version.state
    assert database.pulls.manifest(after, OLD.digest) is None
    assert database.pulls.blob(after, only_in_first) is None
    assert database.pulls.blob(after, Digest.of(b"arm64")) is not None


@pytest.mark.rule("B2.7")
def test_through_a_fixed_version_nothing_of_others_is_had(database: Database, repository: Repository) -> None:
    _serve(database, repository, "second", 2)
    version = _published(database, "second")
    assert database.pulls.manifest(version, AMD64.digest) is None
    assert database.pulls.manifest(version, ARM64.digest) is not None


@pytest.mark.rule("B2.7")
def test_content_of_another_repository_is_not_had(database: Database, repository: Repository) -> None:
    other = database.repositories.ensure("other")
    upstream = Upstream()
    upstream.tag("latest", image("else", config="z"))
    sync(database, other, upstream)
    _serve(database, repository)
    version = _published(database, "app")
    assert database.pulls.blob(version, Digest.of(b"else")) is None
    assert database.pulls.tag(version, LATEST) == NEW.digest


def test_names_of_tags_come_in_order_and_in_pages(database: Database) -> None:
    repository = database.repositories.ensure("many")
    upstream = Upstream()
    one = image("a", config="x")
    for name in ("b", "B", "a10", "a2", "1"):
        upstream.tag(name, one)
    sync(database, repository, upstream)
    _serve(database, repository, "many")
    version = _published(database, "many")
    assert names_of(database.pulls.tags(version, None, 10)) == ["1", "B", "a10", "a2", "b"]
    assert names_of(database.pulls.tags(version, "B", 2)) == ["a10", "a2"]
    assert names_of(database.pulls.tags(version, "a11", 10)) == ["a2", "b"]
    assert {(tag.digest, tag.media_type) for tag in database.pulls.tags(version, None, 10)} == {
        (one.digest, one.media_type)
    }


def test_a_base_path_and_a_name_are_of_one_distribution(database: Database, repository: Repository) -> None:
    first = _serve(database, repository)
    with pytest.raises(NameTaken, match="there is a distribution 'app' already"):
        database.distributions.create(DistributionSpec("app", "elsewhere", repository.id))
    with pytest.raises(NameTaken, match="the base path 'app' is that of the distribution 'app' already"):
        database.distributions.create(DistributionSpec("second", "app", repository.id))
    second = database.distributions.create(DistributionSpec("second", "team/app", repository.id))
    with pytest.raises(NameTaken, match="base path"):
        database.distributions.change(second.id, lambda spec: replace(spec, base_path="app"))
    moved = database.distributions.change(first.id, lambda spec: replace(spec, version_number=1))
    assert (moved.version_number, moved.base_path) == (1, "app")
    assert [found.name for found in database.distributions.page().items] == ["app", "second"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base_path": "App"}, "is not a repository name"),
        ({"base_path": "app/versions/3"}, "is the name of a version of 'app'"),
        ({"repository_id": None, "version_number": 1}, "a version is of a repository"),
    ],
)
def test_what_cannot_be_served_is_refused(
    database: Database, repository: Repository, values: dict[str, str], said: str
) -> None:
    spec = replace(DistributionSpec("app", "app", repository.id), **values)  # type: ignore[arg-type]
    with pytest.raises(InvalidReference, match=said):
        database.distributions.create(spec)


def test_a_repository_or_version_that_does_not_exist_is_not_served(database: Database, repository: Repository) -> None:
    with pytest.raises(RecordNotFound, match="no repository 'nowhere'"):
        database.distributions.create(DistributionSpec("app", "app", "nowhere"))
    with pytest.raises(RecordNotFound, match="no version 7"):
        _serve(database, repository, number=7)


def test_a_distribution_outlives_its_repository_and_serves_nothing_then(
    database: Database, repository: Repository
) -> None:
    made = _serve(database, repository, number=1)
    database.repositories.delete(repository.id)
    assert database.pulls.published(["app"]) == {}
    assert database.distributions.get(made.id).repository_id is None


def test_what_served_a_repository_that_is_gone_can_be_changed_and_renamed(
    database: Database, repository: Repository
) -> None:
    """It served version 1, and that number means nothing any more."""
    made = _serve(database, repository, number=1)
    database.repositories.delete(repository.id)
    found = database.distributions.get(made.id)
    assert (found.repository_id, found.version_number) == (None, None)
    assert not database.distributions.change(made.id, lambda spec: replace(spec, is_private=False)).is_private
    other = two_versions(database, "other")
    moved = database.distributions.change(made.id, lambda spec: replace(spec, repository_id=other.id))
    assert (moved.repository_id, moved.version_number) == (other.id, None)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_distribution_is_changed_while_its_repository_is_deleted(database: Database, repository: Repository) -> None:
    """Both lock the repository first, so that neither waits for what the other holds."""
    made, deletion = _serve(database, repository), ThreadPoolExecutor(1)
    begun: list[Future[None]] = []

    def delete_meanwhile(connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        if not begun and "FROM distributions" in statement and "FOR NO KEY UPDATE" in statement:
            begun.append(deletion.submit(database.repositories.delete, repository.id))
            await_lock(connection, begun[0])

    with deletion, listening("after_cursor_execute", delete_meanwhile):
        changed = database.distributions.change(made.id, lambda spec: replace(spec, is_private=False))
        (deleted,) = begun
        deleted.result(timeout=60)
    assert not changed.is_private
    assert database.distributions.get(made.id).repository_id is None


def test_what_is_pointed_elsewhere_at_the_same_time_is_changed_as_it_is_then(
    database: Database, repository: Repository
) -> None:
    made, other, seen = _serve(database, repository), two_versions(database, "other"), []

    def number(spec: DistributionSpec) -> DistributionSpec:
        seen.append(spec.repository_id)
        return replace(spec, version_number=1, repository_id=other.id if len(seen) == 2 else spec.repository_id)

    assert database.distributions.change(made.id, number).repository_id == repository.id
    assert len(seen) == 4, "it began again, for what it was to serve had changed"


def test_a_tag_and_a_page_of_tags_are_looked_up_in_the_index_of_their_repository(
    database: Database, repository: Repository
) -> None:
    """Whatever number of repositories have a tag of that name."""
    many = database.repositories.ensure("many")
    upstream, content = upstream_with(300), image("x")
    upstream.tag(LATEST, content)
    sync(database, many, upstream)
    _serve(database, many, "many")
    version = _published(database, "many")
    with planned_statements(database) as plans:
        assert database.pulls.tag(version, LATEST) == content.digest
        assert names_of(database.pulls.tags(version, "k", 1)) == ["latest"]
    assert len(plans) == 2
    for plan in plans:
        assert "ix_repository_tags_name" in plan, plan
        assert re.search(r"SCAN repository_tags|Seq Scan|SCAN tags|USE TEMP B-TREE|Sort", plan) is None, plan
    assert "name=?" in plans[0] or "(name)::text =" in plans[0], plans[0]


def test_a_tag_is_found_in_the_version_that_is_asked_for_however_often_it_moved(database: Database) -> None:
    repository, upstream = database.repositories.ensure("moving"), Upstream()
    images = [image(f"layer {number}", config="x") for number in range(4)]
    for number, content in enumerate(images):
        upstream.tag("latest", content)
        upstream.tag("kept", images[0])
        if number == 3:
            del upstream.tags["latest"]
        sync(database, repository, upstream)
    _serve(database, repository, "moving")
    for number in range(1, 5):
        version = _published(database, f"moving/versions/{number}")
        assert database.pulls.tag(version, LATEST) == (None if number == 4 else images[number - 1].digest)
        assert database.pulls.tag(version, TagName("kept")) == images[0].digest
        assert names_of(database.pulls.tags(version, None, 10)) == (["kept"] if number == 4 else ["kept", "latest"])


def test_a_version_that_is_served_is_kept(database: Database, repository: Repository) -> None:
    """Else a promoted version would be gone after as many syncs as the repository retains."""
    upstream = Upstream()
    for number in range(3, 6):
        upstream.tag("latest", image(f"layer {number}", config="x"))
        sync(database, repository, upstream)
    stable = _serve(database, repository, "stable", 2)
    with pytest.raises(VersionServed, match="is what the distribution 'stable' serves"):
        database.versions.delete(repository.id, 2)
    before = database.versions.tags(repository.id, 2)
    database.repositories.change(repository.id, lambda spec: replace(spec, retain_versions=1))
    assert [version.number for version in database.versions.page(repository.id).items] == [5, 2]
    assert database.versions.tags(repository.id, 2) == before
    newest = database.versions.get(repository.id, 5)
    assert (newest.base_number, newest.summary.added["docker.tag"], newest.summary.removed["docker.tag"]) == (2, 1, 1)
    database.distributions.delete(stable.id)
    database.repositories.change(repository.id, lambda spec: RepositorySpec(spec.name, retain_versions=1))
    assert [version.number for version in database.versions.page(repository.id).items] == [5]


def test_referrers_are_those_of_the_version_with_the_type_of_their_config_where_they_state_none(
    database: Database,
) -> None:
    repository = database.repositories.ensure("signed")
    subject = image("base", config="x")
    upstream = Upstream()
    upstream.tag("latest", subject)
    signature = artifact(subject, "sig", artifact_type="application/example.signature")
    untyped = artifact(subject, "sbom", artifact_type=None)
    upstream.tag("sig", signature)
    upstream.tag("sbom", untyped)
    sync(database, repository, upstream)
    _serve(database, repository, "signed")
    version = _published(database, "signed")

    def listed(artifact_type: str | None = None, after: str | None = None, limit: int = 10) -> list[Digest]:
        found = database.pulls.referrers(version, subject.digest, artifact_type=artifact_type, after=after, limit=limit)
        return [entry.digest for entry in found]

    both = sorted((signature.digest, untyped.digest))
    assert listed() == both
    assert listed(limit=1) == both[:1]
    assert listed(after=both[0]) == both[1:]
    assert listed("application/example.signature") == [signature.digest]
    assert listed("application/vnd.oci.image.config.v1+json") == [untyped.digest]
    assert listed("none") == []


@pytest.mark.rule("B2.14")
def test_a_robot_logs_in_with_its_secret_until_it_expires_or_is_revoked(database: Database) -> None:
    robot, secret = database.robots.create("ci", ["team/*", "team/*"], expires_at=utc_now() + timedelta(hours=1))
    assert robot.scopes == ("team/*",)
    assert robot.may_pull("team/app")
    assert not robot.may_pull("other/app")
    assert database.robots.authenticate("ci", secret) == robot
    assert database.robots.authenticate("ci", secret + "x") is None
    assert database.robots.authenticate("other", secret) is None
    with database.reading() as connection:
        assert secret not in str(connection.execute(select(robots)).one())
    with pytest.raises(NameTaken, match="there is a robot 'ci' already"):
        database.robots.create("ci", ["*"])
    database.robots.revoke("ci")
    assert database.robots.authenticate("ci", secret) is None
    with pytest.raises(RecordNotFound):
        database.robots.revoke("ci")
    _, late = database.robots.create("late", ["*"], expires_at=utc_now() - timedelta(seconds=1))
    assert database.robots.authenticate("late", late) is None


@pytest.mark.parametrize(("name", "scopes"), [("CI", ["*"]), ("-ci", ["*"]), ("ci", []), ("ci", ["Team/*"])])
def test_a_robot_that_could_not_be_used_is_refused(database: Database, name: str, scopes: list[str]) -> None:
    with pytest.raises(InvalidReference):
        database.robots.create(name, scopes)


def test_all_servers_of_an_installation_sign_with_one_key(database: Database) -> None:
    key = database.robots.signing_key()
    assert len(key) == 32
    assert database.robots.signing_key() == key
