"""What a connection says is read, or refused with the name of the field; nothing else happens."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.connection import (
    KNOWN_EXTRA,
    RENAMED_EXTRA,
    SECRET_EXTRA,
    HostLimits,
    read_connection,
    with_hidden_secrets,
)
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import ClientOptions
from registry_sync.provider import CONNECTION_FIELDS

ANY = RegistryUrl.parse("https://any.example")


@dataclass
class Connection:
    """The fields of an Airflow connection that are read."""

    host: str | None = None
    schema: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    extra_dejson: dict[str, Any] = field(default_factory=dict)
    conn_type: str | None = "registry"


def test_an_empty_connection_is_anonymous_and_for_no_registry() -> None:
    found = read_connection("demo", Connection(host=" ", login="", password=""))
    assert found.registry is None
    assert found.credentials == Credentials()
    assert (found.verify, found.choices, found.unknown_extra) == (True, {}, ())
    assert (found.limits, found.credential_helper, found.contact) == (HostLimits(), None, None)
    with pytest.raises(ConfigurationError, match=r"Enter https://any\.example as its host"):
        found.check_registry(ANY)


@pytest.mark.parametrize("conn_type", ["aws", "generic", "", None])
def test_a_connection_without_host_of_another_type_serves_no_registry(conn_type: str | None) -> None:
    """Where only the plugins folder is installed Airflow stores ``generic`` for every type it does not know."""
    found = read_connection("demo", Connection(conn_type=conn_type, extra_dejson={"allow_any_host": True}))
    with pytest.raises(ConfigurationError, match=r"enter https://any\.example as its host"):
        found.check_registry(ANY)
    read_connection("demo", Connection("any.example", conn_type=conn_type)).check_registry(ANY)


def test_a_connection_without_host_serves_any_registry_only_when_it_says_so() -> None:
    read_connection("demo", Connection(extra_dejson={"allow_any_host": True})).check_registry(ANY)
    for said in ({}, {"allow_any_host": False}, {"allow_any_host": "false"}, {"allow_any_host": None}):
        with pytest.raises(ConfigurationError, match="'Serve any registry'"):
            read_connection("demo", Connection(extra_dejson=said)).check_registry(ANY)


def test_a_connection_with_a_host_serves_it_alone_whatever_else_it_says() -> None:
    found = read_connection("demo", Connection("other.example", extra_dejson={"allow_any_host": True}))
    with pytest.raises(ConfigurationError, match="only sent to the registry that their connection names"):
        found.check_registry(ANY)


def test_every_part_is_read() -> None:
    extra = {
        "registry_token": "ready",
        "identity_token": " refresh ",
        "ca_certificate": "-----BEGIN CERTIFICATE-----",
        "client_certificate": "/certs/client.pem",
        "client_private_key": "-----BEGIN PRIVATE KEY-----",
        "strict_digest_header": False,
    }
    found = read_connection("demo", Connection("registry.example", "http", 5000, "alice", "secret", extra))
    assert found.registry == RegistryUrl("http", "registry.example", 5000)
    assert found.credentials == Credentials("alice", "secret", "ready", "refresh")
    assert found.ca_certificate == "-----BEGIN CERTIFICATE-----"
    assert (found.client_certificate, found.client_key) == ("/certs/client.pem", "-----BEGIN PRIVATE KEY-----")
    assert found.choices == {"strict_digest_header": False}
    assert "PRIVATE KEY" not in repr(found)


def test_a_misspelt_name_is_reported_and_names_of_http_hook_are_not() -> None:
    found = read_connection(
        "demo", Connection(extra_dejson={"trusted_realm_host": "x", "stream": True, "verify": None})
    )
    assert found.unknown_extra == ("trusted_realm_host",)


@pytest.mark.parametrize("name", ["trusted_realm_hosts", "private_hosts"])
def test_hosts_are_a_list_or_text_and_compared_in_lower_case(name: str) -> None:
    for value in ("A.example, b.example:1", ["a.example ", "B.example:1"], "a.example\nb.example:1"):
        found = read_connection("demo", Connection(extra_dejson={name: value}))
        assert found.choices[name] == frozenset({"a.example", "b.example:1"})


@pytest.mark.rule("A9.8")
def test_limits_of_the_host_are_read_as_numbers() -> None:
    found = read_connection("demo", Connection(extra_dejson={"host_concurrency": "8", "requests_per_second": "0.5"}))
    assert found.limits == HostLimits(8, 0.5)
    assert found.choices == {}, "they are shared among tasks and so no options of one client"


@pytest.mark.rule("A9.11")
@pytest.mark.parametrize("value", ["docker.io", "quay.io:8443", "Registry.Example", "127.0.0.1:5000"])
def test_a_namespace_is_kept_as_it_is_written(value: str) -> None:
    found = read_connection("demo", Connection("mirror.example", extra_dejson={"ns": value}))
    assert found.choices["namespace"] == value


@pytest.mark.rule("A9.11")
def test_a_namespace_needs_a_host_whose_credentials_these_are() -> None:
    with pytest.raises(ConfigurationError, match="enter the mirror as host"):
        read_connection("demo", Connection(login="alice", password="x", extra_dejson={"ns": "docker.io"}))


@pytest.mark.rule("A9.11")
@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("quay.io", "quay.io"),
        ("quay.io", "QUAY.IO:443"),
        ("docker.io", "index.docker.io"),
        ("x.example", "hub.docker.com"),
    ],
)
def test_a_namespace_is_another_registry_than_the_connections(host: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="ns is"):
        read_connection("demo", Connection(host, extra_dejson={"ns": value}))


@pytest.mark.rule("A9.10")
def test_the_contact_is_read() -> None:
    assert read_connection("demo", Connection(extra_dejson={"contact": " a@b.example "})).contact == "a@b.example"
    assert read_connection("demo", Connection()).contact is None


@pytest.mark.rule("A4.17")
def test_a_credential_helper_is_known_by_name_and_makes_the_credentials_alone() -> None:
    found = read_connection("demo", Connection(extra_dejson={"credential_helper": "amazon_ecr"}))
    assert found.credential_helper == "amazon_ecr"
    for name in ("registry_token", "identity_token"):
        extra = {"credential_helper": "amazon_ecr", name: "x"}
        with pytest.raises(ConfigurationError, match="leave registry_token and identity_token empty"):
            read_connection("demo", Connection(extra_dejson=extra))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"credential_helper": "amazon"}, "credential_helper in Extra must be one of amazon_ecr"),
        ({"credential_helper": 7}, "credential_helper in Extra must be text"),
        ({"host_concurrency": 0}, "host_concurrency in Extra must be a whole number"),
        ({"host_concurrency": 2.5}, "host_concurrency in Extra must be a whole number"),
        ({"requests_per_second": 0}, "requests_per_second in Extra must be a number from 0.01 to 10000"),
        ({"requests_per_second": "fast"}, "requests_per_second in Extra must be a number"),
        ({"requests_per_second": True}, "requests_per_second in Extra must be a number"),
        ({"requests_per_second": "nan"}, "requests_per_second in Extra must be a number"),
        ({"requests_per_second": "inf"}, "requests_per_second in Extra must be a number"),
        ({"requests_per_second": [1]}, "requests_per_second in Extra must be a number"),
        ({"ns": "https://docker.io"}, "ns in Extra must be a host"),
        ({"ns": "docker.io/library"}, "ns in Extra must be a host"),
        ({"ns": "docker.io/"}, "ns in Extra must be a host"),
        ({"ns": "docker.io?x=y"}, "ns in Extra must be a host"),
        ({"ns": "a b"}, "ns in Extra must be a host"),
        ({"contact": "somebody"}, "contact in Extra must be a mail address"),
        ({"contact": "a@b\r\nX: y"}, "contact in Extra must be a mail address"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_connection("demo", Connection("registry.example", extra_dejson=extra))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(sorted(KNOWN_EXTRA)), _values, max_size=4),
    st.none() | st.text(max_size=20),
    st.none() | st.integers(-1, 70000),
)
def test_any_connection_gives_options_that_can_be_used_or_is_refused(
    extra: dict[str, Any], host: str | None, port: int | None
) -> None:
    try:
        found = read_connection("demo", Connection(host=host, port=port, extra_dejson=extra))
    except ConfigurationError:
        return
    options = ClientOptions(**found.choices)
    assert 1 <= options.concurrency <= 200
    assert 0 < options.read_timeout_seconds <= 3600


# -- secrets ---------------------------------------------------------------------------------------------------------

KEY = "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"


def test_airflow_hides_every_secret_of_extra_by_its_name_and_no_other_name_holds_one() -> None:
    from airflow._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS, SecretsMasker

    masker = SecretsMasker()
    masker.sensitive_variables_fields = list(DEFAULT_SENSITIVE_FIELDS)
    assert {name for name in KNOWN_EXTRA if masker.should_hide_value_for_key(name)} == SECRET_EXTRA
    one_line = {name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"}
    assert one_line == (SECRET_EXTRA & CONNECTION_FIELDS.keys()) - {"client_private_key"}, "PEM text has lines"
    assert not RENAMED_EXTRA.keys() & KNOWN_EXTRA


@pytest.mark.parametrize(
    ("stored", "outdated"),
    [
        ({"client_certificate": CERTIFICATE, "client_key": KEY}, ("client_key",)),
        ({"client_certificate": CERTIFICATE + KEY}, ("client_certificate",)),
        ({"cert": CERTIFICATE + KEY}, ("cert",)),
        ({"cert": [CERTIFICATE, KEY]}, ("cert",)),
        ({"client_certificate": CERTIFICATE, "client_private_key": KEY}, ()),
    ],
)
def test_a_key_under_a_name_that_airflow_shows_is_read_and_reported(
    stored: dict[str, Any], outdated: tuple[str, ...]
) -> None:
    found = read_connection("demo", Connection("any.example", extra_dejson=stored))
    assert (found.client_certificate, found.client_key) == (CERTIFICATE.strip(), KEY.strip())
    assert (found.outdated_extra, found.unknown_extra) == (outdated, ())
    renamed = with_hidden_secrets(stored)
    assert "PRIVATE" not in str({name: value for name, value in renamed.items() if name not in SECRET_EXTRA})
    assert with_hidden_secrets(renamed) == renamed


@pytest.mark.parametrize("name", sorted(SECRET_EXTRA))
def test_what_airflow_shows_in_place_of_a_secret_is_no_secret(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} in Extra is \*\*\*"):
        read_connection("demo", Connection("any.example", extra_dejson={name: "***"}))
    with pytest.raises(ConfigurationError, match=r"the password is \*\*\*"):
        read_connection("demo", Connection("any.example", login="joe", password="***"))


@pytest.mark.parametrize(
    "host", ["https://joe:hunter22@r[e", "joe:hunter22@r.example:port", "joe:hunter22@\u2100.example"]
)
def test_a_host_with_a_password_in_it_is_not_repeated(host: str) -> None:
    with pytest.raises(ConfigurationError, match="connection 'demo'") as raised:
        read_connection("demo", Connection(host))
    assert "hunter22" not in "".join(traceback.format_exception(raised.value))
