"""What is refused or missing alone hurts its own tags; what is refused with everything else fails the sync."""

from __future__ import annotations

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion
from registry_sync.errors import AuthenticationFailed, NotFound, NothingSynced, RegistryError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.sync.verdicts import MAX_PROBES
from support.choosing import NAME, held, sync, tags
from support.hostile_registry import HostileRegistry, reply
from support.images import ContentBuilder
from support.memory_registry import HELD, Held, MemoryRegistry, refusal
from support.serving import serve
from support.syncing import Installation

READY = Credentials(registry_token="ready-token")
BLOCKED = refusal(403, "DENIED", "blocked by the scanner")
NO_NAME = refusal(404, "NAME_UNKNOWN", "repository name not known to registry")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


class Content:
    """``good``, an image; ``wide``, an index of two platforms and an attestation of the first; ``latest``, the same."""

    def __init__(self, seed: int = 51) -> None:
        self.build = ContentBuilder(seed)
        self.good = self.build.image([self.build.blob(50)])
        self.amd64, self.arm64 = (
            self.build.image([self.build.blob(60)], architecture=name) for name in ("amd64", "arm64")
        )
        self.attestation = self.build.attestation(self.amd64)
        entry = self.build.attestation_entry(self.amd64)
        self.index = self.build.index([self.amd64, self.arm64, self.attestation], descriptors={self.attestation: entry})
        self.build.tag("good", self.good)
        self.build.tag("wide", self.index)
        self.build.tag("latest", self.index)

    def serve(self, registry: MemoryRegistry) -> None:
        registry.serve(NAME, self.build.content())


def reasons(version: RepositoryVersion | None) -> dict[str, str]:
    assert version is not None
    return {hold.tag: hold.reason for hold in version.holds}


@pytest.mark.rule("A6.14")
def test_a_name_unknown_for_one_entry_is_that_entry_missing(here: Installation, registry: MemoryRegistry) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", "manifest", content.arm64, NO_NAME)
    version = sync(here, registry)
    assert tags(here, version) == {"good"}
    found = reasons(version)
    assert set(found) == {"wide", "latest"}
    assert found["wide"].startswith("NotFound: linux/arm64 of index sha256:")
    assert "others of the repository are served" in found["wide"]


@pytest.mark.rule("A6.14")
def test_a_name_unknown_for_one_entry_is_a_gap_where_gaps_are_allowed(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", "manifest", content.attestation, NO_NAME)
    version = sync(here, registry, allow_sparse=True)
    assert version is not None
    assert (version.holds, [gap.digest for gap in version.gaps]) == ((), [content.attestation])
    assert {content.index, content.amd64, content.arm64} <= held(here, version)
    assert any(f"lists the attestation of {content.amd64[:19]}" in line for line in here.lines)


def test_a_repository_that_goes_in_mid_sync_has_no_gaps(here: Installation, registry: MemoryRegistry) -> None:
    content = Content()
    content.serve(registry)

    def vanish() -> Held:
        """The index is the last thing that the registry gives."""
        registry.on_everything(NO_NAME)
        return HELD

    registry.on("GET", "manifest", content.index, vanish)
    with pytest.raises(NothingSynced, match="held"):
        sync(here, registry, allow_sparse=True, include_tags=("wide",))
    assert registry.log().count("HEAD") <= 1 + MAX_PROBES, "those that show that nothing is served"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("credentials", [None, READY])
@pytest.mark.parametrize("what", ["entry", "tag's own", "head", "only changed"])
def test_a_manifest_that_is_refused_alone_holds_its_tags(
    here: Installation, registry: MemoryRegistry, status: int, credentials: Credentials | None, what: str
) -> None:
    content = Content()
    if what == "only changed":
        content.serve(registry)
        assert sync(here, registry, credentials=credentials) is not None
        content.arm64 = content.build.image([content.build.blob(61)], architecture="arm64")
        content.index = content.build.index([content.amd64, content.arm64])
        content.build.tag("wide", content.index)
        content.build.tag("other", content.good)
    content.serve(registry)
    denied = refusal(status, "DENIED", "blocked by the scanner", has_challenge=status == 401)
    refused = {"entry": content.arm64, "tag's own": content.index, "head": content.index, "only changed": content.arm64}
    registry.on("GET", "manifest", refused[what], denied)
    if what == "head":
        for name in ("wide", "latest", content.index):
            registry.on("HEAD", "manifest", name, denied)
            registry.on("GET", "manifest", name, denied)
    version = sync(here, registry, credentials=credentials)
    found = reasons(version)
    assert set(found) == ({"wide"} if what == "only changed" else {"wide", "latest"})
    assert found["wide"].startswith("AccessDenied: ")
    assert "others of the repository are served" in found["wide"] or credentials is not None
    if what in ("entry", "only changed"):
        assert "linux/arm64 of index" in found["wide"]


def test_an_attestation_that_is_refused_is_called_one(here: Installation, registry: MemoryRegistry) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", "manifest", content.attestation, BLOCKED)
    assert f"the attestation of {content.amd64[:19]} of index" in reasons(sync(here, registry))["wide"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_blob_that_is_refused_alone_holds_its_tags(here: Installation, registry: MemoryRegistry, status: int) -> None:
    content = Content()
    content.serve(registry)
    blob = next(b for b in content.build.content().manifests[content.arm64].blobs if b != Digest.of(b"{}"))
    registry.on("GET", "blob", blob, refusal(status, "DENIED"))
    assert set(reasons(sync(here, registry))) == {"wide", "latest"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_closes_in_mid_sync_fails_it(
    here: Installation, registry: MemoryRegistry, status: int
) -> None:
    content = Content()
    content.serve(registry)

    def close(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            registry.on_everything(refusal(status))

    with pytest.raises(RegistryError) as failed:
        sync(here, registry, before=close)
    assert not isinstance(failed.value, NotFound)


def test_a_password_that_is_refused_is_not_tried_on_everything(here: Installation) -> None:
    names = ("good", "latest", "wide")
    with serve(HostileRegistry(), NAME, Content().build.content()) as server:
        for name in names:
            challenge = ("WWW-Authenticate", 'Basic realm="x"')
            server.on("HEAD", f"/v2/{NAME}/manifests/{name}", reply(401, headers=[challenge]))
        with pytest.raises(AuthenticationFailed):
            here.sync("app", server.base, NAME, credentials=Credentials("alice", "wrong"), include_tags=names)
        with_password = [r for r in server.requests if r.header("authorization") is not None]
    assert len(with_password) <= 2
