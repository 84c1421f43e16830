"""A remote and its connection changed together, though they live in two databases.

Secrets are in place before a remote points to them, and are removed after it does not; when the second step of a change
fails, a connection that nothing points to is removed again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from registry_sync.api.access import SignedIn, may_use_connection
from registry_sync.api.problems import InvalidField
from registry_sync.api.remotes.credentials import (
    OWN_PREFIX,
    change_connection,
    create_connection,
    delete_connection,
    is_own,
)
from registry_sync.api.remotes.schemas import GivenRemote
from registry_sync.db.database import Database
from registry_sync.domain.records import Remote, RemoteSpec
from registry_sync.errors import InvalidReference


def create_remote(database: Database, given: GivenRemote, user: SignedIn) -> Remote:
    """A new remote with its credentials."""
    spec = _checked(RemoteSpec(**given.spec_values(only_given=False)))
    secrets = {name: value for name, value in given.secrets().items() if value is not None}
    _check_connection(given, None, secrets, user)
    if not secrets:
        return database.remotes.create(replace(spec, conn_id=given.conn_id))
    return _with_new_connection(spec, secrets, database.remotes.create)


def change_remote(
    database: Database, remote: Remote, given: GivenRemote, user: SignedIn, *, is_replacement: bool
) -> Remote:
    """The remote as ``given`` says; credentials and connection that were not sent stay.

    Null removes a credential, but not in a replacement: that may be an answer, changed and sent back, which shows null
    for what it hides.
    """
    spec = _checked(replace(remote.spec, **given.spec_values(only_given=not is_replacement)))
    present, sent = remote.spec.conn_id, given.secrets()
    new = {name: value for name, value in sent.items() if value is not None}
    _check_connection(given, present, new, user)
    wanted = given.conn_id if "conn_id" in given.model_fields_set else present

    def store(changed: RemoteSpec) -> Remote:
        return database.remotes.update(remote.id, changed)

    is_kept, is_moved = (
        wanted is not None and wanted == present and is_own(present),
        spec.registry != remote.spec.registry,
    )
    if is_kept and is_moved and not new:
        raise InvalidField(
            "url",
            f"The credentials of this remote are for {remote.spec.registry}. Send those for the new registry with its "
            "url, or conn_id null to have none.",
        )
    if new and not (is_kept and not is_moved):
        changed = _with_new_connection(spec, new, store)
    else:
        changed = store(replace(spec, conn_id=wanted))
        if wanted is not None and is_kept and sent:
            change_connection(wanted, spec.registry, new if is_replacement else sent)
    if present is not None and is_own(present) and changed.spec.conn_id != present:
        delete_connection(present)
    return changed


def delete_remote(database: Database, remote: Remote) -> None:
    """Removes the remote and the connection that was made for it."""
    database.remotes.delete(remote.id)
    if remote.spec.conn_id is not None and is_own(remote.spec.conn_id):
        delete_connection(remote.spec.conn_id)


def _with_new_connection(spec: RemoteSpec, secrets: dict[str, str], store: Callable[[RemoteSpec], Remote]) -> Remote:
    conn_id = create_connection(spec.registry, secrets)
    try:
        return store(replace(spec, conn_id=conn_id))
    except BaseException:
        with suppress(Exception):
            delete_connection(conn_id)
        raise


def _check_connection(given: GivenRemote, present: str | None, secrets: dict[str, str], user: SignedIn) -> None:
    """That there is one source of credentials, and that the user may have the remote use it."""
    conn_id = given.conn_id
    if conn_id is not None and conn_id != present:
        if secrets:
            raise InvalidField("conn_id", "Give a connection or credentials, not both.")
        if is_own(conn_id):
            raise InvalidField("conn_id", f"Connections {OWN_PREFIX}… belong to the remote they were made for.")
        if not may_use_connection(user, conn_id):
            raise InvalidField("conn_id", "You may not use this connection.")
    is_kept = "conn_id" not in given.model_fields_set or conn_id == present
    if secrets and present is not None and not is_own(present) and is_kept:
        raise InvalidField(
            "conn_id",
            "The credentials of this remote are in a connection of yours. Change them there, or send conn_id null "
            "with the new ones.",
        )


def _checked(spec: RemoteSpec) -> RemoteSpec:
    """What only its fields together can tell: whether host and name are too long in one."""
    try:
        return spec.checked()
    except InvalidReference as problem:
        raise InvalidField("upstream_name", str(problem)) from None
