"""A remote, with or without an Airflow connection, turned into a client of its registry.

Tasks use these functions; :class:`~registry_sync.hooks.registry.RegistryHook` wraps them as an ``HttpHook``, whose
import alone takes a tenth of a second in each task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.db.engine import UPGRADE_COMMAND
from registry_sync.domain.references import RegistryUrl, TagName
from registry_sync.domain.remote import DEFAULT_CONCURRENCY, RemoteSpec
from registry_sync.errors import ConfigurationError, TriggerRefused
from registry_sync.hooks.certificates import CertificateFiles, PemField, certificate_files
from registry_sync.hooks.connection import RegistryConnection, read_connection
from registry_sync.hooks.settings import load_settings

if TYPE_CHECKING:
    from registry_sync.hooks.account_budgets import AccountBudgets
    from registry_sync.oci.auth.credentials import Credentials, MintedCredentials
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.folder_reader import FolderReader
    from registry_sync.oci.http.options import ClientOptions
    from registry_sync.oci.image_folders import ImageFolder

log = logging.getLogger(__name__)


def open_client(remote: RemoteSpec, task_count: int = 1, budgets: AccountBudgets | None = None) -> RegistryClient:
    """A client for ``remote`` with the credentials of its connection; close it, or use it in a ``with``.

    It is one of ``task_count`` concurrent clients that share the connection's limits for its host; ``budgets`` are what
    accounts allow all processes together.

    Raises :class:`~registry_sync.errors.ConfigurationError`, also for a missing connection.
    """
    return make_client(load_connection(remote.conn_id), remote, task_count, budgets=budgets)


def most_tasks(remote: RemoteSpec, wanted: int) -> int:
    """The number of tasks that may use the remote concurrently: ``wanted``, or the connection's limit."""
    return _read(remote.conn_id).limits.most_tasks(wanted)


def load_connection(conn_id: str | None) -> RegistryConnection:
    """The values of an Airflow connection, its secrets registered with Airflow's masker; empty for ``conn_id`` None."""
    settings = _read(conn_id)
    for secret in _checked(conn_id, settings):
        _mask(secret)
    return settings


async def load_connection_async(conn_id: str | None) -> RegistryConnection:
    """As :func:`load_connection`, in an event loop, where a trigger may not wait for Airflow's response otherwise."""
    if conn_id is None:
        return RegistryConnection(conn_id="")
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import amask_secret

    try:
        found = await BaseHook.aget_connection(conn_id)
    except AirflowNotFoundException:
        raise _missing(conn_id) from None
    settings = _settings_of(conn_id, found)
    for secret in _checked(conn_id, settings):
        await amask_secret(secret)
    return settings


def _checked(conn_id: str | None, settings: RegistryConnection) -> list[str]:
    """Logs what is odd about a connection; its secrets that Airflow does not know as such."""
    if settings.unknown_extra:
        log.warning(
            "Connection %s has names in Extra that are unknown to registry-sync: %s",
            conn_id,
            ", ".join(settings.unknown_extra),
        )
    if settings.outdated_extra:
        log.warning(
            "Airflow shows secrets of connection %s to every user who may read connections, because of their names in "
            "Extra: %s. Rename client_key to client_private_key and move a private key out of a certificate's text "
            "there, or run: %s",
            conn_id,
            ", ".join(settings.outdated_extra),
            UPGRADE_COMMAND,
        )
    return [secret for secret in (settings.client_key, settings.proxy_url) if secret]


def check_connection(remote: RemoteSpec) -> None:
    """Checks that a trigger may use the remote's connection, before the remote is stored: one for that host only.

    Raises :class:`ConfigurationError`, also for a missing connection, and :class:`TriggerRefused`.
    """
    settings = _read(remote.conn_id)
    registry_of(settings, remote)
    if settings.registry is None:
        raise TriggerRefused(
            f"connection {remote.conn_id!r} may serve any registry, so its credentials would be sent wherever the "
            f"parameters of this run say. A trigger may only use one whose host is {remote.url}"
        )


def _read(conn_id: str | None) -> RegistryConnection:
    if conn_id is None:
        return RegistryConnection(conn_id="")
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise _missing(conn_id) from None
    return _settings_of(conn_id, found)


def _missing(conn_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no Airflow connection {conn_id!r}; create it under Admin, Connections, with the type Container "
        "registry, or omit the connection to read anonymously"
    )


def _settings_of(conn_id: str, found: Any) -> RegistryConnection:
    _refuse_other_name(conn_id, found.conn_id)
    return read_connection(conn_id, found)


def _refuse_other_name(conn_id: str, found: str | None) -> None:
    """Raises :class:`ConfigurationError` when Airflow found a connection of another id.

    A task requests it in the path of a URL, where ``x/../id``, ``id#x`` and ``id?x`` lead to ``id``, and the owner of a
    connection is determined by its id.
    """
    if found not in (None, conn_id):
        raise ConfigurationError(
            f"{conn_id!r} is not the id of an Airflow connection, though Airflow returns one for it; give its id"
        )


def make_client(
    settings: RegistryConnection,
    remote: RemoteSpec | None,
    task_count: int = 1,
    *,
    contact: str | None = None,
    on_secret: Callable[[str], None] | None = None,
    budgets: AccountBudgets | None = None,
) -> RegistryClient:
    """A client for ``remote``, or for the connection's own host, as :func:`open_client`.

    ``contact`` is the contact for operators of registries; None reads the settings. ``on_secret`` is called with each
    secret; None registers it with Airflow's masker. With both, nothing of Airflow is needed. Raises
    :class:`ConfigurationError`.
    """
    from registry_sync.oci.client import RegistryClient

    mask = on_secret or _mask
    registry = registry_of(settings, remote)
    if remote is not None and remote.proxy_url:
        mask(remote.proxy_url)
    if settings.contact is None and contact is None:
        contact = load_settings().contact
    with certificate_files() as files:
        options = _options(settings, remote, files, task_count, contact=settings.contact or contact or None)
        credentials = _credentials(settings, registry, options.proxy_url, mask)
        _warn_unprotected(registry, options)
        budget = None if budgets is None else budgets.of(registry.netloc, settings, options)
        return RegistryClient(registry, credentials, options, mask, budget=budget)


def registry_of(settings: RegistryConnection, remote: RemoteSpec | None) -> RegistryUrl:
    """The registry to read from, to which the credentials belong. Raises :class:`ConfigurationError`."""
    if remote is None:
        if settings.registry is None:
            raise ConfigurationError(f"connection {settings.conn_id!r} has no host, and no remote gives one")
        return settings.registry
    settings.check_registry(remote.url)
    return remote.url


def _credentials(
    settings: RegistryConnection, registry: RegistryUrl, proxy_url: str | None, mask: Callable[[str], None]
) -> Credentials | MintedCredentials:
    if settings.credential_helper is None:
        return settings.credentials
    from registry_sync.hooks.credential_helpers import minted_credentials

    for secret in settings.credentials.secrets():
        mask(secret)
    return minted_credentials(settings.credential_helper, registry, settings.credentials, proxy_url)


def _warn_unprotected(registry: RegistryUrl, options: ClientOptions) -> None:
    """Logs disabled protections, in each task, so that they are not forgotten."""
    if options.verify is False:
        log.warning("The certificates of %s and of hosts that it redirects to are NOT verified", registry.netloc)
    if registry.scheme == "http" and options.allow_insecure_credentials:
        log.warning("%s is accessed over plain http, and a password may be sent unencrypted", registry.netloc)
    elif registry.scheme == "http":
        log.info("%s is accessed over plain http, without a password", registry.netloc)


def _options(
    settings: RegistryConnection,
    remote: RemoteSpec | None,
    files: CertificateFiles,
    task_count: int,
    *,
    contact: str | None,
) -> ClientOptions:
    from registry_sync.oci.http.options import ClientOptions, user_agent

    choices, limits = dict(settings.choices), settings.limits.share(task_count)
    verify, proxy_url = settings.verify, settings.proxy_url
    ca = _field(settings, "CA certificate", settings.ca_certificate)
    certificate = _field(settings, "Client certificate", settings.client_certificate)
    if remote is not None:
        choices["concurrency"] = remote.download_concurrency
        choices["follow_foreign_urls"] = remote.include_foreign_layers
        choices["allow_schema1"] = remote.allow_schema1
        choices["digest_list"] = remote.digest_list
        verify = verify and remote.ssl_validation
        whose = f"of remote {remote.name!r}"
        if remote.ssl_ca_certificate:
            ca = PemField(f"ca_cert {whose}", remote.ssl_ca_certificate)
        if remote.ssl_client_certificate:
            certificate = PemField(f"client_cert {whose}", remote.ssl_client_certificate)
        proxy_url = remote.proxy_url or proxy_url
    if limits.concurrency is not None:
        choices["concurrency"] = min(limits.concurrency, choices.get("concurrency", DEFAULT_CONCURRENCY))
    pair: str | tuple[str, str] | None = None
    if certificate is not None:
        pair = files.client_pair(certificate, _field(settings, "Client key", settings.client_key))
    return ClientOptions(
        verify=(True if ca is None else files.ca_bundle(ca)) if verify else False,
        client_certificate=pair,
        proxy_url=proxy_url,
        requests_per_second=limits.requests_per_second,
        rate_limit_sharers=task_count,
        user_agent=user_agent(contact),
        **choices,
    )


def _field(settings: RegistryConnection, label: str, value: str | None) -> PemField | None:
    """A field of the connection, under the label that its form has."""
    return None if value is None else PemField(f"connection {settings.conn_id!r}: {label}", value)


def _mask(secret: str) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret(secret)


def open_images(path: Path, tag: TagName | None = None) -> ImageFolder:
    """The images in a folder that another tool has filled: :func:`~registry_sync.oci.image_folders.open_folder`."""
    from registry_sync.oci.image_folders import open_folder

    return open_folder(path, tag)


def read_images(folder: ImageFolder, repository: str) -> FolderReader:
    """A reader of one of its repositories, for the stages of a sync in place of a registry's client."""
    from registry_sync.oci.folder_reader import FolderReader

    return FolderReader(folder, repository)
