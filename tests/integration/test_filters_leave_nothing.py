"""Filters that leave nothing, or nothing of a tag that is there: the sync stops and names the filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion
from registry_sync.domain.runs import RunState
from registry_sync.errors import NothingSynced, TooManyRemovals
from support.choosing import NAME, got, held, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry, document, refusal
from support.signatures import Signer
from support.syncing import Installation

PLATFORMS = {
    "amd64": {"os": "linux", "architecture": "amd64"},
    "arm64": {"os": "linux", "architecture": "arm64", "variant": "v8"},
    "windows": {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2582"},
}


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


def index_of(build: ContentBuilder, *names: str) -> Digest:
    """An index of new images for these platforms."""
    images = {build.image([build.blob(50)]): {"platform": PLATFORMS[name]} for name in names}
    return build.index(list(images), descriptors=images)


def latest(here: Installation) -> RepositoryVersion | None:
    return here.database.versions.latest(here.database.repositories.by_name("app").id)


@pytest.mark.rule("A6.15")
@pytest.mark.parametrize("mode", ["mirror", "additive"])
@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "known to another repository"])
def test_a_first_sync_of_which_the_platforms_leave_nothing_fails_and_says_which_there_are(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, mode: str, is_known: bool
) -> None:
    for name in ("a", "b"):
        build.tag(name, index_of(build, "amd64", "arm64"))
    build.tag("windows", index_of(build, "windows"))
    if is_known:
        sync(here, registry, build)
        here.database.repositories.delete(here.database.repositories.by_name("app").id)
    with pytest.raises(
        NothingSynced,
        match=r"platforms linux/amd46 of remote 'app' leave nothing of any of 3 tags; available are "
        r"linux/amd64, linux/arm64/v8, windows\(10\.0\.20348\.2582\)/amd64\.",
    ):
        sync(here, registry, build, platforms=("linux/amd46",), mode=mode)
    assert latest(here) is None
    assert here.database.runs.page().items[0].state is RunState.RUNNING, "it is the operator that notes the failure"


@pytest.mark.rule("A6.15")
@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_typing_error_in_the_platforms_never_empties_a_mirror(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, count: int
) -> None:
    for number in range(count):
        build.tag(f"v{number}", index_of(build, "amd64", "arm64"))
    first = sync(here, registry, build, platforms=("linux/amd64",))
    for _ in range(2):
        with pytest.raises(
            NothingSynced, match=r"platforms linux/amd46 .* leave nothing .* linux/amd64, linux/arm64/v8"
        ):
            sync(here, registry, platforms=("linux/amd46",))
    assert latest(here) == first
    assert sync(here, registry, platforms=("linux/amd64",)) is None, "nothing was lost on the way"


def test_signatures_that_are_left_are_not_mistaken_for_something(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("v1", index := index_of(build, "amd64"))
    Signer(build).cosign_signature(index)
    with pytest.raises(NothingSynced, match="platforms linux/amd46 of remote 'app' leave nothing of the only tag"):
        sync(here, registry, build, platforms=("linux/amd46",))
    assert latest(here) is None


@pytest.mark.rule("A6.15")
def test_a_nested_index_without_a_wanted_platform_is_nothing_either(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("nested", build.index([index_of(build, "amd64")]))
    build.tag("other", index_of(build, "arm64"))
    version = sync(here, registry, build, platforms=("linux/arm64",))
    assert version is not None
    assert tags(here, version) == {"other"}
    assert sync(here, registry, platforms=("linux/arm64",)) is None
    assert got(registry) == set(), "the excluded indexes are known"


@pytest.mark.rule("A6.15")
def test_another_choice_of_platforms_that_leaves_nothing_of_a_tag_stops_until_it_is_approved(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    for number in range(9):
        build.tag(f"v{number}", index_of(build, "amd64", "arm64"))
    build.tag("windows", index_of(build, "windows"))
    first = sync(here, registry, build)
    with pytest.raises(
        TooManyRemovals,
        match=r"1 of 10 tags has none of the platforms linux/amd64; available are windows.*takes an approval.*"
        r"platforms was all for version 1: windows\. ",
    ):
        sync(here, registry, platforms=("linux/amd64",))
    assert latest(here) == first
    run = here.database.runs.page().items[0]
    here.database.runs.approve_removals(run.id, "somebody")
    approved = here.database.versions.commit(run.id).version
    assert approved is not None
    assert "windows" not in tags(here, approved)
    assert approved.is_complete
    assert sync(here, registry, platforms=("linux/amd64",)) is None


@pytest.mark.rule("A6.15")
def test_a_tag_that_is_published_again_without_a_wanted_platform_is_held_and_the_others_go_on(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    platforms = ("linux/amd64",)
    build.tag("v1", index_of(build, "amd64"))
    build.tag("lost", before := index_of(build, "amd64"))
    sync(here, registry, build, platforms=platforms)
    build.tag("lost", index_of(build, "arm64", "windows"))
    with pytest.raises(
        NothingSynced, match=r"1 tag is held: lost: .* linux/arm64/v8, windows.* platforms linux/amd64 "
    ):
        sync(here, registry, build, platforms=platforms)
    build.tag("v2", index_of(build, "amd64"))
    version = sync(here, registry, build, platforms=platforms)
    assert version is not None
    assert tags(here, version) == {"v1", "v2", "lost"}
    assert [(hold.tag, hold.digest) for hold in version.holds] == [("lost", before)]
    assert before in held(here, version)
    assert not version.is_complete
    build.tag("lost", index_of(build, "amd64"))
    whole = sync(here, registry, build, platforms=platforms)
    assert whole is not None
    assert whole.is_complete


def test_a_tag_without_a_wanted_platform_may_be_let_go(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    platforms = ("linux/amd64",)
    build.tag("v1", index_of(build, "amd64"))
    build.tag("lost", index_of(build, "amd64"))
    sync(here, registry, build, platforms=platforms)
    build.tag("lost", index_of(build, "arm64"))

    def approve(stage: str, run: Any) -> None:
        if stage == "commit_version":
            here.database.runs.approve_removals(run.id, "somebody", in_advance=True)

    version = sync(here, registry, build, platforms=platforms, before=approve)
    assert version is not None
    assert tags(here, version) == {"v1"}


def test_an_approval_of_what_was_refused_is_for_no_tag_that_was_held(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    platforms = ("linux/amd64",)
    for name in ("v1", "v2", "v3", "v4", "lost"):
        build.tag(name, index_of(build, "amd64"))
    sync(here, registry, build, platforms=platforms)
    less = ContentBuilder(seed=48)
    less.tag("v1", index_of(less, "amd64"))
    less.tag("lost", index_of(less, "arm64"))
    with pytest.raises(TooManyRemovals, match="3 of 5 tags are gone upstream"):
        sync(here, registry, less, platforms=platforms)
    run = here.database.runs.page().items[0]
    here.database.runs.approve_removals(run.id, "somebody")
    version = here.database.versions.commit(run.id).version
    assert version is not None
    assert tags(here, version) == {"v1", "lost"}
    assert [hold.tag for hold in version.holds] == ["lost"]


def test_an_additive_sync_of_some_platforms_leaves_the_tags_of_others_alone(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("linux", index_of(build, "amd64"))
    build.tag("windows", index_of(build, "windows"))
    for platforms in (("linux/amd64",), ("windows/amd64",)):
        assert sync(here, registry, build, platforms=platforms, mode="additive") is not None
    build.tag("linux", index_of(build, "amd64"))
    version = sync(here, registry, build, platforms=("linux/amd64",), mode="additive")
    assert version is not None
    assert version.is_complete
    assert tags(here, version) == {"linux", "windows"}


@pytest.mark.parametrize("mode", ["mirror", "additive"])
@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"include_tags": ("v3.*", "w*")}, r"none of its 2 tags passes the filters include_tags v3\.\*, w\*"),
        ({"exclude_tags": ("v*",)}, r"none of its 2 tags passes the filters exclude_tags v\*"),
        (
            {"include_tags": ("v1*",), "exclude_tags": ("v*",)},
            r"none of its 2 tags passes the filters include_tags v1\* and exclude_tags v\*",
        ),
        ({"include_tags": ("v1",), "exclude_tags": ("v*",)}, r"exclude_tags v\* excludes all of include_tags"),
        ({"include_tags": ()}, r"include_tags names no tag"),
        ({"include_tags": ("v3",)}, r"none of the requested tags: v3"),
    ],
)
def test_tag_filters_that_leave_nothing_are_named(
    here: Installation,
    registry: MemoryRegistry,
    build: ContentBuilder,
    filters: Mapping[str, Any],
    said: str,
    mode: str,
) -> None:
    for name in ("v1", "v2"):
        build.tag(name, build.image([build.blob(50)]))
    with pytest.raises(NothingSynced, match=said):
        sync(here, registry, build, mode=mode, **filters)
    assert latest(here) is None
    first = sync(here, registry)
    with pytest.raises(NothingSynced, match=said):
        sync(here, registry, mode=mode, **filters)
    assert latest(here) == first


def test_a_first_sync_whose_tags_all_went_meanwhile_says_so(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("v1", image := build.image([build.blob(50)]))

    def lose(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            for reference in ("v1", image):
                registry.on("GET", "manifest", reference, refusal(404))

    with pytest.raises(NothingSynced, match=r"every tag that .* listed was gone when it was fetched"):
        sync(here, registry, build, before=lose)
    assert latest(here) is None


def test_the_log_distinguishes_excluded_from_deleted_tags_and_names_those_that_never_existed(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    for name in ("v1", "v2", "v3", "v4"):
        build.tag(name, build.image([build.blob(50)]))
    sync(here, registry, build)
    sync(here, registry, include_tags=("v[123]", "latset"))
    assert "3 tags, 0 new or moved, 0 gone upstream, 1 excluded by the filters" in here.lines
    missing = "include_tags names 1 tag that the upstream does not have: latset"
    assert missing in here.lines.warnings
    here.lines.warnings.clear()
    sync(here, registry, include_tags=("v1", "v2", "v3", "latset"))
    assert missing in here.lines.warnings
    here.lines.warnings.clear()
    sync(here, registry, include_tags=("v1", *(f"no-{number}" for number in range(7))), mode="additive")
    assert (
        "include_tags names 7 tags that the upstream does not have: no-0, no-1, no-2, no-3, no-4, 2 more"
        in here.lines.warnings
    )


def test_a_named_tag_that_goes_while_it_is_synced_is_a_warning(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    for name in ("v1", "v2"):
        build.tag(name, build.image([build.blob(50)]))
    digest = build.content().tags["v2"]

    def lose(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            for reference in ("v2", digest):
                registry.on("GET", "manifest", reference, refusal(404))

    sync(here, registry, build, before=lose, include_tags=("v1", "v2"))
    assert "tag v2, which include_tags names, is gone since it was listed" in here.lines.warnings


@pytest.mark.rule("A6.15")
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("mode", ["mirror", "additive"])
def test_plain_images_do_not_hide_that_the_platforms_leave_nothing_of_any_index(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, is_first: bool, mode: str
) -> None:
    build.tag("old", build.image([build.blob(50)]))
    first = None if is_first else sync(here, registry, build, platforms=("linux/amd46",), mode=mode)
    for number in range(5):
        build.tag(f"v{number}", index := index_of(build, "amd64", "arm64"))
    Signer(build).cosign_signature(index)
    with pytest.raises(
        NothingSynced,
        match=r"platforms linux/amd46 of remote 'app' leave nothing of any of 5 tags that are indexes; available are "
        r"linux/amd64, linux/arm64/v8\.",
    ):
        sync(here, registry, build, platforms=("linux/amd46",), mode=mode)
    with pytest.raises(NothingSynced, match="leave nothing of any of 5 tags that are indexes"):
        sync(here, registry, platforms=("linux/amd46",), mode=mode)
    assert got(registry).isdisjoint({index}), "the excluded index is known by then, and hides nothing"
    assert latest(here) == first
    version = sync(here, registry, platforms=("linux/amd64",), mode=mode)
    assert version is not None
    assert {"old", "v0", "v4"} <= tags(here, version)


def test_an_index_that_the_repository_has_is_held_though_only_plain_images_are_beside_it(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("old", build.image([build.blob(50)]))
    build.tag("multi", index_of(build, "amd64"))
    sync(here, registry, build, platforms=("linux/amd64",))
    build.tag("multi", index_of(build, "arm64"))
    with pytest.raises(NothingSynced, match="1 tag is held: multi"):
        sync(here, registry, build, platforms=("linux/amd64",))
    with pytest.raises(TooManyRemovals, match="1 of 2 tags has none of the platforms linux/amd46"):
        sync(here, registry, build, platforms=("linux/amd46",))


def test_a_held_tag_of_which_nothing_is_known_may_be_an_index(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("old", build.image([build.blob(50)]))
    build.tag("windows", index_of(build, "windows"))
    build.tag("broken", broken := index_of(build, "amd64"))
    registry.serve(NAME, build.content())
    for reference in ("broken", broken):
        registry.on("GET", "manifest", reference, document(b"no manifest", "application/json"))
    version = sync(here, registry, platforms=("linux/amd64",))
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["broken"]
    assert tags(here, version) == {"old"}


def test_what_the_platforms_exclude_is_a_warning_of_every_sync(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    build.tag("linux", index_of(build, "amd64"))
    build.tag("windows", index_of(build, "windows"))
    said = "1 tag has none of the platforms linux/amd64 and is excluded: windows"
    assert sync(here, registry, build, platforms=("linux/amd64",)) is not None
    assert here.lines.warnings.count(said) == 1
    assert sync(here, registry, platforms=("linux/amd64",)) is None
    assert here.lines.warnings.count(said) == 2
    build.tag("other", index_of(build, "windows"))
    assert sync(here, registry, build, platforms=("linux/amd64",)) is None
    assert "2 tags have none of the platforms linux/amd64 and are excluded: other, windows" in here.lines.warnings
