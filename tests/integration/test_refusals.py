"""What is refused or missing alone hurts its own tags; what is refused with everything else fails the sync."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion
from registry_sync.errors import AuthenticationFailed, NotFound, NothingSynced, RegistryError
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.sync.verdicts import MAX_PROBES
from support.choosing import NAME, held, sync, tags
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, reply
from support.images import ContentBuilder
from support.serving import serve
from support.syncing import Installation

READY = Credentials(registry_token="ready-token")
BLOCKED = errors_reply(403, "DENIED", "blocked by the scanner")
NO_NAME = errors_reply(404, "NAME_UNKNOWN", "repository name not known to registry")


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        yield server


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

    def serve(self, registry: HostileRegistry) -> None:
        serve(registry, NAME, self.build.content())


def manifest_path(reference: str) -> str:
    return f"/v2/{NAME}/manifests/{reference}"


def reasons(version: RepositoryVersion | None) -> dict[str, str]:
    assert version is not None
    return {hold.tag: hold.reason for hold in version.holds}


@pytest.mark.rule("A6.14")
def test_a_name_unknown_for_one_entry_is_that_entry_missing(here: Installation, registry: HostileRegistry) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", manifest_path(content.arm64), NO_NAME)
    version = sync(here, registry)
    assert tags(here, version) == {"good"}
    found = reasons(version)
    assert set(found) == {"wide", "latest"}
    assert found["wide"].startswith("NotFound: linux/arm64 of index sha256:")
    assert "others of the repository are served" in found["wide"]


@pytest.mark.rule("A6.14")
def test_a_name_unknown_for_one_entry_is_a_gap_where_gaps_are_allowed(
    here: Installation, registry: HostileRegistry
) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", manifest_path(content.attestation), NO_NAME)
    version = sync(here, registry, allow_sparse=True)
    assert version is not None
    assert (version.holds, [gap.digest for gap in version.gaps]) == ((), [content.attestation])
    assert {content.index, content.amd64, content.arm64} <= held(here, version)
    assert any(f"lists the attestation of {content.amd64[:19]}" in line for line in here.lines)


def test_a_repository_that_goes_in_mid_sync_has_no_gaps(here: Installation, registry: HostileRegistry) -> None:
    content = Content()
    content.serve(registry)

    def vanish(_request: Request) -> Raw:
        """The index is the last thing that the registry gives."""
        index = content.build.content().manifests[content.index]
        registry.on_everything(NO_NAME)
        return reply(200, index.data, content_type=index.media_type)

    registry.on("GET", manifest_path(content.index), vanish)
    with pytest.raises(NothingSynced, match="held"):
        sync(here, registry, allow_sparse=True, include_tags=("wide",))
    assert len(registry.asked("HEAD")) <= 1 + MAX_PROBES, "those that show that nothing is served"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("credentials", [None, READY])
@pytest.mark.parametrize("what", ["entry", "tag's own", "head", "only changed"])
def test_a_manifest_that_is_refused_alone_holds_its_tags(
    here: Installation, registry: HostileRegistry, status: int, credentials: Credentials | None, what: str
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
    challenge = [("WWW-Authenticate", 'Basic realm="x"')] if status == 401 else []
    refusal = errors_reply(status, "DENIED", "blocked by the scanner", challenge)
    refused = {"entry": content.arm64, "tag's own": content.index, "head": content.index, "only changed": content.arm64}
    registry.on("GET", manifest_path(refused[what]), refusal)
    if what == "head":
        for name in ("wide", "latest", content.index):
            registry.on("HEAD", manifest_path(name), refusal)
            registry.on("GET", manifest_path(name), refusal)
    version = sync(here, registry, credentials=credentials)
    found = reasons(version)
    assert set(found) == ({"wide"} if what == "only changed" else {"wide", "latest"})
    assert found["wide"].startswith("AccessDenied: ")
    assert "others of the repository are served" in found["wide"] or credentials is not None
    if what in ("entry", "only changed"):
        assert "linux/arm64 of index" in found["wide"]


def test_an_attestation_that_is_refused_is_called_one(here: Installation, registry: HostileRegistry) -> None:
    content = Content()
    content.serve(registry)
    registry.on("GET", manifest_path(content.attestation), BLOCKED)
    assert f"the attestation of {content.amd64[:19]} of index" in reasons(sync(here, registry))["wide"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_blob_that_is_refused_alone_holds_its_tags(
    here: Installation, registry: HostileRegistry, status: int
) -> None:
    content = Content()
    content.serve(registry)
    blob = next(b for b in content.build.content().manifests[content.arm64].blobs if b != Digest.of(b"{}"))
    registry.on("GET", f"/v2/{NAME}/blobs/{blob}", errors_reply(status, "DENIED"))
    assert set(reasons(sync(here, registry))) == {"wide", "latest"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_repository_that_closes_in_mid_sync_fails_it(
    here: Installation, registry: HostileRegistry, status: int
) -> None:
    content = Content()
    content.serve(registry)

    def close(stage: str, _run: object) -> None:
        if stage == "fetch_manifests":
            registry.on_everything(reply(status))

    with pytest.raises(RegistryError) as failed:
        sync(here, registry, before=close)
    assert not isinstance(failed.value, NotFound)


def test_a_password_that_is_refused_is_not_tried_on_everything(here: Installation, registry: HostileRegistry) -> None:
    content = Content()
    content.serve(registry)
    refusal = reply(401, headers=[("WWW-Authenticate", 'Basic realm="x"')])
    for name in ("good", "wide", "latest"):
        registry.on("HEAD", manifest_path(name), refusal)
    with pytest.raises(AuthenticationFailed):
        sync(here, registry, credentials=Credentials("alice", "wrong"), include_tags=("good", "latest", "wide"))
    with_password = [r for r in registry.requests if r.header("authorization") is not None]
    assert len(with_password) <= 2
