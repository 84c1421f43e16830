"""Certificates, and what is no TLS: who is trusted, and what is said of those who are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    ConfigurationError,
    ProtocolError,
    RedirectRefused,
    RegistryError,
    UntrustedCertificate,
)
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.connections import _public_tls_context
from registry_sync.oci.http.options import ClientOptions
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry, Raw, json_reply, reply
from support.oci import BLOB, DATA, PATH, READY, REPOSITORY, TAGS, FakeTime, MemoryWriter, moved


def test_a_certificate_is_verified_by_the_configured_ca(authority: CertificateAuthority, client_of) -> None:
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", json_reply({}))
        assert client_of(registry, verify=str(certificate.ca_path)).ping().auth_scheme == "none"
        with pytest.raises(UntrustedCertificate, match="not trusted") as raised:
            client_of(registry).ping()
        assert not raised.value.is_temporary
        assert client_of(registry, verify=False).ping().auth_scheme == "none"


def test_clients_share_the_public_cas_and_not_whom_they_trust(authority: CertificateAuthority, client_of) -> None:
    """What one accepts, or by a CA or certificate of its own, changes nothing for the next."""
    certificate = authority.server()
    with HostileRegistry((str(certificate.chain_path), str(certificate.key_path))) as registry:
        registry.on("GET", "/v2/", json_reply({}))
        made = [client_of(registry, verify=verify) for verify in (False, True, str(certificate.ca_path), False, True)]
        for client in (*made, *reversed(made)):
            if client in (made[1], made[4]):
                with pytest.raises(UntrustedCertificate):
                    client.ping()
            else:
                assert client.ping().auth_scheme == "none"
    assert _public_tls_context.cache_info().currsize <= 2


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
