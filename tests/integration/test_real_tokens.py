"""A real registry that verifies the tokens of a service at another address: Debian's, with ``auth.token``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import AccessDenied, AuthenticationFailed, RealmRefused, RegistryError, RepositoryUnavailable
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from support.certificates import CertificateAuthority
from support.filling import place
from support.held import Held
from support.registry import RegistryServer
from support.shapes import every_kind, many_tags
from support.syncing import Installation, new_client
from support.token_service import PASSWORD, USERNAME, TokenService

MIRROR = Credentials(USERNAME, PASSWORD)
NAME = "team/private"


Guard = Callable[..., tuple[RegistryServer, TokenService]]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guard]:
    """A registry and the service that it sends its clients to; more arguments are the service's."""
    with ExitStack() as running:

        def start(**options: float) -> tuple[RegistryServer, TokenService]:
            signing = CertificateAuthority(tmp_path / "signing").server(hosts=("tokens.example",))
            service = running.enter_context(TokenService(signing, NAME, **options))
            server = RegistryServer(tmp_path / "registry", config=service.registry_config)
            return running.enter_context(server), service

        yield start


def trusting(service: TokenService, credentials: Credentials | None) -> Callable[[RemoteSpec], RegistryClient]:
    """Clients that may show the password to ``service``."""

    def client(remote: RemoteSpec) -> RegistryClient:
        usual = new_client(remote)
        options = replace(usual.options, trusted_realm_hosts=frozenset({service.server.netloc}))
        return RegistryClient(remote.url, credentials, options)

    return client


@pytest.mark.rule("A3.2", "A4.1", "A4.8", "A4.9")
def test_tokens_that_the_registry_verifies_open_it_one_for_each_client(here: Installation, guarded: Guard) -> None:
    registry, service = guarded()
    content = every_kind(seed=81)
    place(registry, NAME, content)
    assert here.sync("private", registry.url, NAME, client=trusting(service, MIRROR)) is not None
    held = Held.read(here.database, here.store, "private")
    assert held.tags == content.tags
    assert held.blobs == {digest: blob.data for digest, blob in content.blobs.items()}
    assert service.token_count == 1, "one client, many threads, one token"
    assert here.sync("private", registry.url, NAME, client=trusting(service, MIRROR)) is None


@pytest.mark.rule("A4.12")
@pytest.mark.slow
def test_a_token_that_the_registry_takes_for_seconds_only_is_replaced_in_the_middle_of_a_sync(
    here: Installation, guarded: Guard
) -> None:
    """Whatever the service said of its life."""
    registry, service = guarded(life_seconds=3)
    content = many_tags(tags=12, images=6)
    place(registry, NAME, content)

    def before(stage: str, _run: object) -> None:
        if stage in ("fetch_manifests", "fetch_blobs"):
            time.sleep(4.5)

    version = here.sync("brief", registry.url, NAME, client=trusting(service, MIRROR), before=before)
    assert version is not None
    assert version.is_complete
    assert here.database.versions.tags(version.repository_id) == content.tags
    assert service.token_count == 3


@pytest.mark.rule("A9.3", "A4.13", "A4.16")
@pytest.mark.parametrize(
    ("credentials", "name", "error"),
    [
        (None, NAME, RepositoryUnavailable),
        (Credentials(USERNAME, "mistyped"), NAME, AuthenticationFailed),
        (MIRROR, "team/other", AccessDenied),
    ],
    ids=["anonymous", "wrong password", "another repository"],
)
def test_what_the_registry_refuses_is_distinguished(
    here: Installation, guarded: Guard, credentials: Credentials | None, name: str, error: type[RegistryError]
) -> None:
    registry, service = guarded()
    place(registry, NAME, every_kind(seed=82))
    place(registry, "team/other", every_kind(seed=83))
    with pytest.raises(RegistryError) as caught:
        here.sync("refused", registry.url, name, client=trusting(service, credentials))
    assert type(caught.value) is error, caught.value
    assert not caught.value.is_temporary


@pytest.mark.rule("A3.2")
def test_a_service_that_the_connection_does_not_trust_gets_no_password(here: Installation, guarded: Guard) -> None:
    registry, service = guarded()
    place(registry, NAME, every_kind(seed=84))
    with pytest.raises(RealmRefused, match="trusted_realm_hosts"):
        here.sync("untrusted", registry.url, NAME, credentials=MIRROR)
    assert service.server.requests == []
