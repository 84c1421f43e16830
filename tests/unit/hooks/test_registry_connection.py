"""What a connection says is read, or refused with the name of the field; nothing else happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.connection import KNOWN_EXTRA, read_connection
from registry_sync.oci.credentials import Credentials
from registry_sync.oci.options import ClientOptions


@dataclass
class Connection:
    """The fields of an Airflow connection that are read."""

    host: str | None = None
    schema: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    extra_dejson: dict[str, Any] = field(default_factory=dict)


def test_an_empty_connection_is_anonymous_and_for_any_registry() -> None:
    found = read_connection("demo", Connection(host=" ", login="", password=""))
    assert found.registry is None
    assert found.credentials == Credentials()
    assert (found.verify, found.choices, found.unknown_extra) == (True, {}, ())
    found.check_registry(RegistryUrl.parse("https://any.example"))


def test_every_part_is_read() -> None:
    extra = {
        "registry_token": "ready",
        "identity_token": " refresh ",
        "ca_certificate": "-----BEGIN CERTIFICATE-----",
        "client_certificate": "/certs/client.pem",
        "client_key": "-----BEGIN PRIVATE KEY-----",
        "strict_digest_header": False,
    }
    found = read_connection("demo", Connection("registry.example", "http", 5000, "alice", "secret", extra))
    assert found.registry == RegistryUrl("http", "registry.example", 5000)
    assert found.credentials == Credentials("alice", "secret", "ready", "refresh")
    assert found.ca_certificate == "-----BEGIN CERTIFICATE-----"
    assert (found.client_certificate, found.client_key) == ("/certs/client.pem", "-----BEGIN PRIVATE KEY-----")
    assert found.choices == {"strict_digest_header": False}
    assert "PRIVATE KEY" not in repr(found)


def test_a_misspelt_name_is_told_and_names_of_http_hook_are_not() -> None:
    found = read_connection(
        "demo", Connection(extra_dejson={"trusted_realm_host": "x", "stream": True, "verify": None})
    )
    assert found.unknown_extra == ("trusted_realm_host",)


@pytest.mark.parametrize("name", ["trusted_realm_hosts", "private_hosts"])
def test_hosts_are_a_list_or_text_and_compared_in_lower_case(name: str) -> None:
    for value in ("A.example, b.example:1", ["a.example ", "B.example:1"], "a.example\nb.example:1"):
        found = read_connection("demo", Connection(extra_dejson={name: value}))
        assert found.choices[name] == frozenset({"a.example", "b.example:1"})


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
