"""Connections that remotes have of their own, in Airflow's secret storage: made, changed and removed with their remote.

Such a connection is for its remote's registry alone; :class:`~registry_sync.hooks.connection.RegistryConnection` sends
its credentials nowhere else. Its id begins with what only that remote has, so that none is ever taken for another's.
Works where Airflow's own database can be reached: in the API server and in commands, never in tasks.
"""

from __future__ import annotations

import json
import secrets as random_source
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry_sync.db.edge import FOREIGN_ERROR, converted
from registry_sync.domain.records import is_own_connection, own_connection_prefix
from registry_sync.domain.references import RegistryUrl
from registry_sync.hooks.extra import with_hidden_secrets

if TYPE_CHECKING:
    from airflow.models import Connection

AIRFLOWS_DATABASE = "Airflow's own metadata database"
Secrets = Mapping[str, "str | None"]
#: Names of secrets over REST, and where a connection has them in its Extra.
_IN_EXTRA = {"ssl_client_key": "client_private_key"}


@contextmanager
def airflow_session() -> Iterator[Any]:
    """A session of Airflow's database, committed at its end. Its errors come out of it as ours."""
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            yield session
    except FOREIGN_ERROR as problem:
        raise converted(problem, AIRFLOWS_DATABASE) from problem


def create_connection(remote_id: str, registry: RegistryUrl, secrets: Secrets) -> str:
    """Makes a connection for a remote with ``secrets``, keyed by field; gives its id."""
    conn_id = f"{own_connection_prefix(remote_id)}{random_source.token_hex(4)}"
    with airflow_session() as session:
        session.add(_connection(conn_id, registry, secrets, {}))
    return conn_id


def change_connection(conn_id: str, registry: RegistryUrl, secrets: Secrets) -> None:
    """Brings a connection up to date; what is not in ``secrets`` stays. Made anew if somebody removed it.

    The row is replaced, because Airflow's model takes no empty password for one that is there.
    """
    from airflow.models import Connection

    with airflow_session() as session:
        present = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        kept: dict[str, str | None] = {}
        extra: dict[str, Any] = {}
        if present is not None:
            kept = {"username": present.login, "password": present.password}
            extra = with_hidden_secrets(present.extra_dejson)
            session.delete(present)
            session.flush()
        session.add(_connection(conn_id, registry, {**kept, **secrets}, extra))


def take_connections(remote_id: str, *, but: str | None = None) -> Sequence[Connection]:
    """Removes the connections that are a remote's own, except ``but``; copies of them, for :func:`give_back`."""
    from airflow.models import Connection

    prefix = own_connection_prefix(remote_id)
    with airflow_session() as session:
        own = session.query(Connection).filter(Connection.conn_id.startswith(prefix, autoescape=True)).all()
        # LIKE of SQLite and MySQL looks past case.
        removed = [found for found in own if found.conn_id != but and is_own_connection(found.conn_id, remote_id)]
        copies = [connection_copy(connection) for connection in removed]
        for connection in removed:
            session.delete(connection)
    return copies


def give_back(connections: Sequence[Connection]) -> None:
    """Stores connections again that :func:`take_connections` removed."""
    with airflow_session() as session:
        session.add_all(connections)


def connection_copy(connection: Connection, **changed: Any) -> Connection:
    """A connection like ``connection`` that is not stored, with ``changed`` fields."""
    from airflow.models import Connection

    names = ("conn_id", "conn_type", "description", "host", "schema", "port", "login", "password", "extra", "team_name")
    return Connection(**{**{name: getattr(connection, name) for name in names}, **changed})


def _connection(conn_id: str, registry: RegistryUrl, secrets: Secrets, extra: Mapping[str, Any]) -> Connection:
    """A connection with ``secrets``, and with ``extra`` that somebody may have added to what is in it from here."""
    from airflow.models import Connection

    given = {name: secrets[field] for field, name in _IN_EXTRA.items() if field in secrets}
    fields = {name: value for name, value in {**extra, **given}.items() if value is not None}
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
