"""A scripted registry, a second host, and clients that do not really sleep."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.known_registries import DIGEST_APIS, DigestList
from registry_sync.oci.auth.credentials import Credentials, CredentialSource
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions, Clock
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry
from support.oci import FakeTime


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        yield server


@pytest.fixture
def other_host() -> Iterator[HostileRegistry]:
    """A second server: a token service, a storage host, an attacker."""
    with HostileRegistry() as server:
        yield server


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


ClientFactory = Callable[..., RegistryClient]


@pytest.fixture
def client_of(fake_time: FakeTime) -> Iterator[ClientFactory]:
    """Makes clients: ``client_of(registry, credentials, **options)``; passwords over plain http are allowed here."""
    made: list[RegistryClient] = []

    def make(
        server: HostileRegistry,
        credentials: Credentials | CredentialSource | None = None,
        *,
        real_time: bool = False,
        on_secret: Callable[[str], None] | None = None,
        **options: Any,
    ) -> RegistryClient:
        defaults = ClientOptions(
            allow_insecure_credentials=True, read_timeout_seconds=5, connect_timeout_seconds=5, max_attempts=4
        )
        clock = Clock(sleep=lambda seconds: time.sleep(min(seconds, 0.01))) if real_time else fake_time.clock
        made.append(RegistryClient(server.url, credentials, replace(defaults, **options), on_secret, clock))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def of(client_of: Callable[..., RegistryClient]) -> Callable[..., RegistryClient]:
    """A client that asks one of the APIs, at the registry's own address unless the options say another."""

    def make(registry: HostileRegistry, source: DigestList, credentials: Any = None, **options: Any) -> RegistryClient:
        where = {"digest_list_url": registry.base} if DIGEST_APIS[source].host else {}
        return client_of(registry, credentials, digest_list=source, **where | options)

    return make


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "ca")


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
