"""What a sync takes along and what it may leave out: platforms, gaps, foreign layers, inline blobs, limits."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from registry_sync.domain.content_units import Relation
from registry_sync.errors import TooManyHolds, TooManyRemovals
from support.choosing import NAME, got, held, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry, refusal
from support.syncing import Installation

AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
ARM64 = {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
WINDOWS = {"platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2582"}}


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


class Multi:
    """An index of three platforms, two of them attested, under the tag ``multi``."""

    def __init__(self, build: ContentBuilder) -> None:
        self.amd64, self.arm64, self.windows = (build.image([build.blob(50 + n)]) for n in range(3))
        self.attests_amd64, self.attests_arm64 = build.attestation(self.amd64), build.attestation(self.arm64)
        self.index = build.index(
            [self.amd64, self.arm64, self.windows, self.attests_amd64, self.attests_arm64],
            descriptors={
                self.amd64: AMD64,
                self.arm64: ARM64,
                self.windows: WINDOWS,
                self.attests_amd64: build.attestation_entry(self.amd64),
                self.attests_arm64: build.attestation_entry(self.arm64),
            },
        )
        build.tag("multi", self.index)


@pytest.mark.rule("A6.15")
@pytest.mark.rule("A6.16")
def test_only_the_wanted_platforms_are_fetched_with_their_attestations_and_the_index_stays_as_it_is(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    version = sync(here, registry, build, platforms=("linux/amd64",))
    assert version is not None
    assert held(here, version) == {multi.index, multi.amd64, multi.attests_amd64} == got(registry)
    stored = here.database.contents.manifest(multi.index)
    assert stored.data == build.content().manifests[multi.index].data
    assert version.summary.counts()["present"] == {"docker.tag": 1, "docker.manifest": 3, "docker.blob": 4}
    assert sync(here, registry, platforms=("linux/amd64",)) is None
    assert got(registry) == set()


@pytest.mark.rule("A6.15")
def test_another_choice_of_platforms_is_noticed_though_no_tag_moved_and_costs_only_what_is_new(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    sync(here, registry, build, platforms=("linux/amd64",))
    version = sync(here, registry, platforms=("linux/arm64", "windows(10.0.20348)/amd64"))
    assert version is not None
    assert held(here, version) == {multi.index, multi.arm64, multi.attests_arm64, multi.windows}
    assert held(here, version, Relation.REMOVED) == {multi.amd64, multi.attests_amd64}
    assert got(registry) == {multi.arm64, multi.attests_arm64, multi.windows}
    version = sync(here, registry)
    assert version is not None
    assert held(here, version, Relation.ADDED) == {multi.amd64, multi.attests_amd64}
    assert got(registry) == set(), "what is stored is not fetched again"


def test_an_additive_sync_keeps_the_platforms_it_took_before(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    sync(here, registry, build, platforms=("linux/amd64",))
    version = sync(here, registry, platforms=("linux/arm64",), mode="additive")
    assert version is not None
    assert held(here, version) == {
        multi.index, multi.amd64, multi.attests_amd64, multi.arm64, multi.attests_arm64,
    }  # fmt: skip


def test_a_manifest_that_is_excluded_from_one_index_stays_where_a_tag_refers_to_it(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    build.tag("arm", multi.arm64)
    version = sync(here, registry, build, platforms=("linux/amd64",))
    assert version is not None
    assert held(here, version) == {multi.index, multi.amd64, multi.attests_amd64, multi.arm64}
    smaller = ContentBuilder(seed=47)
    Multi(smaller)
    version = sync(here, registry, smaller, platforms=("linux/amd64",))
    assert version is not None
    assert held(here, version, Relation.REMOVED) == {multi.arm64}, "the index alone does not keep what it leaves out"


def test_tags_without_a_wanted_platform_are_excluded_and_cost_nothing_the_next_time(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    Multi(build)
    build.tag("windows", build.index([image := build.image()], descriptors={image: WINDOWS}))
    version = sync(here, registry, build, platforms=("linux/amd64",))
    assert version is not None
    assert tags(here, version) == {"multi"}
    assert version.is_complete
    assert sync(here, registry, platforms=("linux/amd64",)) is None
    assert got(registry) == set()
    assert [line for line in here.lines if "without a wanted platform" in line] == []
    version = sync(here, registry, platforms=("windows/amd64",))
    assert version is not None
    assert tags(here, version) == {"multi", "windows"}


@pytest.mark.rule("A6.15")
def test_a_platform_that_cannot_be_read_holds_its_tag_alone(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    Multi(build)
    build.tag("odd", build.index([image := build.image()], descriptors={image: {"platform": {"os": 1}}}))
    version = sync(here, registry, build, platforms=("linux/amd64",))
    assert version is not None
    assert [(hold.tag, "platform" in hold.reason) for hold in version.holds] == [("odd", True)]
    assert tags(here, version) == {"multi"}


class Sparse:
    """An index of two, under the tag ``sparse``, of which the registry has the first."""

    def __init__(self, build: ContentBuilder, registry: MemoryRegistry) -> None:
        self.there, self.missing = build.image([build.blob(40)]), build.image([build.blob(41)])
        self.index = build.index([self.there, self.missing])
        build.tag("sparse", self.index)
        build.tag("good", build.image([build.blob(42)]))
        registry.serve(NAME, build.content())
        self.answer_missing(registry, 404)

    def answer_missing(self, registry: MemoryRegistry, status: int) -> None:
        registry.on("GET", "manifest", self.missing, refusal(status, "MANIFEST_UNKNOWN"))


@pytest.mark.rule("A6.14")
def test_an_index_with_a_gap_is_held_by_default(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    sparse = Sparse(build, registry)
    version = sync(here, registry)
    assert version is not None
    assert [(hold.tag, str(sparse.missing) in hold.reason) for hold in version.holds] == [("sparse", True)]
    assert tags(here, version) == {"good"}


@pytest.mark.rule("A6.14")
def test_a_gap_is_allowed_where_the_remote_says_so_and_filled_when_the_registry_has_it(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    sparse = Sparse(build, registry)
    first = sync(here, registry, allow_sparse=True)
    assert first is not None
    assert first.is_complete is False
    assert {gap.digest for gap in first.gaps} == {sparse.missing}
    assert {gap.parent for gap in first.gaps} == {sparse.index}
    assert sparse.missing not in held(here, first)
    assert sync(here, registry, allow_sparse=True) is None, "a gap that stays makes no version"
    registry.serve(NAME, build.content())
    second = sync(here, registry, allow_sparse=True)
    assert second is not None
    assert held(here, second, Relation.ADDED) == {sparse.missing}
    assert second.is_complete
    assert here.database.versions.get(first.repository_id, first.number).gaps == first.gaps


@pytest.mark.rule("A6.14")
@pytest.mark.parametrize("status", [500, 503])
def test_an_entry_that_may_not_or_cannot_be_had_is_no_gap(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, status: int
) -> None:
    Sparse(build, registry).answer_missing(registry, status)
    version = sync(here, registry, allow_sparse=True, is_last_try=True)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["sparse"]


@pytest.mark.rule("A6.14")
def test_an_entry_that_is_refused_is_no_gap(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    Sparse(build, registry).answer_missing(registry, 403)
    version = sync(here, registry, allow_sparse=True, is_last_try=True)
    assert version is not None
    assert [(hold.tag, "with 403" in hold.reason) for hold in version.holds] == [("sparse", True)]
    assert version.gaps == ()


@pytest.mark.rule("A5.17")
def test_foreign_layers_are_fetched_from_where_they_lie_only_when_the_remote_includes_them(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    foreign = build.blob_of(b"a layer of somebody else's")
    elsewhere = MemoryRegistry()
    elsewhere.push_blob("layers", foreign, b"a layer of somebody else's")
    layer = build.descriptor(
        foreign,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        urls=[f"{elsewhere.url}/v2/layers/blobs/{foreign}"],
    )
    build.tag("v1", build.image([foreign], docker=True, extra={"layers": [layer]}))
    registry.serve(NAME, build.content())
    registry.on("GET", "blob", foreign, refusal(404))
    version = sync(here, registry)
    assert version is not None
    assert not here.store.has(foreign)
    assert elsewhere.log().count() == 0
    assert sync(here, registry, include_foreign_layers=True) is None, "the version is as it was"
    assert here.store.has(foreign)
    assert here.database.contents.blob(foreign).is_stored


@pytest.mark.rule("A5.16")
def test_bytes_that_a_manifest_carries_itself_are_not_requested(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    data = b"a small layer"
    inline = build.blob_of(data)
    layer = build.descriptor(inline, data=base64.b64encode(data).decode())
    build.tag("v1", build.image([inline], extra={"layers": [layer]}))
    version = sync(here, registry, build)
    assert version is not None
    assert here.store.has(inline, len(data))
    assert registry.log().count("GET", "blob", reference=inline) == 0


def test_more_holds_than_the_remote_allows_make_no_version(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    Sparse(build, registry)
    with pytest.raises(TooManyHolds, match=r"1 of 2 tags would be held.*max_held_share 0\.4.*sparse"):
        sync(here, registry, max_held_share=0.4)
    repository = here.database.repositories.by_name("app")
    assert repository.latest_number is None
    assert sync(here, registry, max_held_share=0.5) is not None


def test_a_mirror_that_would_lose_too_many_tags_stops_and_goes_on_when_that_is_approved(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    for number in range(30):
        build.tag(f"v{number}", image)
    sync(here, registry, build)
    smaller = ContentBuilder(seed=47)
    smaller.tag("v0", smaller.image([smaller.blob(60)]))
    with pytest.raises(TooManyRemovals, match=r"29 of 30 tags .*max_removed_share 0\.5.*v1, v10") as caught:
        sync(here, registry, smaller, run_id="stopped")
    assert not caught.value.is_temporary
    run = here.database.runs.page().items[0]
    here.database.runs.approve_removals(run.id, "somebody")
    result = here.database.versions.commit(run.id)
    assert result.version is not None
    assert tags(here, result.version) == {"v0"}


@pytest.mark.parametrize(
    ("limits", "stops"),
    [
        ({"max_removed_share": None}, False),
        ({"max_removed_share": 0.95}, False),
        ({"max_removed_tags": 28}, True),
        ({"max_removed_tags": 29, "max_removed_share": None}, False),
        ({"mode": "additive"}, False),
    ],
)
def test_the_limits_of_removals(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, limits: dict[str, Any], stops: bool
) -> None:
    image = build.image([build.blob(60)])
    for number in range(31):
        build.tag(f"v{number}", image)
    sync(here, registry, build)
    smaller = ContentBuilder(seed=47)
    for name in ("v0", "v1", "new"):
        smaller.tag(name, smaller.image([smaller.blob(60)]))
    try:
        sync(here, registry, smaller, **limits)
    except TooManyRemovals:
        assert stops
    else:
        assert not stops


def test_a_mirror_after_additive_syncs_takes_along_what_it_chooses_and_no_more(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    sync(here, registry, build, mode="additive")
    both = sync(here, registry, mode="additive", platforms=("linux/amd64",))
    assert both is None, "an additive sync takes nothing away"
    version = sync(here, registry, platforms=("linux/amd64",))
    assert version is not None
    assert held(here, version) == {multi.index, multi.amd64, multi.attests_amd64}
    assert sync(here, registry, platforms=("linux/amd64",)) is None
    assert got(registry) == set()


def test_a_tag_that_was_held_while_the_choice_changed_follows_the_choice_once_it_can(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    build.tag("other", build.image([build.blob(30)]))
    assert sync(here, registry, build, platforms=("linux/amd64",)) is not None
    build.tag("other", build.image([build.blob(31)]))
    registry.serve(NAME, build.content())
    registry.on("GET", "manifest", multi.arm64, refusal(404))
    version = sync(here, registry)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["multi"]
    assert multi.arm64 not in held(here, version)
    registry.serve(NAME, build.content())
    whole = sync(here, registry)
    assert whole is not None
    assert held(here, whole) == set(build.content().closure(["multi", "other"]).manifests)
    assert whole.is_complete
