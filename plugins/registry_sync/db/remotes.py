"""Remotes: external sources of content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, ScalarSelect, Select, Update, func, or_, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import NamedRecords, built_once
from registry_sync.db.tables import remotes, repositories, sync_runs
from registry_sync.domain.filters import EVERYTHING, Filter
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest, SyncMode, checked_name
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import Remote, RemoteSpec
from registry_sync.domain.runs import FedRepository, RunKey, RunState
from registry_sync.errors import OtherUpstream


class RemoteStore:
    """Each method is a short transaction of its own. No method stores a secret."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def ensure(self, spec: RemoteSpec) -> Remote:
        """The remote of that name, created or updated to ``spec``; ``updated_at`` changes only when it differs."""
        with self._transactions.writing() as connection:
            stored = _RECORDS.ensure(connection, spec)
            if stored.spec.document() == spec.document():
                return stored
            return _RECORDS.replace(connection, stored.id, spec)

    def create(self, spec: RemoteSpec, remote_id: str | None = None, *, is_provisional: bool = False) -> Remote:
        """A new remote; ``remote_id`` is its UUID, None for a random one. Raises :class:`NameTaken`.

        It remains ``is_provisional`` until a version is made from it, or a user changes it. A new name is printable,
        else :class:`InvalidReference` is raised; other names of earlier releases stay usable until they are changed.
        """
        checked_name(spec.name, "give the name of the remote")
        with self._transactions.writing() as connection:
            made = _RECORDS.create(connection, spec, remote_id)
            if is_provisional:
                _mark(connection, made.id, is_provisional=True)
            return replace(made, is_provisional=is_provisional)

    def get(self, remote_id: str) -> Remote:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_id(connection, remote_id)

    def by_name(self, name: str) -> Remote:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_name(connection, name)

    def using(self, conn_id: str) -> tuple[Remote, ...]:
        """Remotes with that connection, the oldest first."""
        with self._transactions.reading() as connection:
            is_using = select(remotes).where(remotes.c.conn_id == conn_id).order_by(remotes.c.created_at, remotes.c.id)
            return tuple(map(read_remote, connection.execute(is_using)))

    def page(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name: str | None = None,
        names: Sequence[str] | None = None,
        name_contains: str | None = None,
        where: Filter = EVERYTHING,
    ) -> Page[Remote]:
        """Remotes ordered by ``name`` (default), ``created_at`` or ``updated_at``."""
        with self._transactions.reading() as connection:
            return _RECORDS.page(connection, request, name=name, names=names, name_contains=name_contains, where=where)

    def fed_repositories(self, upstream: RepositoryName) -> list[FedRepository]:
        """The repositories that are synced from an upstream of that name, on whichever registry; by name.

        ``upstream`` is as on the registry, with ``library/`` for Docker Hub's official images.
        """
        names = {str(upstream), upstream.rpartition("/")[2]}  # as typed, it may lack its first component
        feeding = func.coalesce(sync_runs.c.remote_id, repositories.c.remote_id)
        statement = (
            select(remotes, repositories.c.name.label("repository_name"), sync_runs.c.mode)
            .select_from(repositories)
            .outerjoin(sync_runs, repositories.c.settled_run_id == sync_runs.c.id)
            .join(remotes, remotes.c.id == feeding)
            .where(remotes.c.upstream_name.in_(names))
            .order_by(repositories.c.name)
        )
        with self._transactions.reading() as connection:
            rows = connection.execute(statement).all()
        found = (
            FedRepository(row.repository_name, read_remote(row), SyncMode(row.mode or SyncMode.ADDITIVE))
            for row in rows
        )
        return [one for one in found if one.remote.spec.upstream == upstream]

    def update(self, remote_id: str, spec: RemoteSpec) -> Remote:
        """Replaces all fields. Raises :class:`RecordNotFound`, :class:`NameTaken`."""
        return self.change(remote_id, lambda _: spec)

    def change(
        self, remote_id: str, change: Callable[[RemoteSpec], RemoteSpec], *, by_sync_run: str | None = None
    ) -> Remote:
        """Applies ``change`` to the stored remote, in one transaction.

        With ``by_sync_run``, the id of the sync that changes it, it remains provisional; any other change is a user's
        and ends that. Raises :class:`RecordNotFound`, :class:`NameTaken`, and what
        ``change`` raises.
        """
        with self._transactions.writing() as connection:
            changed = _RECORDS.change(connection, remote_id, lambda present: _named(change(present), present))
            if by_sync_run is None and changed.is_provisional:
                _mark(connection, remote_id, is_provisional=False)
                changed = replace(changed, is_provisional=False)
            return changed

    def correct(self, remote_id: str, change: Callable[[RemoteSpec], RemoteSpec]) -> Remote:
        """As :meth:`change` by a sync, to another upstream, while it is provisional and no sync from it is under way.

        A sync that is resumed after the correction makes no version (:func:`refuse_corrected`). Raises
        :class:`OtherUpstream` for a remote that may not be corrected.
        """
        with self._transactions.writing() as connection:

            def correct(stored: RemoteSpec) -> RemoteSpec:
                is_provisional = connection.execute(
                    select(remotes.c.is_provisional).where(remotes.c.id == remote_id)
                ).scalar_one()
                if not is_provisional or _syncs_under_way(connection, remote_id):
                    raise OtherUpstream(
                        f"remote {stored.name!r} cannot be corrected any more, as another sync uses it. "
                        "Nothing was changed"
                    )
                return change(stored)

            return _RECORDS.change(connection, remote_id, correct)

    def syncs_under_way(self, remote_id: str) -> tuple[RunKey, ...]:
        """The running syncs from it, the oldest first."""
        with self._transactions.reading() as connection:
            return _syncs_under_way(connection, remote_id)

    def delete(self, remote_id: str) -> None:
        """Deletes it; synced content stays, and repositories no longer name it. Raises :class:`RecordNotFound`."""
        with self._transactions.writing() as connection:
            _lock_users(connection, remote_id)
            _RECORDS.delete(connection, remote_id)
            of_remote = update(repositories).where(repositories.c.remote_id == remote_id)
            connection.execute(of_remote.values(remote_id=None))


def _lock_users(connection: Connection, remote_id: str) -> None:
    """Locks the repositories and then the syncs of a remote that is about to be deleted, which changes both.

    A commit, or the deletion of a repository, locks them in this order and the remote last.
    """
    of_remote = sync_runs.c.remote_id == remote_id
    synced = repositories.c.id.in_(select(sync_runs.c.repository_id).where(of_remote))
    for table, is_user in ((repositories, or_(repositories.c.remote_id == remote_id, synced)), (sync_runs, of_remote)):
        users = select(table.c.id).where(is_user).order_by(table.c.id)
        connection.execute(users.with_for_update(key_share=True)).all()


def _named(spec: RemoteSpec, present: RemoteSpec) -> RemoteSpec:
    """``spec``, after a check that its name is valid or unchanged from ``present``."""
    if spec.name != present.name:
        checked_name(spec.name, "give the name of the remote")
    return spec


def confirm_remote(connection: Connection, sync_run_id: str) -> None:
    """Records, in the caller's transaction, that the remote of that sync is no longer provisional.

    It remains provisional while the repository has no version.
    """
    connection.execute(*_confirmed_by(sync_run_id))


@built_once
def _confirmed_by(sync_run_id: str) -> Update:
    of_run = (
        select(sync_runs.c.remote_id)
        .join(repositories, repositories.c.id == sync_runs.c.repository_id)
        .where(sync_runs.c.id == sync_run_id, repositories.c.latest_number.is_not(None))
    )
    return _marking(of_run.scalar_subquery(), is_provisional=False)


def _mark(connection: Connection, remote_id: str, *, is_provisional: bool) -> None:
    connection.execute(*_marked(remote_id, is_provisional=is_provisional))


@built_once
def _marked(remote_id: str, *, is_provisional: bool) -> Update:
    return _marking(remote_id, is_provisional=is_provisional)


def _marking(remote_id: str | ScalarSelect[Any], *, is_provisional: bool) -> Update:
    is_other = remotes.c.is_provisional != is_provisional
    return update(remotes).where(remotes.c.id == remote_id, is_other).values(is_provisional=is_provisional)


def refuse_corrected(connection: Connection, remote_id: str | None, used: RemoteSpec) -> None:
    """Raises :class:`OtherUpstream` for a sync from ``used`` whose remote has been corrected to another upstream."""
    row = None if remote_id is None else connection.execute(*_provisional(remote_id)).first()
    if row is not None and (now := read_remote(row).spec).source != used.source:
        raise OtherUpstream(
            f"remote {now.name!r} was corrected after this sync of {used.source} had begun, and is {now.source} now. "
            "No version was made; start a new run"
        )


@built_once
def _provisional(remote_id: str) -> Select[Any]:
    return select(remotes).where(remotes.c.id == remote_id, remotes.c.is_provisional)


def _syncs_under_way(connection: Connection, remote_id: str) -> tuple[RunKey, ...]:
    statement = (
        select(sync_runs.c.dag_id, sync_runs.c.run_id, sync_runs.c.scope)
        .where(sync_runs.c.remote_id == remote_id, sync_runs.c.state == RunState.RUNNING.value)
        .where(~sync_runs.c.is_dag_run_over)
        .order_by(sync_runs.c.started_at)
    )
    return tuple(RunKey(row.dag_id, row.run_id, row.scope) for row in connection.execute(statement))


def last_synced_by(connection: Connection, repository_id: str) -> RemoteSpec | None:
    """The remote, as it was then, of the last settled sync of a repository; None without one."""
    last = (
        select(sync_runs.c.remote_spec)
        .join(repositories, repositories.c.settled_run_id == sync_runs.c.id)
        .where(repositories.c.id == repository_id)
    )
    row = connection.execute(last).first()
    return None if row is None else RemoteSpec.of_document(row.remote_spec)


def read_remote(row: Row[Any]) -> Remote:
    """A row of ``remotes`` as a value."""
    spec = RemoteSpec.of_document({**row.options, **{name: getattr(row, name) for name in _COLUMNS}})
    return Remote(row.id, spec, row.created_at, row.updated_at, row.is_provisional)


def _columns(spec: RemoteSpec) -> dict[str, Any]:
    """``spec`` as the columns that are searched, and the other options as one document."""
    options = spec.document()
    return {**{name: options.pop(name) for name in _COLUMNS}, "options": options}


#: Fields with a column each.
_COLUMNS = ("name", "url", "upstream_name", "conn_id")
_SEARCHED = {"url": remotes.c.url, "upstream_name": remotes.c.upstream_name}
_RECORDS = NamedRecords(remotes, "remote", _columns, read_remote, _SEARCHED)
