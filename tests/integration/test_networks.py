"""Whole syncs through the networks that registries stand in: private CAs, client certificates, proxies, caches.

Every server is a real one: Debian's docker-registry with TLS, tinyproxy. The client is made from an Airflow connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.records import RepositoryVersion
from registry_sync.errors import (
    AuthenticationFailed,
    ConfigurationError,
    RegistrySyncError,
    RepositoryUnavailable,
    ServerUnavailable,
    UntrustedCertificate,
)
from registry_sync.hooks.clients import open_client
from support.certificates import CertificateAuthority
from support.filling import push
from support.forward_proxy import ForwardProxy, tls_before
from support.hostile_registry import HostileRegistry, reply
from support.images import RepositoryContent
from support.registry import PASSWORD, USERNAME, RegistryServer
from support.serving import serve
from support.shapes import every_kind
from support.syncing import Installation

NAME = "team/app"
CONTENT: RepositoryContent = every_kind()
PROXY_LOGIN = ("mirror", "pass-word")
PROXY_LOGIN_IN_URL = "mirror:pass%2Dword"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


@pytest.fixture
def start(closing: ExitStack, tmp_path: Path) -> Callable[..., RegistryServer]:
    """Starts a registry with :data:`CONTENT`."""

    def registry(**options: Any) -> RegistryServer:
        server = closing.enter_context(RegistryServer(tmp_path / "registry", **options))
        push(server, NAME, CONTENT)
        server.reset_counts()
        return server

    return registry


Sync = Callable[..., "RepositoryVersion | None"]


@pytest.fixture
def sync(here: Installation, monkeypatch: pytest.MonkeyPatch) -> Sync:
    """Syncs from a URL by a connection with these fields; one that waits for nothing and tries twice."""

    def run(url: str, login: tuple[str, str] | None = None, **extra: Any) -> RepositoryVersion | None:
        connection = {"conn_type": "registry", "host": url, "extra": {"max_attempts": 2, "timeout": 10, **extra}}
        if login is not None:
            connection |= {"login": login[0], "password": login[1]}
        monkeypatch.setenv("AIRFLOW_CONN_NETWORK", json.dumps(connection))
        return here.sync("network", url, NAME, client=open_client, conn_id="network")

    return run


def assert_whole(here: Installation, version: RepositoryVersion | None) -> None:
    """Every tag, manifest and blob of :data:`CONTENT` is there, its bytes in the store."""
    assert version is not None
    assert version.is_complete
    assert here.database.versions.tags(version.repository_id) == CONTENT.tags
    assert version.summary.counts()["present"]["docker.manifest"] == len(CONTENT.manifests)
    for digest, blob in CONTENT.blobs.items():
        with here.store.open(digest) as stored:
            assert stored.read() == blob.data


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A9.12")
@pytest.mark.parametrize("given", ["text", "path"])
def test_a_registry_whose_certificate_a_private_ca_signed(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, here: Installation, sync: Sync, given: str
) -> None:
    registry = start(certificate=authority.server())
    ca = authority.certificate_path
    assert_whole(here, sync(registry.url, ca_certificate=ca.read_text() if given == "text" else str(ca)))


@pytest.mark.rule("A9.12")
def test_without_the_ca_nothing_is_requested_and_another_ca_is_none(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, sync: Sync, tmp_path: Path
) -> None:
    registry = start(certificate=authority.server())
    other = CertificateAuthority(tmp_path / "other").certificate_path.read_text()
    for extra in ({}, {"ca_certificate": other}):
        with pytest.raises(UntrustedCertificate, match="configure the CA that signed it"):
            sync(registry.url, **extra)
    assert registry.log().requests == ()


@pytest.mark.rule("A9.12")
def test_a_password_and_a_private_ca(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, here: Installation, sync: Sync
) -> None:
    registry = start(certificate=authority.server(), basic_auth=True)
    ca = authority.certificate_path.read_text()
    with pytest.raises(AuthenticationFailed):
        sync(registry.url, (USERNAME, "wrong"), ca_certificate=ca)
    assert_whole(here, sync(registry.url, (USERNAME, PASSWORD), ca_certificate=ca))


# -- client certificates --------------------------------------------------------------------------------------------


@pytest.mark.rule("A9.12")
@pytest.mark.parametrize("given", ["text", "path", "one text"])
def test_a_registry_that_admits_clients_by_certificate(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, here: Installation, sync: Sync, given: str
) -> None:
    certificate = authority.server(asks_for_client=True)
    registry = start(certificate=certificate)
    assert certificate.client_pair is not None
    paths = tuple(Path(path) for path in certificate.client_pair)
    shown, key = (str(path) if given == "path" else path.read_text() for path in paths)
    pair = (
        {"client_certificate": shown + key}
        if given == "one text"
        else {"client_certificate": shown, "client_private_key": key}
    )
    assert_whole(here, sync(registry.url, ca_certificate=authority.certificate_path.read_text(), **pair))


@pytest.mark.rule("A9.12")
def test_without_a_certificate_or_with_another_it_says_so(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, sync: Sync, tmp_path: Path
) -> None:
    registry = start(certificate=authority.server(asks_for_client=True))
    ca = authority.certificate_path.read_text()
    stranger, key = (Path(path).read_text() for path in CertificateAuthority(tmp_path / "other").client())
    for extra in ({}, {"client_certificate": stranger, "client_private_key": key}):
        with pytest.raises(AuthenticationFailed, match="client certificate"):
            sync(registry.url, ca_certificate=ca, **extra)
    assert registry.log().requests == ()


@pytest.mark.rule("A5.1")
def test_a_host_that_the_registry_redirects_to_is_not_shown_the_certificate(
    closing: ExitStack, start: Callable[..., RegistryServer], authority: CertificateAuthority, sync: Sync
) -> None:
    """The storage here admits who shows the certificate, and so refuses this client."""
    certificate = authority.server(asks_for_client=True)
    storage = start(certificate=certificate)
    front = closing.enter_context(HostileRegistry((str(certificate.chain_path), str(certificate.key_path))))
    serve(front, NAME, CONTENT)
    for digest in CONTENT.blobs:
        path = f"/v2/{NAME}/blobs/{digest}"
        front.on("GET", path, reply(307, headers=[("Location", f"{storage.url}{path}")]))
    assert certificate.client_pair is not None
    shown, key = certificate.client_pair
    with pytest.raises(RegistrySyncError, match="client certificate"):
        sync(front.base, ca_certificate=str(certificate.ca_path), client_certificate=shown, client_private_key=key)
    assert storage.log().requests == ()


# -- forward proxies ------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(closing: ExitStack, tmp_path: Path) -> ForwardProxy:
    return closing.enter_context(ForwardProxy(tmp_path / "proxy"))


@pytest.fixture
def guarded_proxy(closing: ExitStack, tmp_path: Path) -> ForwardProxy:
    """It asks for :data:`PROXY_LOGIN`."""
    return closing.enter_context(ForwardProxy(tmp_path / "guarded", login=PROXY_LOGIN))


def test_a_plain_registry_is_requested_through_the_proxy_with_whole_urls(
    start: Callable[..., RegistryServer], here: Installation, sync: Sync, proxy: ForwardProxy
) -> None:
    registry = start()
    assert_whole(here, sync(registry.url, proxy=proxy.url, max_attempts=5))
    asked = proxy.requests()
    assert {target.partition("/v2/")[0] for _, target in asked} == {registry.url}
    assert {method for method, _ in asked} == {"GET", "HEAD"}
    # The only witness that nothing went past the proxy: it read every request that the registry answered, and on a busy
    # machine a few that it did not pass on.
    assert len(asked) >= len(registry.log().requests) > 0


def test_a_registry_at_https_is_reached_through_a_tunnel(
    start: Callable[..., RegistryServer],
    authority: CertificateAuthority,
    here: Installation,
    sync: Sync,
    proxy: ForwardProxy,
) -> None:
    registry = start(certificate=authority.server(asks_for_client=True), basic_auth=True)
    shown, key = authority.client()
    ca = authority.certificate_path.read_text()
    extra = {"ca_certificate": ca, "client_certificate": shown, "client_private_key": key, "proxy": proxy.url}
    assert_whole(here, sync(registry.url, (USERNAME, PASSWORD), **extra))
    assert set(proxy.requests()) == {("CONNECT", registry.netloc)}


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_proxy_that_requires_a_password_gets_its_own(
    start: Callable[..., RegistryServer],
    authority: CertificateAuthority,
    here: Installation,
    sync: Sync,
    guarded_proxy: ForwardProxy,
    is_tls: bool,
) -> None:
    registry = start(certificate=authority.server()) if is_tls else start()
    extra = {"ca_certificate": str(authority.certificate_path)} if is_tls else {}
    with pytest.raises(ConfigurationError, match="requires a user name and password"):
        sync(registry.url, proxy=guarded_proxy.url, **extra)
    # of a wrong password tinyproxy says 401, which cannot be told from the registry's unless there is a tunnel
    with pytest.raises(ConfigurationError if is_tls else RepositoryUnavailable, match="401") as refused:
        sync(registry.url, proxy=f"http://mirror:wrong@{guarded_proxy.netloc}", **extra)
    assert "wrong" not in str(refused.value)
    assert registry.log().requests == ()
    assert_whole(here, sync(registry.url, proxy=f"http://{PROXY_LOGIN_IN_URL}@{guarded_proxy.netloc}", **extra))


def test_the_proxy_of_a_remote_comes_before_the_connections(
    start: Callable[..., RegistryServer], here: Installation, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = start()
    extra = {"proxy": "http://127.0.0.1:1"}
    connection = {"conn_type": "registry", "host": registry.url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_NETWORK", json.dumps(connection))
    version = here.sync(
        "network",
        registry.url,
        NAME,
        client=lambda remote: open_client(remote.changed(proxy_url=proxy.url)),
        conn_id="network",
    )
    assert_whole(here, version)


def test_a_proxy_that_is_itself_at_https(
    closing: ExitStack,
    start: Callable[..., RegistryServer],
    authority: CertificateAuthority,
    here: Installation,
    sync: Sync,
    guarded_proxy: ForwardProxy,
) -> None:
    """Its certificate is of the private CA too, and the tunnel to the registry runs inside of it."""
    certificate = authority.server()
    registry = start(certificate=certificate)
    port = closing.enter_context(tls_before(guarded_proxy.port, certificate.chain_path, certificate.key_path))
    url = f"https://{PROXY_LOGIN_IN_URL}@127.0.0.1:{port}"
    assert_whole(here, sync(registry.url, ca_certificate=str(authority.certificate_path), proxy=url))
    assert set(guarded_proxy.requests()) == {("CONNECT", registry.netloc)}


def test_a_registry_that_is_down_behind_a_proxy_is_temporary(
    start: Callable[..., RegistryServer], authority: CertificateAuthority, sync: Sync, proxy: ForwardProxy
) -> None:
    registry = start(certificate=authority.server())
    registry.stop()
    with pytest.raises(ServerUnavailable) as down:
        sync(registry.url, ca_certificate=str(authority.certificate_path), proxy=proxy.url)
    assert down.value.is_temporary


# -- pull-through caches ----------------------------------------------------------------------------------------------


@pytest.mark.rule("A9.11")
def test_a_pull_through_cache_gets_the_namespace_of_the_upstream(
    closing: ExitStack,
    start: Callable[..., RegistryServer],
    here: Installation,
    sync: Sync,
    tmp_path: Path,
) -> None:
    """The cache is a docker-registry too, with a password of its own; the upstream hears nothing of either."""
    upstream = start()
    cache = closing.enter_context(
        RegistryServer(tmp_path / "cache", basic_auth=True, config={"proxy": {"remoteurl": upstream.url}})
    )
    version = sync(cache.url, (USERNAME, PASSWORD), ns="docker.io", allow_insecure_credentials=True)
    assert_whole(here, version)
    asked = [request for request in cache.log().requests if request.kind != "ping"]
    assert {tuple(request.query.get("ns", ())) for request in asked} == {("docker.io",)}
    assert len(asked) >= 1 + len(CONTENT.tags) + len(CONTENT.manifests)
    passed_on = upstream.log()
    assert passed_on.manifest_get_count >= len(CONTENT.manifests)
    assert [request for request in passed_on.requests if "ns" in request.query] == []
    assert [request for request in passed_on.requests if request.user_agent.startswith("registry-sync")] == []
