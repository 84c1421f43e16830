"""How many failed logins are tolerated, per account and address, and whose address a request counts for.

Counts of :class:`FailedLogins` are those of one process and are lost with it. Their memory is bounded: what was used
longest ago is forgotten. ``shared_limits`` adds those of the other processes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from cachetools import LRUCache

Network = IPv4Network | IPv6Network
#: The ``Host`` of a request that addresses may be made of: a host with its port (RFC 3986 section 3.2.2).
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")
#: Accounts, addresses and pairs of both that are counted at a time, of each kind.
COUNTED = 10_000
_IPV6_PREFIX = 64
#: In characters: with a zone, brackets and a port.
_LONGEST_ADDRESS = 100


@dataclass(frozen=True)
class Rate:
    """``burst`` failures at once, and then one more every ``seconds``."""

    burst: int
    seconds: float

    def wait(self, seconds_ahead: float) -> float:
        """How long to wait for the next attempt when failures count for so many seconds more; 0 or less for none."""
        return seconds_ahead - self.seconds * (self.burst - 1)


#: An account that is guessed from one address; one address that guesses; and an account that many addresses guess.
PER_ACCOUNT_AND_ADDRESS = Rate(5, 30.0)
PER_ADDRESS = Rate(30, 10.0)
PER_ACCOUNT = Rate(50, 60.0)


_RATES = (PER_ACCOUNT_AND_ADDRESS, PER_ADDRESS, PER_ACCOUNT)


class FailedLogins:
    """An attempt is counted before it is made, so that many at once count like many in turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, counted: int = COUNTED) -> None:
        self._clock = clock
        self._counts = tuple((rate, LRUCache[Hashable, float](counted)) for rate in _RATES)

    def count(self, account: str, address: str) -> float:
        """Counts an attempt and returns 0; how many seconds are to be waited when there were too many.

        What is refused is not counted, so that a client that keeps trying gets its turn.
        """
        now = self._clock()
        waits = [
            rate.wait(counts.get(key, now) - now)
            for (rate, counts), key in zip(self._counts, _keys(account, address), strict=True)
        ]
        if max(waits) > 0:
            return max(waits)
        for (rate, counts), key in zip(self._counts, _keys(account, address), strict=True):
            counts[key] = max(counts.get(key, now), now) + rate.seconds
        return 0.0

    def forgive(self, account: str, address: str) -> None:
        """Takes one attempt back: it did not fail."""
        for (rate, counts), key in zip(self._counts, _keys(account, address), strict=True):
            if key in counts:
                counts[key] -= rate.seconds


def hashed_keys(account: str, address: str) -> dict[str, Rate]:
    """What a failed login counts for, as 64 hexadecimal digits each, and the rate that is tolerated of it."""
    return {
        hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest(): rate
        for kind, (rate, key) in enumerate(zip(_RATES, _keys(account, address), strict=True))
    }


def _keys(account: str, address: str) -> tuple[Hashable, Hashable, Hashable]:
    network = _network_of(address)
    return (account, network), network, account


def _network_of(address: str) -> str:
    """The address, or the network that one customer usually has of IPv6."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
    return address


def client_address(peer: str, forwarded_for: str | None, trusted: Iterable[Network]) -> str:
    """Whose request it is: ``peer``, or what trusted proxies say in ``X-Forwarded-For``.

    Each proxy appends the address that it was asked from, so the last one that is no trusted proxy counts: what stands
    before it may have been sent by the client itself.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    networks = tuple(trusted)
    hops = [hop.strip() for hop in (forwarded_for or "").split(",")]
    while hops and any(address in network for network in networks):
        before = _parsed(hops.pop())
        if before is None:
            break
        address = before
    return str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    return _parsed_once(text) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(256)
def _parsed_once(text: str) -> IPv4Address | IPv6Address | None:
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:  # with a port, as some proxies write it
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
