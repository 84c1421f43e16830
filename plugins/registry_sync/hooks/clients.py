"""A remote, with or without an Airflow connection, turned into a client of its registry.

This is what tasks use; :class:`~registry_sync.hooks.registry.RegistryHook` puts the shape of an ``HttpHook`` around
it, whose import alone takes a tenth of a second in each task.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import ConfigurationError, InvalidReference
from registry_sync.hooks.connection import PEM_START, RegistryConnection, read_connection

if TYPE_CHECKING:
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.options import ClientOptions

log = logging.getLogger(__name__)


def open_client(remote: RemoteSpec) -> RegistryClient:
    """A client for ``remote`` with the credentials of its connection; close it, or use it in a ``with``.

    Raises :class:`~registry_sync.errors.ConfigurationError`, for a connection that is not there too.
    """
    return make_client(load_connection(remote.conn_id), remote)


def load_connection(conn_id: str | None) -> RegistryConnection:
    """What an Airflow connection says, its secrets told to Airflow's masker; nothing when ``conn_id`` is None."""
    if conn_id is None:
        return RegistryConnection(conn_id="")
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        settings = read_connection(conn_id, BaseHook.get_connection(conn_id))
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"there is no Airflow connection {conn_id!r}; create it under Admin, Connections, with the type "
            "Container registry, or leave the connection out to read anonymously"
        ) from None
    if settings.unknown_extra:
        log.warning(
            "Connection %s has names in Extra that mean nothing to a registry: %s",
            conn_id,
            ", ".join(settings.unknown_extra),
        )
    for secret in (settings.client_key, settings.proxy_url):
        if secret:
            _mask(secret)
    return settings


def make_client(settings: RegistryConnection, remote: RemoteSpec | None) -> RegistryClient:
    """A client for ``remote``, or for the connection's own host. Raises :class:`ConfigurationError`."""
    from registry_sync.oci.client import RegistryClient

    registry = registry_of(settings, remote)
    if remote is not None and remote.proxy_url:
        _mask(remote.proxy_url)
    with _private_files() as files:
        return RegistryClient(registry, settings.credentials, _options(settings, remote, files), _mask)


def registry_of(settings: RegistryConnection, remote: RemoteSpec | None) -> RegistryUrl:
    """The registry to read from, which the credentials are for. Raises :class:`ConfigurationError`."""
    if remote is None:
        if settings.registry is None:
            raise ConfigurationError(f"connection {settings.conn_id!r} has no host, and no remote says one")
        return settings.registry
    try:
        registry = remote.registry
    except InvalidReference as problem:
        raise ConfigurationError(f"remote {remote.name!r}: {problem}") from problem
    settings.check_registry(registry)
    return registry


def _options(settings: RegistryConnection, remote: RemoteSpec | None, files: _PrivateFiles) -> ClientOptions:
    from registry_sync.oci.options import ClientOptions

    choices = dict(settings.choices)
    verify, ca = settings.verify, settings.ca_certificate
    certificate, proxy_url = settings.client_certificate, settings.proxy_url
    if remote is not None:
        choices["concurrency"] = remote.download_concurrency
        verify = verify and remote.ssl_validation
        ca = remote.ssl_ca_certificate or ca
        certificate = remote.ssl_client_certificate or certificate
        proxy_url = remote.proxy_url or proxy_url
    pair: str | tuple[str, str] | None = None
    if certificate:
        path = files.path(certificate)
        pair = (path, files.path(settings.client_key)) if settings.client_key else path
    return ClientOptions(
        verify=(files.path(ca) if ca else True) if verify else False,
        client_certificate=pair,
        proxy_url=proxy_url,
        **choices,
    )


class _PrivateFiles:
    """PEM text as files that only this user can read; a path is passed on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def path(self, text_or_path: str) -> str:
        if PEM_START not in text_or_path:
            return text_or_path
        self._count += 1
        path = self._folder / f"{self._count}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text_or_path.replace("\\n", "\n").strip() + "\n")
        return str(path)


@contextlib.contextmanager
def _private_files() -> Iterator[_PrivateFiles]:
    """Files for as long as a client is made, which reads them then and not later."""
    with tempfile.TemporaryDirectory(prefix="registry-sync-") as folder:
        yield _PrivateFiles(Path(folder))


def _mask(secret: str) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret(secret)
