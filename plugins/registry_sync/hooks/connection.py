"""What an Airflow connection of type ``registry`` says, read into values. Nothing is connected to here.

Extra holds the fields of the form and the names that :class:`HttpHook` users know. No Extra ever becomes a header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from registry_sync.domain.references import DOCKER_HUB_ALIASES, RegistryUrl
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.oci.credentials import Credentials

#: Every name that is read from Extra; others are told in the log, because a misspelt name would do nothing.
KNOWN_EXTRA = frozenset(
    {
        "registry_token", "identity_token", "trusted_realm_hosts", "private_hosts", "allow_insecure_credentials",
        "verify", "verify_ssl", "ca_certificate", "cert", "client_certificate", "client_key", "proxy", "proxies",
        "timeout", "concurrency", "max_attempts", "rate_limit_floor", "strict_digest_header",
    }
)  # fmt: skip
#: Names of HttpHook that are decided here and not in the connection.
IGNORED_EXTRA = frozenset({"stream", "allow_redirects", "max_redirects", "trust_env", "check_response", "srv_lookup"})
PEM_START = "-----BEGIN "


@dataclass(frozen=True)
class RegistryConnection:
    """``registry`` None means that the credentials may go to any registry. Certificates are PEM text or paths.

    ``verify`` is whether certificates are checked; ``choices`` are options of the client that the connection sets.
    """

    conn_id: str
    registry: RegistryUrl | None = None
    credentials: Credentials = field(default_factory=Credentials)
    verify: bool = True
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = field(default=None, repr=False)
    proxy_url: str | None = field(default=None, repr=False)
    choices: Mapping[str, Any] = field(default_factory=dict)
    unknown_extra: tuple[str, ...] = ()

    def check_registry(self, registry: RegistryUrl) -> None:
        """Whether its credentials may go to ``registry``: exactly its own. Raises :class:`ConfigurationError`."""
        if self.registry is not None and self.registry != registry:
            raise ConfigurationError(
                f"connection {self.conn_id!r} is for {self.registry} and the remote is at {registry}; "
                "credentials are only sent to the registry that their connection names"
            )


def read_connection(conn_id: str, connection: Any) -> RegistryConnection:
    """The values of an Airflow connection. Raises :class:`ConfigurationError` naming the field that cannot be used."""
    extra = _Extra(conn_id, connection.extra_dejson)
    verify, bundle = extra.verification()
    certificate, key = extra.client_pair()
    return RegistryConnection(
        conn_id=conn_id,
        registry=_registry(conn_id, connection),
        credentials=_credentials(connection, extra),
        verify=verify,
        ca_certificate=extra.text("ca_certificate") or bundle,
        client_certificate=certificate,
        client_key=key,
        proxy_url=extra.proxy(),
        choices=extra.choices(),
        unknown_extra=extra.unknown(),
    )


def _registry(conn_id: str, connection: Any) -> RegistryUrl | None:
    host = (connection.host or "").strip()
    if not host:
        return None
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    try:
        parts = urlsplit(url)
        # The address under which Docker Hub's credentials have been stored for ever.
        if (parts.hostname or "") in DOCKER_HUB_ALIASES and parts.path.rstrip("/") == "/v1":
            url = f"{parts.scheme}://{parts.netloc}"
        if connection.port and parts.port is None:
            url = f"{parts.scheme}://{parts.netloc}:{connection.port}{urlsplit(url).path}"
        return RegistryUrl.parse(url)
    except (InvalidReference, ValueError) as problem:
        raise ConfigurationError(f"connection {conn_id!r}: {problem}") from problem


def _credentials(connection: Any, extra: _Extra) -> Credentials:
    identity_token = extra.text("identity_token")
    login, password = connection.login or None, connection.password or None
    if login == "<token>" and password and not identity_token:
        # How Docker's configuration writes an identity token.
        return Credentials(identity_token=password, registry_token=extra.text("registry_token"))
    return Credentials(login, password, extra.text("registry_token"), identity_token)


class _Extra:
    """The Extra of one connection; complaints name the connection and the field."""

    def __init__(self, conn_id: str, values: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        self._values = {name: value for name, value in values.items() if value not in (None, "")}

    def unknown(self) -> tuple[str, ...]:
        return tuple(sorted(self._values.keys() - KNOWN_EXTRA - IGNORED_EXTRA))

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise self._invalid(name, "text")
        return value.strip() or None if value else None

    def flag(self, name: str) -> bool | None:
        value = self._values.get(name)
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise self._invalid(name, "true or false")
        return value

    def verification(self) -> tuple[bool, str | None]:
        """Whether to verify, and the path of a CA bundle where ``verify`` is one, as in requests."""
        for name in ("verify", "verify_ssl"):
            value = self._values.get(name)
            if isinstance(value, str) and value.strip().lower() not in ("true", "false"):
                return True, value.strip()
            flag = self.flag(name)
            if flag is not None:
                return flag, None
        return True, None

    def client_pair(self) -> tuple[str | None, str | None]:
        """Certificate and key, PEM text or paths; the key None when it is in the certificate's file."""
        pair = self._values.get("cert")
        if isinstance(pair, str):
            return pair, None
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, str) for part in pair):
            return pair[0], pair[1]
        if pair is not None:
            raise self._invalid("cert", "a path, or a pair of paths")
        return self.text("client_certificate"), self.text("client_key")

    def proxy(self) -> str | None:
        """One proxy for both schemes; of a map the https one."""
        value = self._values.get("proxy") or self._values.get("proxies")
        if isinstance(value, Mapping):
            value = next((value[scheme] for scheme in ("https", "all", "http") if value.get(scheme)), None)
        if value is not None and not isinstance(value, str):
            raise self._invalid("proxy", "the URL of a proxy")
        return value.strip() if value else None

    def choices(self) -> dict[str, Any]:
        """Options of the client by name, only those that are set."""
        chosen: dict[str, Any] = {
            "trusted_realm_hosts": self._hosts("trusted_realm_hosts"),
            "private_hosts": self._hosts("private_hosts"),
            "allow_insecure_credentials": self.flag("allow_insecure_credentials"),
            "strict_digest_header": self.flag("strict_digest_header"),
            "concurrency": self._number("concurrency", 1, 200),
            "max_attempts": self._number("max_attempts", 1, 20),
            "rate_limit_floor": self._number("rate_limit_floor", 0, 1_000_000_000),
            **self._timeouts(),
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def _hosts(self, name: str) -> frozenset[str] | None:
        value = self._values.get(name)
        if value is None:
            return None
        entries = re.split(r"[\s,]+", value) if isinstance(value, str) else value
        if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) for entry in entries):
            raise self._invalid(name, "hosts separated by commas")
        hosts = frozenset(entry.strip().lower() for entry in entries if entry.strip())
        if any("/" in host or "*" in host for host in hosts):
            raise self._invalid(name, "hosts such as auth.example or auth.example:8443, without scheme or wildcard")
        return hosts

    def _number(self, name: str, smallest: int, largest: int) -> int | None:
        value = self._values.get(name)
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            raise self._invalid(name, f"a whole number from {smallest} to {largest}")
        return value

    def _timeouts(self) -> dict[str, float]:
        """``timeout`` as requests has it: seconds for both, or a pair for connecting and reading."""
        value = self._values.get("timeout")
        if value is None:
            return {}
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        try:
            connect, read = (float(part) for part in pair)
        except (TypeError, ValueError):
            raise self._invalid("timeout", "seconds, or a pair of them for connecting and reading") from None
        if not (0 < connect <= 3600 and 0 < read <= 3600):
            raise self._invalid("timeout", "between 0 and 3600 seconds")
        return {"connect_timeout_seconds": connect, "read_timeout_seconds": read}

    def _invalid(self, name: str, expected: str) -> ConfigurationError:
        return ConfigurationError(f"connection {self._conn_id!r}: {name} in Extra must be {expected}")
