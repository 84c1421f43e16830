"""Blobs arrive whole, verified and as raw bytes, from wherever the last attempt left them."""

from __future__ import annotations

import gzip
import random
import threading
import time
import zlib

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.errors import (
    DigestMismatch,
    LimitExceeded,
    NotFound,
    RedirectRefused,
    RegistrySyncError,
    SizeMismatch,
    TruncatedBody,
    UnsupportedDigest,
)
from registry_sync.oci.auth.credentials import Credentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter

DATA = random.Random(7).randbytes(3_000_000)
SIZE = len(DATA)
HALF = 1_600_000


def descriptor(data: bytes = DATA, size_bytes: int | None = None) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data) if size_bytes is None else size_bytes)


BLOB = descriptor()
PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"


def path(blob: Descriptor) -> str:
    return f"/v2/{REPOSITORY}/blobs/{blob.digest}"


def part(start: int, data: bytes = DATA, *, content_range: str | None = None, **options: object) -> Raw:
    value = content_range or f"bytes {start}-{len(data) - 1}/{len(data)}"
    return reply(206, data[start:], [("Content-Range", value)], **options)  # type: ignore[arg-type]


def cut_at(end: int, *headers: tuple[str, str]) -> Raw:
    """An honest response that breaks off after ``end`` bytes."""
    return reply(200, DATA[:end], headers, length=SIZE, cut=True)


def honest(request: Request) -> Raw:
    """A registry that knows ranges."""
    asked = request.header("range")
    return part(int(asked.removeprefix("bytes=").removesuffix("-"))) if asked else reply(200, DATA)


def fetched(registry: HostileRegistry, client_of, blob: Descriptor = BLOB, already: bytes = b"", **options: object):  # type: ignore[no-untyped-def]
    writer = MemoryWriter(blob, already)
    client = client_of(registry, **options)
    client.fetch_blob(REPOSITORY, blob, writer)
    return writer, client


def test_a_blob_arrives(registry, client_of) -> None:
    registry.on("GET", PATH, honest)
    writer, client = fetched(registry, client_of)
    assert writer.published == DATA
    assert client.usage.counts().blob_get_count == 1
    assert client.usage.counts().received_bytes == SIZE
    assert registry.requests[0].header("range") is None


def test_what_came_over_the_network_is_counted(registry, client_of) -> None:
    registry.on("GET", PATH, cut_at(HALF), honest)
    writer = MemoryWriter(BLOB)
    assert client_of(registry).fetch_blob(REPOSITORY, BLOB, writer) == SIZE


@pytest.mark.parametrize("chunked", [False, True])
def test_a5_10_a_body_without_length_ends_where_the_descriptor_says(registry, client_of, chunked: bool) -> None:
    if chunked:
        body = b"".join(
            b"%x\r\n%s\r\n" % (len(DATA[i : i + 99_999]), DATA[i : i + 99_999]) for i in range(0, SIZE, 99_999)
        )
        response = Raw((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body, b"0\r\n\r\n"), closes=False)
    else:
        response = reply(200, DATA, length=None)
    registry.on("GET", PATH, response)
    writer, _ = fetched(registry, client_of)
    assert writer.published == DATA


@pytest.mark.parametrize(
    "broken",
    [
        cut_at(HALF),
        reply(200, DATA[:HALF], length=None),
        Raw((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % SIZE, DATA[:HALF])),
    ],
)
def test_a5_10_every_kind_of_truncation_is_noticed_and_continued(registry, client_of, broken: Raw) -> None:
    registry.on("GET", PATH, broken, honest)
    writer, client = fetched(registry, client_of)
    assert writer.published == DATA
    assert writer.restart_count == 0
    assert registry.requests[1].header("range") == f"bytes={HALF}-"
    assert client.usage.counts().retry_count == 1


def test_a5_11_a_writer_that_has_something_is_continued(registry, client_of) -> None:
    registry.on("GET", PATH, honest)
    writer, client = fetched(registry, client_of, already=DATA[:HALF])
    assert writer.published == DATA
    assert registry.requests[0].header("range") == f"bytes={HALF}-"
    assert client.usage.counts().received_bytes == SIZE - HALF


def test_a5_11_a_writer_that_has_everything_requires_no_request(registry, client_of) -> None:
    writer, _ = fetched(registry, client_of, already=DATA)
    assert writer.published == DATA
    assert registry.requests == []


def test_a5_11_a_strong_etag_is_sent_along_and_a_weak_one_not(registry, client_of) -> None:
    registry.on("GET", PATH, cut_at(HALF, ("ETag", '"strong"')), honest)
    fetched(registry, client_of)
    registry.on("GET", PATH, cut_at(HALF, ("ETag", 'W/"weak"')), honest)
    fetched(registry, client_of)
    assert [request.header("if-range") for request in registry.requests] == [None, '"strong"', None, None]


def test_a5_11_a_registry_that_ignores_ranges_starts_from_zero(registry, client_of) -> None:
    registry.on("GET", PATH, reply(200, DATA))
    writer, _ = fetched(registry, client_of, already=DATA[:HALF])
    assert writer.published == DATA
    assert writer.restart_count == 1
    assert len(registry.requests) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        part(HALF, content_range=f"bytes {HALF + 1}-{SIZE - 1}/{SIZE}"),
        part(HALF, content_range=f"bytes {HALF}-{SIZE - 2}/{SIZE}"),
        part(HALF, content_range=f"bytes {HALF}-{SIZE - 1}/{SIZE + 1}"),
        part(HALF, content_range=f"bytes {HALF}-{SIZE - 1}"),
        part(HALF, content_range=f"bytes={HALF}-{SIZE - 1}/{SIZE}"),
        part(HALF, content_range=f"bytes {HALF}-{SIZE - 1}/{SIZE}, bytes 0-1/2"),
        reply(206, DATA[HALF:]),
        reply(206, b"--x\r\n", content_type="multipart/byteranges; boundary=x"),
        reply(416),
    ],
)
def test_a5_11_a_part_that_does_not_continue_what_exists_starts_again(registry, client_of, wrong: Raw) -> None:
    registry.on("GET", PATH, wrong, honest)
    writer, _ = fetched(registry, client_of, already=DATA[:HALF])
    assert writer.published == DATA
    assert writer.restart_count == 1
    assert registry.requests[1].header("range") is None


def test_a5_11_a_total_that_is_not_reported_is_fine(registry, client_of) -> None:
    registry.on("GET", PATH, part(HALF, content_range=f"bytes {HALF}-{SIZE - 1}/*"))
    writer, _ = fetched(registry, client_of, already=DATA[:HALF])
    assert writer.published == DATA


def test_a5_11_a_part_that_nobody_requested_is_refused(registry, client_of) -> None:
    registry.on("GET", PATH, part(0))
    with pytest.raises(RegistrySyncError, match="another range"):
        fetched(registry, client_of)


def test_a5_11_a_part_of_another_object_is_noticed_by_the_digest(registry, client_of) -> None:
    registry.on("GET", PATH, part(HALF, bytes(SIZE)), honest)
    writer, _ = fetched(registry, client_of, already=DATA[:HALF])
    assert writer.published == DATA
    assert len(registry.requests) == 2


def test_a5_08_wrong_bytes_are_fetched_once_more_and_then_refused(registry, client_of) -> None:
    registry.on("GET", PATH, reply(200, bytes(SIZE)))
    with pytest.raises(DigestMismatch):
        fetched(registry, client_of)
    assert len(registry.requests) == 2


def test_a5_08_an_endless_body_is_left_at_one_byte_too_many(registry, client_of) -> None:
    blob = descriptor(b"0123456789")
    endless = Raw((b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000_000] * 300))
    registry.on("GET", path(blob), endless)
    client = client_of(registry)
    with pytest.raises(SizeMismatch):
        client.fetch_blob(REPOSITORY, blob, MemoryWriter(blob))
    assert client.usage.counts().received_bytes < 50_000_000


@pytest.mark.parametrize("declared", [SIZE - 1, SIZE + 1, 10_000_000_000])
def test_a5_09_another_declared_length_is_refused_before_anything_is_read(registry, client_of, declared: int) -> None:
    registry.on("GET", PATH, reply(200, b"x", length=declared, cut=True))
    client = client_of(registry)
    with pytest.raises(SizeMismatch):
        client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert client.usage.counts().received_bytes == 0


def test_a5_12_a_registry_that_gives_little_by_little_is_given_up(registry, client_of) -> None:
    def one_more(request: Request) -> Raw:
        start = int((request.header("range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        head = f"HTTP/1.1 {206 if start else 200} X\r\nContent-Length: {SIZE - start}\r\n"
        head += f"Content-Range: bytes {start}-{SIZE - 1}/{SIZE}\r\n\r\n" if start else "\r\n"
        return Raw((head.encode(), DATA[start : start + 1]))

    registry.on("GET", PATH, one_more)
    with pytest.raises(TruncatedBody):
        fetched(registry, client_of)
    assert len(registry.requests) == 4


def test_a5_12_attempts_that_get_on_are_not_counted(registry, client_of) -> None:
    blob = descriptor(DATA * 4)

    def by_pieces(request: Request) -> Raw:
        start = int((request.header("range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        head = f"HTTP/1.1 {206 if start else 200} X\r\nContent-Length: {4 * SIZE - start}\r\n"
        head += f"Content-Range: bytes {start}-{4 * SIZE - 1}/{4 * SIZE}\r\n\r\n" if start else "\r\n"
        return Raw((head.encode(), (DATA * 4)[start : start + 1_100_000]))

    registry.on("GET", path(blob), by_pieces)
    writer, client = fetched(registry, client_of, blob, max_attempts=3)
    assert writer.published == DATA * 4
    assert client.usage.counts().retry_count == 10


def test_a5_13_a_blob_that_drips_is_broken_off_and_continued(registry, client_of) -> None:
    drips = Raw((b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE, *[DATA[:1], 0.02] * 500))
    registry.on("GET", PATH, drips, honest)
    options = {"minimum_bytes_per_second": 1000, "throughput_window_seconds": 0.2}
    writer, client = fetched(registry, client_of, real_time=True, **options)
    assert writer.published == DATA
    assert client.usage.counts().retry_count == 1


def test_a5_13_a_slow_writer_is_not_the_registrys_fault(registry, client_of, fake_time: FakeTime) -> None:
    class Slow(MemoryWriter):
        def write(self, chunk: bytes | memoryview, /) -> None:
            fake_time.elapsed += 1000
            super().write(chunk)

    registry.on("GET", PATH, honest)
    client = client_of(registry)
    client.fetch_blob(REPOSITORY, BLOB, Slow(BLOB))
    assert client.usage.counts().retry_count == 0


def test_a5_13_headers_that_drip_are_given_up(registry, client_of) -> None:
    """Each byte comes in time, all of them do not."""
    drips = Raw((b"HTTP/1.1 200 OK\r\n", *[b"X-Slow: 1\r\n", 0.05] * 200))
    registry.on("GET", PATH, drips, honest)
    started = time.monotonic()
    writer, client = fetched(registry, client_of, read_timeout_seconds=0.3)
    assert time.monotonic() - started < 5
    assert writer.published == DATA
    assert client.usage.counts().retry_count == 1


def test_a5_13_a_stalled_blob_is_continued(registry, client_of) -> None:
    stalled = Raw((b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE, DATA[:HALF], 30.0))
    registry.on("GET", PATH, stalled, honest)
    writer, _ = fetched(registry, client_of, read_timeout_seconds=0.3)
    assert writer.published == DATA
    assert registry.requests[1].header("range") == f"bytes={HALF}-"


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_a5_15_empty_blobs_are_blobs(registry, client_of, data: bytes) -> None:
    blob = descriptor(data)
    registry.on("GET", path(blob), reply(200, data))
    writer, _ = fetched(registry, client_of, blob)
    assert writer.published == data
    assert len(registry.requests) == (0 if data else 1)


def test_a5_16_inline_bytes_require_no_request(registry, client_of) -> None:
    blob = Descriptor("x/y", Digest.of(b"inline"), 6, inline=b"inline")
    writer, client = fetched(registry, client_of, blob)
    assert writer.published == b"inline"
    assert registry.requests == []
    assert client.usage.counts().blob_get_count == 0


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br", "gzip, br"])
def test_a5_07_a_blob_that_only_claims_to_be_encoded_is_kept_as_sent(registry, client_of, encoding: str) -> None:
    registry.on("GET", PATH, reply(200, DATA, [("Content-Encoding", encoding)]))
    writer, _ = fetched(registry, client_of)
    assert writer.published == DATA
    assert len(registry.requests) == 1


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("length", [-1, None])
def test_a5_07_a_blob_that_is_really_encoded_is_decoded(
    registry, client_of, encoding: str, pack, length: int | None
) -> None:  # type: ignore[no-untyped-def]
    data = b"config " * 5000
    blob = descriptor(data)
    registry.on("GET", path(blob), reply(200, pack(data), [("Content-Encoding", encoding)], length=length))
    writer, _ = fetched(registry, client_of, blob)
    assert writer.published == data


def test_a5_06_identity_is_requested_and_a_compressed_layer_stays_compressed(registry, client_of) -> None:
    layer = gzip.compress(b"layer" * 1000)
    blob = descriptor(layer)
    registry.on("GET", path(blob), reply(200, layer, [("Content-Encoding", "gzip")]))
    writer, _ = fetched(registry, client_of, blob)
    assert writer.published == layer
    assert registry.requests[0].header("accept-encoding") == "identity"


@pytest.mark.slow
def test_a5_07_a_bomb_is_not_unpacked(registry, client_of) -> None:
    blob = descriptor(b"x" * 100)
    bomb = gzip.compress(bytes(200_000_000))
    registry.on("GET", path(blob), reply(200, bomb, [("Content-Encoding", "gzip")]))
    with pytest.raises((LimitExceeded, SizeMismatch, DigestMismatch)):
        fetched(registry, client_of, blob)


def test_a5_07_what_is_neither_is_refused(registry, client_of) -> None:
    registry.on("GET", PATH, reply(200, bytes(SIZE), [("Content-Encoding", "gzip")]))
    with pytest.raises(DigestMismatch):
        fetched(registry, client_of)


def foreign(*urls: str, data: bytes = b"windows base layer") -> Descriptor:
    return Descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest.of(data), len(data), urls)


def test_a5_17_a_foreign_blob_is_not_looked_for_elsewhere_unrequested(registry, other_host, client_of) -> None:
    with pytest.raises(NotFound):
        fetched(registry, client_of, foreign(f"{other_host.base}/layer"))
    assert other_host.requests == []


def test_a5_17_a_foreign_blob_is_fetched_from_the_registry_first_and_then_without_credentials(
    registry, other_host, client_of
) -> None:
    blob = foreign(
        "file:///etc/passwd", "http://169.254.169.254/x", f"{other_host.base}/no", f"{other_host.base}/layer"
    )
    other_host.on("GET", "/layer", reply(200, b"windows base layer"))
    writer = MemoryWriter(blob)
    client = client_of(registry, Credentials(registry_token="ready-token"), follow_foreign_urls=True)
    client.fetch_blob(REPOSITORY, blob, writer)
    assert writer.published == b"windows base layer"
    assert [request.path for request in registry.requests] == [path(blob)]
    assert registry.requests[0].header("authorization") == "Bearer ready-token"
    assert {request.header("authorization") for request in other_host.requests} == {None}


def test_a5_17_foreign_bytes_are_verified_and_inner_addresses_refused(registry, other_host, client_of) -> None:
    other_host.on("GET", "/layer", reply(200, b"another base layer"))
    with pytest.raises(DigestMismatch):
        fetched(registry, client_of, foreign(f"{other_host.base}/layer"), follow_foreign_urls=True)
    with pytest.raises(RedirectRefused):
        fetched(registry, client_of, foreign("http://169.254.169.254/x"), follow_foreign_urls=True)


def test_a1_05_a_digest_that_cannot_be_verified_is_not_fetched(registry, client_of) -> None:
    blob = Descriptor("x/y", Digest("md5:0123456789abcdef0123456789abcdef"), 5)
    with pytest.raises(UnsupportedDigest):
        fetched(registry, client_of, blob)
    assert registry.requests == []


def test_a9_02_a_missing_blob_is_not_found(registry, client_of) -> None:
    registry.on("GET", PATH, errors_reply(404, "BLOB_UNKNOWN"))
    with pytest.raises(NotFound) as raised:
        fetched(registry, client_of)
    assert raised.value.kind == "blob"
    assert len(registry.requests) == 1


def test_a4_12_a_token_that_ends_in_the_middle_is_renewed_for_the_rest(registry, client_of) -> None:
    tokens = iter(["first", "second"])
    registry.on("GET", "/token", lambda _request: json_reply({"token": next(tokens)}))
    challenge = errors_reply(
        401, "UNAUTHORIZED", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')]
    )

    def response(request: Request) -> Raw:
        if request.header("authorization") == "Bearer first" and not request.header("range"):
            return cut_at(HALF)
        return honest(request) if request.header("authorization") == "Bearer second" else challenge

    registry.on("GET", PATH, response)
    writer, _ = fetched(registry, client_of)
    assert writer.published == DATA
    assert writer.restart_count == 0


def test_what_the_writer_raises_goes_through_and_lets_go_of_the_connection(registry, client_of) -> None:
    class Full(MemoryWriter):
        def write(self, chunk: bytes | memoryview, /) -> None:
            raise OSError(28, "No space left on device")

    registry.on("GET", PATH, honest)
    client = client_of(registry, concurrency=1)
    for _ in range(3):
        with pytest.raises(OSError, match="space"):
            client.fetch_blob(REPOSITORY, BLOB, Full(BLOB))
    writer = MemoryWriter(BLOB)
    client.fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA


def test_a9_08_no_more_connections_than_allowed_are_open_at_once(registry, client_of) -> None:
    small = [descriptor(b"%d" % number) for number in range(12)]
    active, peak, lock = [0], [0], threading.Lock()

    def counted(data: bytes):  # type: ignore[no-untyped-def]
        def response(_request: Request) -> Raw:
            with lock:
                active[0] += 1
                peak[0] = max(peak[0], active[0])
            threading.Event().wait(0.02)
            with lock:
                active[0] -= 1
            return reply(200, data)

        return response

    for number, blob in enumerate(small):
        registry.on("GET", path(blob), counted(b"%d" % number))
    client = client_of(registry, Credentials(), concurrency=3)
    threads = [
        threading.Thread(target=client.fetch_blob, args=(REPOSITORY, blob, MemoryWriter(blob))) for blob in small
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak[0] == 3
    assert registry.connection_count == 3
