"""Proxies: what they are sent, and how their failures are told from the registry's."""

from __future__ import annotations

import socket

import pytest

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    ConfigurationError,
    ProtocolError,
    RedirectRefused,
    RegistrySyncError,
    ServerUnavailable,
    UntrustedCertificate,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry, Raw, Request, json_reply, reply
from support.oci import READY, REPOSITORY, TAGS, FakeTime, moved


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


def test_a_proxy_at_https_that_speaks_http_is_said_to(plain_port: socket.socket, fake_time: FakeTime) -> None:
    options = ClientOptions(proxy_url=f"https://127.0.0.1:{plain_port.getsockname()[1]}")
    url = RegistryUrl.parse("https://registry.example")
    with (
        RegistryClient(url, options=options, clock=fake_time.clock) as client,
        pytest.raises(ConfigurationError, match="write its URL with http://"),
    ):
        client.list_tags(REPOSITORY)
