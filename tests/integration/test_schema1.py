"""A sync of images of Docker's schema 1: refused and held, or taken whole where the remote allows it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.errors import NothingSynced
from support.certificates import CertificateAuthority
from support.held import Held
from support.images import Blob, BuiltManifest, ContentBuilder, RepositoryContent
from support.lookalikes import known
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.memory_registry import MemoryRegistry, refusal
from support.schema1 import document, payload_of, signed
from support.syncing import Installation, new_client

NAME = "team/old"
LAYERS = {Digest.of(data): data for data in (b"empty", b"base layer", b"top layer")}
EMPTY, BASE, TOP = LAYERS


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for layer, data in LAYERS.items():
        registry.push_blob(NAME, layer, data)
    return registry


def push(registry: MemoryRegistry, **tags: list[Digest]) -> dict[str, tuple[Digest, bytes]]:
    """Tags on signed manifests with these layers: the digest that the registry tells of each, and its bytes."""
    found = {}
    for tag, layers in tags.items():
        payload = payload_of(document(layers, tag=tag))
        found[tag] = digest, data = Digest.of(payload), signed(payload)
        manifest = BuiltManifest(digest, media_types.DOCKER_SCHEMA1_SIGNED, data)
        registry.add(NAME, RepositoryContent({tag: digest}, {digest: manifest}, {}))
    return found


#: A client as the hook makes it for a remote with ``allow_schema1``.
allowing = partial(new_client, allow_schema1=True)


def test_a6_17_an_allowed_image_is_taken_whole_and_found_unchanged_afterwards(
    here: Installation, registry: MemoryRegistry
) -> None:
    pushed = push(registry, one=[TOP, EMPTY, BASE, EMPTY], two=[EMPTY, BASE])
    version = here.sync("old", registry.url, NAME, client=allowing)
    assert version is not None
    assert here.database.versions.tags(version.repository_id) == {tag: digest for tag, (digest, _) in pushed.items()}
    assert version.summary.counts()["present"] == {"docker.blob": 3, "docker.manifest": 2, "docker.tag": 2}
    for digest, data in pushed.values():
        assert here.database.contents.manifest(digest).data == data
    for layer, content in LAYERS.items():
        with here.store.open(layer) as stored:
            assert stored.read() == content
    registry.reset_counts()
    assert here.sync("old", registry.url, NAME, client=allowing) is None
    assert [request.kind for request in registry.log().select("GET")] == ["tags"]


def test_a6_17_unless_allowed_the_tags_are_held_with_what_to_do(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, one=[BASE])
    with pytest.raises(NothingSynced):
        here.sync("old", registry.url, NAME)
    assert [line for line in here.lines if "one is held" in line and "allow_schema1" in line]


def test_a6_17_a_layer_that_is_missing_holds_its_tag_and_removes_nothing(
    here: Installation, registry: MemoryRegistry
) -> None:
    pushed = push(registry, one=[BASE], two=[TOP])
    here.sync("old", registry.url, NAME, client=allowing)
    push(registry, one=[EMPTY], two=[BASE])
    registry.on("HEAD", "blob", EMPTY, refusal(404))
    version = here.sync("old", registry.url, NAME, client=allowing)
    assert version is not None
    tags = here.database.versions.tags(version.repository_id)
    assert tags["one"] == pushed["one"][0]
    assert tags["two"] != pushed["two"][0]


def test_a6_17_a_response_as_plain_text_and_without_a_digest_is_accepted(here: Installation, tmp_path: Path) -> None:
    """As old images come from Red Hat's; beside an image of today."""
    certificate = CertificateAuthority(tmp_path / "ca").server(hosts=HOSTS)
    payload = payload_of(document([TOP, EMPTY, BASE], tag="old"))
    old = BuiltManifest(Digest.of(payload), media_types.DOCKER_SCHEMA1_SIGNED, signed(payload), blobs=tuple(LAYERS))
    build = ContentBuilder(seed=77)
    build.tag("new", build.image([build.blob(200)]))
    new = build.content()
    blobs = {digest: Blob.of(data) for digest, data in LAYERS.items()}
    content = new.merged(RepositoryContent({"old": old.digest}, {old.digest: old}, blobs))
    with LookAlikeServer(known.RED_HAT, content, certificate) as server:
        version = here.sync(
            "red-hat", server.url, known.RED_HAT.repository, client=partial(server.client, allow_schema1=True)
        )
    assert version is not None
    held = Held.read(here.database, here.store, "red-hat")
    assert held.tags == content.tags
    assert held.manifests[old.digest] == (media_types.DOCKER_SCHEMA1_SIGNED, old.data)
    assert held.blobs == {digest: blob.data for digest, blob in content.blobs.items()}
    assert server.witness.violations == []
