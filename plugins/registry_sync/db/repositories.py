"""Repositories: named places that content is synced into."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from registry_sync.db.batches import insert_or_keep
from registry_sync.db.paging import fetch_page
from registry_sync.db.tables import repositories, utc_now
from registry_sync.db.transactions import Transactions
from registry_sync.domain.pages import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.records import Repository, RepositorySpec
from registry_sync.errors import NameTaken, RecordNotFound

_ORDERINGS = {
    "name": repositories.c.name,
    "created_at": repositories.c.created_at,
    "updated_at": repositories.c.updated_at,
}


class RepositoryStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def ensure(self, name: str) -> Repository:
        """The repository of that name, made now if there is none; safe when repeated and for several at once."""
        with self._transactions.writing() as connection:
            connection.execute(insert_or_keep(connection, repositories), _new_values(RepositorySpec(name)))
            return _require(connection, repositories.c.name == name, name)

    def create(self, spec: RepositorySpec) -> Repository:
        """A new repository. Raises :class:`NameTaken`."""
        with self._transactions.writing() as connection:
            values = _new_values(spec)
            try:
                connection.execute(insert(repositories), values)
            except IntegrityError:
                raise _taken(spec.name) from None
            return _require(connection, repositories.c.id == values["id"], spec.name)

    def get(self, repository_id: str) -> Repository:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _require(connection, repositories.c.id == repository_id, repository_id)

    def by_name(self, name: str) -> Repository:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _require(connection, repositories.c.name == name, name)

    def page(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name: str | None = None,
        names: Sequence[str] | None = None,
        name_contains: str | None = None,
    ) -> Page[Repository]:
        """Repositories ordered by ``name`` (default), ``created_at`` or ``updated_at``."""
        statement = select(repositories)
        if name is not None:
            statement = statement.where(repositories.c.name == name)
        if names is not None:
            statement = statement.where(repositories.c.name.in_(names))
        if name_contains is not None:
            statement = statement.where(repositories.c.name.icontains(name_contains, autoescape=True))
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, _ORDERINGS, repositories.c.id)
        return Page(tuple(map(_repository, rows)), total)

    def update(self, repository_id: str, spec: RepositorySpec) -> Repository:
        """The repository as ``spec`` says from now on. Raises :class:`RecordNotFound`, :class:`NameTaken`."""
        with self._transactions.writing() as connection:
            try:
                connection.execute(
                    update(repositories)
                    .where(repositories.c.id == repository_id)
                    .values(**_spec_values(spec), updated_at=utc_now())
                )
            except IntegrityError:
                raise _taken(spec.name) from None
            return _require(connection, repositories.c.id == repository_id, repository_id)

    def delete(self, repository_id: str) -> None:
        """Removes it with its versions and runs; its content stays stored. Raises :class:`RecordNotFound`."""
        with self._transactions.writing() as connection:
            _require(connection, repositories.c.id == repository_id, repository_id)
            connection.execute(delete(repositories).where(repositories.c.id == repository_id))


def _new_values(spec: RepositorySpec) -> dict[str, Any]:
    now = utc_now()
    return {"id": str(uuid.uuid4()), **_spec_values(spec), "created_at": now, "updated_at": now}


def _spec_values(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "retain_versions": spec.retain_versions,
        "labels": dict(spec.labels),
    }


def _require(connection: Connection, condition: ColumnElement[bool], asked: str) -> Repository:
    row = connection.execute(select(repositories).where(condition)).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no repository {asked[:255]!r}")
    return _repository(row)


def _repository(row: Row[Any]) -> Repository:
    return Repository(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        description=row.description,
        retain_versions=row.retain_versions,
        labels=row.labels,
        latest_number=row.latest_number,
    )


def _taken(name: str) -> NameTaken:
    return NameTaken(f"there is a repository {name[:255]!r} already")
