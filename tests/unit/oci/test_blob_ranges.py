"""An incomplete blob saves bytes where ranges are served, and never blocks the blob where they are not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    ProtocolError,
    RegistrySyncError,
    ServerUnavailable,
    TruncatedBody,
)
from registry_sync.hooks.stores import open_blob_store
from registry_sync.oci.auth.credentials import Credentials
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, reply
from support.oci import REPOSITORY, MemoryWriter

pytestmark = pytest.mark.rule("A5.19")
DATA = random.Random(12).randbytes(50_000)
SIZE, HALF = len(DATA), 20_000
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), SIZE)
PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
RANGE = f"bytes={HALF}-"
WHOLE = reply(200, DATA)
CUT = reply(200, DATA[:HALF], length=SIZE, cut=True)
REST = reply(206, DATA[HALF:], [("Content-Range", f"bytes {HALF}-{SIZE - 1}/{SIZE}")])
XML = b'<?xml version="1.0"?><Error><Code>NotImplemented</Code><Message>Range</Message></Error>'
CLOSED = Raw((b"",))
Answers = Callable[[Request], Raw]


def without_ranges(refusal: Raw, *whole: Raw) -> Answers:
    """A server that gives ``whole``, one after another, and ``refusal`` to any ``Range``."""
    left = list(whole)

    def response(request: Request) -> Raw:
        if request.header("range") is not None:
            return refusal
        return left.pop(0) if len(left) > 1 else left[0]

    return response


def redirected(registry: HostileRegistry, storage: HostileRegistry, response: Answers) -> None:
    """Lets ``storage`` serve the blob, each time at another URL, as signed ones are."""
    signed = iter(range(100))

    def moved(_request: Request) -> Raw:
        path = f"/signed-{next(signed)}"
        storage.on("GET", path, response)
        return reply(307, headers=[("Location", f"{storage.base}{path}")])

    registry.on("GET", PATH, moved)


def ranges(server: HostileRegistry) -> list[str | None]:
    return [request.header("range") for request in server.asked("GET")]


@pytest.mark.parametrize("status", [400, 401, 403, 405, 416, 501])
def test_storage_that_refuses_a_range_is_requested_once_more_and_then_from_zero(
    registry, other_host, client_of, status: int
) -> None:
    redirected(registry, other_host, without_ranges(reply(status, XML, content_type="application/xml"), CUT, WHOLE))
    writer = MemoryWriter(BLOB)
    client = client_of(registry)
    client.fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert ranges(registry) == ([None, RANGE, None] if status == 416 else [None, RANGE, RANGE, None])
    assert len({request.path for request in other_host.requests}) == len(registry.requests), (
        "a fresh redirect each time"
    )
    assert client.usage.counts().retry_count == len(registry.requests) - 1


@pytest.mark.parametrize("status", [400, 405, 412, 416, 501])
def test_a_registry_that_refuses_a_range_itself_is_requested_likewise(registry, client_of, status: int) -> None:
    registry.on("GET", PATH, without_ranges(reply(status, XML), CUT, WHOLE))
    writer = MemoryWriter(BLOB)
    client_of(registry).fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert ranges(registry) == ([None, RANGE, None] if status == 416 else [None, RANGE, RANGE, None])


@pytest.mark.parametrize("refusal", [reply(403, XML), reply(400, XML), reply(416)])
def test_what_the_last_sync_kept_keeps_no_sync_from_getting_the_blob(
    registry, other_host, client_of, tmp_path: Path, refusal: Raw
) -> None:
    """Also one that tries each request once."""
    store = open_blob_store((tmp_path / "blobs").as_uri())
    redirected(registry, other_host, without_ranges(refusal, CUT, WHOLE))
    client = client_of(registry, max_attempts=1)
    with pytest.raises(TruncatedBody), store.writer(BLOB.digest, SIZE) as writer:
        client.fetch_blob(REPOSITORY, BLOB, writer)
    with store.writer(BLOB.digest, SIZE) as writer:
        assert writer.offset == HALF, "else nothing is shown"
        client.fetch_blob(REPOSITORY, BLOB, writer)
    with store.open(BLOB.digest) as file:
        assert file.read() == DATA


def test_what_exists_is_kept_until_the_whole_is_given(registry, other_host, client_of) -> None:
    redirected(registry, other_host, lambda _request: reply(403, XML))
    writer = MemoryWriter(BLOB, DATA[:HALF])
    with pytest.raises(ServerUnavailable, match="no longer serves"):
        client_of(registry, max_attempts=3).fetch_blob(REPOSITORY, BLOB, writer)
    assert ranges(registry) == [RANGE, RANGE, None, None, None]
    assert (writer.offset, writer.restart_count) == (HALF, 0)


def test_a_registry_that_refuses_with_and_without_range_is_believed_then(registry, client_of) -> None:
    registry.on("GET", PATH, reply(400, XML))
    with pytest.raises(ProtocolError):
        client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB, DATA[:HALF]))
    assert ranges(registry) == [RANGE, RANGE, None]


def test_from_zero_is_tried_once_and_the_rest_is_for_the_next_try_of_the_task(registry, other_host, client_of) -> None:
    redirected(registry, other_host, without_ranges(reply(403, XML), CUT, CUT, WHOLE))
    writer = MemoryWriter(BLOB)
    client = client_of(registry)
    with pytest.raises(TruncatedBody):
        client.fetch_blob(REPOSITORY, BLOB, writer)
    assert ranges(registry) == [None, RANGE, RANGE, None]
    client.fetch_blob(REPOSITORY, BLOB, writer)
    assert ranges(registry)[4:] == [RANGE, RANGE, None]
    assert writer.published == DATA


@pytest.mark.parametrize("refusal", [reply(500, XML), reply(502), CLOSED], ids=["500", "502", "closed"])
def test_when_ranges_alone_come_to_nothing_the_last_attempt_does_without(registry, client_of, refusal: Raw) -> None:
    registry.on("GET", PATH, without_ranges(refusal, WHOLE))
    writer = MemoryWriter(BLOB, DATA[:HALF])
    client_of(registry, max_attempts=3).fetch_blob(REPOSITORY, BLOB, writer)
    assert ranges(registry) == [RANGE, RANGE, RANGE, None]
    assert writer.published == DATA


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_says_nothing_of_ranges(registry, client_of, status: int) -> None:
    registry.on("GET", PATH, without_ranges(reply(status), WHOLE))
    with pytest.raises(RegistrySyncError):
        client_of(registry, max_attempts=3).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB, DATA[:HALF]))
    assert ranges(registry) == [RANGE] * 3


def test_a_range_that_is_served_in_between_restarts_the_count(registry, other_host, client_of) -> None:
    over = reply(403, XML)
    more = reply(206, DATA[HALF:30_000], [("Content-Range", f"bytes {HALF}-{SIZE - 1}/{SIZE}")], length=SIZE - HALF)
    rest = reply(206, DATA[30_000:], [("Content-Range", f"bytes 30000-{SIZE - 1}/{SIZE}")])
    responses = iter([over, Raw(more.pieces), over, rest])
    redirected(registry, other_host, lambda _request: next(responses))
    writer = MemoryWriter(BLOB, DATA[:HALF])
    client_of(registry).fetch_blob(REPOSITORY, BLOB, writer)
    assert (writer.published, writer.restart_count) == (DATA, 0)
    assert ranges(registry) == [RANGE, RANGE, "bytes=30000-", "bytes=30000-"]


def test_a_registry_that_forbids_the_blob_is_believed_at_once(registry, client_of) -> None:
    registry.on("GET", PATH, errors_reply(403, "DENIED"))
    credentials = Credentials(registry_token="ready")
    with pytest.raises(AccessDenied):
        client_of(registry, credentials).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB, DATA[:HALF]))
    assert ranges(registry) == [RANGE]


@pytest.mark.rule("A4.13")
@pytest.mark.parametrize("already", [b"", DATA[:HALF]], ids=["from zero", "continued"])
def test_a_token_service_that_refuses_the_password_is_no_storage(
    registry, other_host, client_of, already: bytes
) -> None:
    header = f'Bearer realm="{other_host.base}/token",service="s"'
    registry.on("GET", PATH, errors_reply(401, "UNAUTHORIZED", headers=[("WWW-Authenticate", header)]))
    other_host.on("GET", "/token", errors_reply(401, "UNAUTHORIZED"))
    client = client_of(registry, Credentials("alice", "mistyped"), trusted_realm_hosts=frozenset({other_host.netloc}))
    with pytest.raises(AuthenticationFailed):
        client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB, already))
    assert len(registry.requests) == len(other_host.requests) == 1


def test_a_foreign_layer_whose_host_refuses_a_range_is_fetched_from_zero(registry, other_host, client_of) -> None:
    registry.on("GET", PATH, errors_reply(404, "BLOB_UNKNOWN"))
    other_host.on("GET", "/layer", without_ranges(reply(403, XML), WHOLE))
    blob = Descriptor(BLOB.media_type, BLOB.digest, SIZE, urls=(f"{other_host.base}/layer",))
    writer = MemoryWriter(blob, DATA[:HALF])
    client_of(registry, follow_foreign_urls=True).fetch_blob(REPOSITORY, blob, writer)
    assert writer.published == DATA
    assert ranges(other_host) == [RANGE, RANGE, None]
