"""Credentials of remotes, kept in Airflow's own secret storage: one connection for each remote that has some.

Such a connection is for the remote's registry alone; :class:`~registry_sync.hooks.connection.RegistryConnection` sends
its credentials nowhere else.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry_sync.domain.references import RegistryUrl

if TYPE_CHECKING:
    from airflow.models import Connection

#: How the ids of connections begin that were made here, and that go with their remote.
OWN_PREFIX = "registry_sync_remote_"

Secrets = Mapping[str, "str | None"]


def is_own(conn_id: str | None) -> bool:
    """Whether a connection was made here."""
    return conn_id is not None and conn_id.startswith(OWN_PREFIX)


def create_connection(registry: RegistryUrl, secrets: Secrets) -> str:
    """Makes a connection with ``secrets``, keyed by field; gives its id."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    conn_id = f"{OWN_PREFIX}{uuid.uuid4().hex}"
    connection = Connection(conn_id=conn_id, conn_type="registry", description="Made over REST for a remote")
    _fill(connection, registry, secrets)
    with create_session() as session:
        session.add(connection)
    return conn_id


def change_connection(conn_id: str, registry: RegistryUrl, secrets: Secrets) -> None:
    """Brings an own connection up to date; what is not in ``secrets`` stays. Made anew if somebody removed it."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        connection = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        if connection is None:
            connection = Connection(conn_id=conn_id, conn_type="registry", description="Made over REST for a remote")
            session.add(connection)
        _fill(connection, registry, secrets)


def delete_connection(conn_id: str) -> None:
    """Removes an own connection; one that is gone already is fine."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == conn_id).delete()


def _fill(connection: Connection, registry: RegistryUrl, secrets: Secrets) -> None:
    connection.host, connection.schema, connection.port = registry.host, registry.scheme, registry.port
    if "username" in secrets:
        connection.login = secrets["username"]
    if "password" in secrets:
        connection.password = secrets["password"]
    if "ssl_client_key" in secrets:
        key = secrets["ssl_client_key"]
        connection.extra = None if key is None else json.dumps({"client_key": key})
