"""The connection of each look-alike, tried as the button "Test" does, with the right password and with a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import AuthenticationFailed
from registry_sync.hooks.registry import RegistryHook
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from support.certificates import CertificateAuthority, ServerCertificate
from support.lookalikes import known
from support.lookalikes.quirks import LookAlike
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.shapes import nested
from support.syncing import Installation

WRONG_PASSWORD = "mistyped horse battery"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.mark.rule("A2.1", "A2.3", "A2.6", "A3.2")
@pytest.mark.parametrize("kind", known.KNOWN, ids=str)
def test_the_button_says_what_each_registry_is(
    kind: LookAlike, certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LookAlikeServer(kind, nested(), certificate) as server:
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", json.dumps(server.connection))
        is_good, message = RegistryHook("tried").test_connection()
        assert is_good, message
        assert f"{server.url} is a container registry" in message
        assert "verified by the configured CA" in message
        if kind.auth.takes_anonymous:
            assert "reads anonymously" in message
        else:
            assert f"as '{kind.auth.username}'" in message
        if "Bearer" in kind.auth.schemes and kind.auth.exchange_status == 200:
            host = server.tokens if kind.auth.realm_is_elsewhere else server.registry
            assert f"tokens come from {host.netloc} for service {kind.auth.service}" in message
        assert server.witness.violations == []


@pytest.mark.rule("A3.9", "A4.13")
@pytest.mark.parametrize("kind", known.KNOWN, ids=str)
def test_a_wrong_password_is_reported_and_was_sent_once(
    kind: LookAlike, certificate: ServerCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LookAlikeServer(kind, nested(), certificate) as server:
        connection = {**server.connection, "login": kind.auth.username, "password": WRONG_PASSWORD}
        monkeypatch.setenv("AIRFLOW_CONN_MISTYPED", json.dumps(connection))
        is_good, message = RegistryHook("mistyped").test_connection()
        asked = [*server.registry.requests, *server.tokens.requests]
    assert not is_good
    assert "rejects the credentials of the connection" in message
    assert WRONG_PASSWORD not in message
    logins = [request for request in asked if (request.header("authorization") or "").startswith("Basic ")]
    has_both = kind.auth.exchange_status != 200
    assert len(logins) == (2 if has_both else 1), "at a token service that is not there, and then at the registry"


@pytest.mark.rule("A4.13")
@pytest.mark.parametrize("tags", [None, ("a", "b", "c", "d", "e")], ids=["a listing", "names"])
@pytest.mark.parametrize("kind", [known.DOCKER_HUB, known.ECR, known.ARTIFACTORY, known.ZOT], ids=str)
def test_a_sync_with_a_wrong_password_sends_it_once(
    kind: LookAlike, certificate: ServerCertificate, tmp_path: Path, tags: tuple[str, ...] | None
) -> None:
    """Not once for each of its threads: directories lock accounts after a few bad logins."""
    here = Installation.embedded(tmp_path)
    wrong = Credentials(username=kind.auth.username, password=WRONG_PASSWORD)
    with LookAlikeServer(kind, nested(), certificate) as server:

        def client(remote: RemoteSpec) -> RegistryClient:
            usual = server.client(remote)
            return RegistryClient(remote.url, wrong, usual.options)

        with pytest.raises(AuthenticationFailed):
            here.sync("locked-out", server.url, kind.repository, client=client, include_tags=tags)
        asked = [*server.registry.requests, *server.tokens.requests]
    assert sum((request.header("authorization") or "").startswith("Basic ") for request in asked) == 1
    here.database.close()
