"""Origins and targets of requests, and the addresses that a registry may send the client to.

An origin is scheme, host and port; a target adds path and query. A path is kept byte for byte, because a signed URL is
invalid when it is written differently.

A registry controls where its realm, redirects and links point, and must not use the client to reach hosts that only its
machine can reach. Link-local and cloud metadata addresses are refused, for the registry itself, too, unless the
connection lists its host: who may write a remote must not use the client to reach them either. Private and loopback
addresses are allowed only when the registry itself has such an address or the host is listed. Addresses are checked
when they are resolved, and the connection uses exactly those, so that a second lookup cannot change them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import quote, urljoin

from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import RedirectRefused

DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^#]*)(?P<fragment>#.*)?", re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]+)(?::(?P<port>[0-9]{0,5}))?")
#: Characters that a request line can carry; all others are percent-encoded, and nothing else is changed.
_LINE_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))
MAX_URL_LENGTH = 16 * 1024
#: Names that passed are remembered, up to so many: each request checks one.
MOST_CHECKED_NAMES = 1000


class Origin(NamedTuple):
    """Scheme, host in lower case without brackets, and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, registry: RegistryUrl) -> Origin:
        """The origin of a registry."""
        return cls(registry.scheme, registry.host, registry.port or DEFAULT_PORTS[registry.scheme])

    @property
    def netloc(self) -> str:
        """``host[:port]``, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def is_named_by(self, hosts: frozenset[str]) -> bool:
        """Whether one of ``hosts`` is exactly this ``host:port``. A bare host means the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.netloc in hosts or f"{host}:{self.port}" in hosts

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class Target(NamedTuple):
    """The target of one request: ``path`` starts with ``/`` and includes the query."""

    origin: Origin
    path: str

    @classmethod
    def parse(cls, text: str, relative_to: Target | None = None) -> Target:
        """The target of the URL ``text``, without its fragment. Raises :class:`ValueError` with the reason."""
        if len(text) > MAX_URL_LENGTH:
            raise ValueError("it is too long")
        text = text.strip(" \t")
        if relative_to is not None and not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text):
            text = urljoin(relative_to.url, text)
        parts = _URL.fullmatch(text)
        if parts is None:
            raise ValueError("it is not an absolute URL")
        scheme = parts["scheme"].lower()
        if scheme not in DEFAULT_PORTS:
            raise ValueError(f"its scheme is {scheme[:20]}, neither https nor http")
        authority = _AUTHORITY.fullmatch(parts["authority"])
        if authority is None:
            raise ValueError("its host is not usable, or it carries user information")
        port = int(authority["port"] or DEFAULT_PORTS[scheme])
        if not 0 < port < 65536:
            raise ValueError("its port is not usable")
        path = quote(parts["path"], safe=_LINE_SAFE)
        origin = Origin(scheme, authority["host"].strip("[]").lower().rstrip("."), port)
        if not origin.host:
            raise ValueError("it names no host")
        return cls(origin, path if path.startswith("/") else f"/{path}")

    @property
    def url(self) -> str:
        """The whole URL, the query included: for requests, not for messages."""
        return f"{self.origin}{self.path}"


#: Cloud metadata services outside the link-local networks.
_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class Reach(IntEnum):
    """The range in which an address is reachable, the narrowest last."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3


def reach_of(text: str) -> Reach:
    """The reach of an address. Raises :class:`ValueError` when ``text`` is not one."""
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
    """Whether ``host`` is an address in a form that only some resolvers accept (``0x7f.1``, ``2852039166``)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]))
    return False


class AddressGate:
    """Resolves hosts and refuses forbidden addresses.

    ``own_host`` is the registry, which may have a private address, because it is configured; a forbidden one only when
    it is listed. ``listed_hosts`` may be private.
    """

    def __init__(self, own_host: str, listed_hosts: frozenset[str] = frozenset()) -> None:
        self._own_host = own_host
        self._listed = frozenset(entry.rpartition(":")[0] or entry for entry in listed_hosts) | listed_hosts
        self._own_reach = Reach.PUBLIC
        #: The names that have passed, for as long as the registry's own address has the same reach.
        self._checked: set[str] = set()

    def check_name(self, host: str) -> None:
        """Checks the name alone. Raises :class:`RedirectRefused`."""
        checked = self._checked
        if host in checked:
            return
        self._check_name(host)
        if len(checked) < MOST_CHECKED_NAMES:  # a registry may redirect to ever other ones
            checked.add(host)

    def _check_name(self, host: str) -> None:
        if is_disguised(host):
            raise RedirectRefused(f"{host[:80]!r} is an address in an unusual form and is refused", host=host)
        if host == self._own_host:
            with suppress(ValueError):
                self._check_own(host)
            return
        try:
            self._check(host, host)
        except ValueError:
            if host == "localhost" or host.endswith(".localhost"):
                self._check(host, "127.0.0.1")

    def resolve(self, host: str, port: int) -> list[str]:
        """Every address of ``host``, in the resolver's order. Raises :class:`RedirectRefused` and its ``OSError``."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if host == self._own_host:
            for address in addresses:
                self._check_own(address)
            own_reach = min(Reach.LOOPBACK, max(reach_of(address) for address in addresses))
            if own_reach is not self._own_reach:
                self._own_reach, self._checked = own_reach, set()
        else:
            for address in addresses:
                self._check(host, address)
        return addresses

    def _check_own(self, address: str) -> None:
        if reach_of(address) is Reach.FORBIDDEN and self._own_host not in self._listed:
            raise RedirectRefused(
                f"{self._own_host[:80]} has the address {address}, which is link-local, a cloud's metadata service or "
                "of no single host; if that is intended, add the host to private_hosts of the remote's connection",
                host=self._own_host,
            )

    def _check(self, host: str, address: str) -> None:
        reach = reach_of(address)
        if reach is Reach.FORBIDDEN or (
            reach is not Reach.PUBLIC and reach > self._own_reach and host not in self._listed
        ):
            raise RedirectRefused(
                f"{host[:80]} has the address {address}, which a registry may not send this client to; "
                "if that is intended, add the host to private_hosts of the connection",
                host=host,
            )
