"""The client against a real registry: all there is, byte for byte, with as few requests as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.errors import AuthenticationFailed, NotFound, RepositoryUnavailable, ServerUnavailable
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support import shapes
from support.filling import place
from support.images import RepositoryContent
from support.oci import FakeTime, MemoryWriter
from support.registry import PASSWORD, USERNAME, RegistryServer

REPOSITORY = RepositoryName("team/every-kind")


@pytest.fixture(scope="module")
def content() -> RepositoryContent:
    return shapes.every_kind()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, content: RepositoryContent) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as running:
        place(running, REPOSITORY, content)
        yield running


@pytest.fixture
def client(server: RegistryServer) -> Iterator[RegistryClient]:
    server.reset_counts()
    with RegistryClient(RegistryUrl.parse(server.url)) as opened:
        yield opened


def test_every_tag_is_listed_and_every_head_reports_its_digest(
    server: RegistryServer, client: RegistryClient, content: RepositoryContent
) -> None:
    listing = client.list_tags(REPOSITORY)
    assert set(listing.tags) == set(content.tags)
    heads = {tag: client.head_manifest(REPOSITORY, tag) for tag in listing.tags}
    assert {str(tag): head.digest for tag, head in heads.items()} == dict(content.tags)
    for head in heads.values():
        assert head.digest is not None
        built = content.manifests[head.digest]
        assert (head.media_type, head.size_bytes) == (built.media_type, len(built.data))
    log = server.log()
    assert (log.tag_page_count, log.manifest_head_count, log.manifest_get_count) == (1, len(content.tags), 0)
    assert (client.usage.counts().tag_page_count, client.usage.counts().head_count) == (1, len(content.tags))


def test_every_manifest_and_blob_arrives_byte_for_byte(
    server: RegistryServer, client: RegistryClient, content: RepositoryContent
) -> None:
    manifests: dict[Digest, Manifest] = {}
    waiting: list[tuple[Digest, Descriptor | None]] = [(digest, None) for digest in content.tags.values()]
    while waiting:
        digest, expected = waiting.pop()
        if digest in manifests:
            continue
        manifests[digest] = manifest = client.get_manifest(REPOSITORY, digest, expected=expected)
        waiting += [(child.digest, child) for child in manifest.children]
    assert {digest: manifest.data for digest, manifest in manifests.items()} == {
        digest: content.manifests[digest].data for digest in manifests
    }
    blobs = {
        blob.digest: blob for manifest in manifests.values() for _, blob in manifest.blobs() if not blob.is_foreign
    }

    def fetch(blob: Descriptor) -> bytes | None:
        writer = MemoryWriter(blob)
        client.fetch_blob(REPOSITORY, blob, writer)
        return writer.published

    with ThreadPoolExecutor(8) as threads:
        fetched = dict(zip(blobs, threads.map(fetch, blobs.values()), strict=True))
    assert fetched == {digest: content.blobs[digest].data for digest in blobs}
    assert server.log().blob_get_count == client.usage.counts().blob_get_count


def test_a_blob_is_continued_with_a_range(server: RegistryServer, client: RegistryClient) -> None:
    builder = shapes.big(0.001)
    place(server, "team/big", builder)
    blob = max(builder.blobs.values(), key=lambda blob: blob.size_bytes)
    descriptor = Descriptor("application/octet-stream", blob.digest, blob.size_bytes)
    writer = MemoryWriter(descriptor, blob.data[:1000])
    assert client.fetch_blob(RepositoryName("team/big"), descriptor, writer) == blob.size_bytes - 1000
    assert writer.published == blob.data
    (request,) = server.log().select("GET", "blob")
    assert request.status == 206


def test_what_is_missing_is_reported_by_its_kind(client: RegistryClient) -> None:
    nowhere = Digest.of(b"nowhere")
    with pytest.raises(NotFound) as tag:
        client.get_manifest(REPOSITORY, TagName("nowhere"))
    with pytest.raises(NotFound) as blob:
        client.fetch_blob(REPOSITORY, Descriptor("x/y", nowhere, 5), MemoryWriter(Descriptor("x/y", nowhere, 5)))
    with pytest.raises(NotFound) as repository:
        client.list_tags(RepositoryName("team/nowhere"))
    assert [raised.value.kind for raised in (tag, blob, repository)] == ["manifest", "blob", "repository"]


def test_more_tags_than_a_page_holds_are_listed_whole(server: RegistryServer, client: RegistryClient) -> None:
    place(server, "team/many", shapes.many_tags(tags=1001, images=3))
    assert len(client.list_tags(RepositoryName("team/many")).tags) == 1001


def test_a_password_is_requested_and_learnt_once(tmp_path: Path, content: RepositoryContent) -> None:
    options = ClientOptions(allow_insecure_credentials=True)
    with RegistryServer(tmp_path / "registry", basic_auth=True) as server:
        place(server, REPOSITORY, content)
        server.reset_counts()
        url = RegistryUrl.parse(server.url)
        with RegistryClient(url, Credentials(USERNAME, PASSWORD), options) as client:
            for tag in client.list_tags(REPOSITORY).tags:
                client.head_manifest(REPOSITORY, tag)
        assert [request.status for request in server.log().requests].count(401) == 1
        with (
            RegistryClient(url, Credentials(USERNAME, "-"), options) as client,
            pytest.raises(AuthenticationFailed),
        ):
            client.list_tags(REPOSITORY)
        with RegistryClient(url) as client, pytest.raises(RepositoryUnavailable):
            client.list_tags(REPOSITORY)


def test_a_registry_that_is_stopped_and_started_is_met_again(tmp_path: Path, content: RepositoryContent) -> None:
    with RegistryServer(tmp_path / "registry") as server:
        place(server, REPOSITORY, content)
        fake_time = FakeTime()
        options = ClientOptions(max_attempts=3)
        with RegistryClient(RegistryUrl.parse(server.url), options=options, clock=fake_time.clock) as client:
            tags = client.list_tags(REPOSITORY).tags
            server.stop()
            with pytest.raises(ServerUnavailable):
                client.list_tags(REPOSITORY)
            server.start()
            assert client.list_tags(REPOSITORY).tags == tags
