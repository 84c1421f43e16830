"""Changes of a remote together with its connection, which is in another database.

A change of a remote or its connection holds the remote's lock. Secrets are stored before a remote refers to them; when
a step fails, the steps before it are undone. After a change the remote has no connections of its own other than the one
it refers to.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from registry_sync.api.access import SignedIn, may_use_connection
from registry_sync.api.problems import InvalidField
from registry_sync.db.database import Database
from registry_sync.domain.remote import OWN_CONNECTION_PREFIX, Remote, RemoteSpec, is_own_connection
from registry_sync.errors import ConfigurationError, InvalidReference, SyncError
from registry_sync.hooks.own_connections import (
    adopted,
    change_connection,
    create_connection,
    take_connections,
)

if TYPE_CHECKING:
    from registry_sync.api.remote_routes import GivenRemote

Store = Callable[[RemoteSpec], Remote]
OnlyIf = Callable[[Remote], None]


def create_remote(database: Database, given: GivenRemote, user: SignedIn) -> Remote:
    """Creates a remote with its credentials."""
    spec = _checked(lambda: RemoteSpec.parse(**given.spec_values(only_given=False)))
    secrets = {name: value for name, value in given.secrets().items() if value is not None}
    _check_connection(given, None, secrets, user)
    remote_id = str(uuid.uuid4())
    if not secrets:
        return database.remotes.create(replace(spec, conn_id=given.conn_id), remote_id)
    return _with_new_connection(remote_id, spec, secrets, lambda made: database.remotes.create(made, remote_id))


def change_remote(
    database: Database,
    remote_id: str,
    given: GivenRemote,
    user: SignedIn,
    *,
    is_replacement: bool,
    only_if: OnlyIf | None = None,
) -> Remote:
    """Changes the remote by ``given``; credentials and connection that were not sent are kept.

    ``only_if`` is given the remote as it is, and raises where it must not be changed.

    Null removes a credential, but not in a replacement: that may be a changed response, which has null for secrets.
    """
    with database.lock(f"remote {remote_id}"):
        before = database.remotes.get(remote_id)
        if only_if is not None:
            only_if(before)
        remote = adopted(database, before)
        if given.conn_id is not None and given.conn_id == before.spec.conn_id:
            given = given.model_copy(update={"conn_id": remote.spec.conn_id})
        changed = _change(database, remote, given, user, is_replacement=is_replacement)
        take_connections(remote_id, but=changed.spec.conn_id)
        return changed


def _change(database: Database, remote: Remote, given: GivenRemote, user: SignedIn, *, is_replacement: bool) -> Remote:
    values, present = given.spec_values(only_given=not is_replacement), remote.spec.conn_id
    spec, sent = _checked(lambda: remote.spec.changed(**values)), given.secrets()
    new = {name: value for name, value in sent.items() if value is not None}
    _check_connection(given, remote, new, user)
    wanted = given.conn_id if "conn_id" in given.model_fields_set else present
    is_kept = wanted is not None and wanted == present and is_own_connection(present, remote.id)
    is_moved = spec.url != remote.spec.url
    if is_kept and is_moved and not new:
        raise InvalidField(
            "url",
            f"The credentials of this remote are for {remote.spec.url}. Send those for the new registry with its "
            "url, or conn_id null to have none.",
        )

    def store(changed: RemoteSpec) -> Remote:
        def change(stored: RemoteSpec) -> RemoteSpec:
            # The lock is for changes of credentials; a sync that changes its remote does not acquire it.
            if (stored.url, stored.conn_id) != (remote.spec.url, present):
                raise SyncError("a sync has changed url or connection of this remote meanwhile; try again")
            return _checked(lambda: stored.changed(**values, conn_id=changed.conn_id))

        return database.remotes.change(remote.id, change)

    if new and not (is_kept and not is_moved):
        return _with_new_connection(remote.id, spec, new, store)
    changed = store(replace(spec, conn_id=wanted))
    if wanted is not None and is_kept and sent:
        try:
            change_connection(wanted, spec.url, new if is_replacement else sent)
        except BaseException:
            with suppress(Exception):
                database.remotes.update(remote.id, remote.spec)
            raise
    return changed


def _with_new_connection(remote_id: str, spec: RemoteSpec, secrets: dict[str, str], store: Store) -> Remote:
    conn_id = create_connection(remote_id, spec.url, secrets)
    try:
        return store(replace(spec, conn_id=conn_id))
    except BaseException:
        with suppress(Exception):
            take_connections(remote_id, but=spec.conn_id)
        raise


def _check_connection(given: GivenRemote, remote: Remote | None, secrets: dict[str, str], user: SignedIn) -> None:
    """Checks that there is one source of credentials, and that the user may use it. Raises :class:`InvalidField`."""
    conn_id, present = given.conn_id, None if remote is None else remote.spec.conn_id
    if conn_id is not None and conn_id != present:
        if secrets:
            raise InvalidField("conn_id", "Send a connection or credentials, not both.")
        if is_own_connection(conn_id):
            raise InvalidField(
                "conn_id", f"Connections {OWN_CONNECTION_PREFIX}… belong to the remote they were created for."
            )
        if not may_use_connection(user, conn_id):
            raise InvalidField("conn_id", "You may not use this connection.")
    is_kept = "conn_id" not in given.model_fields_set or conn_id == present
    is_own = remote is not None and is_own_connection(present, remote.id)
    if secrets and present is not None and not is_own and is_kept:
        raise InvalidField(
            "conn_id",
            "The credentials of this remote are in your own connection. Change them there, or send conn_id null "
            "with the new ones.",
        )


def _checked(make: Callable[[], RemoteSpec]) -> RemoteSpec:
    """The specification, checked for rules over several fields: host and name together may be too long."""
    try:
        return make()
    except InvalidReference as problem:
        raise InvalidField("upstream_name", str(problem)) from None
    except ConfigurationError as problem:
        if problem.option is None:
            raise
        raise InvalidField(problem.option, str(problem)) from None
