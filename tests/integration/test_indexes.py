"""Indexes inside indexes, and tags that are resolved once: what is asked for, how often, and how deep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from registry_sync.db.content.contents import ContentStore
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import DEFAULT_LIMITS, Manifest, ManifestLimits
from registry_sync.domain.records import RepositoryVersion
from registry_sync.domain.runs import RunKey
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation, new_client

NAME = "team/nested"


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def build() -> ContentBuilder:
    """Holds a tag ``good`` already, so that a sync has something to show."""
    builder = ContentBuilder(seed=31)
    builder.tag("good", builder.image([builder.blob(90)]))
    return builder


def synced(here: Installation, registry: MemoryRegistry, build: ContentBuilder) -> RepositoryVersion:
    registry.serve(NAME, build.content())
    version = here.sync("nested", registry.url, NAME)
    assert version is not None
    return version


def manifests_got(registry: MemoryRegistry) -> list[str]:
    """What manifests were got by, in order of the text."""
    return sorted(request.reference for request in registry.log().select("GET", "manifest"))


def chain(build: ContentBuilder, length: int) -> Digest:
    """An image below ``length`` indexes, each inside the one before."""
    digest = build.image([build.blob(80)])
    for _ in range(length):
        digest = build.index([digest])
    return digest


def test_a6_13_a_manifest_that_many_indexes_name_is_got_once(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    shared = build.image([build.blob(70)])
    left, right = build.index([shared, shared]), build.index([shared, build.image()])
    build.tag("diamond", build.index([left, right, shared, left]))
    content = build.content()
    version = synced(here, registry, build)
    assert here.database.versions.tags(version.repository_id) == content.tags
    assert manifests_got(registry) == sorted(content.manifests)


def test_a6_13_indexes_are_followed_to_a_depth_and_no_deeper(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("deepest", chain(build, DEFAULT_LIMITS.depth + 1))
    build.tag("deeper", chain(build, DEFAULT_LIMITS.depth + 2))
    version = synced(here, registry, build)
    assert set(here.database.versions.tags(version.repository_id)) == {"good", "deepest"}
    (hold,) = version.holds
    assert hold.tag == "deeper"
    assert "LimitExceeded" in hold.reason


def test_a6_13_few_manifests_that_unfold_to_a_hundred_million_cost_what_they_are(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    bomb = build.image()
    for _ in range(4):
        bomb = build.index([bomb] * 100)
    build.tag("bomb", bomb)
    version = synced(here, registry, build)
    assert "good" in here.database.versions.tags(version.repository_id)
    assert manifests_got(registry) == sorted(build.content().manifests)


@pytest.mark.rule("A6.10")
@pytest.mark.parametrize(("limit", "held_count"), [(8, 0), (7, 1)])
def test_a6_13_manifests_below_one_tag_are_bounded(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, limit: int, held_count: int
) -> None:
    images = [build.image() for _ in range(5)]
    build.tag("many", build.index([build.index(images[:3]), build.index(images[3:])]))
    registry.serve(NAME, build.content())
    request = SyncRequest(repository="nested", url=registry.url, upstream_name=NAME)
    run = open_run(here.database, RunKey("registry_sync", "bounded"), request)
    remote, report = run.remote, here.lines.append
    assert remote is not None
    with new_client(remote) as client:
        list_tags(client, here.database, run, remote, max_shards=1, report=report)
        limits = ManifestLimits(manifests_per_reference=limit)
        fetched = fetch_manifests(
            client, here.database, run, remote, shard=0, is_last_try=False, report=report, limits=limits
        )
    assert (fetched.tag_count, fetched.held_count) == (2 - held_count, held_count)
    assert bool([line for line in here.lines if "many is held: LimitExceeded" in line]) == bool(held_count)


def test_a6_18_a_tag_is_resolved_once_and_all_below_it_is_got_by_digest(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("latest", build.index([build.image([build.blob(60)]), build.image()]))
    synced(here, registry, build)
    heads = registry.log().select("HEAD", "manifest")
    assert sorted(request.reference for request in heads) == ["good", "latest"]
    assert manifests_got(registry) == sorted(build.content().manifests)


@pytest.mark.parametrize(("images", "expected"), [(0, [4, 8, 8]), (4, [20, 10, 10, 10, 10, 10, 10, 10, 10])])
def test_what_is_held_at_once_is_bounded_by_manifests_and_not_by_tags(
    here: Installation,
    registry: MemoryRegistry,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    expected: list[int],
) -> None:
    """An index of many images is many manifests: fewer of these are walked together."""
    for name, count in (("ROOTS_AT_ONCE", 8), ("MANIFESTS_AT_ONCE", 10), ("_FIRST_ROOTS", 4)):
        monkeypatch.setattr(f"registry_sync.sync.fetch_manifests.{name}", count)
    recorded: list[int] = []
    add = ContentStore.add_manifests

    def counted(store: ContentStore, manifests_in_order: Sequence[Manifest]) -> None:
        recorded.append(len(manifests_in_order))
        add(store, manifests_in_order)

    monkeypatch.setattr(ContentStore, "add_manifests", counted)
    build = ContentBuilder(seed=32)
    for number in range(20):
        below = [build.image([build.blob(60)], architecture=f"arch{image}") for image in range(images)]
        build.tag(f"v{number}", build.index(below) if below else build.image([build.blob(60)]))
    synced(here, registry, build)
    assert recorded == expected
