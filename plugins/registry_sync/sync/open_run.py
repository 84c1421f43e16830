"""The start of a sync: validates the request and records the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from registry_sync.domain.quantities import parse_choice, parse_flag
from registry_sync.domain.records import Repository, RepositorySpec, SyncMode, checked_name
from registry_sync.domain.remote import (
    SYNC_OPTIONS,
    Remote,
    RemoteSpec,
    is_own_connection,
    parameter_name,
    read_options,
    shown_value,
)
from registry_sync.domain.runs import (
    UNKNOWN_TRIGGER,
    Authority,
    RequestedSync,
    RunKey,
    RunState,
    RunTrigger,
    SyncRun,
    is_fed_by,
)
from registry_sync.domain.serving import DistributionSpec, base_path_of
from registry_sync.errors import ConfigurationError, NameTaken, OtherUpstream, RecordNotFound, RunEnded
from registry_sync.sync.publish_version import published_under
from registry_sync.sync.trigger_rules import refuse_untrusted

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.db.remotes import RemoteStore

_WORD = "If it is meant, say replace_upstream (Replace the upstream in the form, --replace-upstream of the command)"


@dataclass(frozen=True, init=False)
class SyncRequest:
    """A sync as a user requests it; texts are as typed, None where nothing was given.

    Either ``remote`` names an existing remote, and the rest overrides it for this run; or ``url`` and
    ``upstream_name`` are the upstream, and the remote of that name (by default the repository's) is created, or its
    given fields are changed. ``options`` are those of :data:`~registry_sync.domain.remote.SYNC_OPTIONS`, by their names
    there. Without ``replace_upstream`` no upstream replaces another one. The repository is to
    be pulled under the base path ``publish_as``.
    """

    repository: str
    remote: str | None
    url: str | None
    upstream_name: str | None
    mode: str
    replace_upstream: bool | str | None
    publish_as: str | None
    options: Mapping[str, Any]

    def __init__(
        self,
        repository: str,
        remote: str | None = None,
        url: str | None = None,
        upstream_name: str | None = None,
        *,
        mode: str = SyncMode.MIRROR.value,
        replace_upstream: bool | str | None = None,
        publish_as: str | None = None,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """``more`` are options by name, which override ``options``; raises TypeError for an unknown option."""
        options = {**(options or {}), **more}
        if unknown := sorted(options.keys() - SYNC_OPTIONS.keys()):
            raise TypeError(f"a sync cannot say {', '.join(unknown)}")
        values = locals()
        for field in fields(self):
            object.__setattr__(self, field.name, values[field.name])

    @property
    def describes_remote(self) -> bool:
        """Whether it has an upstream, and not only the name of a remote."""
        return bool(self.url or self.upstream_name)

    @property
    def replaces_upstream(self) -> bool:
        """Whether it may replace the upstream of a repository. Raises :class:`ConfigurationError`."""
        return bool(parse_flag(self.replace_upstream, "replace_upstream"))

    def overrides(self) -> dict[str, Any]:
        """The given fields of a :class:`RemoteSpec`. Raises :class:`ConfigurationError`."""
        given = {name: self.options.get(name) for name in SYNC_OPTIONS}
        return read_options({name: value for name, value in given.items() if value is not None})


#: Raises when a trigger may not use the connection of a remote that is about to be stored.
ConnectionCheck = Callable[[RemoteSpec], None]


@dataclass(frozen=True)
class _Plan:
    """What a request will do: ``stored`` and ``repository`` are None where they are to be created.

    ``changed`` has the fields of the stored remote that the request changes permanently; it ``is_correction`` when they
    change the upstream of a provisional one. ``base_path`` is where a distribution is to be created,
    None for none.
    """

    name: str
    mode: SyncMode
    used: RemoteSpec
    stored: Remote | None = None
    repository: Repository | None = None
    changed: tuple[str, ...] = ()
    is_correction: bool = False
    base_path: str | None = None

    def records(self, database: Database, authority: Authority) -> tuple[Remote, Repository]:
        """The remote and the repository, created with the distribution where they are missing.

        Raises :class:`NameTaken` when another run has created one of them since.
        """
        remote = self.stored or database.remotes.create(self.used, is_provisional=authority is not Authority.TRIGGER)
        repository = self.repository or database.repositories.create(RepositorySpec(self.name))
        if self.base_path is not None:
            database.distributions.create(DistributionSpec(self.base_path, self.base_path, repository.id))
        return remote, repository


def open_run(
    database: Database,
    key: RunKey,
    request: SyncRequest,
    *,
    authority: Authority = Authority.AUTHOR,
    check_connection: ConnectionCheck = lambda _remote: None,
    by: RunTrigger = UNKNOWN_TRIGGER,
    remote_changes: str | None = None,
) -> SyncRun:
    """The run for ``request``, which records the remote with its overrides.

    ``remote_changes`` is what was changed in the records for this run before, None for nothing.

    Everything is validated before anything is written. A retry returns the same run, started again, with the
    repository and the remote that it started with, even after a rename. Only given fields of an existing remote are
    changed; a provisional one may be corrected to another upstream. Raises :class:`InvalidReference`,
    :class:`ConfigurationError`, :class:`OtherUpstream`, :class:`TriggerRefused` for what ``authority`` does not permit,
    :class:`RunEnded` when the repository or the remote that the run started with was deleted, or
    :class:`~registry_sync.errors.RecordNotFound` for a remote that does not exist.
    """
    started = database.runs.find(key)
    plan = _plan(database, request, started, authority, check_connection)
    try:
        return _start(database, key, plan, authority, by=by, remote_changes=remote_changes)
    except NameTaken:  # another run created it first; it is treated as an existing one
        plan = _plan(database, request, started, authority, check_connection)
        return _start(database, key, plan, authority, by=by, remote_changes=remote_changes)


def _start(
    database: Database, key: RunKey, plan: _Plan, authority: Authority, *, by: RunTrigger, remote_changes: str | None
) -> SyncRun:
    """The run of ``plan`` and its records, or none of them. Raises :class:`NameTaken` as :meth:`_Plan.records`."""
    said = {name: getattr(plan.used, name) for name in plan.changed}
    # A remote is locked after its repository, by everybody, or alone.
    if plan.is_correction and plan.stored is not None:
        database.remotes.correct(plan.stored.id, lambda stored: replace(stored, **said))
    with database.together():
        remote, repository = plan.records(database, authority)
        run = database.runs.begin(
            key,
            repository_id=repository.id,
            remote_id=remote.id,
            remote=plan.used,
            mode=plan.mode,
            authority=authority,
            may_replace_upstream=authority is not Authority.TRIGGER,
            remote_changes=_describe(remote.spec, plan.used, plan.changed) if plan.changed else remote_changes,
            by=replace(by, repository_name=plan.name),
        )
        if plan.changed and not plan.is_correction:
            database.remotes.change(remote.id, lambda stored: replace(stored, **said), by_sync_run=run.id)
    return run


def open_requested_run(
    database: Database,
    key: RunKey,
    requested: RequestedSync,
    overrides: SyncRequest | None = None,
    *,
    by: RunTrigger = UNKNOWN_TRIGGER,
) -> SyncRun:
    """The run for a request over REST, with the requested objects by id, even after a rename.

    ``overrides`` are the parameters that the author of the DAG sets for every run. Raises
    :class:`~registry_sync.errors.RecordNotFound` when one of the objects was deleted, :class:`OtherUpstream` when the
    content of the repository is meanwhile of another upstream and the user may not replace it. A request is valid for
    one sync: a later run of the same id, or one that somebody else triggered, has the rights of a trigger and replaces
    nothing. Nor does one that was cleared or that failed before, since another user may have cleared it, long after
    the request.
    """
    repository = _requested_record("repository", requested.repository_id, database.repositories.get)
    remote = _requested_record("remote", requested.remote_id, database.remotes.get)
    said = {} if overrides is None else overrides.overrides()
    spec = remote.spec.changed(**said)
    _refuse_own_connection(spec, remote)
    started = database.runs.find(key)
    authority = Authority.REQUEST
    if by.triggered_by != requested.requested_by or (started is not None and _has_used_up(started)):
        authority = Authority.TRIGGER
    is_repeated = by.is_cleared or (started is not None and started.state is not RunState.RUNNING)
    may_replace = requested.may_replace_upstream and authority is Authority.REQUEST and not is_repeated
    if not may_replace:
        _refuse_other_remote(repository, remote, database.runs.latest_settled(repository.id))
    return database.runs.begin(
        key,
        repository_id=repository.id,
        remote_id=remote.id,
        remote=spec,
        mode=requested.mode,
        authority=authority,
        may_replace_upstream=may_replace,
        by=replace(by, repository_name=repository.name),
    )


def _has_used_up(started: SyncRun) -> bool:
    """Whether a run has used up its request: it has ended, or never had the rights of the request."""
    has_ended = started.state in (RunState.COMPLETED, RunState.UNCHANGED, RunState.CANCELED)
    return has_ended or started.authority is not Authority.REQUEST


def _refuse_other_remote(repository: Repository, remote: Remote, latest: SyncRun | None) -> None:
    if is_fed_by(repository, remote, latest):
        return
    came = "from no sync" if latest is None else f"from {latest.remote.source}"
    raise OtherUpstream(
        f"what repository {repository.name!r} holds came {came}, and remote {remote.spec.name!r} is another one; "
        "to let it take the place takes the right to change repositories, which goes with a new request and not with a "
        "run that is cleared or triggered again"
    )


def _requested_record(kind: str, record_id: str, get: Callable[[str], Any]) -> Any:
    try:
        return get(record_id)
    except RecordNotFound:
        raise RecordNotFound(
            f"the {kind} of this request is gone: {record_id}. One of the same name is another one; "
            "ask for a sync of it"
        ) from None


def _plan(
    database: Database,
    request: SyncRequest,
    started: SyncRun | None,
    authority: Authority,
    check_connection: ConnectionCheck,
) -> _Plan:
    """The plan of a validated request; ``started`` is the run of an earlier try."""
    mode = parse_choice(SyncMode, request.mode, "mode")
    name = checked_name(request.repository, "repository: give the name to sync into")
    stored, used = _remote(database, request, name, started)
    if started is not None and name == started.repository_name:
        repository = database.repositories.get(started.repository_id)
    else:
        repository = _found(database.repositories.by_name, name)
    latest = None if repository is None else database.runs.latest_settled(repository.id)
    base_path = _base_path_to_make(database, request.publish_as, name, repository)
    _refuse_own_connection(used, stored)
    if authority is Authority.TRIGGER:
        refuse_untrusted(
            request,
            mode=mode,
            stored=stored,
            used=used,
            repository=repository,
            latest=latest,
            base_path=base_path,
        )
    is_correction = False
    if not request.replaces_upstream:
        is_correction = _is_correction(database.remotes, stored, used, started)
        if not is_correction:
            _refuse_other_remote_upstream(stored, used)
        _refuse_other_content(name, stored, used, None if _holds_nothing(repository) else latest)
    changed: tuple[str, ...] = ()
    if stored is not None and request.describes_remote:
        said = ("url", "upstream_name", *request.overrides())
        changed = tuple(field for field in said if getattr(used, field) != getattr(stored.spec, field))
    if authority is Authority.TRIGGER and stored is None and used.conn_id is not None:
        check_connection(used)
    return _Plan(name, mode, used, stored, repository, changed, is_correction, base_path)


def _base_path_to_make(
    database: Database, publish_as: str | None, name: str, repository: Repository | None
) -> str | None:
    """The base path, while nothing is distributed under it; None where the repository is published there already."""
    if publish_as is None:
        return None
    base_path = base_path_of(publish_as)
    found = published_under(database, base_path, None if repository is None else repository.id, name)
    return base_path if found is None else None


def _remote(
    database: Database, request: SyncRequest, repository: str, started: SyncRun | None
) -> tuple[Remote | None, RemoteSpec]:
    """The stored remote, None for a new one, and the remote as the run uses it."""
    said = request.overrides()
    if not request.describes_remote:
        if request.remote is None:
            raise ConfigurationError(
                "say where to sync from: Remote, or Registry and Upstream name in the form; the name of a remote, or "
                "url and upstream_name elsewhere"
            )
        stored = _present_remote(database, request.remote, started)
        return stored, stored.spec.changed(**said)
    if not request.url or not request.upstream_name:
        # Airflow's page of a run shows the first words of its note, so the field is named there.
        missing, title, other = (
            ("upstream_name", "Upstream name", "url") if request.url else ("url", "Registry", "upstream_name")
        )
        option = f"--{missing.replace('_', '-')}"
        raise ConfigurationError(
            f"{missing} is missing ({title} in the form, {option} of the command); it belongs together with {other}"
        )
    name = request.remote or repository
    place = RemoteSpec.parse(name, request.url, request.upstream_name)
    found = _found(lambda wanted: _present_remote(database, wanted, started), name)
    if found is None:
        return None, RemoteSpec.parse(name, request.url, request.upstream_name, **said)
    # What was given fits together with what is stored, and need not do so by itself.
    if (place.url, place.upstream) != (found.spec.url, found.spec.upstream):
        said |= {"url": place.url, "upstream_name": place.upstream_name}
    return found, found.spec.changed(**said)


def _present_remote(database: Database, name: str, started: SyncRun | None) -> Remote:
    """The remote of that name; for a retry the one that the run started with."""
    if started is None or name != started.remote.name:
        return database.remotes.by_name(name)
    if started.remote_id is None:
        raise RunEnded(f"the remote {name!r} was deleted after this run had begun; start a new run to sync again")
    return database.remotes.get(started.remote_id)


def _refuse_own_connection(used: RemoteSpec, stored: Remote | None) -> None:
    """Raises :class:`ConfigurationError`; a secrets backend may ignore case."""
    is_own = is_own_connection((used.conn_id or "").lower())
    if is_own and (stored is None or stored.spec.conn_id != used.conn_id):
        raise ConfigurationError(
            f"connection {used.conn_id!r} belongs to the remote it was made for, and serves no other"
        )


def _is_correction(remotes: RemoteStore, stored: Remote | None, used: RemoteSpec, started: SyncRun | None) -> bool:
    """Whether the run changes the upstream of a provisional remote.

    A retry corrects nothing: where its remote has another upstream, a later run has corrected it. Raises
    :class:`OtherUpstream` while a sync from it is running, which may still make a version.
    """
    if started is not None or stored is None or not stored.is_provisional or _is_same_place(stored.spec, used):
        return False
    under_way = remotes.syncs_under_way(stored.id)
    if under_way:
        raise OtherUpstream(
            f"{_both_upstreams(stored.spec, used)}. It could be corrected, but a sync from it is under way: DAG run "
            f"{under_way[0].run_id!r} of {under_way[0].dag_id!r}. Nothing was changed. Let that end, or mark it as "
            "failed, and run this again"
        )
    return True


def _holds_nothing(repository: Repository | None) -> bool:
    return repository is None or repository.latest_number is None


def _is_same_place(one: RemoteSpec, other: RemoteSpec) -> bool:
    return (one.url, one.upstream) == (other.url, other.upstream)


def _both_upstreams(stored: RemoteSpec, used: RemoteSpec) -> str:
    return (
        f"remote {used.name!r} is {stored.upstream} at {stored.url}, and these parameters say "
        f"{used.upstream} at {used.url}"
    )


def _refuse_other_remote_upstream(stored: Remote | None, used: RemoteSpec) -> None:
    """Raises :class:`OtherUpstream` where the run would change the upstream of the stored remote."""
    if stored is not None and not _is_same_place(stored.spec, used):
        raise OtherUpstream(
            f"{_both_upstreams(stored.spec, used)}. Nothing was changed. {_WORD}; else sync into another repository, "
            "or give the new one a name of its own, as remote"
        )


def _refuse_other_content(repository: str, stored: Remote | None, used: RemoteSpec, latest: SyncRun | None) -> None:
    """Raises :class:`OtherUpstream` for content of another upstream, whichever remote has it.

    ``latest`` is the sync that last updated the repository; None where it holds nothing.
    """
    is_own = stored is not None and latest is not None and latest.remote_id == stored.id
    if latest is not None and not is_own and latest.remote.source != used.source:
        raise OtherUpstream(
            f"what repository {repository!r} holds came from {latest.remote.source}, and this would put {used.source} "
            f"in its place. Nothing was changed. {_WORD}; else sync into another repository"
        )


def _found(get: Callable[[str], Any], name: str) -> Any:
    try:
        return get(name)
    except RecordNotFound:
        return None


def _describe(before: RemoteSpec, after: RemoteSpec, names: tuple[str, ...]) -> str:
    """``remote 'alpine' changed: policy from immediate to on_demand; tags from all to 3.*``."""
    changes = (
        f"{parameter_name(name)} from {shown_value(name, before)} to {shown_value(name, after)}" for name in names
    )
    return f"remote {before.name!r} changed: {'; '.join(changes)}"
