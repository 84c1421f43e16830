"""Failed logins: how many, of whom, and whose address a request counts for."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_network

import pytest

from registry_sync.users.login_limits import (
    PER_ACCOUNT,
    PER_ACCOUNT_AND_ADDRESS,
    PER_ADDRESS,
    FailedLogins,
    client_address,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _used_up(failed: FailedLogins, account: str, address: str) -> int:
    """How many attempts are let through until one is not."""
    count = 0
    while failed.count(account, address) == 0:
        count += 1
        assert count < 1000
    return count


def test_an_account_is_guessed_a_few_times_from_an_address_and_then_slowly() -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    assert _used_up(failed, "user:anna", "192.0.2.1") == PER_ACCOUNT_AND_ADDRESS.burst
    wait = failed.count("user:anna", "192.0.2.1")
    assert 0 < wait <= PER_ACCOUNT_AND_ADDRESS.seconds
    clock.now += wait - 0.01
    assert failed.count("user:anna", "192.0.2.1") > 0
    clock.now += 0.02
    assert _used_up(failed, "user:anna", "192.0.2.1") == 1


def test_others_are_not_kept_out_by_it() -> None:
    failed = FailedLogins(Clock())
    _used_up(failed, "user:anna", "192.0.2.1")
    assert failed.count("user:anna", "192.0.2.2") == 0
    assert failed.count("user:ben", "192.0.2.1") == 0


def test_an_address_that_guesses_many_accounts_is_slowed_down() -> None:
    failed = FailedLogins(Clock())
    let_through = [failed.count(f"user:{number}", "192.0.2.1") == 0 for number in range(200)]
    assert sum(let_through) == PER_ADDRESS.burst
    assert failed.count("user:anna", "192.0.2.2") == 0


def test_an_account_that_many_addresses_guess_is_slowed_down() -> None:
    failed = FailedLogins(Clock())
    let_through = [failed.count("user:anna", f"192.0.2.{number}") == 0 for number in range(200)]
    assert sum(let_through) == PER_ACCOUNT.burst
    assert failed.count("user:ben", "192.0.2.250") == 0


def test_addresses_of_one_ipv6_network_are_one() -> None:
    failed = FailedLogins(Clock())
    let_through = [failed.count("user:anna", f"2001:db8:1:2::{number:x}") == 0 for number in range(100)]
    assert sum(let_through) == PER_ACCOUNT_AND_ADDRESS.burst
    assert failed.count("user:anna", "2001:db8:1:3::1") == 0


def test_what_did_not_fail_is_not_counted() -> None:
    failed = FailedLogins(Clock())
    for _ in range(500):
        assert failed.count("user:anna", "192.0.2.1") == 0
        failed.forgive("user:anna", "192.0.2.1")


def test_memory_does_not_grow_with_those_who_guess() -> None:
    failed = FailedLogins(Clock(), counted=200)
    traced = []
    tracemalloc.start()
    try:
        for part in range(6):
            for number in range(250):
                failed.count(f"user:{part}-{number}", f"10.0.{part}.{number}")
            traced.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert traced[-1] < 1.1 * traced[1]


TRUSTED = (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("192.0.2.7", None, "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),  # anybody can send the header
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),  # the first one was sent by the client
        ("127.0.0.1", "203.0.113.9, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "unknown, 10.1.2.3", "10.1.2.3"),
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("2001:db8::5", "198.51.100.1", "2001:db8::5"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_address_is_what_trusted_proxies_say(peer: str, forwarded_for: str | None, address: str) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == address
