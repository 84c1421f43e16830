"""Syncs, stage by stage in this process: what a version holds, and what it cost the registry.

A real registry says so of the example, of an unchanged upstream and of every kind of content; the rest is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry_sync.domain.records import RepositoryVersion
from registry_sync.pulp.hrefs import latest_href_of, version_href
from registry_sync.pulp.version_documents import version_document
from support.filling import place, push
from support.images import RepositoryContent
from support.memory_registry import MemoryRegistry
from support.registry import RegistryServer
from support.shapes import documented_example, every_kind, many_tags, nested, wide
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture(scope="module")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


def assert_holds(here: Installation, version: RepositoryVersion | None, content: RepositoryContent) -> None:
    """The latest version holds exactly ``content``: tags, manifest bytes, and every blob in the store."""
    assert version is not None
    repository = version.repository_id
    assert here.database.versions.tags(repository) == content.tags
    assert version.summary.counts()["present"] == {
        kind: count
        for kind, count in (
            ("docker.blob", len(content.blobs)),
            ("docker.manifest", len(content.manifests)),
            ("docker.tag", len(content.tags)),
        )
        if count
    }
    for digest, manifest in content.manifests.items():
        assert here.database.contents.manifest(digest).data == manifest.data
    for digest, blob in content.blobs.items():
        with here.store.open(digest) as stored:
            assert stored.read() == blob.data


def test_the_documented_example_gives_the_documented_version(here: Installation, real_registry: RegistryServer) -> None:
    push(real_registry, "library/hello-world", documented_example())
    repository = here.database.repositories.ensure("codzo")
    assert latest_href_of(repository) is None
    version = here.sync("codzo", real_registry.url, "library/hello-world")
    assert_holds(here, version, documented_example())
    document = version_document(version)
    href = version_href(repository.id, 1)
    parts = {
        part: {
            kind: {"count": count, "href": f"/pulp/api/v3/content/docker/{path}/?{parameter}={href}"}
            for kind, path, count in (
                ("docker.blob", "blobs", 31),
                ("docker.manifest", "manifests", 21),
                ("docker.tag", "tags", 8),
            )
        }
        for part, parameter in (("added", "repository_version_added"), ("present", "repository_version"))
    }
    created = document.pop("pulp_created")
    assert created.endswith("Z")
    assert document == {
        "pulp_href": href,
        "base_version": None,
        "content_summary": {**parts, "removed": {}},
        "number": 1,
    }
    assert latest_href_of(here.database.repositories.by_name("codzo")) == href


def test_an_unchanged_upstream_costs_one_head_per_tag_and_makes_no_version(
    here: Installation, real_registry: RegistryServer
) -> None:
    push(real_registry, "unchanged", documented_example())
    assert here.sync("unchanged", real_registry.url, "unchanged") is not None
    real_registry.reset_counts()
    assert here.sync("unchanged", real_registry.url, "unchanged") is None
    log = real_registry.log()
    assert (log.manifest_head_count, log.manifest_get_count, log.blob_get_count, log.blob_head_count) == (8, 0, 0, 0)
    assert log.tag_page_count == 1
    repository = here.database.repositories.by_name("unchanged")
    assert repository.latest_number == 1


def test_a_first_sync_requests_each_manifest_and_each_blob_once(
    here: Installation, real_registry: RegistryServer
) -> None:
    push(real_registry, "once", documented_example())
    real_registry.reset_counts()
    here.sync("once", real_registry.url, "once")
    log = real_registry.log()
    assert (log.manifest_head_count, log.manifest_get_count, log.blob_get_count) == (8, 21, 31)


@pytest.mark.parametrize("mode", ["mirror", "additive"])
def test_a_changed_upstream_gives_a_version_with_exact_counts(
    here: Installation, registry: MemoryRegistry, mode: str
) -> None:
    """One tag moved, one added, one deleted; version 1 reads as before."""
    name = f"changing-{mode}"
    old, other = documented_example(), every_kind()
    push(registry, name, old)
    first = here.sync("changing", registry.url, name)
    assert first is not None
    moved, added = other.tags["oci-image"], other.tags["docker-list"]
    push(registry, name, other.closure(["oci-image", "docker-list"]))
    for tag, digest in (("v1", moved), ("fresh", added)):
        manifest = other.manifests[digest]
        registry.push_manifest(name, tag, manifest.media_type, manifest.data)
    for tag in ("oci-image", "docker-list", "v2"):
        registry.delete_tag(name, tag)

    version = here.sync("changing", registry.url, name, mode=mode)
    assert version is not None
    assert (version.number, version.base_number) == (2, 1)
    new = other.closure(["oci-image", "docker-list"])
    tags = {**old.tags, "v1": moved, "fresh": added}
    if mode == "mirror":
        del tags["v2"]
        kept = old.closure([tag for tag in tags if tag in old.tags and tag != "v1"])
        gone = {
            "docker.manifest": len(set(old.manifests) - set(kept.manifests)),
            "docker.blob": len(set(old.blobs) - set(kept.blobs)),
            "docker.tag": 2,
        }
        present = (set(kept.manifests) | set(new.manifests), set(kept.blobs) | set(new.blobs))
    else:
        gone = {"docker.tag": 1}
        present = (set(old.manifests) | set(new.manifests), set(old.blobs) | set(new.blobs))
    assert here.database.versions.tags(version.repository_id) == tags
    assert version.summary.counts() == {
        "added": {
            "docker.blob": len(set(new.blobs) - set(old.blobs)),
            "docker.manifest": len(set(new.manifests) - set(old.manifests)),
            "docker.tag": 2,
        },
        "removed": {kind: count for kind, count in sorted(gone.items()) if count},
        "present": {"docker.blob": len(present[1]), "docker.manifest": len(present[0]), "docker.tag": len(tags)},
    }
    again = here.database.versions.get(version.repository_id, 1)
    assert (again.summary, again.created_at) == (first.summary, first.created_at)
    assert here.database.versions.tags(version.repository_id, 1) == old.tags


def test_every_kind_of_content_arrives_byte_for_byte(here: Installation, real_registry: RegistryServer) -> None:
    """Docker and OCI, lists and indexes, no layers, an empty layer, artifacts with the empty config, subjects."""
    push(real_registry, "kinds", every_kind())
    assert_holds(here, here.sync("kinds", real_registry.url, "kinds"), every_kind())


def test_an_artifact_manifest_arrives_byte_for_byte(here: Installation, registry: MemoryRegistry) -> None:
    """A type that the artifact specification had, and that Debian's registry does not take."""
    content = every_kind(artifact_manifest=True)
    push(registry, "artifacts", content)
    assert_holds(here, here.sync("artifacts", registry.url, "artifacts"), content)


def test_an_index_nested_three_deep_arrives_whole(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "nested", nested())
    assert_holds(here, here.sync("nested", registry.url, "nested"), nested())


def test_three_thousand_tags_over_three_hundred_manifests_cost_three_hundred_gets(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = many_tags()
    place(registry, "many", content)
    registry.reset_counts()
    assert_holds(here, here.sync("many", registry.url, "many"), content)
    log = registry.log()
    assert (log.manifest_head_count, log.manifest_get_count, log.blob_get_count) == (3000, 300, 601)


def test_a_blob_that_two_repositories_share_is_fetched_once(here: Installation, registry: MemoryRegistry) -> None:
    content = wide(0.01, tags=8)
    push(registry, "shared-a", content)
    push(registry, "shared-b", content)
    here.sync("a", registry.url, "shared-a")
    registry.reset_counts()
    version = here.sync("b", registry.url, "shared-b")
    assert version is not None
    assert version.summary.counts()["added"]["docker.blob"] == 32
    assert registry.log().blob_get_count == 0


def test_filters_choose_by_name_and_glob(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "filtered", documented_example())
    version = here.sync("filtered", registry.url, "filtered", include_tags=("v?", "latest"), exclude_tags=("v2",))
    assert version is not None
    assert sorted(here.database.versions.tags(version.repository_id)) == ["latest", "v1", "v3"]


def test_exact_names_need_no_listing(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "literal", documented_example())
    registry.reset_counts()
    here.sync("literal", registry.url, "literal", include_tags=("v1", "v3"), include_referrers=False)
    assert (registry.log().tag_page_count, registry.log().manifest_head_count) == (0, 2)


def test_exact_names_are_requested_with_the_names_of_what_may_belong_to_them(
    here: Installation, registry: MemoryRegistry
) -> None:
    push(registry, "companions", documented_example())
    for _ in range(2):
        registry.reset_counts()
        here.sync("companions", registry.url, "companions", include_tags=("v1", "v3"))
        assert (registry.log().tag_page_count, registry.log().manifest_head_count) == (0, 2 + 2 * 4)


def test_on_demand_leaves_blobs_for_later_and_a_change_to_immediate_fetches_them(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = documented_example()
    push(registry, "policy", content)
    registry.reset_counts()
    version = here.sync("policy", registry.url, "policy", policy="on_demand")
    assert version is not None
    assert version.summary.counts()["present"]["docker.blob"] == 31
    configs = {manifest.blobs[0] for manifest in content.manifests.values() if manifest.blobs}
    assert registry.log().blob_get_count == len(configs) < 31
    assert set(here.store.digests()) == configs
    assert here.sync("policy", registry.url, "policy", policy="on_demand") is None
    assert here.sync("policy", registry.url, "policy", policy="immediate") is None, "the content is the same"
    assert registry.log().blob_get_count == 31
    assert_holds(here, here.database.versions.latest(version.repository_id), content)


def test_a_blob_that_vanished_from_the_store_is_fetched_again_when_it_is_needed(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = documented_example()
    push(registry, "lost", content)
    here.sync("lost", registry.url, "lost")
    for digest in list(content.blobs)[:3]:
        here.store.delete(digest)
    registry.reset_counts()
    push(registry, "lost-copy", content)
    assert_holds(here, here.sync("copy", registry.url, "lost-copy"), content)
    assert registry.log().blob_get_count == 3
