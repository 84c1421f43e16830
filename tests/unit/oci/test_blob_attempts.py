"""What is requested again after a blob or a response broke off, where, and with what."""

from __future__ import annotations

import gzip
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import TagName
from registry_sync.errors import (
    AuthenticationFailed,
    NotFound,
    ProtocolError,
    RedirectRefused,
    ServerUnavailable,
    SizeMismatch,
    TruncatedBody,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.blobs import foreign_target
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter

DATA = random.Random(11).randbytes(50_000)
SIZE, HALF = len(DATA), 20_000
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)
PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
ETAG = ("ETag", '"strong"')
CUT = reply(200, DATA[:HALF], [ETAG], length=SIZE, cut=True)
REST = reply(206, DATA[HALF:], [("Content-Range", f"bytes {HALF}-{SIZE - 1}/{SIZE}"), ETAG])
MISSING = [errors_reply(404, "MANIFEST_UNKNOWN"), errors_reply(404, "BLOB_UNKNOWN"), reply(404)]


def moved(host: HostileRegistry, path: str) -> Raw:
    return reply(307, headers=[("Location", f"{host.base}{path}")])


def challenged(registry: HostileRegistry) -> Raw:
    header = f'Bearer realm="{registry.base}/token",service="s"'
    return errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", header)])


def test_a5_04_range_and_entity_tag_are_sent_again_to_where_a_redirect_leads(registry, other_host, client_of) -> None:
    registry.on("GET", PATH, moved(other_host, "/first"), moved(other_host, "/second"))
    other_host.on("GET", "/first", CUT)
    other_host.on("GET", "/second", REST)
    writer = MemoryWriter(BLOB)
    client_of(registry).fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    (second,) = other_host.asked(path="/second")
    assert (second.header("range"), second.header("if-range")) == (f"bytes={HALF}-", '"strong"')
    assert second.header("accept-encoding") == "identity"
    assert (second.header("user-agent") or "").startswith("registry-sync/")


@pytest.mark.parametrize("status", [400, 403, 410])
def test_a5_05_a_signed_url_that_expires_in_the_middle_is_requested_again_from_where_the_blob_stands(
    registry, other_host, client_of, status: int
) -> None:
    registry.on("GET", PATH, *[moved(other_host, f"/{name}") for name in ("signed", "over", "new")])
    other_host.on("GET", "/signed", CUT)
    other_host.on("GET", "/over", reply(status, b"<Error><Code>ExpiredToken</Code></Error>"))
    other_host.on("GET", "/new", REST)
    writer = MemoryWriter(BLOB)
    client = client_of(registry)
    client.fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert writer.restart_count == 0
    assert [request.path for request in other_host.requests] == ["/signed", "/over", "/new"]
    assert [request.header("range") for request in registry.requests] == [None, f"bytes={HALF}-", f"bytes={HALF}-"]
    assert client.usage.counts().retry_count == 2


def test_a5_05_a_storage_host_that_never_gives_what_it_signed_is_given_up(registry, other_host, client_of) -> None:
    registry.on("GET", PATH, moved(other_host, "/over"))
    other_host.on("GET", "/over", reply(403))
    with pytest.raises(ServerUnavailable, match="no longer serves"):
        client_of(registry, max_attempts=3).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert len(registry.requests) == 3


def test_a4_12_a_token_that_ends_in_the_middle_of_a_blob_is_replaced_and_the_blob_continued(
    registry, client_of
) -> None:
    tokens = iter(["first", "second"])
    registry.on("GET", "/token", lambda _request: json_reply({"token": next(tokens)}))

    def response(request: Request) -> Raw:
        authorization = request.header("authorization")
        if request.header("range") is None:
            return CUT if authorization == "Bearer first" else challenged(registry)
        return REST if authorization == "Bearer second" else challenged(registry)

    registry.on("GET", PATH, response)
    writer = MemoryWriter(BLOB)
    client_of(registry).fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert [request.header("range") for request in registry.asked(path=PATH)] == [None, None, *[f"bytes={HALF}-"] * 2]
    assert len(registry.asked(path="/token")) == 2


def test_a4_12_a_blob_that_may_no_longer_be_read_is_not_requested_for_ever(registry, client_of) -> None:
    registry.on("GET", "/token", json_reply({"token": "good"}))
    registry.on("GET", PATH, challenged(registry), CUT, challenged(registry))
    with pytest.raises(AuthenticationFailed):
        client_of(registry, Credentials("alice", "secret")).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert len(registry.asked(path=PATH)) == 3


@pytest.mark.parametrize(
    "refusal", [errors_reply(404, "BLOB_UNKNOWN"), errors_reply(404, "MANIFEST_UNKNOWN"), reply(404)]
)
def test_a5_14_a_blob_is_requested_at_the_blob_endpoint_alone(registry, client_of, refusal: Raw) -> None:
    registry.on("GET", PATH, refusal)
    registry.on("GET", f"/v2/{REPOSITORY}/manifests/{BLOB.digest}", reply(200, DATA))
    with pytest.raises(NotFound):
        client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert [request.path for request in registry.requests] == [PATH]


@pytest.mark.parametrize(
    "refusal", [errors_reply(404, "MANIFEST_UNKNOWN"), errors_reply(404, "BLOB_UNKNOWN"), reply(404)]
)
@pytest.mark.parametrize("reference", [TagName("latest"), BLOB.digest])
def test_a5_14_a_manifest_is_requested_at_the_manifest_endpoint_alone(
    registry, client_of, refusal: Raw, reference: TagName | Digest
) -> None:
    path = f"/v2/{REPOSITORY}/manifests/{reference}"
    registry.on("GET", path, refusal)
    registry.on("HEAD", path, refusal)
    registry.on("GET", PATH, reply(200, DATA))
    client = client_of(registry)
    for ask in (client.head_manifest, client.get_manifest):
        with pytest.raises(NotFound):
            ask(REPOSITORY, reference)
    assert {request.path for request in registry.requests} == {path}


def test_a5_18_a_form_whose_response_breaks_off_is_sent_again_only_when_the_reader_retries(registry, client_of) -> None:
    """It may have done its work although the response is lost; so nothing below the retries repeats it."""
    broken = Raw((b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b'{"access_'))
    tags = f"/v2/{REPOSITORY}/tags/list"
    registry.on("POST", "/token", broken, broken, json_reply({"access_token": "good"}))

    def response(request: Request) -> Raw:
        return json_reply({"tags": ["a"]}) if request.header("authorization") else challenged(registry)

    registry.on("GET", tags, response)
    credentials = Credentials(identity_token="id-token")
    with pytest.raises(TruncatedBody):
        client_of(registry, credentials, max_attempts=1).list_tags(REPOSITORY)
    assert [request.method for request in registry.requests] == ["GET", "POST"]
    client = client_of(registry, credentials, max_attempts=2)
    assert client.list_tags(REPOSITORY).tags == ("a",)
    assert [request.method for request in registry.requests[2:]] == ["GET", "POST", "POST", "GET"]
    assert client.usage.counts().retry_count == 1


@pytest.mark.parametrize("started", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a5_18_headers_that_break_off_are_no_response_and_are_requested_again(
    registry, client_of, method: str, started: bytes
) -> None:
    path = f"/v2/{REPOSITORY}/manifests/latest"
    image = b'{"schemaVersion": 2, "manifests": []}'
    registry.on(method, path, Raw((started,)), reply(200, image))
    client = client_of(registry)
    (client.get_manifest if method == "GET" else client.head_manifest)(REPOSITORY, TagName("latest"))
    assert [request.method for request in registry.requests] == [method, method]
    assert registry.connection_count == 2


def test_a5_18_frames_of_http_2_are_no_response(registry, client_of) -> None:
    settings_and_goaway = bytes.fromhex("000000040000000000" + "000008070000000000" + "00000000" + "0000000b")
    registry.on("GET", PATH, Raw((settings_and_goaway,)))
    with pytest.raises((ServerUnavailable, ProtocolError)):
        client_of(registry, max_attempts=2).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))


def test_a5_18_no_more_connections_are_open_at_once_than_allowed(registry, client_of) -> None:
    lock, counts = threading.Lock(), {"now": 0, "most": 0}

    def response(_request: Request) -> Raw:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        threading.Event().wait(0.02)
        with lock:
            counts["now"] -= 1
        return reply(200, DATA)

    registry.on("GET", PATH, response)
    client = client_of(registry, concurrency=3)
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda _: client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB)), range(12)))
    assert counts["most"] == 3
    assert registry.connection_count == 3


def one_byte_at_a_time(fake_time: FakeTime, data: bytes, seconds: float, *, gives: int = 1):  # type: ignore[no-untyped-def]
    """A registry that gives ``gives`` bytes of ``data`` and breaks off, each time after ``seconds``."""

    def response(request: Request) -> Raw:
        fake_time.elapsed += seconds
        start = int((request.header("range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        head = f"HTTP/1.1 {206 if start else 200} X\r\nContent-Length: {len(data) - start}\r\n"
        head += f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n" if start else ""
        return Raw((f"{head}\r\n".encode(), data[start : start + gives]))

    return response


def small(length: int) -> tuple[Descriptor, str]:
    blob = Descriptor("application/octet-stream", Digest.of(DATA[:length]), length)
    return blob, f"/v2/{REPOSITORY}/blobs/{blob.digest}"


@pytest.mark.parametrize(("seconds", "is_patient"), [(61, True), (20, False)])
def test_a5_12_a_little_progress_counts_when_it_took_a_minute(
    registry, client_of, fake_time: FakeTime, seconds: float, is_patient: bool
) -> None:
    blob, path = small(12)
    registry.on("GET", path, one_byte_at_a_time(fake_time, DATA[:12], seconds))
    writer = MemoryWriter(blob)
    client = client_of(registry, max_attempts=3, retry_budget_seconds=10_000)
    if is_patient:
        client.fetch_blob(REPOSITORY, blob, writer)
        assert writer.published == DATA[:12]
    else:
        with pytest.raises(TruncatedBody):
            client.fetch_blob(REPOSITORY, blob, writer)


def test_a5_12_no_progress_does_not_count_however_long_it_took(registry, client_of, fake_time: FakeTime) -> None:
    blob, path = small(12)
    registry.on("GET", path, one_byte_at_a_time(fake_time, DATA[:12], 100, gives=0))
    with pytest.raises(TruncatedBody):
        client_of(registry, max_attempts=3, retry_budget_seconds=10_000).fetch_blob(
            REPOSITORY, blob, MemoryWriter(blob)
        )
    assert len(registry.requests) == 3


def test_a5_12_a_blob_has_fifty_attempts_at_most(registry, client_of, fake_time: FakeTime) -> None:
    blob, path = small(100)
    registry.on("GET", path, one_byte_at_a_time(fake_time, DATA[:100], 61))
    with pytest.raises(TruncatedBody):
        client_of(registry, retry_budget_seconds=10_000).fetch_blob(REPOSITORY, blob, MemoryWriter(blob))
    assert len(registry.requests) == 50


def test_a5_11_an_entity_tag_is_sent_with_a_range_alone(registry, client_of) -> None:
    registry.on("GET", PATH, CUT, reply(416), reply(200, DATA))
    writer = MemoryWriter(BLOB)
    client_of(registry).fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert [request.header("if-range") for request in registry.requests] == [None, '"strong"', None]


def test_a5_08_what_was_written_before_one_byte_too_many_is_thrown_away(registry, client_of) -> None:
    data = DATA * 20
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    path = f"/v2/{REPOSITORY}/blobs/{blob.digest}"
    registry.on("GET", path, reply(200, data + b"x", length=None), reply(200, data))
    writer = MemoryWriter(blob)
    client_of(registry).fetch_blob(REPOSITORY, blob, writer)
    assert writer.published == data
    assert [request.header("range") for request in registry.requests] == [None, None]


def test_a5_07_a_blob_that_is_decoded_and_breaks_off_starts_from_zero(registry, client_of) -> None:
    data = random.Random(5).randbytes(1_500_000)
    packed = gzip.compress(data)
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    path = f"/v2/{REPOSITORY}/blobs/{blob.digest}"
    header = [("Content-Encoding", "gzip")]
    whole, cut = reply(200, packed, header), reply(200, packed[:900_000], header, length=len(packed), cut=True)
    registry.on("GET", path, whole, cut, whole)
    writer = MemoryWriter(blob)
    client_of(registry).fetch_blob(REPOSITORY, blob, writer)
    assert writer.published == data
    assert [request.header("range") for request in registry.requests] == [None, None, None]


def test_a5_07_a_blob_under_two_encodings_is_not_decoded(registry, client_of) -> None:
    data = b"config " * 5000
    blob = Descriptor("application/octet-stream", Digest.of(data), len(data))
    path = f"/v2/{REPOSITORY}/blobs/{blob.digest}"
    registry.on("GET", path, reply(200, gzip.compress(data), [("Content-Encoding", "gzip, br")]))
    with pytest.raises(SizeMismatch):
        client_of(registry).fetch_blob(REPOSITORY, blob, MemoryWriter(blob))
    assert len(registry.requests) == 1


@pytest.mark.parametrize("already", [b"", b"{"])
def test_a5_15_the_empty_object_is_known_whatever_exists(registry, client_of, already: bytes) -> None:
    blob = Descriptor("x/y", Digest.of(b"{}"), 2)
    writer = MemoryWriter(blob, already)
    assert client_of(registry).fetch_blob(REPOSITORY, blob, writer) == 0
    assert (writer.published, registry.requests) == (b"{}", [])


def test_a5_15_the_empty_object_of_another_size_is_requested_and_refused(registry, client_of) -> None:
    blob = Descriptor("x/y", Digest.of(b"{}"), 3)
    registry.on("GET", f"/v2/{REPOSITORY}/blobs/{blob.digest}", reply(200, b"{}"))
    with pytest.raises(SizeMismatch):
        client_of(registry).fetch_blob(REPOSITORY, blob, MemoryWriter(blob))


def test_a5_17_foreign_urls_are_https_where_the_registry_is() -> None:
    assert foreign_target("https://cdn.example/x", "https").url == "https://cdn.example/x"
    assert foreign_target("http://cdn.example/x", "http").url == "http://cdn.example/x"
    with pytest.raises(RedirectRefused, match="plain http"):
        foreign_target("http://cdn.example/x", "https")
