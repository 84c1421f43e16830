"""Connections of Airflow become clients; credentials go to their own registry and Extra never becomes a header."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.http.hooks.http import HttpHook

from registry_sync.domain.references import RegistryUrl
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import ConfigurationError
from registry_sync.hooks import clients
from registry_sync.hooks.registry import RegistryHook
from support.certificates import CertificateAuthority
from support.hook_connections import BASIC, REPOSITORY, TAGS, guarded, plain, remote_of
from support.hostile_registry import errors_reply, json_reply
from support.registry import RegistryServer


def test_it_is_an_http_hook_with_names_of_its_own() -> None:
    hook = RegistryHook()
    assert isinstance(hook, HttpHook)
    assert (hook.conn_type, hook.conn_name_attr, hook.default_conn_name) == (
        "registry",
        "registry_conn_id",
        "registry_default",
    )
    assert hook.registry_conn_id == "registry_default"
    assert RegistryHook(**{RegistryHook.conn_name_attr: "x"}).registry_conn_id == "x"


def test_a_client_of_a_connection_uses_its_credentials(registry, connect) -> None:
    guarded(registry)
    conn_id = connect(login="alice", password="correct horse", **plain(registry))
    with RegistryHook(conn_id).get_client() as client:
        assert client.list_tags(REPOSITORY).tags == ("a",)


def test_a_remote_names_its_connection(registry, connect) -> None:
    guarded(registry)
    conn_id = connect(login="alice", password="correct horse", **plain(registry))
    with RegistryHook(remote=remote_of(registry, conn_id=conn_id)).get_client() as client:
        assert client.list_tags(REPOSITORY).tags == ("a",)


def test_a_connection_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="no Airflow connection 'nowhere'"):
        RegistryHook("nowhere").get_client()


def test_tasks_need_no_http_hook_for_a_client(registry, connect) -> None:
    guarded(registry)
    conn_id = connect(login="alice", password="correct horse", **plain(registry))
    with clients.open_client(remote_of(registry, conn_id=conn_id)) as client:
        assert client.list_tags(REPOSITORY).tags == ("a",)


def test_a_remote_without_connection_is_read_anonymously(registry) -> None:
    registry.on("GET", TAGS, json_reply({"tags": ["a"]}))
    with RegistryHook(remote=remote_of(registry)).get_client() as client:
        assert client.list_tags(REPOSITORY).tags == ("a",)
    assert registry.requests[0].header("authorization") is None


@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example.evil.example",
        "https://evil.example",
        "https://registry.example:8443",
        "http://registry.example",
        "https://xregistry.example",
        "https://sub.registry.example",
    ],
)
def test_a1_07_credentials_go_to_exactly_the_host_of_their_connection(connect, url: str) -> None:
    conn_id = connect(host="registry.example", login="alice", password="correct horse")
    remote = RemoteSpec.parse(name="demo", url=url, upstream_name="a", conn_id=conn_id)
    with pytest.raises(ConfigurationError, match="only sent to the registry that their connection names"):
        RegistryHook(remote=remote).get_client()


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "registry.example"}, "https://registry.example"),
        ({"host": "Registry.Example", "port": 443}, "https://registry.example/"),
        ({"host": "https://registry.example/v2/"}, "https://registry.example"),
        ({"host": "registry.example", "port": 5000, "schema": "http"}, "http://registry.example:5000"),
        ({"host": "registry.example:5000"}, "https://registry.example:5000"),
        ({"host": "https://index.docker.io/v1/"}, "https://registry-1.docker.io"),
        ({"host": "docker.io"}, "https://registry.hub.docker.com"),
        ({"extra": {"allow_any_host": True}}, "https://anything.example"),
    ],
)
def test_a1_06_spellings_of_one_registry_are_one_registry(connect, fields: dict[str, Any], url: str) -> None:
    remote = RemoteSpec.parse(name="demo", url=url, upstream_name="a", conn_id=connect(login="alice", **fields))
    with RegistryHook(remote=remote).get_client() as client:
        assert client.registry == RegistryUrl.parse(url)


@pytest.mark.parametrize("host", ["hub.docker.com", "ftp://x", "https://user:pass@x", "x/y", "http://x:y"])
def test_a_host_that_is_no_registry_is_a_matter_of_configuration(connect, host: str) -> None:
    with pytest.raises(ConfigurationError, match="demo_registry"):
        RegistryHook(connect(host=host)).get_client()


def test_the_scheme_is_https_unless_stated(connect) -> None:
    with RegistryHook(connect(host="registry.example")).get_client() as client:
        assert str(client.registry) == "https://registry.example"


def test_extra_never_becomes_a_header(registry, connect, caplog: pytest.LogCaptureFixture) -> None:
    registry.on("GET", TAGS, json_reply({"tags": []}))
    conn_id = connect(**plain(registry, insecure=True, token="secret-1", mirror_of="x", trusted_realm_host="typo"))
    hook = RegistryHook(conn_id)
    with hook.get_client() as client:
        client.list_tags(REPOSITORY)
    hook.run(f"v2/{REPOSITORY}/tags/list")
    hook.close()
    sent = json.dumps([request.headers for request in registry.requests])
    assert not any(word in sent for word in ("insecure", "secret-1", "mirror", "typo"))


def test_options_come_from_the_connection_and_the_remote(connect) -> None:
    conn_id = connect(
        host="registry.example",
        extra={
            "timeout": [3, 30],
            "concurrency": "7",
            "trusted_realm_hosts": "Auth.example, other.example:8443",
            "private_hosts": ["10.0.0.9"],
            "rate_limit_floor": 5,
            "max_attempts": 2,
            "verify": "false",
            "proxy": "http://user:pass@proxy.example:3128",
        },
    )
    with RegistryHook(conn_id).get_client() as client:
        options = client.options
    assert (options.connect_timeout_seconds, options.read_timeout_seconds) == (3, 30)
    assert (options.concurrency, options.max_attempts, options.rate_limit_floor) == (7, 2, 5)
    assert options.trusted_realm_hosts == frozenset({"auth.example", "other.example:8443"})
    assert options.private_hosts == frozenset({"10.0.0.9"})
    assert options.verify is False
    assert options.proxy_url == "http://user:pass@proxy.example:3128"
    remote = RemoteSpec.parse("demo", "https://registry.example", "a", conn_id=conn_id, download_concurrency=3)
    remote = remote.changed(proxy_url="http://other.example:3128")
    with RegistryHook(remote=remote).get_client() as client:
        assert client.options.concurrency == 3
        assert client.options.proxy_url == "http://other.example:3128"
        assert client.options.trusted_realm_hosts == options.trusted_realm_hosts


@pytest.mark.rule("A5.17")
@pytest.mark.parametrize("wanted", [False, True])
def test_what_a_remote_takes_besides_reaches_the_client(wanted: bool) -> None:
    remote = RemoteSpec.parse(
        "demo", "https://registry.example", "a", include_foreign_layers=wanted, allow_schema1=not wanted
    )
    with RegistryHook(remote=remote).get_client() as client:
        assert (client.options.follow_foreign_urls, client.options.allow_schema1) == (wanted, not wanted)
    with RegistryHook(remote=remote.changed(include_foreign_layers=False, allow_schema1=False)).get_client() as client:
        assert (client.options.follow_foreign_urls, client.options.allow_schema1) == (False, False)


@pytest.mark.parametrize(
    ("extra", "attribute", "value"),
    [
        ({"verify_ssl": False}, "verify", False),
        ({"verify": True}, "verify", True),
        ({"proxies": {"https": "http://p.example:1"}}, "proxy_url", "http://p.example:1"),
        ({"timeout": 5}, "read_timeout_seconds", 5),
        ({"timeout": "5.5"}, "connect_timeout_seconds", 5.5),
        ({}, "read_timeout_seconds", 60),
        ({}, "verify", True),
        ({"stream": True, "trust_env": True, "allow_redirects": False}, "verify", True),
    ],
)
def test_names_that_http_hook_users_know_are_understood(
    connect, extra: dict[str, Any], attribute: str, value: object
) -> None:
    with RegistryHook(connect(host="registry.example", extra=extra)).get_client() as client:
        assert getattr(client.options, attribute) == value


@pytest.mark.parametrize(
    "extra",
    [
        {"timeout": "soon"},
        {"timeout": [1, 2, 3]},
        {"timeout": 0},
        {"concurrency": 0},
        {"concurrency": True},
        {"verify": 7},
        {"proxy": 7},
        {"cert": 7},
        {"trusted_realm_hosts": "https://auth.example/"},
        {"trusted_realm_hosts": "*.example"},
        {"trusted_realm_hosts": 7},
        {"registry_token": 7},
        {"allow_insecure_credentials": "perhaps"},
        {"cert": "/nowhere/client.pem"},
        {"verify": "/nowhere/ca.pem"},
    ],
)
def test_an_extra_that_cannot_be_used_is_reported_at_once(connect, extra: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RegistryHook(connect(host="registry.example", extra=extra)).get_client()


@pytest.mark.rule("A9.10")
def test_the_contact_of_the_connection_comes_before_the_settings(
    registry, connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.on("GET", TAGS, json_reply({"tags": []}))
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__CONTACT", "https://example.org/mirrors")
    for conn_id in (connect("without", **plain(registry)), connect("with", **plain(registry, contact="a@b.example"))):
        with RegistryHook(conn_id).get_client() as client:
            client.list_tags(REPOSITORY)
        RegistryHook(conn_id).run(TAGS)
    agents = [(request.header("user-agent") or "").partition(" ")[2] for request in registry.requests]
    assert agents == ["(Apache Airflow; +https://example.org/mirrors)"] * 2 + ["(Apache Airflow; +a@b.example)"] * 2


@pytest.mark.rule("A9.11")
def test_a_mirror_gets_the_namespace_of_the_upstream_and_its_own_password(registry, connect) -> None:
    guarded(registry)
    fields = plain(registry, ns="docker.io")
    conn_id = connect(login="alice", password="correct horse", **fields)
    with RegistryHook(remote=remote_of(registry, conn_id=conn_id)).get_client() as client:
        assert client.list_tags(REPOSITORY).tags == ("a",)
    assert {request.query.rpartition("&")[2] for request in registry.requests} == {"ns=docker.io"}
    upstream = RemoteSpec.parse(name="demo", url="https://registry-1.docker.io", upstream_name="a", conn_id=conn_id)
    with pytest.raises(ConfigurationError, match="only sent to the registry that their connection names"):
        RegistryHook(remote=upstream).get_client()


def test_an_identity_token_is_known_by_dockers_spelling(registry, connect, masked: list[str]) -> None:
    challenge = errors_reply(401, "X", headers=[("WWW-Authenticate", f'Bearer realm="{registry.base}/token"')])
    registry.on("GET", TAGS, challenge, json_reply({"tags": []}))
    registry.on("POST", "/token", json_reply({"access_token": "bearer-1"}))
    conn_id = connect(login="<token>", password="identity-1", **plain(registry))
    with RegistryHook(conn_id).get_client() as client:
        client.list_tags(REPOSITORY)
    assert b"refresh_token=identity-1" in registry.asked("POST")[0].body
    assert {"identity-1", "bearer-1"} <= set(masked)


def test_a3_09_every_secret_is_given_to_the_masker(registry, connect, masked: list[str]) -> None:
    guarded(registry)
    extra = {"registry_token": None, "proxy": "", "client_private_key": "-----BEGIN KEY-----"}
    conn_id = connect(login="alice", password="correct horse", **plain(registry, **extra))
    with RegistryHook(conn_id).get_client() as client:
        client.list_tags(REPOSITORY)
    assert {"correct horse", BASIC.removeprefix("Basic "), "-----BEGIN KEY-----"} <= set(masked)


# -- certificates ------------------------------------------------------------------------------------------------


def test_certificates_are_pem_text_or_paths_and_no_file_is_left(
    connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    server = authority.server(asks_for_client=True)
    assert server.client_pair is not None
    certificate, key = (Path(path) for path in server.client_pair)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with RegistryServer(tmp_path / "registry", certificate=server) as registry:
        by_text = {
            "ca_certificate": server.ca_path.read_text(),
            "client_certificate": certificate.read_text(),
            "client_private_key": key.read_text(),
        }
        by_path = {"verify": str(server.ca_path), "cert": [str(certificate), str(key)]}
        for number, extra in enumerate((by_text, by_path)):
            conn_id = connect(f"tls_{number}", host=f"127.0.0.1:{registry.port}", extra=extra)
            with RegistryHook(conn_id).get_client() as client:
                assert client.ping().auth_scheme == "none"
                assert list(scratch.iterdir()) == []
        remote = RemoteSpec.parse(
            "demo",
            f"https://127.0.0.1:{registry.port}",
            "a",
            ssl_ca_certificate=server.ca_path.read_text(),
            ssl_client_certificate=certificate.read_text() + key.read_text(),
        )
        with RegistryHook(remote=remote).get_client() as client:
            assert client.ping().auth_scheme == "none"
        without = remote.changed(ssl_ca_certificate=None, ssl_validation=False)
        with RegistryHook(remote=without).get_client() as client:
            assert client.ping().auth_scheme == "none"


@pytest.mark.rule("A9.12")
@pytest.mark.parametrize(
    ("fields", "level", "words"),
    [
        ({"host": "registry.example", "extra": {"verify": False}}, "WARNING", "NOT verified"),
        (
            {"host": "http://registry.example", "extra": {"allow_insecure_credentials": True}},
            "WARNING",
            "a password may be sent unencrypted",
        ),
        ({"host": "http://registry.example"}, "INFO", "plain http, without a password"),
    ],
)
def test_what_is_left_open_is_reported_each_time(
    connect, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], level: str, words: str
) -> None:
    hook = RegistryHook(connect(**fields))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO", logger="registry_sync"):
            hook.get_client().close()
        told = [record for record in caplog.records if record.name == "registry_sync.hooks.clients"]
        assert [record.levelname for record in told] == [level]
        assert words in told[0].getMessage()


def test_what_is_closed_is_not_reported(connect, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="registry_sync"):
        RegistryHook(connect(host="registry.example", login="alice", password="x")).get_client().close()
    assert [record for record in caplog.records if record.name == "registry_sync.hooks.clients"] == []
