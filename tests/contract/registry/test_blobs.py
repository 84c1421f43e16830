"""Blobs into a writer: whole and verified, continued from where they broke off, or an error and nothing published."""

from __future__ import annotations

import pytest

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName
from support.filling import push
from support.images import Blob, ContentBuilder, RepositoryContent
from support.memory_over_http import over_http
from support.memory_registry import HELD, NO_RESPONSE, Held, MemoryRegistry, MemoryResponse, refusal
from support.oci import MemoryWriter
from support.registry_sources import Source, error_of

DATA = Blob.random(3, 5000).data


def descriptor_of(data: bytes, **more: object) -> Descriptor:
    return Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(data), len(data), **more)  # type: ignore[arg-type]


BLOB = descriptor_of(DATA)


def content(*blobs: bytes) -> RepositoryContent:
    build = ContentBuilder(seed=3)
    build.tag("v1", build.image([build.blob_of(data) for data in blobs]))
    return build.content()


@pytest.mark.parametrize("data", [b"", b"{}", b"one", DATA, Blob.random(4, 3_000_000).data], ids=len)
def test_a_blob_arrives_whole_and_its_bytes_are_counted(source: Source, name: RepositoryName, data: bytes) -> None:
    push(source.registry, name, content(data))
    reader, writer = source.reader(), MemoryWriter(descriptor_of(data))
    received = reader.fetch_blob(name, writer.blob, writer)
    assert writer.published == data
    counts = reader.usage.counts()
    is_known = data == b"{}"
    assert received == counts.received_bytes == (0 if is_known else len(data))
    assert counts.blob_get_count == (0 if is_known else 1)


@pytest.mark.parametrize("offset", [1, 2500, 4999, 5000])
def test_what_is_there_is_not_fetched_again(source: Source, name: RepositoryName, offset: int) -> None:
    push(source.registry, name, content(DATA))
    reader, writer = source.reader(), MemoryWriter(BLOB, DATA[:offset])
    assert reader.fetch_blob(name, BLOB, writer) == len(DATA) - offset
    assert (writer.published, writer.restart_count) == (DATA, 0)
    assert reader.usage.counts().blob_get_count == (0 if offset == len(DATA) else 1)


def test_a_beginning_that_is_another_blobs_is_thrown_away(source: Source, name: RepositoryName) -> None:
    push(source.registry, name, content(DATA))
    reader, writer = source.reader(), MemoryWriter(BLOB, b"x" * 100)
    assert reader.fetch_blob(name, BLOB, writer) == 2 * len(DATA) - 100
    assert (writer.published, writer.restart_count) == (DATA, 1)
    assert reader.usage.counts().blob_get_count == 2


def test_a_blob_that_is_not_there_is_named(source: Source, name: RepositoryName) -> None:
    push(source.registry, name, content(b"another"))
    reader, writer = source.reader(), MemoryWriter(BLOB)
    assert error_of(lambda: reader.fetch_blob(name, BLOB, writer)) == {
        "type": "NotFound",
        "kind": "blob",
        "status": 404,
        "codes": ("BLOB_UNKNOWN",),
        "repository": name,
        "is_temporary": False,
    }
    assert writer.published is None
    assert reader.usage.counts().blob_get_count == 1


def test_bytes_that_a_descriptor_carries_are_not_requested(source: Source, name: RepositoryName) -> None:
    reader, writer = source.reader(), MemoryWriter(BLOB)
    assert reader.fetch_blob(name, descriptor_of(DATA, inline=DATA), writer) == 0
    assert writer.published == DATA
    assert reader.usage.counts().blob_get_count == 0


def test_an_algorithm_that_cannot_be_verified_is_refused_before_anything_is_requested(
    source: Source, name: RepositoryName
) -> None:
    blob = Descriptor(media_types.OCI_LAYER_GZIP, Digest("md5:" + "0" * 32), 5)
    reader = source.reader()
    assert error_of(lambda: reader.fetch_blob(name, blob, MemoryWriter(blob)))["type"] == "UnsupportedDigest"
    assert reader.usage.counts().blob_get_count == 0


def test_a_body_that_breaks_off_is_continued(scripted: Source, name: RepositoryName) -> None:
    push(scripted.registry, name, content(DATA))
    scripted.registry.on("GET", "blob", BLOB.digest, Held(breaks_after=2000), Held(breaks_after=2500), HELD)
    reader, writer = scripted.reader(), MemoryWriter(BLOB)
    assert reader.fetch_blob(name, BLOB, writer) == len(DATA)
    assert (writer.published, writer.restart_count) == (DATA, 0)
    counts = reader.usage.counts()
    assert (counts.blob_get_count, counts.retry_count, counts.received_bytes) == (3, 2, len(DATA))


def test_a_body_that_breaks_off_again_and_again_is_an_error_and_leaves_what_came(
    scripted: Source, name: RepositoryName
) -> None:
    push(scripted.registry, name, content(DATA))
    scripted.registry.on("GET", "blob", BLOB.digest, *(Held(breaks_after=10) for _ in range(4)))
    writer = MemoryWriter(BLOB)
    assert error_of(lambda: scripted.reader().fetch_blob(name, BLOB, writer)) == {
        "type": "TruncatedBody",
        "is_temporary": True,
    }
    assert (bytes(writer.data), writer.published) == (DATA[:30], None)


def test_other_bytes_than_the_digest_says_are_fetched_once_more(scripted: Source, name: RepositoryName) -> None:
    push(scripted.registry, name, content(DATA))
    other = MemoryResponse(data=bytes(len(DATA)))
    scripted.registry.on("GET", "blob", BLOB.digest, other, HELD)
    reader, writer = scripted.reader(), MemoryWriter(BLOB)
    assert reader.fetch_blob(name, BLOB, writer) == 2 * len(DATA)
    assert writer.published == DATA
    scripted.registry.on("GET", "blob", BLOB.digest, other)
    reader, writer = scripted.reader(), MemoryWriter(BLOB)
    error = error_of(lambda: reader.fetch_blob(name, BLOB, writer))
    assert (error["type"], error["digest"], error["is_temporary"]) == ("DigestMismatch", BLOB.digest, False)
    assert writer.published is None
    assert reader.usage.counts().blob_get_count == 2


@pytest.mark.parametrize("length", [4999, 5001])
def test_another_length_than_the_descriptor_says_is_refused(
    scripted: Source, name: RepositoryName, length: int
) -> None:
    scripted.registry.on("GET", "blob", BLOB.digest, MemoryResponse(data=bytes(length)))
    reader, writer = scripted.reader(), MemoryWriter(BLOB)
    assert error_of(lambda: reader.fetch_blob(name, BLOB, writer)) == {
        "type": "SizeMismatch",
        "digest": BLOB.digest,
        "expected": 5000,
        "got": length,
        "is_temporary": False,
    }
    assert reader.usage.counts().received_bytes == 0


def test_a_registry_that_sends_all_of_it_where_a_part_was_requested_is_read_from_the_beginning(
    scripted: Source, name: RepositoryName
) -> None:
    scripted.registry.on("GET", "blob", BLOB.digest, MemoryResponse(data=DATA))
    reader, writer = scripted.reader(), MemoryWriter(BLOB, DATA[:100])
    assert reader.fetch_blob(name, BLOB, writer) == len(DATA)
    assert (writer.published, writer.restart_count) == (DATA, 1)


@pytest.mark.parametrize(
    "first", [NO_RESPONSE, refusal(503), refusal(429, retry_after_seconds=2)], ids=lambda r: r.status
)
def test_a_blob_that_is_not_given_at_first_is_requested_again(
    scripted: Source, name: RepositoryName, first: MemoryResponse
) -> None:
    push(scripted.registry, name, content(DATA))
    scripted.registry.on("GET", "blob", BLOB.digest, first, HELD)
    reader, writer = scripted.reader(), MemoryWriter(BLOB)
    reader.fetch_blob(name, BLOB, writer)
    assert writer.published == DATA
    counts = reader.usage.counts()
    assert (counts.blob_get_count, counts.retry_count) == (2, 1)


def test_a_blob_that_the_registry_lacks_comes_from_the_urls_of_its_descriptor_where_that_is_allowed(
    scripted: Source, name: RepositoryName
) -> None:
    push(scripted.registry, name, content(b"another"))
    elsewhere = MemoryRegistry()
    elsewhere.push_blob("layers", BLOB.digest, DATA)
    with over_http(elsewhere) as server:
        place = server.base if scripted.is_real else elsewhere.url
        urls = ("ftp://elsewhere.test/x", f"{place}/v2/layers/blobs/{BLOB.digest}")
        foreign = descriptor_of(DATA, urls=urls)
        writer = MemoryWriter(BLOB)
        assert error_of(lambda: scripted.reader().fetch_blob(name, foreign, writer))["type"] == "NotFound"
        reader = scripted.reader(follow_foreign_urls=True)
        assert reader.fetch_blob(name, foreign, writer) == len(DATA)
        assert writer.published == DATA
        assert reader.usage.counts().blob_get_count == 2
        nowhere = descriptor_of(DATA, urls=urls[:1])
        error = error_of(lambda: reader.fetch_blob(name, nowhere, MemoryWriter(BLOB)))
        assert (error["type"], error["is_temporary"]) == ("RedirectRefused", False)
