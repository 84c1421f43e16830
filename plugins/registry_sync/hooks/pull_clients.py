"""Clients of remotes for the pull server, which runs without Airflow: only a connection has to be asked of it.

A connection is looked up by a process of its own, which ends again: Airflow takes a second of a processor and as much
memory as the whole server. It is looked for where Airflow looks outside of tasks, in the environment and in the
configured secrets backend, and then in Airflow's database where that can be reached.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.clients import make_client
from registry_sync.hooks.connection import RegistryConnection, read_connection

if TYPE_CHECKING:
    from typing import TypeAlias

    from registry_sync.oci.client import RegistryReader

    PullClient: TypeAlias = RegistryReader
    OpenPullClient: TypeAlias = Callable[[RemoteSpec], RegistryReader]

_log = logging.getLogger(__name__)
LOOKUP_SECONDS = 60
_FIELDS = ("conn_type", "host", "schema", "login", "password", "port", "extra_dejson")


class PullClients:
    """Opens the registry of a remote. ``contact`` is the contact for operators of registries, None for nobody."""

    def __init__(self, contact: str | None = None) -> None:
        self._contact = contact or ""

    def __call__(self, remote: RemoteSpec) -> PullClient:
        """A client of the remote's registry, with the credentials of its connection.

        Raises :class:`ConfigurationError`, also for a connection that is not found.
        """
        if remote.conn_id is None:
            connection = RegistryConnection(conn_id="")
        else:
            connection = read_connection(remote.conn_id, SimpleNamespace(**_looked_up(remote.conn_id)))
        return make_client(connection, remote, contact=self._contact, on_secret=_forget)


def _forget(_secret: str) -> None:
    """Nothing here logs what was sent or received, and there is no masker without Airflow."""


def _looked_up(conn_id: str) -> dict[str, Any]:
    """The fields of an Airflow connection. Raises :class:`ConfigurationError`."""
    # This package may lie in a folder of plugins, which the server has in its path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        found = subprocess.run(
            [sys.executable, "-m", "registry_sync.hooks.pull_clients"],
            input=conn_id,
            capture_output=True,
            text=True,
            timeout=LOOKUP_SECONDS,
            check=False,
            env=environment,
            cwd="/",
        )
        fields = json.loads(found.stdout.rpartition("\n")[2]) if found.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        raise ConfigurationError(
            f"the Airflow connection {conn_id!r} cannot be looked up: {type(problem).__name__}"
        ) from None
    if fields is None:
        _log.debug("looking up connection %s ended with %s", conn_id, found.returncode)
        raise ConfigurationError(
            f"the Airflow connection {conn_id!r} is found neither in the environment of the pull server "
            f"(AIRFLOW_CONN_{conn_id.upper()}) nor in the secrets backend that is configured there, nor in Airflow's "
            "database, if it is reached from there"
        )
    return dict(fields)


def _look_up() -> int:
    """Prints the fields of the connection whose id comes in, as the last line; 1 when there is none."""
    conn_id = sys.stdin.read()
    found = _outside_of_tasks(conn_id) or _in_database(conn_id)
    if found is None or found.conn_id not in (None, conn_id):
        return 1
    sys.stdout.write("\n" + json.dumps({name: getattr(found, name) for name in _FIELDS}))
    return 0


def _outside_of_tasks(conn_id: str) -> Any:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def _in_database(conn_id: str) -> Any:
    """Of Airflow's own database; None when there is none here, as well."""
    from pathlib import Path

    from airflow import settings
    from airflow.configuration import conf
    from airflow.secrets.metastore import MetastoreBackend

    url = conf.get("database", "sql_alchemy_conn", fallback="")
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return None  # looking into it would make it
    try:
        if settings.Session is None:
            settings.configure_orm()  # type: ignore[no-untyped-call]
        return MetastoreBackend().get_connection(conn_id)
    except Exception as problem:  # noqa: BLE001 - whatever a database driver says, there is no connection to be had
        sys.stderr.write(f"{type(problem).__name__}\n")
        return None


if __name__ == "__main__":
    sys.exit(_look_up())
