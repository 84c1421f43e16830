"""Distributions and robots: what is served under which name, and who may pull it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select
from sqlalchemy.exc import IntegrityError

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import NamedRecords, fetch_page, insert_or_keep
from registry_sync.db.serving_tables import distributions, robots, serving_keys
from registry_sync.db.versions.commit import lock_repository
from registry_sync.db.versions.version_rows import require_version
from registry_sync.domain.filters import EVERYTHING, Filter
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.serving import (
    Distribution,
    DistributionSpec,
    Robot,
    is_secret,
    new_secret,
    robot_name,
    robot_scopes,
    secret_hash,
)
from registry_sync.errors import NameTaken, RecordNotFound

_KEY_BYTES = 32


class DistributionStore:
    """Each method is a short transaction of its own. What is missing raises :class:`RecordNotFound`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def create(self, spec: DistributionSpec) -> Distribution:
        """A new distribution. Raises :class:`NameTaken` for its name or base path, :class:`InvalidReference`."""
        with self._transactions.writing() as connection:
            _require_content(connection, spec.checked())
            _unless_base_path_taken(connection, spec.base_path, None)
            return _RECORDS.create(connection, spec)

    def get(self, distribution_id: str) -> Distribution:
        """The distribution of that id."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_id(connection, distribution_id)

    def by_name(self, name: str) -> Distribution:
        """The distribution of that name."""
        with self._transactions.reading() as connection:
            return _RECORDS.by_name(connection, name)

    def by_base_path(self, base_path: str) -> Distribution | None:
        """The distribution of that base path; None when there is none."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(distributions).where(distributions.c.base_path == base_path)).one_or_none()
        return None if row is None else _distribution(row)

    def page(
        self,
        request: PageRequest = FIRST_PAGE,
        *,
        name: str | None = None,
        names: Sequence[str] | None = None,
        name_contains: str | None = None,
        where: Filter = EVERYTHING,
    ) -> Page[Distribution]:
        """Distributions ordered by ``name`` (default), ``created_at`` or ``updated_at``."""
        with self._transactions.reading() as connection:
            return _RECORDS.page(connection, request, name=name, names=names, name_contains=name_contains, where=where)

    def change(
        self,
        distribution_id: str,
        change: Callable[[DistributionSpec], DistributionSpec],
        only_if: Callable[[Distribution], None] | None = None,
    ) -> Distribution:
        """The distribution as ``change`` makes it of what is stored; nobody else changes it in between.

        ``change`` may be called several times. ``only_if`` is given the distribution as it is and raises where it must
        not be changed, as for :meth:`delete`. Raises as :meth:`create` does.
        """
        while True:
            with suppress(_ServesOther), self._transactions.writing() as connection:
                return _change(connection, distribution_id, change, only_if)

    def delete(self, distribution_id: str, only_if: Callable[[Distribution], None] | None = None) -> None:
        """Removes it; the repository and its versions stay."""
        with self._transactions.writing() as connection:
            _RECORDS.delete(connection, distribution_id, only_if)


class _ServesOther(Exception):
    """Somebody has changed what a distribution serves between two statements; the change begins again."""


def _change(
    connection: Connection,
    distribution_id: str,
    change: Callable[[DistributionSpec], DistributionSpec],
    only_if: Callable[[Distribution], None] | None,
) -> Distribution:
    """The changed distribution.

    The repository is locked before the distribution, as by its deletion, which empties the distributions last.
    """
    wanted = change(_RECORDS.by_id(connection, distribution_id).spec).checked()
    _require_content(connection, wanted)

    def checked(spec: DistributionSpec) -> DistributionSpec:
        changed = change(spec).checked()
        if (changed.repository_id, changed.version_number) != (wanted.repository_id, wanted.version_number):
            raise _ServesOther
        _unless_base_path_taken(connection, changed.base_path, distribution_id)
        return changed

    return _RECORDS.change(connection, distribution_id, checked, only_if)


def _require_content(connection: Connection, spec: DistributionSpec) -> None:
    if spec.repository_id is None:
        return
    # Locked, so that no retention removes the version before the distribution is there to keep it.
    lock_repository(connection, spec.repository_id)
    if spec.version_number is not None:
        require_version(connection, spec.repository_id, spec.version_number)


def _unless_base_path_taken(connection: Connection, base_path: str, own_id: str | None) -> None:
    owner = connection.execute(
        select(distributions.c.id, distributions.c.name).where(distributions.c.base_path == base_path)
    ).first()
    if owner is not None and owner.id != own_id:
        raise NameTaken(
            f"the base path {base_path!r} is that of the distribution {owner.name!r} already", field="base_path"
        )


def _spec_values(spec: DistributionSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "base_path": spec.base_path,
        "repository_id": spec.repository_id,
        "version_number": spec.version_number,
        "is_private": spec.is_private,
        "labels": dict(spec.labels),
    }


def _distribution(row: Row[Any]) -> Distribution:
    return Distribution(
        id=row.id,
        name=row.name,
        base_path=row.base_path,
        repository_id=row.repository_id,
        # The number stays in the row when the repository is deleted, and says nothing then.
        version_number=None if row.repository_id is None else row.version_number,
        is_private=row.is_private,
        labels=row.labels,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


_SEARCHED = {"base_path": distributions.c.base_path, "repository": distributions.c.repository_id}
_RECORDS = NamedRecords(distributions, "distribution", _spec_values, _distribution, _SEARCHED)


class RobotStore:
    """Each method is a short transaction of its own. Secrets are kept as hashes."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def create(self, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None) -> tuple[Robot, str]:
        """A new robot and its secret, which cannot be read again.

        Raises :class:`NameTaken`, :class:`InvalidReference`.
        """
        secret = new_secret()
        values = {
            "id": str(uuid.uuid4()),
            "name": robot_name(name),
            "scopes": list(robot_scopes(scopes)),
            "secret_hash": secret_hash(secret),
            "created_at": utc_now(),
            "expires_at": expires_at,
        }
        with self._transactions.writing() as connection:
            try:
                connection.execute(insert(robots), values)
            except IntegrityError:
                raise NameTaken(f"there is a robot {name!r} already; revoke it, or choose another name") from None
            return _robot(connection.execute(select(robots).where(robots.c.id == values["id"])).one()), secret

    def page(self, request: PageRequest = FIRST_PAGE) -> Page[Robot]:
        """Robots by name, expired ones too."""
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, select(robots), request, {"name": robots.c.name}, robots.c.id)
        return Page(tuple(map(_robot, rows)), total)

    def revoke(self, name: str) -> None:
        """Removes a robot: its secret opens nothing any more. Raises :class:`RecordNotFound`."""
        with self._transactions.writing() as connection:
            if not connection.execute(delete(robots).where(robots.c.name == name)).rowcount:
                raise RecordNotFound(f"there is no robot {name[:80]!r}")

    def authenticate(self, name: str, secret: str) -> Robot | None:
        """The robot whose secret it is; None for a wrong secret, an unknown name and one that has expired alike."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(robots).where(robots.c.name == name)).one_or_none()
        is_right = is_secret(secret, row.secret_hash if row is not None else "")
        if row is None or not is_right or (row.expires_at is not None and row.expires_at <= utc_now()):
            return None
        return _robot(row)

    def by_name(self, name: str) -> Robot | None:
        """The robot of that name; None for an unknown name and one that has expired alike."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(robots).where(robots.c.name == name)).one_or_none()
        if row is None or (row.expires_at is not None and row.expires_at <= utc_now()):
            return None
        return _robot(row)

    def signing_key(self) -> bytes:
        """The key that tokens of this installation are signed with, the same for all of its servers; made once."""
        with self._transactions.reading() as connection:
            found = connection.execute(select(serving_keys.c.key).where(serving_keys.c.name == "token")).scalar()
        if found is not None:
            return bytes.fromhex(found)
        with self._transactions.writing() as connection:
            values = {"name": "token", "key": secrets.token_hex(_KEY_BYTES), "created_at": utc_now()}
            connection.execute(insert_or_keep(connection, serving_keys), values)
            made = connection.execute(select(serving_keys.c.key).where(serving_keys.c.name == "token")).scalar_one()
            return bytes.fromhex(made)


def _robot(row: Row[Any]) -> Robot:
    return Robot(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
