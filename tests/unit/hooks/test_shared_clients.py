"""Clients of many remotes over one pool of connections and one cache of tokens for each account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.shared_clients import SharedClients
from support.hook_connections import guarded, plain, remote_of
from support.hostile_registry import HostileRegistry, json_reply

NAMES = [RepositoryName(f"team/app-{number}") for number in range(4)]


@pytest.fixture
def server() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        for name in NAMES:
            server.on("GET", f"/v2/{name}/tags/list", json_reply({"tags": ["a"]}))
        yield server


def remotes(server: HostileRegistry, **fields: object) -> list[RemoteSpec]:
    return [replace(remote_of(server, **fields), name=str(name), upstream_name=name) for name in NAMES]


def test_remotes_of_one_account_share_connections_and_count_their_requests_themselves(server: HostileRegistry) -> None:
    with SharedClients() as clients:
        counts = []
        for remote in remotes(server):
            with clients.connect(remote) as (client, _):
                client.list_tags(remote.upstream)
                counts.append(client.usage.counts().tag_page_count)
    assert counts == [1, 1, 1, 1]
    assert server.connection_count == 1


def test_options_of_content_are_each_remotes_own(server: HostileRegistry) -> None:
    one, other, *_ = remotes(server)
    other = replace(other, allow_schema1=True, download_concurrency=3)
    with SharedClients(least_concurrency=8) as clients, clients.connect(one) as (first, _):
        with clients.connect(other) as (second, used):
            assert (first.options.allow_schema1, second.options.allow_schema1) == (False, True)
            assert used.download_concurrency == 3
        first.list_tags(one.upstream)
        assert server.connection_count == 1, "one that is given back closes nothing of the others"


@pytest.mark.parametrize("fields", [{"conn_id": "alice"}, {"ssl_validation": False}])
def test_other_credentials_and_other_settings_of_tls_are_another_account(
    server: HostileRegistry, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    login = {"conn_type": "registry", "login": "alice", "password": "correct horse", **plain(server)}
    monkeypatch.setenv("AIRFLOW_CONN_ALICE", json.dumps(login))
    one, other, *_ = remotes(server)
    other = replace(other, **fields)  # type: ignore[arg-type]
    with SharedClients() as clients:
        for remote in (one, other, one, other):
            with clients.connect(remote) as (client, _):
                client.list_tags(remote.upstream)
    assert server.connection_count == 2


def test_credentials_of_one_account_reach_no_other(server: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded(server)
    login = {"conn_type": "registry", "login": "alice", "password": "correct horse", **plain(server)}
    monkeypatch.setenv("AIRFLOW_CONN_ALICE", json.dumps(login))
    alice, nobody = remote_of(server, conn_id="alice"), remote_of(server)
    with SharedClients() as clients:
        with clients.connect(alice) as (client, _):
            assert client.list_tags(alice.upstream).tags == ("a",)
        with clients.connect(nobody) as (client, _), pytest.raises(Exception, match="anonymous"):
            client.list_tags(nobody.upstream)


def test_a_missing_connection_concerns_its_mirrors_alone(server: HostileRegistry) -> None:
    one, other, *_ = remotes(server)
    with SharedClients() as clients:
        refused = clients.connect(replace(one, conn_id="nowhere"))
        with pytest.raises(ConfigurationError, match="no Airflow connection 'nowhere'"):
            refused.__enter__()
        with clients.connect(other) as (client, _):
            assert client.list_tags(other.upstream).tags == ("a",)
