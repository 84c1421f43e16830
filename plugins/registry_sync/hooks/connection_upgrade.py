"""What earlier releases stored in Airflow's connections, brought to how this one stores it; safe when repeated.

Secrets in Extra get names that Airflow hides, and the own connections of remotes get ids that say whose they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from registry_sync.db.database import Database
from registry_sync.domain.records import OWN_CONNECTION_PREFIX, Remote, is_own_connection, own_connection_prefix
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.connection import read_connection
from registry_sync.hooks.extra import with_hidden_secrets
from registry_sync.hooks.own_connections import airflow_session, connection_copy


def upgrade_connections(database: Database) -> Iterator[str]:
    """Upgrades every connection of type ``registry``; says of each that was changed what became of it.

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
    """``remote``, whose own connection has an id of this release; the caller holds the remote's lock.

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
    """Ids of this release have the remote's id, and something after it."""
    return is_own_connection(conn_id) and "_" not in conn_id.removeprefix(OWN_CONNECTION_PREFIX)


def _owner(database: Database, conn_id: str) -> Remote | None:
    from airflow.models import Connection

    with airflow_session() as session:
        stored = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        try:
            registry = None if stored is None else read_connection(conn_id, stored).registry
        except ConfigurationError:
            registry = None
    return next((remote for remote in database.remotes.using(conn_id) if remote.spec.registry == registry), None)


def _move(database: Database, remote: Remote, old: str) -> Remote:
    """Gives the connection an id of ``remote``, which uses it; the old one goes after the remote points to the new."""
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
