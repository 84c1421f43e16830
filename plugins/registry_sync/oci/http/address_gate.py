"""Which addresses a registry may send the client to.

A registry chooses where its realm, redirects and links point. None of them may reach what only the machine that runs
the client can reach: link-local and cloud metadata addresses never, private and loopback ones when the registry
itself is at such an address or the host is listed. Addresses are judged where they are resolved, and the connection
goes to exactly those, so that a name cannot change its meaning in between.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from enum import IntEnum

from registry_sync.errors import RedirectRefused

#: Cloud metadata services outside the link-local networks.
_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class Reach(IntEnum):
    """How far an address reaches, the narrowest last."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3


def reach_of(text: str) -> Reach:
    """The reach of an address. Raises :class:`ValueError` when ``text`` is none."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if str(address) in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return Reach.FORBIDDEN
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if embedded is not None:
            return Reach.FORBIDDEN
        if address in _NAT64:
            return reach_of(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    if address.is_loopback:
        return Reach.LOOPBACK
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def is_disguised(host: str) -> bool:
    """Whether ``host`` is an address in a spelling that only some readers take for one (``0x7f.1``, ``2852039166``)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]))
    return False


class AddressGate:
    """Resolves hosts and lets pass what may be connected to.

    ``own_host`` is the registry, which may be anywhere: somebody configured it. ``listed_hosts`` may be private.
    """

    def __init__(self, own_host: str, listed_hosts: frozenset[str] = frozenset()) -> None:
        self._own_host = own_host
        self._listed = frozenset(entry.rpartition(":")[0] or entry for entry in listed_hosts) | listed_hosts
        self._own_reach = Reach.PUBLIC

    def check_name(self, host: str) -> None:
        """Refuses what can be told from the name alone. Raises :class:`RedirectRefused`."""
        if host == self._own_host:
            return
        if is_disguised(host):
            raise RedirectRefused(f"{host[:80]!r} is an address in disguise and is not connected to", host=host)
        try:
            self._judge(host, host)
        except ValueError:
            if host == "localhost" or host.endswith(".localhost"):
                self._judge(host, "127.0.0.1")

    def resolve(self, host: str, port: int) -> list[str]:
        """Every address of ``host``, in the resolver's order. Raises :class:`RedirectRefused`, or ``OSError`` of it."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if host == self._own_host:
            self._own_reach = min(Reach.LOOPBACK, max(reach_of(address) for address in addresses))
        else:
            for address in addresses:
                self._judge(host, address)
        return addresses

    def _judge(self, host: str, address: str) -> None:
        reach = reach_of(address)
        if reach is Reach.FORBIDDEN or (
            reach is not Reach.PUBLIC and reach > self._own_reach and host not in self._listed
        ):
            raise RedirectRefused(
                f"{host[:80]} has the address {address}, which a registry may not send this client to; "
                "if it is meant, add the host to private_hosts of the connection",
                host=host,
            )
