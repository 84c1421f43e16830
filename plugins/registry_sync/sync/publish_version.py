"""What clients pull under a base path: published by a sync, and pointed at one version or another.

A base path belongs to whoever made its distribution: it serves another repository only when that is said.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry_sync.domain.records import Repository
from registry_sync.domain.serving import Distribution, DistributionSpec, base_path_of
from registry_sync.errors import NameTaken, RecordNotFound

if TYPE_CHECKING:
    from registry_sync.db.database import Database


def published_under(
    database: Database, base_path: str, repository_id: str | None, repository: str
) -> Distribution | None:
    """The distribution that serves the repository under ``base_path``; None while nothing is distributed there.

    ``repository_id`` is None for a repository that is yet to be created, ``repository`` its name for messages. Raises
    :class:`NameTaken` when the distribution there serves another repository, or none at all; and when the name that a
    new one would have is that of a distribution elsewhere.
    """
    found = database.distributions.by_base_path(base_path)
    if found is None:
        _refuse_taken_name(database, base_path)
        return None
    if repository_id is None or found.repository_id != repository_id:
        raise _taken(found, _served(database, found), repository)
    return found


@dataclass(frozen=True)
class PublishedChange:
    """A distribution as it is now, and as it was before: None where it was created."""

    distribution: Distribution
    before: DistributionSpec | None

    @property
    def is_changed(self) -> bool:
        """Whether clients get something else than before."""
        now = self.distribution
        return self.before is None or (self.before.repository_id, self.before.version_number) != (
            now.repository_id,
            now.version_number,
        )


@dataclass(frozen=True)
class PublishRequest:
    """What ``base_path`` is to serve: version ``number`` of a repository, or its latest one for None.

    ``is_private`` counts for a new distribution; one that exists keeps its own. With ``replace_repository`` it may
    serve another repository than before.
    """

    base_path: str
    repository: Repository
    number: int | None = None
    is_private: bool = True
    replace_repository: bool = False

    def may_take(self, present: DistributionSpec) -> bool:
        """Whether that distribution may serve this repository."""
        return self.replace_repository or present.repository_id == self.repository.id

    def pointed(self, present: DistributionSpec) -> DistributionSpec:
        """That distribution as it is to be."""
        return replace(present, repository_id=self.repository.id, version_number=self.number)


def would_change(database: Database, request: PublishRequest) -> bool:
    """Whether anything is to be done. Raises as :func:`publish_version` does."""
    found = _present(database, request)
    return found is None or request.pointed(found.spec) != found.spec


def publish_version(database: Database, request: PublishRequest) -> PublishedChange:
    """Points the distribution of the base path at the version, creating it when there is none; safe to repeat.

    One row is written: clients get the version from the next request on, and whoever pulls meanwhile goes on with what
    they began. Raises :class:`InvalidReference`, :class:`NameTaken`, and :class:`RecordNotFound` for a missing version.
    """
    found = _present(database, request)
    if found is None:
        spec = request.pointed(DistributionSpec(request.base_path, request.base_path, is_private=request.is_private))
        try:
            return PublishedChange(database.distributions.create(spec), None)
        except NameTaken:  # another task was faster; what it made is judged as what was there before
            found = _present(database, request)
            if found is None:
                raise
    if request.pointed(found.spec) == found.spec:
        return PublishedChange(found, found.spec)
    seen = [found.spec]

    def pointed(spec: DistributionSpec) -> DistributionSpec:
        if not request.may_take(spec):  # somebody has pointed it elsewhere since
            raise _taken(spec, "another repository", request.repository.name)
        seen.append(spec)
        return request.pointed(spec)

    return PublishedChange(database.distributions.change(found.id, pointed), seen[-1])


def _present(database: Database, request: PublishRequest) -> Distribution | None:
    base_path = base_path_of(request.base_path)
    if request.replace_repository:
        found = database.distributions.by_base_path(base_path)
        if found is not None:
            return found
    return published_under(database, base_path, request.repository.id, request.repository.name)


def _refuse_taken_name(database: Database, name: str) -> None:
    with suppress(RecordNotFound):
        elsewhere = database.distributions.by_name(name)
        raise NameTaken(
            f"a distribution {name!r} exists already and serves the base path {elsewhere.base_path!r}. Nothing was "
            "changed. Choose another base path, or rename that distribution over REST",
            field="name",
        )


def _served(database: Database, found: Distribution) -> str:
    if found.repository_id is None:
        return "nothing"
    with suppress(RecordNotFound):
        return repr(database.repositories.get(found.repository_id).name)
    return "nothing"


def _taken(found: DistributionSpec, served: str, wanted: str) -> NameTaken:
    return NameTaken(
        f"the base path {found.base_path!r} is that of the distribution {found.name!r}, which serves {served} and not "
        f"{wanted!r}. Nothing was changed. Choose another base path, or point that distribution at the repository: "
        f"airflow registry-sync distribution update {found.name} --repository {wanted}",
        field="base_path",
    )
