"""Redirects and broken connections."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    ProtocolError,
    RedirectRefused,
    ServerUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.hostile_registry import HostileRegistry, Raw, json_reply, reply
from support.oci import BLOB, DATA, PATH, READY, REPOSITORY, TAGS, FakeTime, MemoryWriter, moved


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a5_01_authorization_stays_with_the_registry(registry, other_host, client_of, status: int) -> None:
    registry.on("GET", PATH, moved(f"{other_host.base}/signed", status))
    other_host.on("GET", "/signed", reply(200, DATA))
    writer = MemoryWriter(BLOB)
    client_of(registry, READY).fetch_blob(REPOSITORY, BLOB, writer)
    assert writer.published == DATA
    assert registry.requests[0].header("authorization") == "Bearer ready-token"
    assert other_host.requests[0].header("authorization") is None


def test_a5_01_authorization_comes_back_when_a_redirect_returns_to_the_registry(
    registry, other_host, client_of
) -> None:
    registry.on("GET", PATH, moved(f"{other_host.base}/there"))
    other_host.on("GET", "/there", moved(f"{registry.base}/back"))
    registry.on("GET", "/back", reply(200, DATA))
    client_of(registry, READY).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert registry.asked(path="/back")[0].header("authorization") == "Bearer ready-token"
    assert other_host.requests[0].header("authorization") is None


def test_a5_01_ten_redirects_are_followed_and_an_eleventh_is_refused(registry, client_of) -> None:
    registry.on("GET", PATH, *[moved(PATH)] * 10, reply(200, DATA))
    client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    registry.on("GET", PATH, moved(PATH))
    with pytest.raises(RedirectRefused, match="more than 10"):
        client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))


def test_a5_02_the_location_is_sent_as_it_was_received(registry, other_host, client_of) -> None:
    target = "/a%7Eb/%2d|x?sig=q%2Fr+s~t%3d&se=2026-01-01T00%3A00%3A00Z&plus=+"
    registry.on("GET", PATH, moved(f"{other_host.base}{target}"))
    other_host.on("GET", "/a%7Eb/%2d|x", reply(200, DATA))
    client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert other_host.requests[0].target == target


def test_a5_02_a_relative_location_is_resolved(registry, client_of) -> None:
    registry.on("GET", PATH, moved("/storage/x?y=1"))
    registry.on("GET", "/storage/x", reply(200, DATA))
    client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert registry.requests[-1].target == "/storage/x?y=1"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://x/",
        "http://user:password@127.0.0.1/",
    ],
)
def test_a5_03_a_redirect_to_a_place_that_is_not_the_webs_is_refused(registry, client_of, location: str) -> None:
    registry.on("GET", PATH, moved(location))
    with pytest.raises(RedirectRefused):
        client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert len(registry.requests) == 1


def test_a5_03_a_redirect_without_location_is_no_response(registry, client_of) -> None:
    registry.on("GET", PATH, reply(307))
    with pytest.raises(ProtocolError, match="Location"):
        client_of(registry).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))


def test_a5_04_range_and_encoding_are_sent_again_and_cookies_never(registry, other_host, client_of) -> None:
    registry.on("GET", PATH, reply(307, headers=[("Location", f"{other_host.base}/x"), ("Set-Cookie", "a=b; Path=/")]))
    part = reply(
        206, DATA[4000:], [("Content-Range", f"bytes 4000-{len(DATA) - 1}/{len(DATA)}"), ("Set-Cookie", "c=d")]
    )
    other_host.on("GET", "/x", part)
    client = client_of(registry)
    for _ in range(2):
        writer = MemoryWriter(BLOB, DATA[:4000])
        client.fetch_blob(REPOSITORY, BLOB, writer)
        assert writer.published == DATA
    for request in (*registry.requests, *other_host.requests):
        assert request.header("range") == "bytes=4000-"
        assert request.header("accept-encoding") == "identity"
        assert request.header("cookie") is None
        assert (request.header("user-agent") or "").startswith("registry-sync/")


def test_a5_05_an_expired_redirect_is_requested_again_at_the_registry(registry, other_host, client_of) -> None:
    registry.on("GET", PATH, moved(f"{other_host.base}/old"), moved(f"{other_host.base}/new"))
    other_host.on("GET", "/old", reply(403, b"<Error>ExpiredRequest</Error>"))
    other_host.on("GET", "/new", reply(200, DATA))
    client = client_of(registry)
    client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert len(registry.asked(path=PATH)) == 2
    assert client.usage.counts().retry_count == 1


def test_a5_05_a_storage_host_that_requests_a_password_is_not_given_the_registrys(
    registry, other_host, client_of
) -> None:
    registry.on("GET", PATH, moved(f"{other_host.base}/old"), moved(f"{other_host.base}/new"))
    other_host.on("GET", "/old", reply(401, headers=[("WWW-Authenticate", "Basic realm=x")]))
    other_host.on("GET", "/new", reply(200, DATA))
    client_of(registry, Credentials("alice", "correct horse")).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert {request.header("authorization") for request in other_host.requests} == {None}


def test_one_connection_serves_many_requests(registry, client_of) -> None:
    registry.on("GET", TAGS, json_reply({"tags": ["a"]}))
    registry.on("HEAD", f"/v2/{REPOSITORY}/manifests/a", reply(200))
    client = client_of(registry)
    for _ in range(5):
        client.list_tags(REPOSITORY)
        client.head_manifest(REPOSITORY, client.list_tags(REPOSITORY).tags[0])
    assert registry.connection_count == 1


def test_a9_04_a_connection_that_the_registry_closed_meanwhile_is_replaced(registry, client_of) -> None:
    registry.on("GET", TAGS, Raw(json_reply({"tags": ["a"]}).pieces, closes=True))
    client = client_of(registry)
    assert [client.list_tags(REPOSITORY).tags for _ in range(3)] == [("a",)] * 3


@pytest.mark.parametrize(
    "broken",
    [
        Raw(()),
        Raw((b"HTTP/1.1 200 OK\r\nContent-Le",)),
        reply(200, b'{"tags": ["a"', length=100, cut=True),
        Raw((b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"tag',)),
        reply(500),
        reply(502),
        reply(503),
        reply(504),
        reply(408),
    ],
)
def test_a9_04_what_may_pass_is_tried_again(registry, client_of, broken: Raw) -> None:
    registry.on("GET", TAGS, broken, json_reply({"tags": ["a"]}))
    client = client_of(registry)
    assert client.list_tags(REPOSITORY).tags == ("a",)
    assert client.usage.counts().retry_count == 1


def test_a9_04_a_stalled_response_is_given_up_and_retried(registry, client_of) -> None:
    registry.on("GET", TAGS, Raw((30.0,)), json_reply({"tags": ["a"]}))
    assert client_of(registry, read_timeout_seconds=0.2).list_tags(REPOSITORY).tags == ("a",)


def test_a9_04_a_refused_connection_is_temporary(fake_time: FakeTime) -> None:
    with HostileRegistry() as gone:
        url = gone.url
    with RegistryClient(url, options=ClientOptions(max_attempts=3), clock=fake_time.clock) as client:
        with pytest.raises(ServerUnavailable, match="no connection") as raised:
            client.list_tags(REPOSITORY)
        assert raised.value.is_temporary
        assert len(fake_time.sleeps) == 2


def test_a5_13_a_host_that_never_accepts_is_given_up_after_the_time_for_connecting(fake_time: FakeTime) -> None:
    with contextlib.ExitStack() as kept, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        for _ in range(4):  # these fill the queue, which is never emptied
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        options = ClientOptions(max_attempts=1, connect_timeout_seconds=0.3)
        client = kept.enter_context(
            RegistryClient(RegistryUrl.parse(f"http://127.0.0.1:{port}"), options=options, clock=fake_time.clock)
        )
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no connection"):
            client.ping()
        assert 0.2 < time.monotonic() - started < 5


@pytest.mark.parametrize("method", ["tags", "blob"])
def test_a9_04_a_redirect_target_that_is_not_reached_is_named_with_who_redirects_there(
    registry, client_of, method: str
) -> None:
    with HostileRegistry() as gone:
        location, host = f"{gone.base}/signed", gone.netloc
    registry.on("GET", TAGS, moved(location))
    registry.on("GET", PATH, moved(location))
    client = client_of(registry, max_attempts=2)
    ask = {"tags": lambda: client.list_tags(REPOSITORY), "blob": lambda: client.fetch_blob(REPOSITORY, BLOB, writer)}
    writer = MemoryWriter(BLOB)
    with pytest.raises(ServerUnavailable) as failed:
        ask[method]()
    assert str(failed.value).startswith(f"no connection to {host}: ")
    assert str(failed.value).endswith(f"; {registry.netloc} redirects there")


def test_a5_03_a_refused_redirect_names_who_redirects_there(registry, client_of) -> None:
    registry.on("GET", TAGS, moved("http://169.254.169.254/latest"))
    with pytest.raises(RedirectRefused, match=rf"169\.254\.169\.254 .*; {registry.netloc} redirects there"):
        client_of(registry).list_tags(REPOSITORY)


def test_a_token_service_that_is_not_reached_is_named_with_the_registry_that_uses_it(registry, client_of) -> None:
    with HostileRegistry() as gone:
        realm, host = f"{gone.base}/token", gone.netloc
    registry.on("GET", TAGS, reply(401, headers=[("WWW-Authenticate", f'Bearer realm="{realm}",service="s"')]))
    with pytest.raises(
        ServerUnavailable, match=f"no connection to {host}: .*; {registry.netloc} uses it as its token service"
    ):
        client_of(registry, max_attempts=1).list_tags(REPOSITORY)


def test_an_unknown_name_is_said_to_be_unknown(fake_time: FakeTime) -> None:
    client = RegistryClient(
        RegistryUrl.parse("https://registry.invalid"), options=ClientOptions(max_attempts=1), clock=fake_time.clock
    )
    with client, pytest.raises(ServerUnavailable, match=r"registry\.invalid cannot be resolved"):
        client.ping()


def test_what_is_no_http_is_said_not_to_be(registry, client_of) -> None:
    registry.on("GET", TAGS, Raw((b"SSH-2.0-OpenSSH_9.2\r\n",)))
    with pytest.raises(ProtocolError, match="does not respond in HTTP"):
        client_of(registry).list_tags(REPOSITORY)
