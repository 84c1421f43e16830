"""Single tags and manifests of a repository, changed by hand, on both databases."""

from __future__ import annotations

from uuid import uuid4

import pytest

from registry_sync.db.database import Database
from registry_sync.domain import media_types
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Repository, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import ManifestCopy
from registry_sync.errors import InvalidReference, RecordNotFound
from support.metadata import Upstream, image, index, sync

LATEST, V1 = TagName("latest"), TagName("v1")


@pytest.fixture
def filled(database: Database) -> Repository:
    """A repository with ``v1``, and ``multi`` with two children."""
    repository = database.repositories.ensure("app")
    amd64, arm64 = image("base", "amd64", config="x"), image("base", "arm64", config="y")
    upstream = Upstream()
    upstream.tag("v1", image("one"))
    upstream.tag("multi", index(amd64, arm64), amd64, arm64)
    sync(database, repository, upstream)
    return database.repositories.get(repository.id)


def test_a_tag_is_set_moved_and_removed_by_versions(database: Database, filled: Repository) -> None:
    versions, before = database.versions, database.versions.tags(filled.id)
    made = versions.set_tag(filled.id, LATEST, before[V1], by="ada").version
    assert made is not None
    assert versions.tags(filled.id) == {**before, LATEST: before[V1]}
    assert (made.origin.kind, made.origin.number, made.origin.created_by) == (VersionOriginKind.TAG, 1, "ada")
    assert made.summary.counts() == {
        "added": {"docker.tag": 1},
        "present": {**versions.get(filled.id, 1).summary.present, "docker.tag": 3},
        "removed": {},
    }
    assert versions.set_tag(filled.id, LATEST, before[V1]).version is None
    moved = versions.set_tag(filled.id, LATEST, before[TagName("multi")]).version
    assert moved is not None
    counts = moved.summary.counts()
    assert (counts["added"], counts["removed"]) == ({"docker.tag": 1}, {"docker.tag": 1})
    gone = versions.remove_tag(filled.id, LATEST, by="ada").version
    assert gone is not None
    assert versions.tags(filled.id) == before
    assert [versions.tags(filled.id, number)[LATEST] for number in (2, 3)] == [before[V1], before[TagName("multi")]]


def test_what_the_latest_version_lacks_is_refused(database: Database, filled: Repository) -> None:
    with pytest.raises(RecordNotFound, match="has no manifest"):
        database.versions.set_tag(filled.id, LATEST, Digest.of(b"nothing"))
    with pytest.raises(RecordNotFound, match="has no tag 'latest'"):
        database.versions.remove_tag(filled.id, LATEST)
    empty = database.repositories.ensure("empty")
    with pytest.raises(RecordNotFound):
        database.versions.set_tag(empty.id, LATEST, Digest.of(b"nothing"))
    assert database.versions.latest_number(filled.id) == 1


def test_a_manifest_without_a_tag_stays_until_the_next_mirror(database: Database, filled: Repository) -> None:
    digest = database.versions.tags(filled.id)[V1]
    database.versions.remove_tag(filled.id, V1)
    query = UnitQuery(filled.id, digests=(digest,))
    assert database.units.manifests(query).total_count == 1
    upstream = Upstream()
    upstream.tag("multi", image("two"))
    sync(database, filled, upstream)
    assert database.units.manifests(query).total_count == 0


def test_manifests_are_copied_with_all_below_them_and_without_tags(database: Database, filled: Repository) -> None:
    target = database.repositories.ensure("target")
    tags = database.versions.tags(filled.id)
    one = ManifestCopy(filled.id, digests=(tags[TagName("multi")],))
    made = database.versions.copy_manifests(target.id, one, by="ada").version
    assert made is not None
    assert made.summary.present["docker.manifest"] == 3
    assert "docker.tag" not in made.summary.counts()["present"]
    assert made.origin.kind is VersionOriginKind.COPY
    assert database.versions.copy_manifests(target.id, one).version is None
    kind = ManifestCopy(filled.id, 1, media_types=(media_types.OCI_MANIFEST,))
    more = database.versions.copy_manifests(target.id, kind).version
    assert more is not None
    assert more.summary.present["docker.manifest"] == 4
    assert database.versions.copy_manifests(target.id, ManifestCopy(filled.id)).version is None
    set_there = database.versions.set_tag(target.id, LATEST, tags[V1]).version
    assert set_there is not None


def test_manifests_that_are_not_there_are_not_copied(database: Database, filled: Repository) -> None:
    target = database.repositories.ensure("target")
    for wrong in (
        ManifestCopy(filled.id, digests=(Digest.of(b"nothing"),)),
        ManifestCopy(filled.id, media_types=("text/plain",)),
        ManifestCopy(filled.id, 9),
        ManifestCopy(str(uuid4())),
    ):
        with pytest.raises(RecordNotFound):
            database.versions.copy_manifests(target.id, wrong)
    with pytest.raises(InvalidReference, match="into itself"):
        database.versions.copy_manifests(filled.id, ManifestCopy(filled.id))
