"""Repositories: named places into which content is synced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, false, func, literal, or_, select, update

from registry_sync.db.content.closures import has_unit, is_in_latest
from registry_sync.db.engine import Transactions
from registry_sync.db.filtering import Searched
from registry_sync.db.queries import NamedRecords, in_batches
from registry_sync.db.runs.dag_run_stores import keep_keys_of_deleted
from registry_sync.db.tables import repositories, repository_versions
from registry_sync.db.versions.commit import lock_repository
from registry_sync.db.versions.version_rows import keep_newest
from registry_sync.domain.filters import EVERYTHING, Filter, Match
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest, Repository, RepositorySpec
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import ConfigurationError, RecordNotFound

#: The largest number that every database takes in its column.
MAX_RETAINED_VERSIONS = 2**31 - 1
#: Former names that are kept of a repository, so that repeated renames do not grow the list without limit.
_KEPT_NAMES = 20


class RepositoryStore:
    """Each method is a short transaction of its own.

    A new name must be valid for a registry, else :class:`InvalidReference` is raised. Repositories of earlier releases
    with other names remain usable and keep them until they are renamed.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def ensure(self, name: str) -> Repository:
        """The repository of that name, created if there is none; safe to repeat and to run concurrently."""
        with self._transactions.writing() as connection:
            try:
                return _RECORDS.by_name(connection, name)
            except RecordNotFound:
                return _RECORDS.ensure(connection, _checked(RepositorySpec(name)))

    def create(self, spec: RepositorySpec) -> Repository:
        """A new repository. Raises :class:`NameTaken`."""
        with self._transactions.writing() as connection:
            return _RECORDS.create(connection, _checked(spec))

    def get(self, repository_id: str) -> Repository:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_id(connection, repository_id)

    def by_name(self, name: str) -> Repository:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_name(connection, name)

    def names(self, repository_ids: Iterable[str]) -> dict[str, str]:
        """The name of each of these repositories by its id; those that do not exist are omitted."""
        found: dict[str, str] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(set(repository_ids))):
                statement = select(repositories.c.id, repositories.c.name).where(repositories.c.id.in_(batch))
                found.update((row.id, row.name) for row in connection.execute(statement))
        return found

    def count_created_before(self, repository: Repository) -> int:
        """How many repositories that exist now were created before this one."""
        created_at, key = repositories.c.created_at, repositories.c.id
        is_before = (created_at < repository.created_at) | (
            (created_at == repository.created_at) & (key < repository.id)
        )
        with self._transactions.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(repositories).where(is_before)).scalar_one())

    def page(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name: str | None = None,
        names: Sequence[str] | None = None,
        name_contains: str | None = None,
        where: Filter = EVERYTHING,
    ) -> Page[Repository]:
        """Repositories ordered by ``name`` (default), ``created_at`` or ``updated_at``."""
        with self._transactions.reading() as connection:
            return _RECORDS.page(connection, request, name=name, names=names, name_contains=name_contains, where=where)

    def update(self, repository_id: str, spec: RepositorySpec) -> Repository:
        """The repository with its specification replaced; versions that it no longer retains are removed at once.

        Raises :class:`RecordNotFound`, :class:`NameTaken`, :class:`ConfigurationError` for a number of versions to keep
        that is none.
        """
        return self.change(repository_id, lambda _: spec)

    def change(
        self,
        repository_id: str,
        change: Callable[[RepositorySpec], RepositorySpec],
        only_if: Callable[[Repository], None] | None = None,
    ) -> Repository:
        """As :meth:`update`, with the specification that ``change`` makes from the stored one, atomically.

        ``only_if`` is given the repository as it is and raises where it must not be changed, as for :meth:`delete`.
        """
        with self._transactions.writing() as connection:
            before = lock_repository(connection, repository_id)
            changed = _RECORDS.change(
                connection, repository_id, lambda present: _checked(change(present), present), only_if
            )
            if changed.name != before.name:
                _record_former_name(connection, before, changed.name)
            keep_newest(connection, repository_id, changed.retain_versions)
            return changed

    def former_names(self, repository_id: str) -> tuple[str, ...]:
        """Earlier names that no repository has now, the latest first. Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            row = connection.execute(
                select(repositories.c.former_names).where(repositories.c.id == repository_id)
            ).one_or_none()
            if row is None:
                raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
            names: list[str] = row.former_names or []
            in_use = (
                connection.execute(select(repositories.c.name).where(repositories.c.name.in_(names))).scalars().all()
            )
        return tuple(name for name in names if name not in in_use)

    def delete(self, repository_id: str, only_if: Callable[[Repository], None] | None = None) -> None:
        """Removes it with its versions and runs; its content stays stored. Raises :class:`RecordNotFound`.

        Repeated tasks of those runs detect the removal and do not create the repository again.
        """
        with self._transactions.writing() as connection:
            lock_repository(connection, repository_id)
            _RECORDS.locked(connection, repository_id, only_if)
            keep_keys_of_deleted(connection, repository_id)
            _RECORDS.delete(connection, repository_id)


def _checked(spec: RepositorySpec, present: RepositorySpec | None = None) -> RepositorySpec:
    """``spec``, after a check that its name and the number of versions to keep are valid or unchanged from ``present``.

    A number below 1 is refused: -1 is no limit elsewhere, and would leave the latest version alone here.
    """
    if present is None or spec.name != present.name:
        RepositoryName(spec.name)
    count = spec.retain_versions
    is_kept = present is not None and count == present.retain_versions
    if count is not None and not is_kept and not 1 <= count <= MAX_RETAINED_VERSIONS:
        raise ConfigurationError(
            f"{str(count)[:40]} is not a number of versions to keep: give 1 to {MAX_RETAINED_VERSIONS:,}, or no number "
            "to keep them all"
        )
    return spec


def _record_former_name(connection: Connection, before: Row[Any], name: str) -> None:
    names = [before.name, *(former for former in before.former_names or () if former not in (before.name, name))]
    values = {"former_names": names[:_KEPT_NAMES]}
    connection.execute(update(repositories).where(repositories.c.id == before.id).values(**values))


def _spec_values(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "retain_versions": spec.retain_versions,
        "labels": dict(spec.labels),
        "remote_id": spec.remote_id,
    }


def read_repository(row: Row[Any]) -> Repository:
    """A row of ``repositories`` as a value."""
    return Repository(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        description=row.description,
        retain_versions=row.retain_versions,
        labels=row.labels,
        latest_number=row.latest_number,
        remote_id=row.remote_id,
    )


def _holds_now(match: Match) -> ColumnElement[bool]:
    """Whether the latest version has one of these units: pairs of a kind and an id."""
    return or_(false(), *(is_in_latest(kind, literal(unit_id), repositories.c.id) for kind, unit_id in match.values))


def _holds(match: Match) -> ColumnElement[bool]:
    """Whether any version has one of these units."""
    return or_(false(), *(_has_version_with(kind, unit_id) for kind, unit_id in match.values))


def _has_version_with(kind: str, unit_id: int) -> ColumnElement[bool]:
    own = repository_versions.c.repository_id == repositories.c.id
    return exists().where(own, has_unit(kind, unit_id))


_SEARCHED: dict[str, Searched] = {
    "remote": repositories.c.remote_id,
    "retain_versions": repositories.c.retain_versions,
    "latest_with_content": _holds_now,
    "with_content": _holds,
}
_RECORDS = NamedRecords(repositories, "repository", _spec_values, read_repository, _SEARCHED)
