"""Stores that speak like S3 and are none: what was written is what is stored, or nothing is and an error says why."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from registry_sync.blobs.layout import blob_name
from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import reclaim_blobs
from support.blob_stores import MEBIBYTE, SMALL, put, stored
from support.certificates import CertificateAuthority
from support.hostile_object_store import HostileObjectStore, hostile_object_store
from support.images import Blob
from support.metadata import Upstream, image, sync
from support.object_store import S3Server
from support.stored_texts import keep_texts

PARTED = 2 * MEBIBYTE + MEBIBYTE // 2
SIZES = pytest.mark.parametrize("size_bytes", [SMALL, PARTED], ids=["small", "parted"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostileObjectStore, S3Server]]:
    certificate = CertificateAuthority(tmp_path_factory.mktemp("authority")).server()
    with hostile_object_store(certificate) as found:
        yield found


@pytest.fixture
def server(running: tuple[HostileObjectStore, S3Server]) -> Iterator[HostileObjectStore]:
    """The server, well-behaved at the start of each test."""
    yield running[0]
    running[0].reset()
    running[1].forget()


@pytest.fixture
def url(
    running: tuple[HostileObjectStore, S3Server], server: HostileObjectStore, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Where an empty store is."""
    monkeypatch.setitem(fsspec.config.conf, "s3", running[1].options)
    return f"s3://{running[1].new_bucket()}/prefix"


@pytest.fixture
def store(url: str, tmp_path: Path) -> BlobStore:
    """A store whose parts are of 1 MiB."""
    return open_blob_store(url, spool_folder=tmp_path / "spool", part_bytes=MEBIBYTE)


def names(url: str) -> list[str]:
    """Every object in the store."""
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    return sorted(name.removeprefix(f"{root}/") for name in filesystem.find(root))


@SIZES
def test_a_store_that_keeps_the_framing_of_checksums_is_sent_none(
    server: HostileObjectStore, url: str, store: BlobStore, size_bytes: int
) -> None:
    server.keeps_framing = True
    blob = Blob.random(1, size_bytes)
    put(store, blob)
    assert stored(store, blob) == blob.data
    assert names(url) == [blob_name(blob.digest)]


@SIZES
def test_bytes_that_were_framed_and_kept_so_are_noticed_before_they_count_as_stored(
    server: HostileObjectStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """Checksums are configured, which are framed over TLS."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    store = open_blob_store(url, spool_folder=tmp_path / "spool", part_bytes=MEBIBYTE)
    server.keeps_framing = True
    blob = Blob.random(2, size_bytes)
    with pytest.raises(BlobStoreError, match=r"keeps .* bytes of a file to which .* were written") as caught:
        put(store, blob)
    assert not caught.value.is_temporary
    assert not store.has(blob.digest)
    assert names(url) == []
    server.keeps_framing = False
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_a_configuration_of_fsspec_goes_before_our_own(
    running: tuple[HostileObjectStore, S3Server], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"request_checksum_calculation": "when_supported", "retries": {"max_attempts": 2}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {**running[1].options, "config_kwargs": config})
    running[0].keeps_framing = True
    with pytest.raises(BlobStoreError, match="were written"):
        put(open_blob_store(url, spool_folder=tmp_path / "spool"), Blob.random(3, SMALL))


def test_what_a_store_does_not_show_after_it_was_written_is_tried_again(
    server: HostileObjectStore, store: BlobStore
) -> None:
    blob = Blob.random(4, SMALL)
    hidden = server.refuse("HEAD", "/sha256/", 404, "NoSuchKey")
    listed = server.refuse("GET", "list-type=2", 404, "NoSuchKey")
    with pytest.raises(BlobStoreUnavailable, match="does not show a file that was just written"):
        put(store, blob)
    hidden.count = listed.count = 0
    put(store, blob)
    assert stored(store, blob) == blob.data


@pytest.mark.parametrize(("status", "code"), [(400, "MissingContentMD5"), (501, "NotImplemented")])
def test_where_many_cannot_be_removed_at_once_parts_are_removed_one_by_one(
    server: HostileObjectStore, url: str, store: BlobStore, status: int, code: str
) -> None:
    server.refuse("POST", "?delete", status, code)
    blobs = [Blob.random(seed, PARTED) for seed in (5, 6)]
    for blob in blobs:
        put(store, blob)
    assert names(url) == sorted(blob_name(blob.digest) for blob in blobs)
    assert server.count("POST", "?delete") == 1, "it is not asked again"
    assert server.count("DELETE") == 6


def test_what_is_broken_is_quarantined_where_many_cannot_be_removed_at_once(
    server: HostileObjectStore, url: str, store: BlobStore
) -> None:
    server.refuse("POST", "?delete", 400, "MissingContentMD5")
    blob = Blob.random(7, SMALL)
    put(store, blob)
    assert store.quarantine(blob.digest)
    assert names(url) == [f".quarantine/sha256-{blob.digest.encoded}"]


@pytest.mark.parametrize("is_all_at_once", [True, False], ids=["at-once", "one-by-one"])
def test_parts_that_cannot_be_removed_are_reported_and_go_with_the_next_sweep(
    server: HostileObjectStore,
    url: str,
    store: BlobStore,
    caplog: pytest.LogCaptureFixture,
    is_all_at_once: bool,
) -> None:
    """A blob that is stored and has all of its parts beside it takes its room twice."""
    if not is_all_at_once:
        server.refuse("POST", "?delete", 501, "NotImplemented")
    else:
        server.refuse("POST", "?delete", 403, "AccessDenied")
    locked = server.refuse("DELETE", "/.partials/", 403, "AccessDenied")
    blob = Blob.random(8, PARTED)
    with caplog.at_level(logging.WARNING, "registry_sync"):
        put(store, blob)
    assert stored(store, blob) == blob.data
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("registry_sync")]
    assert blob.digest in said
    assert "3 of 3 files could not be removed" in said
    assert len(names(url)) == 4
    with pytest.raises(BlobStoreError, match="1 resumable downloads could not be removed"):
        store.sweep_resumables(7 * 86400)
    locked.count = 0
    assert store.sweep_resumables(7 * 86400) == 1
    assert names(url) == [blob_name(blob.digest)]


def test_a_sweep_leaves_parts_that_were_written_after_their_blob_was(url: str, store: BlobStore) -> None:
    """Somebody writes the blob again, because it was found to be broken."""
    blob = Blob.random(9, PARTED)
    put(store, blob)
    time.sleep(1.1)  # S3 counts seconds
    with store.writer(blob.digest, PARTED) as writer:
        writer.write(blob.data[: MEBIBYTE + 5])
    assert store.sweep_resumables(7 * 86400) == 0
    assert len(names(url)) == 3


def test_one_part_that_cannot_be_removed_keeps_no_sweep_from_the_others(
    server: HostileObjectStore, url: str, store: BlobStore
) -> None:
    blobs = [Blob.random(seed, PARTED) for seed in (10, 11, 12)]
    for blob in blobs:
        with store.writer(blob.digest, PARTED) as writer:
            writer.write(blob.data[: MEBIBYTE + 5])
    server.refuse("POST", "?delete", 501, "NotImplemented")
    stuck = min(blob.digest for blob in blobs)
    server.refuse("DELETE", stuck.encoded, 403, "AccessDenied")
    with pytest.raises(BlobStoreError, match="1 resumable downloads could not be removed; any others were"):
        store.sweep_resumables(0)
    assert {name.split("/")[1] for name in names(url)} == {stuck.replace(":", "-")}


@pytest.mark.parametrize(
    ("status", "code", "size_bytes"),
    [
        (507, "InsufficientStorage", SMALL),
        (507, "XMinioStorageFull", PARTED),
        (400, "XMinioAdminBucketQuotaExceeded", SMALL),
        (403, "QuotaExceeded", PARTED),
        (403, "StorageCapExceeded", SMALL),
        (507, "NobodyKnowsThis", SMALL),
    ],
)
def test_a_store_without_room_is_full(
    server: HostileObjectStore, url: str, store: BlobStore, status: int, code: str, size_bytes: int
) -> None:
    kept, blob = Blob.random(13, SMALL), Blob.random(14, size_bytes)
    put(store, kept)
    full = server.refuse("PUT", "", status, code)
    with pytest.raises(BlobStoreFull, match="raise the quota"):
        put(store, blob)
    assert names(url) == [blob_name(kept.digest)]
    full.count = 0
    put(store, blob)
    assert stored(store, blob) == blob.data


def test_a_store_that_is_full_when_its_parts_are_joined_is_not_sent_the_blob_again(
    server: HostileObjectStore, url: str, store: BlobStore
) -> None:
    server.refuse("POST", "uploadId=", 507, "XMinioStorageFull")
    blob = Blob.random(15, PARTED)
    with pytest.raises(BlobStoreFull):
        put(store, blob)
    assert names(url) == [], "what it was writing is given up"
    sent = [request for request in server.requests if request.startswith("PUT ") and "uploadId=" not in request]
    assert len(sent) == 4, "the bucket, and three parts"
    assert server.count("PUT", "/.partials/") == 3


def test_what_may_not_be_deleted_keeps_no_collection_from_the_rest_and_no_repair_from_its_bytes(
    server: HostileObjectStore, store: BlobStore, tmp_path: Path
) -> None:
    """An account without the right to delete: a broken blob cannot be quarantined, and is replaced nevertheless."""
    texts = ("one", "two", "config")
    one = keep_texts(store, *texts)[0]
    with Database.connect(f"sqlite:///{tmp_path}/registry_sync.db") as database:
        database.ready()
        upstream = Upstream()
        upstream.tag("latest", image(*texts[:-1], config=texts[-1]))
        repository = database.repositories.ensure("app")
        sync(database, repository, upstream)
        server.refuse("DELETE", one.encoded, 403, "AccessDenied")
        server.refuse("POST", "?delete", 403, "AccessDenied")
        with store.writer(one, 3, replaces=True) as writer:
            writer.write(b"one")
            writer.commit()
        assert store.has(one)
        with pytest.raises(BlobStoreError, match=f"1 could not be removed, .*{one}.*refuses"):
            reclaim_blobs(database, store, [repository.id], report=lambda _line: None)
        assert list(store.digests()) == [one]
        with pytest.raises(BlobStoreError, match="refuses"):
            store.quarantine(one)


def test_an_upload_that_cannot_be_aborted_is_reported(
    server: HostileObjectStore, store: BlobStore, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuse("POST", "uploadId=", 400, "InvalidPart", count=1)
    server.refuse("DELETE", "uploadId=", 403, "AccessDenied", count=1)
    blob = Blob.random(16, PARTED)
    with caplog.at_level(logging.WARNING, "registry_sync"):
        put(store, blob)
    assert stored(store, blob) == blob.data
    assert "could not be aborted" in caplog.text
