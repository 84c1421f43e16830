"""The values of an Airflow connection of type ``registry``, including Extra. Nothing is connected to here.

The mapped tasks of a stage run on several machines and do not know each other, but each knows their number. So each
gets an equal share of the limits, whether the others are running or not: together they stay within the limit, and below
it when some wait or have ended. Other DAG runs are not known here; an Airflow pool limits the tasks that use a host
concurrently (docs/how-to/limit-requests.md).

Extra has the fields of the form and the names that :class:`HttpHook` users know. Extra never becomes headers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from registry_sync.domain.known_registries import registry_called
from registry_sync.domain.private_keys import has_private_key, split_private_keys
from registry_sync.domain.quantities import parse_flag
from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.hooks.credential_helpers import MINTS
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import CONTACT_SHAPE, is_contact
from registry_sync.oci.http.origins import Target
from registry_sync.oci.http.rate_limits import LONGEST_TURN_SECONDS

#: All names read from Extra; unknown ones are logged, because a misspelt name would have no effect.
KNOWN_EXTRA = frozenset(
    {
        "registry_token", "identity_token", "credential_helper", "trusted_realm_hosts", "private_hosts",
        "allow_insecure_credentials", "verify", "verify_ssl", "ca_certificate", "cert", "client_certificate",
        "client_private_key", "proxy", "proxies", "ns", "contact", "timeout", "concurrency", "host_concurrency",
        "requests_per_second", "max_attempts", "allow_any_host", "rate_limit_floor", "strict_digest_header",
    }
)  # fmt: skip
#: Names of secrets. Airflow hides each by its name wherever it shows a connection.
SECRET_EXTRA = frozenset({"registry_token", "identity_token", "client_private_key", "proxy", "proxies"})
#: Former names of secrets, which Airflow does not hide; they are read, and renamed by ``db upgrade``.
RENAMED_EXTRA = {"client_key": "client_private_key"}
#: The text that Airflow shows in place of a secret.
MASK = "***"
#: Names of HttpHook that are set here and not in the connection.
IGNORED_EXTRA = frozenset({"stream", "allow_redirects", "max_redirects", "trust_env", "check_response", "srv_lookup"})
#: The lowest rate is one request in a hundred seconds.
SLOWEST_REQUESTS_PER_SECOND, FASTEST_REQUESTS_PER_SECOND = 0.01, 10_000.0


def with_hidden_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Extra with every secret under a name that Airflow hides; correct names do not change.

    A private key may also be part of the text of a certificate, whose name Airflow does not hide.
    """
    hidden = dict(values)
    for old, new in RENAMED_EXTRA.items():
        if old in hidden:
            former = hidden.pop(old)
            hidden[new] = hidden.get(new) or former
    pair = hidden.get("cert")
    if isinstance(pair, str) and has_private_key(pair):
        hidden["client_certificate"] = hidden.pop("cert")
    elif isinstance(pair, (list, tuple)) and any(isinstance(part, str) and has_private_key(part) for part in pair):
        hidden["client_certificate"] = "\n".join(hidden.pop("cert"))
    for name in ("client_certificate", "ca_certificate", "verify", "verify_ssl"):
        text = hidden.get(name)
        if isinstance(text, str) and has_private_key(text):
            hidden[name], key = split_private_keys(text)
            if name == "client_certificate":
                hidden["client_private_key"] = hidden.get("client_private_key") or key
    return hidden


class Extra:
    """The Extra of one connection; errors name the connection and the field.

    ``outdated`` are names of secrets that Airflow does not hide.
    """

    def __init__(self, conn_id: str, values: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        given = {name: value for name, value in values.items() if value not in (None, "")}
        self._values = with_hidden_secrets(given)
        self.outdated = tuple(sorted(name for name in given if given[name] != self._values.get(name)))
        for name in SECRET_EXTRA & self._values.keys():
            value = self._values[name]
            if MASK in (value, *(value.values() if isinstance(value, Mapping) else ())):
                raise masked(conn_id, f"{name} in Extra")

    def unknown(self) -> tuple[str, ...]:
        return tuple(sorted(self._values.keys() - KNOWN_EXTRA - IGNORED_EXTRA))

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise self._invalid(name, "text")
        return value.strip() or None if value else None

    def flag(self, name: str) -> bool | None:
        try:
            return parse_flag(self._values.get(name), name)
        except ConfigurationError:  # its text contains the value, which may be a secret in the wrong field
            raise self._invalid(name, "true or false") from None

    def verification(self) -> tuple[bool, str | None]:
        """Whether to verify, and the path of a CA bundle where ``verify`` is one, as in requests."""
        for name in ("verify", "verify_ssl"):
            value = self._values.get(name)
            try:
                flag = parse_flag(value, name)
            except ConfigurationError:
                if not isinstance(value, str):
                    raise self._invalid(name, "true or false") from None
                return True, value.strip()
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
        return self.text("client_certificate"), self.text("client_private_key")

    def proxy(self) -> str | None:
        """One proxy for both schemes; from a map the https one."""
        value = self._values.get("proxy") or self._values.get("proxies")
        if isinstance(value, Mapping):
            value = next((value[scheme] for scheme in ("https", "all", "http") if value.get(scheme)), None)
        if value is not None and not isinstance(value, str):
            raise self._invalid("proxy", "the URL of a proxy")
        return value.strip() if value else None

    def choices(self) -> dict[str, Any]:
        """The client options that are set, by name."""
        options: dict[str, Any] = {
            "trusted_realm_hosts": self._hosts("trusted_realm_hosts"),
            "private_hosts": self._hosts("private_hosts"),
            "allow_insecure_credentials": self.flag("allow_insecure_credentials"),
            "strict_digest_header": self.flag("strict_digest_header"),
            "concurrency": self.number("concurrency", 1, 200),
            "requests_per_second": self._rate("requests_per_second"),
            "namespace": self._namespace("ns"),
            "max_attempts": self.number("max_attempts", 1, 20),
            "rate_limit_floor": self.number("rate_limit_floor", 0, 1_000_000_000),
            **self._timeouts(),
        }
        return {name: value for name, value in options.items() if value is not None}

    def contact(self) -> str | None:
        """The contact for the operator of the registry."""
        value = self.text("contact")
        if value is not None and not is_contact(value):
            raise self._invalid("contact", CONTACT_SHAPE)
        return value

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """One of ``choices``, None when not set."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise self._invalid(name, f"one of {', '.join(sorted(choices))}")
        return value

    def _namespace(self, name: str) -> str | None:
        value = self.text(name)
        try:
            if value is not None and (Target.parse(f"https://{value}").path != "/" or "/" in value):
                raise ValueError("it has a path")  # noqa: TRY301 - one message for all that is wrong
        except ValueError:
            raise self._invalid(name, "a host such as docker.io or quay.io:8443, without scheme or path") from None
        return value

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

    def _rate(self, name: str) -> float | None:
        value = self._values.get(name)
        if value is None:
            return None
        try:
            rate = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            rate = float("nan")
        if not SLOWEST_REQUESTS_PER_SECOND <= rate <= FASTEST_REQUESTS_PER_SECOND:
            smallest, largest = SLOWEST_REQUESTS_PER_SECOND, FASTEST_REQUESTS_PER_SECOND
            raise self._invalid(name, f"a number from {smallest} to {largest:.0f}")
        return rate

    def number(self, name: str, smallest: int, largest: int) -> int | None:
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


def masked(conn_id: str, where: str) -> ConfigurationError:
    """The error for a secret that equals Airflow's mask."""
    return ConfigurationError(
        f"connection {conn_id!r}: {where} is {MASK}, which Airflow shows in place of a secret; enter the secret itself"
    )


@dataclass(frozen=True)
class HostLimits:
    """The limits for requests to one host: concurrent, and per second. None is no limit."""

    concurrency: int | None = None
    requests_per_second: float | None = None

    def most_tasks(self, wanted: int) -> int:
        """``wanted`` tasks, or as many as can each have one request at a time."""
        return wanted if self.concurrency is None else min(wanted, self.concurrency)

    def share(self, task_count: int) -> HostLimits:
        """The share of one of ``task_count`` tasks; at least one request at a time.

        With a low rate fewer requests are concurrent, so that none waits until its errors are too old to be retried,
        and a failing stage ends soon.
        """
        concurrency = None if self.concurrency is None else max(1, self.concurrency // task_count)
        if self.requests_per_second is None:
            return HostLimits(concurrency)
        rate = self.requests_per_second / task_count
        in_time = max(1, math.ceil(rate * LONGEST_TURN_SECONDS))
        return HostLimits(in_time if concurrency is None else min(concurrency, in_time), rate)


PEM_START = "-----BEGIN "
#: The type of connections for registries.
CONN_TYPE = "registry"


@dataclass(frozen=True)
class RegistryConnection:
    """The values of a connection. ``registry`` None means that it names none. Certificates are PEM text or paths.

    ``conn_type`` is Airflow's; ``allow_any_host`` says that the connection may serve any registry, which counts only if
    it names none and its type is ``registry``.

    ``credential_helper`` is the name of the helper that creates the credentials (see
    :data:`~registry_sync.hooks.credential_helpers.MINTS`); user name and password are then for that service. ``limits``
    are those of all tasks of a stage together. ``verify`` says whether certificates are verified; ``choices`` are
    client options that the connection sets. ``contact`` is the contact for the operator of the registry.
    """

    conn_id: str
    conn_type: str = CONN_TYPE
    registry: RegistryUrl | None = None
    allow_any_host: bool = False
    credentials: Credentials = field(default_factory=Credentials)
    credential_helper: str | None = None
    limits: HostLimits = field(default_factory=HostLimits)
    verify: bool = True
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = field(default=None, repr=False)
    proxy_url: str | None = field(default=None, repr=False)
    choices: Mapping[str, Any] = field(default_factory=dict)
    contact: str | None = None
    unknown_extra: tuple[str, ...] = ()
    outdated_extra: tuple[str, ...] = ()

    def check_registry(self, registry: RegistryUrl) -> None:
        """Checks that it may be used for ``registry``: exactly its own, or any if it allows that.

        Raises :class:`ConfigurationError`, which says what to enter in the connection.
        """
        if not self.conn_id or self.registry == registry:
            return
        if self.registry is not None:
            raise ConfigurationError(
                f"connection {self.conn_id!r} is for {self.registry} and the remote is at {registry}; "
                "credentials are only sent to the registry that their connection names"
            )
        if self.conn_type != CONN_TYPE:
            raise ConfigurationError(
                f"connection {self.conn_id!r} names no host, and its type is {self.conn_type!r}: it is not used for "
                f"{registry}. If its credentials are for that registry, enter {registry} as its host"
            )
        if not self.allow_any_host:
            raise ConfigurationError(
                f"connection {self.conn_id!r} names no host, so it is not used for {registry}. Enter {registry} as its "
                "host; or, if any registry that a remote names may receive its credentials, switch on 'Serve any "
                "registry' (allow_any_host in Extra)"
            )


def read_connection(conn_id: str, connection: Any) -> RegistryConnection:
    """The values of an Airflow connection. Raises :class:`ConfigurationError` naming the field that cannot be used."""
    extra = Extra(conn_id, connection.extra_dejson)
    verify, bundle = extra.verification()
    certificate, key = extra.client_pair()
    choices = extra.choices()
    registry = _registry(conn_id, connection)
    _check_namespace(conn_id, registry, choices.get("namespace"))
    return RegistryConnection(
        conn_id=conn_id,
        conn_type=connection.conn_type or "",
        registry=registry,
        allow_any_host=bool(extra.flag("allow_any_host")),
        credentials=_credentials(conn_id, connection, extra),
        credential_helper=_credential_helper(conn_id, extra),
        limits=HostLimits(extra.number("host_concurrency", 1, 10_000), choices.pop("requests_per_second", None)),
        verify=verify,
        ca_certificate=extra.text("ca_certificate") or bundle,
        client_certificate=certificate,
        client_key=key,
        proxy_url=extra.proxy(),
        choices=choices,
        contact=extra.contact(),
        unknown_extra=extra.unknown(),
        outdated_extra=extra.outdated,
    )


def _registry(conn_id: str, connection: Any) -> RegistryUrl | None:
    host = (connection.host or "").strip()
    if not host:
        return None
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    try:
        parts = urlsplit(url)
        # The address under which Docker has always stored Docker Hub's credentials.
        if parts.path.rstrip("/") == registry_called(parts.hostname or "").credentials_path:
            url = f"{parts.scheme}://{parts.netloc}"
        if connection.port and parts.port is None:
            url = f"{parts.scheme}://{parts.netloc}:{connection.port}{urlsplit(url).path}"
        return RegistryUrl.parse(url)
    except InvalidReference as problem:
        raise ConfigurationError(f"connection {conn_id!r}: {problem}") from problem
    except ValueError:  # its message may repeat a password
        raise ConfigurationError(f"connection {conn_id!r}: its host cannot be read as a host or URL") from None


def _credentials(conn_id: str, connection: Any, extra: Extra) -> Credentials:
    identity_token = extra.text("identity_token")
    login, password = connection.login or None, connection.password or None
    if password == MASK:
        raise masked(conn_id, "the password")
    if login == "<token>" and password and not identity_token:
        # Docker's configuration writes an identity token so.
        return Credentials(identity_token=password, registry_token=extra.text("registry_token"))
    return Credentials(login, password, extra.text("registry_token"), identity_token)


def _credential_helper(conn_id: str, extra: Extra) -> str | None:
    name = extra.choice("credential_helper", MINTS)
    if name and (extra.text("registry_token") or extra.text("identity_token")):
        raise ConfigurationError(
            f"connection {conn_id!r}: {name} creates the credentials; leave registry_token and identity_token empty"
        )
    return name


def _check_namespace(conn_id: str, registry: RegistryUrl | None, namespace: str | None) -> None:
    """``ns`` requires a host: the credentials belong to the mirror, never to the upstream."""
    if namespace is None:
        return
    if registry is None:
        raise ConfigurationError(f"connection {conn_id!r}: ns is for reading from a mirror; enter the mirror as host")
    try:
        upstream = RegistryUrl.parse(f"{registry.scheme}://{namespace}")
    except InvalidReference as problem:
        raise ConfigurationError(f"connection {conn_id!r}: ns is no registry: {problem}") from problem
    if upstream == registry:
        raise ConfigurationError(f"connection {conn_id!r}: ns is the registry itself, {registry}; leave it empty")
