"""Tags that are named like digests: some tools name every image so, and registries keep referrers under such names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import fallback_tag
from support.choosing import NAME, got, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.signatures import Signer
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


def name_all(build: ContentBuilder, count: int = 7) -> list[Digest]:
    """Images of which each is tagged by its own digest."""
    images = [build.image([build.blob(60 + number)]) for number in range(count)]
    for image in images:
        build.tag(fallback_tag(image), image)
    return images


@pytest.mark.rule("A8.4")
@pytest.mark.parametrize("heads_have_digests", [True, False])
@pytest.mark.parametrize("include", [None, ("sha256-*",), "exactly"], ids=["all", "a glob", "exact names"])
def test_a_tag_that_was_requested_stays_though_it_is_named_after_its_own_digest(
    here: Installation,
    registry: MemoryRegistry,
    build: ContentBuilder,
    include: Sequence[str] | str | None,
    heads_have_digests: bool,
) -> None:
    names = sorted(fallback_tag(image) for image in name_all(build))
    registry.tells_digests = heads_have_digests
    registry.serve(NAME, build.content())
    filters = {"include_tags": tuple(names) if include == "exactly" else include}
    version = sync(here, registry, **filters)
    assert version is not None
    assert tags(here, version) == set(names)
    assert version.is_complete
    assert sync(here, registry, **filters) is None, "the second sync loses none of them"
    assert len(got(registry)) == (0 if heads_have_digests else len(names)), "each is read once, and not by its digest"


@pytest.mark.rule("A8.4")
@pytest.mark.parametrize("heads_have_digests", [True, False])
def test_a_candidate_that_turns_out_to_be_the_image_itself_is_no_tag_of_its_own(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, heads_have_digests: bool
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    build.tag(fallback_tag(image), image)
    registry.tells_digests = heads_have_digests
    registry.serve(NAME, build.content())
    for include in (("v*",), ("v*",), ("v1",), ("v1",)):
        sync(here, registry, include_tags=include)
        latest = here.database.versions.latest(here.database.repositories.by_name("app").id)
        assert latest is not None
        assert tags(here, latest) == {"v1"}


@pytest.mark.rule("A8.6")
def test_a_mirror_of_images_named_after_digests_takes_their_signatures_along(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    first, second = name_all(build, 2)
    Signer(build).cosign_signature(first)
    registry.tells_digests = False
    registry.serve(NAME, build.content())
    version = sync(here, registry, include_tags=(fallback_tag(first), fallback_tag(second)))
    assert version is not None
    assert tags(here, version) == {fallback_tag(first), fallback_tag(second), f"{fallback_tag(first)}.sig"}
