"""Redirects, TLS, proxies and broken connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    ConfigurationError,
    ProtocolError,
    RedirectRefused,
    RegistryError,
    RegistrySyncError,
    ServerUnavailable,
    UntrustedCertificate,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply, reply
from support.oci import REPOSITORY, FakeTime, MemoryWriter

DATA = b"0123456789" * 1000
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
TAGS = f"/v2/{REPOSITORY}/tags/list"
READY = Credentials(registry_token="ready-token")


def moved(location: str, status: int = 307) -> Raw:
    return reply(status, b"moved", [("Location", location)])


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


# -- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


def test_a_certificate_is_verified_by_the_configured_ca(authority: CertificateAuthority, client_of) -> None:
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", json_reply({}))
        assert client_of(registry, verify=str(certificate.ca_path)).ping().auth_scheme == "none"
        with pytest.raises(UntrustedCertificate, match="not trusted") as raised:
            client_of(registry).ping()
        assert not raised.value.is_temporary
        assert client_of(registry, verify=False).ping().auth_scheme == "none"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_adds_no_ca(
    authority: CertificateAuthority, client_of, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    certificate = authority.server()
    monkeypatch.setenv(name, str(certificate.ca_path))
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", json_reply({}))
        with pytest.raises(UntrustedCertificate):
            client_of(registry).ping()


def test_a_certificate_for_another_name_is_not_accepted(authority: CertificateAuthority, client_of) -> None:
    certificate = authority.server(hosts=("elsewhere.example",))
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", json_reply({}))
        with pytest.raises(UntrustedCertificate):
            client_of(registry, verify=str(certificate.ca_path)).ping()


def test_a5_03_a_redirect_from_https_to_http_is_refused(authority: CertificateAuthority, other_host, client_of) -> None:
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", PATH, moved(f"{other_host.base}/x"))
        with pytest.raises(RedirectRefused, match="plain http"):
            client_of(registry, verify=str(certificate.ca_path)).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
    assert other_host.requests == []


def test_a9_12_https_does_not_become_http_where_nothing_else_responds(registry, client_of) -> None:
    secure = RegistryUrl.parse(registry.base.replace("http://", "https://"))
    options = ClientOptions(max_attempts=1, connect_timeout_seconds=0.2, read_timeout_seconds=0.2)
    with RegistryClient(secure, READY, options) as client:
        with pytest.raises(RegistryError):
            client.ping()
        with pytest.raises(RegistryError):
            client.list_tags(REPOSITORY)
    assert [request for request in registry.requests if request.path.startswith("/v2/")] == []


@pytest.fixture
def plain_port() -> Iterator[socket.socket]:
    """A server that knows HTTP alone, and says so to whatever it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)


def test_a9_12_https_to_a_port_that_speaks_http_fails_at_once_and_says_so(
    plain_port: socket.socket, fake_time: FakeTime
) -> None:
    netloc = f"127.0.0.1:{plain_port.getsockname()[1]}"
    with RegistryClient(RegistryUrl.parse(f"https://{netloc}"), READY, clock=fake_time.clock) as client:
        with pytest.raises(ProtocolError, match=f"{netloc} speaks plain http where https was expected") as failed:
            client.list_tags(REPOSITORY)
        assert not failed.value.is_temporary
        assert client.usage.counts().retry_count == 0
    assert fake_time.sleeps == []


def test_a_proxy_at_https_that_speaks_http_is_said_to(plain_port: socket.socket, fake_time: FakeTime) -> None:
    options = ClientOptions(proxy_url=f"https://127.0.0.1:{plain_port.getsockname()[1]}")
    url = RegistryUrl.parse("https://registry.example")
    with (
        RegistryClient(url, options=options, clock=fake_time.clock) as client,
        pytest.raises(ConfigurationError, match="write its URL with http://"),
    ):
        client.list_tags(REPOSITORY)


@pytest.mark.parametrize("sent", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ta'])
def test_a9_04_tls_that_ends_without_saying_so_is_tried_again(
    authority: CertificateAuthority, client_of, sent: bytes
) -> None:
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", TAGS, Raw((sent,)), json_reply({"tags": ["a"]}))
        client = client_of(registry, verify=str(certificate.ca_path))
        assert client.list_tags(REPOSITORY).tags == ("a",)
        assert client.usage.counts().retry_count == 1


def test_the_configured_ca_vouches_for_redirect_targets_too(authority: CertificateAuthority, client_of) -> None:
    certificate = authority.server()
    pair = (str(certificate.chain_path), str(certificate.key_path))
    with HostileRegistry(pair) as registry, HostileRegistry(pair) as storage:
        registry.on("GET", PATH, moved(f"{storage.base}/x"))
        storage.on("GET", "/x", reply(200, DATA))
        client_of(registry, verify=str(certificate.ca_path)).fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))
        assert len(storage.requests) == 1


def test_files_of_the_options_are_not_required_after_the_client_is_made(
    authority: CertificateAuthority, client_of, tmp_path: Path
) -> None:
    certificate = authority.server()
    pair = (str(certificate.chain_path), str(certificate.key_path))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(certificate.ca_path.read_bytes())
    with HostileRegistry(pair) as registry, HostileRegistry(pair) as storage:
        registry.on("GET", PATH, moved(f"{storage.base}/x"))
        storage.on("GET", "/x", reply(200, DATA))
        client = client_of(registry, verify=str(bundle))
        bundle.unlink()
        client.fetch_blob(REPOSITORY, BLOB, MemoryWriter(BLOB))


@pytest.mark.parametrize("options", [{"verify": "/nowhere/ca.pem"}, {"client_certificate": "/nowhere/client.pem"}])
def test_a_file_that_cannot_be_read_is_a_matter_of_configuration(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        RegistryClient(RegistryUrl.parse("https://registry.example"), options=ClientOptions(**options))  # type: ignore[arg-type]


# -- proxies -----------------------------------------------------------------------------------------------------


def test_a_proxy_gets_whole_urls_and_its_own_password(registry, client_of) -> None:
    """The proxy resolves the name, so that a name unknown here can be used."""
    registry.on("GET", "http://registry.invalid/v2/", json_reply({}))
    url = RegistryUrl.parse("http://registry.invalid")
    options = ClientOptions(proxy_url=f"http://us%40er:pa%3As%2Fs-%C3%BC@{registry.netloc}", max_attempts=1)
    with RegistryClient(url, READY, options) as client, pytest.raises(Exception, match="plain http"):
        client.ping()
    with RegistryClient(url, options=options) as client:
        assert client.ping().auth_scheme == "none"
        assert client.session().get("http://registry.invalid/v2/", timeout=5).json() == {}
    assert len(registry.requests) == 2
    for asked in registry.requests:
        assert asked.header("proxy-authorization") == Credentials("us@er", "pa:s/s-ü").basic
        assert asked.header("host") == "registry.invalid"


def test_a3_04_a_proxy_is_not_sent_to_a_metadata_service(registry) -> None:
    def response(_request: Request) -> Raw:
        return moved("http://169.254.169.254/")

    registry.on("GET", "http://registry.invalid/v2/", response)
    options = ClientOptions(proxy_url=registry.base)
    with (
        RegistryClient(RegistryUrl.parse("http://registry.invalid"), options=options) as client,
        pytest.raises(RedirectRefused, match=r"169\.254"),
    ):
        client.ping()
    assert len(registry.requests) == 1


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (407, ConfigurationError, "requires a user name and password"),
        (401, ConfigurationError, "requires a user name and password"),
        (403, ConfigurationError, "does not allow connections to registry.invalid"),
        (405, ConfigurationError, "does not allow connections to registry.invalid"),
        (429, ServerUnavailable, "does not connect"),
        (502, ServerUnavailable, "does not connect"),
        (503, ServerUnavailable, "does not connect"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_reported_by_who_must_act(
    registry, fake_time: FakeTime, status: int, error: type[RegistrySyncError], words: str
) -> None:
    registry.on("CONNECT", "registry.invalid:443", reply(status, b"no"))
    options = ClientOptions(proxy_url=f"http://user:secret-word@{registry.netloc}", max_attempts=2)
    url = RegistryUrl.parse("https://registry.invalid")
    with RegistryClient(url, options=options, clock=fake_time.clock) as client:
        with pytest.raises(error, match=words) as raised:
            client.ping()
        assert "secret-word" not in str(raised.value)
    assert len(registry.requests) == (2 if raised.value.is_temporary else 1)


def test_a_407_is_the_proxys_and_without_a_proxy_it_is_no_response(registry, client_of) -> None:
    registry.on("GET", "http://registry.invalid/v2/", reply(407))
    registry.on("GET", TAGS, reply(407))
    url = RegistryUrl.parse("http://registry.invalid")
    with (
        RegistryClient(url, options=ClientOptions(proxy_url=registry.base)) as client,
        pytest.raises(ConfigurationError, match="requires a user name and password"),
    ):
        client.ping()
    with pytest.raises(ProtocolError, match="407"):
        client_of(registry).list_tags(REPOSITORY)


def test_a_proxy_at_https_is_verified_as_other_hosts_are(authority: CertificateAuthority) -> None:
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as proxy:
        proxy.on("GET", "http://registry.invalid/v2/", json_reply({}))
        url = RegistryUrl.parse("http://registry.invalid")
        trusting = ClientOptions(verify=str(certificate.ca_path), proxy_url=proxy.base, max_attempts=1)
        with RegistryClient(url, options=trusting) as client:
            assert client.ping().auth_scheme == "none"
        doubting = ClientOptions(proxy_url=proxy.base, max_attempts=1)
        with RegistryClient(url, options=doubting) as client, pytest.raises(UntrustedCertificate):
            client.ping()


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "proxy.example:3128", "http://", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_reported_without_its_text(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="the proxy is not"):
        RegistryClient(RegistryUrl.parse("https://registry.example"), options=ClientOptions(proxy_url=proxy))


def test_a_proxy_that_is_gone_is_temporary(fake_time: FakeTime) -> None:
    with HostileRegistry() as gone:
        proxy = gone.base
    options = ClientOptions(proxy_url=proxy, max_attempts=1)
    client = RegistryClient(RegistryUrl.parse("https://registry.invalid"), options=options, clock=fake_time.clock)
    with client, pytest.raises(ServerUnavailable, match="proxy"):
        client.ping()
