"""A registry cannot send the client to addresses that only the client's machine can reach."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.errors import RedirectRefused
from registry_sync.oci.http.origins import AddressGate, Reach, is_disguised, reach_of


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.FORBIDDEN),
        ("fe80::1%eth0", Reach.FORBIDDEN),
        ("fd00:ec2::254", Reach.FORBIDDEN),
        ("100.100.100.200", Reach.FORBIDDEN),
        ("224.0.0.1", Reach.FORBIDDEN),
        ("0.0.0.0", Reach.FORBIDDEN),
        ("::", Reach.FORBIDDEN),
        ("::ffff:127.0.0.1", Reach.FORBIDDEN),
        ("::ffff:93.184.216.34", Reach.FORBIDDEN),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("64:ff9b::a9fe:a9fe", Reach.FORBIDDEN),
        ("2002:7f00:1::", Reach.FORBIDDEN),
    ],
)
def test_a3_04_addresses_are_sorted_by_their_reach(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    "host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "127.1", "169.254.0xa9fe", "1.2.3.4."]
)
def test_a3_04_addresses_in_another_spelling_are_refused_by_name(host: str) -> None:
    assert is_disguised(host)
    with pytest.raises(RedirectRefused, match="unusual form"):
        AddressGate("registry.example").check_name(host)


@pytest.mark.parametrize("host", ["registry.example", "1.2.3.4", "::1", "3com.example", "0x.example", "a-1"])
def test_a3_04_ordinary_names_and_addresses_are_no_disguise(host: str) -> None:
    assert not is_disguised(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "x.localhost", "10.0.0.1", "169.254.169.254"])
def test_a3_04_a_public_registry_cannot_send_to_an_inner_address(host: str) -> None:
    with pytest.raises(RedirectRefused, match="may not send"):
        AddressGate("registry.example").check_name(host)


def test_a3_04_names_are_judged_by_what_they_resolve_to() -> None:
    with pytest.raises(RedirectRefused, match=r"127\.0\.0\.1|::1"):
        AddressGate("registry.example").resolve("localhost", 443)


def test_a3_04_the_registry_itself_may_be_anywhere_and_opens_its_own_neighbourhood() -> None:
    gate = AddressGate("127.0.0.1")
    assert gate.resolve("127.0.0.1", 5000) == ["127.0.0.1"]
    assert "127.0.0.1" in gate.resolve("localhost", 5000)
    gate.check_name("10.0.0.1")
    with pytest.raises(RedirectRefused):
        gate.check_name("169.254.169.254")


def test_a3_04_a_listed_host_may_be_private_but_never_a_metadata_service() -> None:
    gate = AddressGate("registry.example", frozenset({"10.0.0.9", "cache.internal:8443", "169.254.169.254"}))
    gate.check_name("10.0.0.9")
    gate.check_name("cache.internal")
    with pytest.raises(RedirectRefused):
        gate.check_name("10.0.0.8")
    with pytest.raises(RedirectRefused):
        gate.check_name("169.254.169.254")


@pytest.mark.parametrize("host", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "100.100.100.200"])
def test_a3_04_a_remote_at_a_metadata_service_is_refused_unless_its_connection_lists_it(host: str) -> None:
    """Who may write a remote must not read that service through it; nor by a name that resolves to it."""
    for ask in (lambda gate: gate.check_name(host), lambda gate: gate.resolve(host, 80)):
        with pytest.raises(RedirectRefused, match="private_hosts of the remote's connection"):
            ask(AddressGate(host))
        ask(AddressGate(host, frozenset({host})))
        ask(AddressGate(host, frozenset({f"{host}:80"})))


def test_a3_04_a_name_of_a_remote_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("10.0.0.1", "169.254.1.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: found)
    with pytest.raises(RedirectRefused, match=r"169\.254\.1\.1"):
        AddressGate("inner.example").resolve("inner.example", 443)
    listed = AddressGate("inner.example", frozenset({"inner.example"}))
    assert listed.resolve("inner.example", 443) == ["10.0.0.1", "169.254.1.1"]


def test_a3_04_a_name_that_passed_is_refused_once_the_registry_is_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = iter(["10.0.0.1", "93.184.216.34"])

    def found(*_args: object, **_more: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), 443))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    gate = AddressGate("inner.example")
    gate.resolve("inner.example", 443)
    for _ in range(2):
        gate.check_name("10.0.0.2")
    gate.resolve("inner.example", 443)
    with pytest.raises(RedirectRefused, match=r"10\.0\.0\.2"):
        gate.check_name("10.0.0.2")


@pytest.mark.parametrize("host", ["2852039166", "0x7f.1"])
def test_a3_04_a_remote_has_no_address_in_another_spelling(host: str) -> None:
    with pytest.raises(RedirectRefused, match="unusual form"):
        AddressGate(host, frozenset({host})).check_name(host)


@given(st.ip_addresses())
def test_every_address_has_a_reach_and_public_means_routed_everywhere(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if reach_of(str(address)) is Reach.PUBLIC:
        assert address.is_global or address in ipaddress.ip_network("64:ff9b::/96")
        assert not address.is_loopback
