"""What an Airflow connection of type ``registry`` says, read into values. Nothing is connected to here.

Extra holds the fields of the form and the names that :class:`HttpHook` users know. No Extra ever becomes a header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from registry_sync.domain.references import DOCKER_HUB_ALIASES, RegistryUrl
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.hooks.extra import MASK, Extra, masked
from registry_sync.hooks.host_limits import HostLimits
from registry_sync.hooks.minting import MINTS
from registry_sync.oci.credentials import Credentials

PEM_START = "-----BEGIN "
#: The type of connections that were made for registries.
CONN_TYPE = "registry"


@dataclass(frozen=True)
class RegistryConnection:
    """``registry`` None means that the connection names none. Certificates are PEM text or paths.

    ``conn_type`` is Airflow's; ``allow_any_host`` is whether whoever made the connection said that it may serve any
    registry, which counts only where it names none and its type is ``registry``.

    ``credential_helper`` names who makes the credentials instead (:data:`~registry_sync.hooks.minting.MINTS`); user
    name and password are then for that service. ``limits`` are of all tasks of a stage together. ``verify`` is
    whether certificates are checked; ``choices`` are options of the client that the connection sets. ``contact`` is
    whom the operator of the registry may write to.
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
        """Whether it may be used for ``registry``: exactly its own, or any one where it says so.

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
                "host; or, if whichever registry a remote names may be given its credentials, switch on 'Serve any "
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
        # The address under which Docker Hub's credentials have been stored for ever.
        if (parts.hostname or "") in DOCKER_HUB_ALIASES and parts.path.rstrip("/") == "/v1":
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
        # How Docker's configuration writes an identity token.
        return Credentials(identity_token=password, registry_token=extra.text("registry_token"))
    return Credentials(login, password, extra.text("registry_token"), identity_token)


def _credential_helper(conn_id: str, extra: Extra) -> str | None:
    name = extra.choice("credential_helper", MINTS)
    if name and (extra.text("registry_token") or extra.text("identity_token")):
        raise ConfigurationError(
            f"connection {conn_id!r}: {name} makes the credentials; leave registry_token and identity_token empty"
        )
    return name


def _check_namespace(conn_id: str, registry: RegistryUrl | None, namespace: str | None) -> None:
    """A mirror is named by its connection, so that the credentials are the mirror's and never those of the upstream."""
    if namespace is None:
        return
    if registry is None:
        raise ConfigurationError(f"connection {conn_id!r}: ns says that a mirror is read; enter the mirror as host")
    try:
        upstream = RegistryUrl.parse(f"{registry.scheme}://{namespace}")
    except InvalidReference as problem:
        raise ConfigurationError(f"connection {conn_id!r}: ns is no registry: {problem}") from problem
    if upstream == registry:
        raise ConfigurationError(f"connection {conn_id!r}: ns is the registry itself, {registry}; leave it empty")
