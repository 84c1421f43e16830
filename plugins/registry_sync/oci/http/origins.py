"""Origins and targets of requests: scheme, host and port on one side, path and query as received on the other.

A path is kept byte for byte, because signed URLs stop working when they are written in another way.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin

from registry_sync.domain.references import RegistryUrl

DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^#]*)(?P<fragment>#.*)?", re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]+)(?::(?P<port>[0-9]{0,5}))?")
#: What a request line can carry; everything else is percent-encoded and nothing else is touched.
_LINE_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))
MAX_URL_LENGTH = 16 * 1024


class Origin(NamedTuple):
    """Scheme, host in lower case without brackets, and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, registry: RegistryUrl) -> Origin:
        """The origin at which a registry answers."""
        return cls(registry.scheme, registry.host, registry.port or DEFAULT_PORTS[registry.scheme])

    @property
    def netloc(self) -> str:
        """``host[:port]``, the port left out when it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def is_named_by(self, hosts: frozenset[str]) -> bool:
        """Whether one of ``hosts`` is exactly this host or ``host:port``. A bare host means the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.netloc in hosts or f"{host}:{self.port}" in hosts

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class Target(NamedTuple):
    """Where one request goes: ``path`` begins with ``/`` and carries the query."""

    origin: Origin
    path: str

    @classmethod
    def parse(cls, text: str, relative_to: Target | None = None) -> Target:
        """The target that ``text`` names; a fragment is dropped. Raises :class:`ValueError` saying what is wrong."""
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
        """The whole URL, the query included: for sending, not for showing."""
        return f"{self.origin}{self.path}"
