"""Connections owned by remotes, in Airflow's secret storage: created, changed and removed with them.

Such a connection is for its remote's registry alone; :class:`~registry_sync.hooks.connection.RegistryConnection` sends
its credentials nowhere else. Its id starts with the remote's id, so that it is never mistaken for another's. Requires
access to Airflow's own database: in the API server and in commands, never in tasks.

An upgrade renames secrets in Extra to names that Airflow hides, and gives connections ids that identify their owner.
"""

from __future__ import annotations

import json
import secrets as random_source
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry_sync.db.database import Database
from registry_sync.db.engine import AIRFLOWS_DATABASE, FOREIGN_ERROR, converted
from registry_sync.domain.references import RegistryUrl
from registry_sync.domain.remote import OWN_CONNECTION_PREFIX, Remote, is_own_connection, own_connection_prefix
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.connection import read_connection, with_hidden_secrets

if TYPE_CHECKING:
    from airflow.models import Connection


Secrets = Mapping[str, "str | None"]
#: Names of secrets over REST, and their names in a connection's Extra.
_IN_EXTRA = {"ssl_client_key": "client_private_key"}


@contextmanager
def airflow_session() -> Iterator[Any]:
    """A session of Airflow's database, committed at its end. Its errors are raised as :class:`DatabaseError`."""
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            yield session
    except FOREIGN_ERROR as problem:
        raise converted(problem, AIRFLOWS_DATABASE) from problem


def create_connection(remote_id: str, registry: RegistryUrl, secrets: Secrets) -> str:
    """Creates a connection for a remote with ``secrets``, keyed by field; returns its id."""
    conn_id = f"{own_connection_prefix(remote_id)}{random_source.token_hex(4)}"
    with airflow_session() as session:
        session.add(_connection(conn_id, registry, secrets, {}))
    return conn_id


def stored_secrets(remotes: Iterable[Remote]) -> dict[str, frozenset[str]]:
    """Which secrets the own connections of remotes have, by field, and by the remote's id; others are omitted.

    One query for all. A secret that Airflow can no longer decrypt counts as well.
    """
    from airflow.models import Connection

    owners = {remote.spec.conn_id: remote.id for remote in remotes if is_own_connection(remote.spec.conn_id, remote.id)}
    if not owners:
        return {}
    with airflow_session() as session:
        found = session.query(Connection).filter(Connection.conn_id.in_(owners)).all()
        return {owners[one.conn_id]: _secrets_of(one) for one in found if one.conn_id in owners}


def _secrets_of(connection: Connection) -> frozenset[str]:
    in_extra = {field for field, name in _IN_EXTRA.items() if with_hidden_secrets(connection.extra_dejson).get(name)}
    given = {"username": connection.login, "password": connection.password}
    return frozenset(in_extra | {field for field, value in given.items() if value})


def change_connection(conn_id: str, registry: RegistryUrl, secrets: Secrets) -> None:
    """Updates a connection; fields not in ``secrets`` stay. Created again if somebody removed it.

    The row is replaced, because Airflow's model accepts no empty password for an existing one.
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
    """Removes a remote's own connections, except ``but``; returns copies of them for :func:`give_back`."""
    from airflow.models import Connection

    prefix = own_connection_prefix(remote_id)
    with airflow_session() as session:
        own = session.query(Connection).filter(Connection.conn_id.startswith(prefix, autoescape=True)).all()
        # LIKE ignores case on SQLite and MySQL.
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
    """A connection with ``secrets``, and with ``extra``, to which a user may have added fields."""
    from airflow.models import Connection

    given = {name: secrets[field] for field, name in _IN_EXTRA.items() if field in secrets}
    fields = {name: value for name, value in {**extra, **given}.items() if value is not None}
    return Connection(
        conn_id=conn_id,
        conn_type="registry",
        description="Created over REST for a remote",
        host=registry.host,
        schema=registry.scheme,
        port=registry.port,
        login=secrets.get("username"),
        password=secrets.get("password"),
        extra=json.dumps(fields) if fields else None,
    )


def upgrade_connections(database: Database) -> Iterator[str]:
    """Upgrades every connection of type ``registry``; yields a line for each change.

    Raises :class:`~registry_sync.errors.DatabaseError` of either database.
    """
    from airflow.models import Connection

    with airflow_session() as session:
        is_ours = (Connection.conn_type == "registry") | Connection.conn_id.startswith(
            OWN_CONNECTION_PREFIX, autoescape=True
        )
        conn_ids = [conn_id for (conn_id,) in session.query(Connection.conn_id).filter(is_ours)]
    for conn_id in sorted(conn_ids):
        renamed = _hide_secrets(conn_id)
        if renamed:
            yield f"connection {conn_id}: {', '.join(renamed)} is now hidden by Airflow"
        if is_own_connection(conn_id):
            yield from _settle(database, conn_id)


def adopted(database: Database, remote: Remote) -> Remote:
    """``remote``, its own connection moved to an id of this release; the caller holds the remote's lock.

    A connection of an earlier release belongs to the oldest remote of its registry that uses it.
    """
    conn_id = remote.spec.conn_id
    if conn_id is None or not _is_of_an_earlier_release(conn_id):
        return remote
    owner = _owner(database, conn_id)
    return _move(database, owner, conn_id) if owner is not None and owner.id == remote.id else remote


def _settle(database: Database, conn_id: str) -> Iterator[str]:
    users = database.remotes.using(conn_id)
    if not users:
        yield f"connection {conn_id}: no remote uses it; remove it unless another installation's remote does"
    elif _is_of_an_earlier_release(conn_id) and (owner := _owner(database, conn_id)) is not None:
        with database.lock(f"remote {owner.id}"):
            moved = _move(database, database.remotes.get(owner.id), conn_id)
        yield f"connection {conn_id}: it is {moved.spec.conn_id} now, and belongs to remote {moved.spec.name!r} alone"


def _is_of_an_earlier_release(conn_id: str) -> bool:
    """Ids of this release consist of the remote's id and a suffix."""
    return is_own_connection(conn_id) and "_" not in conn_id.removeprefix(OWN_CONNECTION_PREFIX)


def _owner(database: Database, conn_id: str) -> Remote | None:
    from airflow.models import Connection

    with airflow_session() as session:
        stored = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        try:
            registry = None if stored is None else read_connection(conn_id, stored).registry
        except ConfigurationError:
            registry = None
    return next((remote for remote in database.remotes.using(conn_id) if remote.spec.url == registry), None)


def _move(database: Database, remote: Remote, old: str) -> Remote:
    """Gives the connection an id of ``remote``, which uses it; the old one is removed after the remote has changed."""
    from airflow.models import Connection

    new = f"{own_connection_prefix(remote.id)}{old[-8:]}"
    with airflow_session() as session:
        stored = session.query(Connection).filter(Connection.conn_id == old).one()
        if session.query(Connection).filter(Connection.conn_id == new).one_or_none() is None:
            session.add(connection_copy(stored, conn_id=new))
    changed = database.remotes.change(
        remote.id, lambda spec: replace(spec, conn_id=new) if spec.conn_id == old else spec
    )
    with airflow_session() as session:
        session.query(Connection).filter(Connection.conn_id == old).delete()
    return changed


def _hide_secrets(conn_id: str) -> list[str]:
    """Renames secrets in Extra; their old names."""
    from airflow.models import Connection

    with airflow_session() as session:
        stored = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        if stored is None:
            return []
        before = stored.extra_dejson
        after = with_hidden_secrets(before)
        if after != before:
            stored.set_extra(json.dumps(after))
    return sorted(name for name in before if before[name] != after.get(name))


def delete_remote(database: Database, remote_id: str, only_if: Callable[[Remote], None] | None = None) -> None:
    """Removes the remote and the connections that were created for it, unless ``only_if`` raises for it.

    Raises :class:`RecordNotFound`.
    """
    with database.lock(f"remote {remote_id}"):
        present = database.remotes.get(remote_id)
        if only_if is not None:
            only_if(present)
        adopted(database, present)
        taken = take_connections(remote_id)
        try:
            database.remotes.delete(remote_id)
        except BaseException:
            give_back(taken)
            raise
