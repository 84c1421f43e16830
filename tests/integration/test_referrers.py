"""What refers to an image comes along: by the referrers API, and by tags of its own."""

from __future__ import annotations

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.content_units import Relation
from registry_sync.domain.references import fallback_tag
from support.choosing import NAME, got, held, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry, document, referrers_page, refusal
from support.signatures import Signer
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(has_referrers_api=True)


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


class Signed:
    """``v1``, an index of one image, with what refers to either, and what refers to that."""

    def __init__(self, build: ContentBuilder) -> None:
        signer = Signer(build)
        self.image = build.image([build.blob(60)])
        self.index = build.index([self.image])
        build.tag("v1", self.index)
        self.bundle = signer.bundle(self.index)
        self.sbom = signer.sbom(self.image)
        self.signs_sbom = signer.notation(self.sbom)
        self.content = {self.index, self.image}
        self.referrers = {self.bundle, self.sbom, self.signs_sbom}


@pytest.mark.rule("A8.6")
def test_referrers_of_every_manifest_come_along_and_those_of_referrers(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == signed.content | signed.referrers
    for digest in signed.referrers:
        assert here.database.contents.manifest(digest).data == build.content().manifests[digest].data
        assert all(here.store.has(blob) for blob in build.content().manifests[digest].blobs)
    assert sync(here, registry) is None
    assert got(registry) == set()


def test_referrers_are_excluded_where_the_remote_says_so_and_go_when_it_changes_its_mind(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    version = sync(here, registry, build, include_referrers=False)
    assert version is not None
    assert held(here, version) == signed.content
    assert registry.log().count("GET", "referrers") == 0
    version = sync(here, registry, include_referrers=True)
    assert version is not None
    assert held(here, version, Relation.ADDED) == signed.referrers == got(registry)
    version = sync(here, registry, include_referrers=False)
    assert version is not None
    assert held(here, version, Relation.REMOVED) == signed.referrers


@pytest.mark.rule("A8.6")
def test_a_signature_that_comes_later_is_noticed_though_no_tag_moved_and_one_that_goes_too(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    build.tag("v2", build.image([build.blob(61)]))
    sync(here, registry, build)
    bundle = Signer(build).bundle(image)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version, Relation.ADDED) == {bundle} == got(registry)
    assert tags(here, version) == {"v1", "v2"}
    registry.on("GET", "referrers", image, referrers_page([]))
    version = sync(here, registry)
    assert version is not None
    assert held(here, version, Relation.REMOVED) == {bundle}


@pytest.mark.rule("A8.4")
def test_a_manifest_that_is_listed_as_a_referrer_and_names_another_subject_is_not_taken(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image, stranger = build.image([build.blob(60)]), build.image([build.blob(61)])
    build.tag("v1", image)
    listed = referrers_page([build.descriptor(stranger, media_types.OCI_MANIFEST)])
    registry.on("GET", "referrers", image, listed)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {image}
    assert any("does not name it as its subject" in line for line in here.lines)


@pytest.mark.rule("A8.6")
def test_referrers_that_refer_to_each_other_in_a_circle_are_walked_once(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    bundle = Signer(build).bundle(image)
    # No two documents can name each other; a registry can claim that the image refers to what refers to it.
    entry = build.descriptor(image, media_types.OCI_MANIFEST)
    registry.on("GET", "referrers", bundle, referrers_page([entry]))
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {image, bundle}
    assert registry.log().count("GET", "referrers", reference=bundle) == 1


@pytest.mark.rule("A8.6")
def test_referrers_nested_too_deeply_hold_the_tag_with_the_limit(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    digest = build.image([build.blob(60)])
    build.tag("deep", digest)
    build.tag("good", build.image([build.blob(61)]))
    for _ in range(5):
        digest = Signer(build).sbom(digest)
    version = sync(here, registry, build)
    assert version is not None
    assert [(hold.tag, "nested deeper" in hold.reason) for hold in version.holds] == [("deep", True)]


@pytest.mark.rule("A8.2")
def test_an_outage_of_the_referrers_api_holds_the_tag_and_never_means_that_there_are_none(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    build.tag("other", build.image([build.blob(62)]))
    registry.on("GET", "referrers", signed.image, refusal(503))
    version = sync(here, registry, build, is_last_try=True)
    assert version is not None
    assert [(hold.tag, "503" in hold.reason) for hold in version.holds] == [("v1", True)]
    assert tags(here, version) == {"other"}


@pytest.mark.rule("A8.9")
def test_a_subject_that_is_not_there_hurts_nothing(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    ghost = ContentBuilder(seed=5)
    absent = ghost.image([ghost.blob(9)])
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": str(absent), "size": 9}
    lone = build.image([build.blob(60)], extra={"subject": subject})
    build.tag("signature", lone)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {lone}
    assert version.is_complete


@pytest.mark.rule("A7.12")
@pytest.mark.rule("A8.6")
def test_what_has_a_tag_of_its_own_comes_along_though_no_filter_lets_it_in(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    signer = Signer(build)
    child = build.image([build.blob(60)])
    index = build.index([child])
    build.tag("v1", index)
    build.tag("dev", dev := build.image([build.blob(61)]))
    expected = {signer.cosign_signature(index), signer.cosign_attestation(child), sbom := signer.cosign_sbom(child)}
    expected.add(signer.cosign_signature(sbom))
    signer.cosign_signature(dev)
    version = sync(here, registry, build, include_tags=("v*",))
    assert version is not None
    assert held(here, version) == {index, child, *expected}
    assert len(tags(here, version)) == 5
    assert sync(here, registry, include_tags=("v*",)) is None
    assert got(registry) == set()
    later = signer.cosign_attestation(index)
    version = sync(here, registry, build, include_tags=("v*",))
    assert version is not None
    assert held(here, version, Relation.ADDED) == {later}


@pytest.mark.rule("A8.6")
def test_what_belongs_to_content_that_goes_goes_with_it_and_makes_no_second_version(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    old, new = build.image([build.blob(60)]), build.image([build.blob(61)])
    build.tag("v1", old)
    Signer(build).cosign_signature(old)
    sync(here, registry, build, include_tags=("v*",))
    build.tag("v1", new)
    version = sync(here, registry, build, include_tags=("v*",))
    assert version is not None
    assert held(here, version) == {new}
    assert tags(here, version) == {"v1"}
    assert sync(here, registry, include_tags=("v*",)) is None


@pytest.mark.rule("A8.6")
def test_exact_names_bring_what_belongs_to_them_without_a_listing(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    signer = Signer(build)
    child = build.image([build.blob(60)])
    build.tag("v1", build.index([child]))
    signs_child = signer.cosign_signature(child)
    version = sync(here, registry, build, include_tags=("v1",))
    assert version is not None
    assert tags(here, version) == {"v1", f"{fallback_tag(child)}.sig"}
    assert signs_child in held(here, version)
    assert registry.log().tag_page_count == 0
    assert sync(here, registry, include_tags=("v1",)) is None


def test_what_is_excluded_by_name_stays_out_though_it_belongs_to_something(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    signer = Signer(build)
    signer.cosign_signature(image)
    signer.cosign_sbom(image)
    version = sync(here, registry, build, include_tags=("v*",), exclude_tags=("*.sbom",))
    assert version is not None
    assert tags(here, version) == {"v1", f"{fallback_tag(image)}.sig"}


@pytest.mark.rule("A8.4")
def test_a_registry_that_reads_a_fallback_tag_as_the_digest_has_no_such_tag(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    registry.serve(NAME, build.content())
    manifest = build.content().manifests[image]
    for method in ("HEAD", "GET"):
        registry.on(method, "manifest", fallback_tag(image), document(manifest.data, manifest.media_type))
    version = sync(here, registry, include_tags=("v1",))
    assert version is not None
    assert tags(here, version) == {"v1"}
    assert sync(here, registry, include_tags=("v1",)) is None
