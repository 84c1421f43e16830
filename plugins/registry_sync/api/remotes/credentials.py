"""Credentials of remotes, kept in Airflow's own secret storage: one connection for each remote that has some.

Such a connection is for the remote's registry alone; :class:`~registry_sync.hooks.connection.RegistryConnection` sends
its credentials nowhere else.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    from airflow.utils.session import create_session

    conn_id = f"{OWN_PREFIX}{uuid.uuid4().hex}"
    with create_session() as session:
        session.add(_connection(conn_id, registry, secrets, {}))
    return conn_id


def change_connection(conn_id: str, registry: RegistryUrl, secrets: Secrets) -> None:
    """Brings an own connection up to date; what is not in ``secrets`` stays. Made anew if somebody removed it.

    The row is replaced, because Airflow's model takes no empty password for one that is there.
    """
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        present = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        kept: dict[str, str | None] = {}
        extra: dict[str, Any] = {}
        if present is not None:
            kept, extra = {"username": present.login, "password": present.password}, present.extra_dejson
            session.delete(present)
            session.flush()
        session.add(_connection(conn_id, registry, {**kept, **secrets}, extra))


def delete_connection(conn_id: str) -> None:
    """Removes an own connection; one that is gone already is fine."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == conn_id).delete()


def _connection(conn_id: str, registry: RegistryUrl, secrets: Secrets, extra: Mapping[str, Any]) -> Connection:
    """A connection with ``secrets``, and with ``extra`` that somebody may have added to what is in it from here."""
    from airflow.models import Connection

    key = secrets.get("ssl_client_key", extra.get("client_key"))
    fields = {name: value for name, value in extra.items() if name != "client_key"}
    if key:
        fields["client_key"] = key
    return Connection(
        conn_id=conn_id,
        conn_type="registry",
        description="Made over REST for a remote",
        host=registry.host,
        schema=registry.scheme,
        port=registry.port,
        login=secrets.get("username"),
        password=secrets.get("password"),
        extra=json.dumps(fields) if fields else None,
    )
