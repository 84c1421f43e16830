"""What a sync takes along: platforms, referrers and what has tags of its own, gaps, foreign layers, inline blobs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.companions import fallback_tag
from registry_sync.domain.digests import Digest
from registry_sync.domain.pages import PageRequest
from registry_sync.domain.records import RemoteSpec, RepositoryVersion
from registry_sync.domain.units import Relation, UnitQuery
from registry_sync.errors import RepositoryUnavailable, TooManyHolds, TooManyRemovals
from support.hostile_registry import HostileRegistry, json_reply, reply
from support.images import ContentBuilder
from support.serving import serve
from support.signatures import Signer, referrer_entry, subject_of
from support.syncing import Installation

NAME = "team/app"
AMD64 = {"platform": {"os": "linux", "architecture": "amd64"}}
ARM64 = {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
WINDOWS = {"platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2582"}}
EVERYTHING = PageRequest(limit=1000)
#: What a remote says and a single sync cannot.
OF_THE_REMOTE = {
    "allow_sparse", "include_foreign_layers", "max_held_share", "max_removed_share", "max_removed_tags",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation.embedded(tmp_path)
    yield installation
    installation.database.close()


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        yield server


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


def sync(
    here: Installation, registry: HostileRegistry, build: ContentBuilder | None = None, **request: Any
) -> RepositoryVersion | None:
    """Syncs what was built so far, or what the registry serves already; requests are counted from here."""
    if build is not None:
        serve(registry, NAME, build.content())
    registry.requests.clear()
    remote = {name: request.pop(name) for name in list(request) if name in OF_THE_REMOTE}
    here.database.remotes.ensure(RemoteSpec("app", registry.base, NAME, **remote))
    return here.sync("app", registry.base, NAME, **request)


def serve_referrers(registry: HostileRegistry, build: ContentBuilder) -> None:
    """The referrers API over everything that was built."""
    content = build.content()
    for subject in content.manifests:
        entries = [referrer_entry(m) for m in content.manifests.values() if subject_of(m) == subject]
        document = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries})
        path = f"/v2/{NAME}/referrers/{subject}"
        registry.on("GET", path, reply(200, document, content_type=media_types.OCI_INDEX))


def held(here: Installation, version: RepositoryVersion, relation: Relation = Relation.PRESENT) -> set[Digest]:
    """Digests of a version's manifests."""
    query = UnitQuery(version.repository_id, version.number, relation)
    return {unit.digest for unit in here.database.units.manifests(query, EVERYTHING).items}


def tags(here: Installation, version: RepositoryVersion) -> set[str]:
    return set(here.database.versions.tags(version.repository_id, version.number))


def got(registry: HostileRegistry) -> set[str]:
    """Digests and tags by which manifests were got."""
    prefix = f"/v2/{NAME}/manifests/"
    return {request.path.removeprefix(prefix) for request in registry.asked("GET") if prefix in request.path}


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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    sync(here, registry, build, platforms=("linux/amd64",))
    version = sync(here, registry, platforms=("linux/arm64",), mode="additive")
    assert version is not None
    assert held(here, version) == {
        multi.index, multi.amd64, multi.attests_amd64, multi.arm64, multi.attests_arm64,
    }  # fmt: skip


def test_a_manifest_that_is_left_out_of_one_index_stays_where_a_tag_stands_for_it(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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


def test_tags_without_a_wanted_platform_are_left_out_and_cost_nothing_the_next_time(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    Multi(build)
    build.tag("odd", build.index([image := build.image()], descriptors={image: {"platform": {"os": 1}}}))
    version = sync(here, registry, build, platforms=("linux/amd64",))
    assert version is not None
    assert [(hold.tag, "platform" in hold.reason) for hold in version.holds] == [("odd", True)]
    assert tags(here, version) == {"multi"}


class Sparse:
    """An index of two, under the tag ``sparse``, of which the registry has the first."""

    def __init__(self, build: ContentBuilder, registry: HostileRegistry) -> None:
        self.there, self.missing = build.image([build.blob(40)]), build.image([build.blob(41)])
        self.index = build.index([self.there, self.missing])
        build.tag("sparse", self.index)
        build.tag("good", build.image([build.blob(42)]))
        serve(registry, NAME, build.content())
        self.path = f"/v2/{NAME}/manifests/{self.missing}"
        self.answer_missing(registry, 404)

    def answer_missing(self, registry: HostileRegistry, status: int) -> None:
        registry.on("GET", self.path, json_reply({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status))


@pytest.mark.rule("A6.14")
def test_an_index_with_a_gap_is_held_by_default(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    sparse = Sparse(build, registry)
    version = sync(here, registry)
    assert version is not None
    assert [(hold.tag, str(sparse.missing) in hold.reason) for hold in version.holds] == [("sparse", True)]
    assert tags(here, version) == {"good"}


@pytest.mark.rule("A6.14")
def test_a_gap_is_allowed_where_the_remote_says_so_and_filled_when_the_registry_has_it(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    sparse = Sparse(build, registry)
    first = sync(here, registry, allow_sparse=True)
    assert first is not None
    assert first.is_complete is False
    assert {gap.digest for gap in first.gaps} == {sparse.missing}
    assert {gap.parent for gap in first.gaps} == {sparse.index}
    assert sparse.missing not in held(here, first)
    assert sync(here, registry, allow_sparse=True) is None, "a gap that stays makes no version"
    serve(registry, NAME, build.content())
    second = sync(here, registry, allow_sparse=True)
    assert second is not None
    assert held(here, second, Relation.ADDED) == {sparse.missing}
    assert second.is_complete
    assert here.database.versions.get(first.repository_id, first.number).gaps == first.gaps


@pytest.mark.rule("A6.14")
@pytest.mark.parametrize("status", [500, 503])
def test_an_entry_that_may_not_or_cannot_be_had_is_no_gap(
    here: Installation, registry: HostileRegistry, build: ContentBuilder, status: int
) -> None:
    Sparse(build, registry).answer_missing(registry, status)
    version = sync(here, registry, allow_sparse=True, is_last_try=True)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["sparse"]


@pytest.mark.rule("A6.14")
def test_an_entry_that_is_refused_is_no_gap(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    Sparse(build, registry).answer_missing(registry, 403)
    with pytest.raises(RepositoryUnavailable, match="403"):
        sync(here, registry, allow_sparse=True, is_last_try=True)


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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    serve_referrers(registry, build)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == signed.content | signed.referrers
    for digest in signed.referrers:
        assert here.database.contents.manifest(digest).data == build.content().manifests[digest].data
        assert all(here.store.has(blob) for blob in build.content().manifests[digest].blobs)
    assert sync(here, registry) is None
    assert got(registry) == set()


def test_referrers_are_left_out_where_the_remote_says_so_and_go_when_it_changes_its_mind(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    serve_referrers(registry, build)
    version = sync(here, registry, build, include_referrers=False)
    assert version is not None
    assert held(here, version) == signed.content
    assert not [request for request in registry.requests if "/referrers/" in request.path]
    version = sync(here, registry, include_referrers=True)
    assert version is not None
    assert held(here, version, Relation.ADDED) == signed.referrers == got(registry)
    version = sync(here, registry, include_referrers=False)
    assert version is not None
    assert held(here, version, Relation.REMOVED) == signed.referrers


@pytest.mark.rule("A8.6")
def test_a_signature_that_comes_later_is_noticed_though_no_tag_moved_and_one_that_goes_too(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    build.tag("v2", build.image([build.blob(61)]))
    serve_referrers(registry, build)
    sync(here, registry, build)
    bundle = Signer(build).bundle(image)
    serve_referrers(registry, build)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version, Relation.ADDED) == {bundle} == got(registry)
    assert tags(here, version) == {"v1", "v2"}
    empty = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []})
    registry.on("GET", f"/v2/{NAME}/referrers/{image}", reply(200, empty, content_type=media_types.OCI_INDEX))
    version = sync(here, registry)
    assert version is not None
    assert held(here, version, Relation.REMOVED) == {bundle}


@pytest.mark.rule("A8.4")
def test_a_manifest_that_is_listed_as_a_referrer_and_names_another_subject_is_not_taken(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    image, stranger = build.image([build.blob(60)]), build.image([build.blob(61)])
    build.tag("v1", image)
    serve_referrers(registry, build)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [build.descriptor(stranger, media_types.OCI_MANIFEST)],
    }
    path = f"/v2/{NAME}/referrers/{image}"
    registry.on("GET", path, reply(200, json.dumps(document), content_type=media_types.OCI_INDEX))
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {image}
    assert any("does not name it as its subject" in line for line in here.lines)


@pytest.mark.rule("A8.6")
def test_referrers_that_refer_to_each_other_in_a_circle_are_walked_once(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    bundle = Signer(build).bundle(image)
    serve_referrers(registry, build)
    # No two documents can name each other; a registry can claim that the image refers to what refers to it.
    entry = build.descriptor(image, media_types.OCI_MANIFEST)
    document = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]})
    path = f"/v2/{NAME}/referrers/{bundle}"
    registry.on("GET", path, reply(200, document, content_type=media_types.OCI_INDEX))
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {image, bundle}
    assert len(registry.asked("GET", path)) == 1


@pytest.mark.rule("A8.6")
def test_referrers_nested_too_deeply_hold_the_tag_with_the_limit(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    digest = build.image([build.blob(60)])
    build.tag("deep", digest)
    build.tag("good", build.image([build.blob(61)]))
    for _ in range(5):
        digest = Signer(build).sbom(digest)
    serve_referrers(registry, build)
    version = sync(here, registry, build)
    assert version is not None
    assert [(hold.tag, "nested deeper" in hold.reason) for hold in version.holds] == [("deep", True)]


@pytest.mark.rule("A8.2")
def test_an_outage_of_the_referrers_api_holds_the_tag_and_never_means_that_there_are_none(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    signed = Signed(build)
    build.tag("other", build.image([build.blob(62)]))
    serve_referrers(registry, build)
    registry.on("GET", f"/v2/{NAME}/referrers/{signed.image}", reply(503))
    version = sync(here, registry, build, is_last_try=True)
    assert version is not None
    assert [(hold.tag, "503" in hold.reason) for hold in version.holds] == [("v1", True)]
    assert tags(here, version) == {"other"}


@pytest.mark.rule("A8.9")
def test_a_subject_that_is_not_there_hurts_nothing(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    ghost = ContentBuilder(seed=5)
    absent = ghost.image([ghost.blob(9)])
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": str(absent), "size": 9}
    lone = build.image([build.blob(60)], extra={"subject": subject})
    build.tag("signature", lone)
    serve_referrers(registry, build)
    version = sync(here, registry, build)
    assert version is not None
    assert held(here, version) == {lone}
    assert version.is_complete


@pytest.mark.rule("A7.12")
@pytest.mark.rule("A8.6")
def test_what_has_a_tag_of_its_own_comes_along_though_no_filter_lets_it_in(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    signer = Signer(build)
    child = build.image([build.blob(60)])
    build.tag("v1", build.index([child]))
    signs_child = signer.cosign_signature(child)
    version = sync(here, registry, build, include_tags=("v1",))
    assert version is not None
    assert tags(here, version) == {"v1", f"{fallback_tag(child)}.sig"}
    assert signs_child in held(here, version)
    assert not [request for request in registry.requests if "/tags/" in request.path]
    assert sync(here, registry, include_tags=("v1",)) is None


def test_what_is_left_out_by_name_stays_out_though_it_belongs_to_something(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    image = build.image([build.blob(60)])
    build.tag("v1", image)
    served = serve(registry, NAME, build.content())
    manifest = build.content().manifests[image]
    path, kind = f"/v2/{NAME}/manifests/{fallback_tag(image)}", manifest.media_type
    served.on("HEAD", path, reply(200, b"", length=len(manifest.data), content_type=kind))
    served.on("GET", path, reply(200, manifest.data, content_type=kind))
    version = sync(here, registry, include_tags=("v1",))
    assert version is not None
    assert tags(here, version) == {"v1"}
    assert sync(here, registry, include_tags=("v1",)) is None


@pytest.mark.rule("A5.17")
def test_foreign_layers_are_fetched_from_where_they_lie_only_when_the_remote_includes_them(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    foreign = build.blob_of(b"a layer of somebody else's")
    layer = build.descriptor(
        foreign, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=[f"{registry.base}/elsewhere"]
    )
    build.tag("v1", build.image([foreign], docker=True, extra={"layers": [layer]}))
    serve(registry, NAME, build.content())
    registry.on("GET", f"/v2/{NAME}/blobs/{foreign}", reply(404))
    registry.on("GET", "/elsewhere", reply(200, b"a layer of somebody else's"))
    version = sync(here, registry)
    assert version is not None
    assert not here.store.has(foreign)
    assert registry.asked("GET", "/elsewhere") == []
    assert sync(here, registry, include_foreign_layers=True) is None, "the version is as it was"
    assert here.store.has(foreign)
    assert here.database.contents.blob(foreign).is_stored


@pytest.mark.rule("A5.16")
def test_bytes_that_a_manifest_carries_itself_are_not_asked_for(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    data = b"a small layer"
    inline = build.blob_of(data)
    layer = build.descriptor(inline, data=base64.b64encode(data).decode())
    build.tag("v1", build.image([inline], extra={"layers": [layer]}))
    version = sync(here, registry, build)
    assert version is not None
    assert here.store.has(inline, len(data))
    assert registry.asked("GET", f"/v2/{NAME}/blobs/{inline}") == []


def test_more_holds_than_the_remote_allows_make_no_version(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    Sparse(build, registry)
    with pytest.raises(TooManyHolds, match=r"1 of 2 tags would be held.*max_held_share 0\.4.*sparse"):
        sync(here, registry, max_held_share=0.4)
    repository = here.database.repositories.by_name("app")
    assert repository.latest_number is None
    assert sync(here, registry, max_held_share=0.5) is not None


def test_a_mirror_that_would_lose_too_many_tags_stops_and_goes_on_when_that_is_approved(
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder, limits: dict[str, Any], stops: bool
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
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
    here: Installation, registry: HostileRegistry, build: ContentBuilder
) -> None:
    multi = Multi(build)
    build.tag("other", build.image([build.blob(30)]))
    assert sync(here, registry, build, platforms=("linux/amd64",)) is not None
    build.tag("other", build.image([build.blob(31)]))
    serve(registry, NAME, build.content())
    path = f"/v2/{NAME}/manifests/{multi.arm64}"
    registry.on("GET", path, reply(404, b""))
    version = sync(here, registry)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["multi"]
    assert multi.arm64 not in held(here, version)
    serve(registry, NAME, build.content())
    whole = sync(here, registry)
    assert whole is not None
    assert held(here, whole) == set(build.content().closure(["multi", "other"]).manifests)
    assert whole.is_complete
