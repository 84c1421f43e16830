"""Remotes: external sources of content, as their owners describe them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from registry_sync.db.batches import insert_or_keep
from registry_sync.db.paging import fetch_page
from registry_sync.db.tables import remotes, utc_now
from registry_sync.db.transactions import Transactions
from registry_sync.domain.pages import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.records import Policy, Remote, RemoteSpec
from registry_sync.errors import NameTaken, RecordNotFound

_ORDERINGS = {"name": remotes.c.name, "created_at": remotes.c.created_at, "updated_at": remotes.c.updated_at}


class RemoteStore:
    """Each method is a short transaction of its own. No method stores a secret."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def ensure(self, spec: RemoteSpec) -> Remote:
        """The remote of that name, made or brought up to ``spec``; ``updated_at`` moves only when it differs."""
        with self._transactions.writing() as connection:
            connection.execute(insert_or_keep(connection, remotes), _new_values(spec))
            stored = _require(connection, remotes.c.name == spec.name, spec.name)
            if spec_values(stored.spec) == spec_values(spec):
                return stored
            return _replace(connection, stored.id, spec)

    def create(self, spec: RemoteSpec) -> Remote:
        """A new remote. Raises :class:`NameTaken`."""
        with self._transactions.writing() as connection:
            values = _new_values(spec)
            try:
                connection.execute(insert(remotes), values)
            except IntegrityError:
                raise _taken(spec.name) from None
            return _require(connection, remotes.c.id == values["id"], spec.name)

    def get(self, remote_id: str) -> Remote:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _require(connection, remotes.c.id == remote_id, remote_id)

    def by_name(self, name: str) -> Remote:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _require(connection, remotes.c.name == name, name)

    def page(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name: str | None = None,
        names: Sequence[str] | None = None,
        name_contains: str | None = None,
    ) -> Page[Remote]:
        """Remotes ordered by ``name`` (default), ``created_at`` or ``updated_at``."""
        statement = select(remotes)
        if name is not None:
            statement = statement.where(remotes.c.name == name)
        if names is not None:
            statement = statement.where(remotes.c.name.in_(names))
        if name_contains is not None:
            statement = statement.where(remotes.c.name.icontains(name_contains, autoescape=True))
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, _ORDERINGS, remotes.c.id)
        return Page(tuple(map(_remote, rows)), total)

    def update(self, remote_id: str, spec: RemoteSpec) -> Remote:
        """The remote with all of its description replaced. Raises :class:`RecordNotFound`, :class:`NameTaken`."""
        with self._transactions.writing() as connection:
            return _replace(connection, remote_id, spec)

    def delete(self, remote_id: str) -> None:
        """Removes it; what was synced from it stays. Raises :class:`RecordNotFound`."""
        with self._transactions.writing() as connection:
            _require(connection, remotes.c.id == remote_id, remote_id)
            connection.execute(delete(remotes).where(remotes.c.id == remote_id))


def _replace(connection: Connection, remote_id: str, spec: RemoteSpec) -> Remote:
    values = {**spec_values(spec), "updated_at": utc_now()}
    try:
        connection.execute(update(remotes).where(remotes.c.id == remote_id).values(**values))
    except IntegrityError:
        raise _taken(spec.name) from None
    return _require(connection, remotes.c.id == remote_id, remote_id)


def _new_values(spec: RemoteSpec) -> dict[str, Any]:
    now = utc_now()
    return {"id": str(uuid.uuid4()), **spec_values(spec), "created_at": now, "updated_at": now}


def spec_values(spec: RemoteSpec) -> dict[str, Any]:
    """``spec`` as columns, or as JSON: only texts, numbers, lists and maps."""
    return {
        "name": spec.name,
        "url": spec.url,
        "upstream_name": spec.upstream_name,
        "include_tags": None if spec.include_tags is None else list(spec.include_tags),
        "exclude_tags": list(spec.exclude_tags),
        "policy": Policy(spec.policy).value,
        "download_concurrency": spec.download_concurrency,
        "conn_id": spec.conn_id,
        "proxy_url": spec.proxy_url,
        "ssl_validation": spec.ssl_validation,
        "ssl_ca_certificate": spec.ssl_ca_certificate,
        "ssl_client_certificate": spec.ssl_client_certificate,
        "platforms": None if spec.platforms is None else list(spec.platforms),
        "include_referrers": spec.include_referrers,
        "labels": dict(spec.labels),
    }


def _require(connection: Connection, condition: ColumnElement[bool], asked: str) -> Remote:
    row = connection.execute(select(remotes).where(condition)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no remote {asked[:255]!r}")
    return _remote(row)


def read_spec(values: Mapping[str, Any]) -> RemoteSpec:
    """What :func:`spec_values` wrote, as columns or as JSON."""
    return RemoteSpec(
        name=values["name"],
        url=values["url"],
        upstream_name=values["upstream_name"],
        include_tags=None if values["include_tags"] is None else tuple(values["include_tags"]),
        exclude_tags=tuple(values["exclude_tags"]),
        policy=Policy(values["policy"]),
        download_concurrency=values["download_concurrency"],
        conn_id=values["conn_id"],
        proxy_url=values["proxy_url"],
        ssl_validation=values["ssl_validation"],
        ssl_ca_certificate=values["ssl_ca_certificate"],
        ssl_client_certificate=values["ssl_client_certificate"],
        platforms=None if values["platforms"] is None else tuple(values["platforms"]),
        include_referrers=values["include_referrers"],
        labels=values["labels"],
    )


def _remote(row: Row[Any]) -> Remote:
    values = {column.name: getattr(row, column.name) for column in remotes.c}
    return Remote(row.id, read_spec(values), row.created_at, row.updated_at)


def _taken(name: str) -> NameTaken:
    return NameTaken(f"there is a remote {name[:255]!r} already")
