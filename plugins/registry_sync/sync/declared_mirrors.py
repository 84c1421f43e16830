"""The stored records of a declared mirror: made, or changed, to what the file says when its sync starts.

The file is the source of truth: an option of the remote that somebody has changed over REST is set back, and the
change is reported. What the file cannot say stays: a client certificate, credentials that were given over REST, a
version that a distribution was fixed to. Another upstream never replaces content unless the mirror says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from registry_sync.domain.mirrors import Mirror, Retention
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest, Repository, RepositorySpec
from registry_sync.domain.remote import (
    OPTIONS,
    Remote,
    RemoteSpec,
    is_own_connection,
    parameter_name,
    shown_value,
)
from registry_sync.domain.runs import Authority, RunKey, RunTrigger, SyncRun
from registry_sync.domain.serving import DistributionSpec, base_path_of
from registry_sync.domain.settled_mirrors import SettledMirror
from registry_sync.domain.sync_plans import PlannedNames
from registry_sync.errors import NameTaken, OtherUpstream, RecordNotFound
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.publish_version import published_under
from registry_sync.sync.unchanged_mirrors import run_like_the_last

if TYPE_CHECKING:
    from registry_sync.db.database import Database

_PAGE = 100


@dataclass(frozen=True)
class DeclaredRecords:
    """The records of a mirror, and what was changed in them, one line each; nothing is listed that was created."""

    repository: Repository
    remote: Remote
    changes: tuple[str, ...] = ()


def start_mirror(database: Database, mirror: Mirror, key: RunKey, by: RunTrigger) -> SyncRun:
    """The run of a mirror's sync, after its records were made as declared; it says what was changed in them.

    Raises as :func:`declare` and :func:`~registry_sync.sync.open_run.open_run` do.
    """
    declared = declare(database, mirror)
    changes = "; ".join(declared.changes) or None
    return open_run(database, key, mirror_request(mirror), authority=Authority.AUTHOR, by=by, remote_changes=changes)


def expected_mirror_run(database: Database, mirror: Mirror, known: SettledMirror, by: RunTrigger) -> SyncRun | None:
    """The run that :func:`start_mirror` would record; None where it would change any record, or might refuse.

    ``database`` is read only for a mirror that keeps versions for some days.
    """
    remote = known.remote
    if known.repository.name != mirror.repository or remote.spec.name != mirror.remote_name:
        return None
    if _wanted_remote(mirror, remote) != remote.spec:
        return None
    retained = _retained(database, known.repository, mirror.retention, utc_now())
    spec = known.repository.spec
    if replace(_repository_spec(mirror, remote, spec), retain_versions=retained) != spec:
        return None
    published = mirror.publication
    if published is not None and known.is_private_at.get(base_path_of(published.base_path)) is not published.is_private:
        return None
    return run_like_the_last(known, remote.spec, mirror.mode, by)


def mirror_request(mirror: Mirror) -> SyncRequest:
    """The sync of a mirror whose records are as declared."""
    return SyncRequest(
        mirror.repository, mirror.remote_name, mode=mirror.mode.value, replace_upstream=mirror.replaces_upstream
    )


def declare(database: Database, mirror: Mirror, now: datetime | None = None) -> DeclaredRecords:
    """Makes the stored records as ``mirror`` says; safe to repeat, and writes nothing that is so already.

    Raises :class:`OtherUpstream` for content or a remote of another source, unless the mirror may replace it,
    :class:`NameTaken` for a base path of another repository, and :class:`RecordNotFound` for a remote by name that does
    not exist. Then nothing is changed.
    """
    try:
        return _declare(database, mirror, now or utc_now())
    except NameTaken as taken:  # another task has created a record of that name since; or the base path is taken
        if taken.field != "name":
            raise
        return _declare(database, mirror, now or utc_now())


def _declare(database: Database, mirror: Mirror, now: datetime) -> DeclaredRecords:
    repository = _found(database.repositories.by_name, mirror.repository)
    stored = _found(database.remotes.by_name, mirror.remote_name)
    wanted = _wanted_remote(mirror, stored)
    _refuse_other_upstream(database, mirror, wanted, stored, repository)
    if mirror.publication is not None:
        repository_id = None if repository is None else repository.id
        published_under(database, mirror.publication.base_path, repository_id, mirror.repository)
    changes: list[str] = []
    remote = stored or database.remotes.create(wanted, is_provisional=True)
    if remote.spec != wanted:
        changes.append(_described(remote.spec, wanted, mirror))
        remote = database.remotes.change(remote.id, lambda _present: wanted)
    if repository is None:
        repository = database.repositories.create(_repository_spec(mirror, remote, RepositorySpec(mirror.repository)))
    retained = _retained(database, repository, mirror.retention, now)
    spec = replace(_repository_spec(mirror, remote, repository.spec), retain_versions=retained)
    if spec != repository.spec:
        repository = database.repositories.change(
            repository.id,
            lambda present: replace(_repository_spec(mirror, remote, present), retain_versions=retained),
        )
    changes += _published(database, mirror, repository)
    return DeclaredRecords(repository, remote, tuple(changes))


def _wanted_remote(mirror: Mirror, stored: Remote | None) -> RemoteSpec:
    """The remote as it is to be: the declared one with what only REST can say."""
    if mirror.remote is None:
        if stored is None:
            raise RecordNotFound(
                f"{mirror.place}: there is no remote {mirror.remote_name!r}; create it over REST, or describe it in "
                "the file by url and upstream_name"
            )
        return stored.spec
    if stored is None:
        return mirror.remote
    kept: dict[str, Any] = {"ssl_client_certificate": stored.spec.ssl_client_certificate}
    if mirror.remote.conn_id is None and is_own_connection(stored.spec.conn_id, stored.id):
        kept["conn_id"] = stored.spec.conn_id
    return replace(mirror.remote, **kept)


def _refuse_other_upstream(
    database: Database, mirror: Mirror, wanted: RemoteSpec, stored: Remote | None, repository: Repository | None
) -> None:
    """Raises :class:`OtherUpstream` where the file names another source than what there is came from."""
    if mirror.replaces_upstream or repository is None or repository.latest_number is None:
        return
    latest = database.runs.latest_settled(repository.id)
    came_from = latest.remote.source if latest is not None else None if stored is None else stored.spec.source
    if came_from is not None and came_from != wanted.source:
        raise OtherUpstream(
            f"{mirror.place}: what repository {mirror.repository!r} holds came from {came_from}, and the file says "
            f"{wanted.source}. Nothing was changed. If it is meant, say replace_upstream: true; else give the mirror "
            "another repository"
        )


def _described(before: RemoteSpec, after: RemoteSpec, mirror: Mirror) -> str:
    names = [name for name in ("url", "upstream_name") if getattr(before, name) != getattr(after, name)]
    said = [f"{name} from {getattr(before, name)} to {getattr(after, name)}" for name in names]
    said += [
        f"{parameter_name(name)} from {shown_value(name, before)} to {shown_value(name, after)}"
        for name in OPTIONS
        if getattr(before, name) != getattr(after, name) and name != "labels"
    ]
    if before.labels != after.labels:
        said.append("labels")
    return f"remote {before.name!r} changed as {mirror.place} says: {'; '.join(said)}"


def _repository_spec(mirror: Mirror, remote: Remote, present: RepositorySpec) -> RepositorySpec:
    """``present`` with what the mirror says, without its retention."""
    return replace(
        present,
        description=present.description if mirror.description is None else mirror.description,
        labels=dict(mirror.labels) or present.labels,
        remote_id=remote.id,
    )


def _retained(database: Database, repository: Repository, retention: Retention | None, now: datetime) -> int | None:
    """How many versions are kept: those that the number or the days keep, and the one to come."""
    if retention is None:
        return repository.retain_versions
    count = retention.versions or 0
    if retention.days is not None:
        count = max(count, _young_count(database, repository, now - timedelta(days=retention.days)) + 1)
    return count or None


def _young_count(database: Database, repository: Repository, since: datetime) -> int:
    """How many versions were made since then."""
    count = 0
    while True:
        page = database.versions.page(repository.id, PageRequest(count, _PAGE, "-number"))
        young = [version for version in page.items if version.created_at >= since]
        count += len(young)
        if len(young) < _PAGE or count >= page.total_count:
            return count


def _published(database: Database, mirror: Mirror, repository: Repository) -> Iterator[str]:
    """Makes the distribution, and changes who may pull it."""
    if mirror.publication is None:
        return
    base_path, is_private = mirror.publication.base_path, mirror.publication.is_private
    found = published_under(database, base_path, repository.id, repository.name)
    if found is None:
        database.distributions.create(DistributionSpec(base_path, base_path, repository.id, is_private=is_private))
    elif found.is_private is not is_private:
        database.distributions.change(found.id, lambda present: replace(present, is_private=is_private))
        yield f"{base_path!r} is {'private' if is_private else 'public'} now, as {mirror.place} says"


def _found(get: Any, name: str) -> Any:
    try:
        return get(name)
    except RecordNotFound:
        return None


def planned_mirror_names(mirror: Mirror) -> PlannedNames:
    """The records that the sync of a mirror uses, for a copy of the database."""
    base_path = None if mirror.publication is None else base_path_of(mirror.publication.base_path)
    return PlannedNames(mirror.repository, (mirror.remote_name,), base_path)
