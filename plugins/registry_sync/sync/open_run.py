"""The beginning of a sync: what a user asked for, checked, and the run that records it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from registry_sync.domain.records import Policy, Remote, RemoteSpec, Repository, SyncMode, checked_repository_name
from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.errors import ConfigurationError, RecordNotFound

MAX_CONCURRENCY = 100


@dataclass(frozen=True)
class SyncRequest:
    """A sync as a person asks for it; texts are as typed, None is what was left out.

    Either ``remote`` names an existing remote, and the rest overrides it for this run; or ``url`` and
    ``upstream_name`` say where to sync from, and the remote of that name (by default the repository's) is created
    or changed.
    """

    repository: str
    remote: str | None = None
    url: str | None = None
    upstream_name: str | None = None
    include_tags: tuple[str, ...] | None = None
    exclude_tags: tuple[str, ...] | None = None
    policy: str | None = None
    mode: str = SyncMode.MIRROR.value
    conn_id: str | None = None
    download_concurrency: str | None = None
    ssl_validation: str | None = None
    platforms: tuple[str, ...] | None = None
    include_referrers: bool | str | None = None

    #: Fields of a :class:`RemoteSpec` that a request can say, and that are the defaults where it does not.
    SAYABLE: ClassVar[tuple[str, ...]] = (
        "include_tags",
        "exclude_tags",
        "conn_id",
        "policy",
        "download_concurrency",
        "ssl_validation",
        "platforms",
        "include_referrers",
    )

    def overrides(self) -> dict[str, Any]:
        """The fields of a :class:`RemoteSpec` that were given. Raises :class:`ConfigurationError`."""
        given: dict[str, Any] = {
            "include_tags": self.include_tags,
            "exclude_tags": self.exclude_tags,
            "conn_id": self.conn_id,
            "policy": None if self.policy is None else _choice(Policy, "policy", self.policy),
            "download_concurrency": _concurrency(self.download_concurrency),
            "ssl_validation": _flag("ssl_validation", self.ssl_validation),
            "platforms": self.platforms,
            "include_referrers": _flag("include_referrers", self.include_referrers),
        }
        return {name: value for name, value in given.items() if value is not None}


class Repositories(Protocol):
    """Repositories by name."""

    def ensure(self, name: str, /) -> Repository: ...


class Remotes(Protocol):
    """Remotes by name."""

    def ensure(self, spec: RemoteSpec, /) -> Remote: ...
    def by_name(self, name: str, /) -> Remote: ...


class OpenRuns(Protocol):
    """Sync runs by the key of their Airflow run."""

    def begin(
        self, key: RunKey, /, *, repository_id: str, remote_id: str, remote: RemoteSpec, mode: SyncMode
    ) -> SyncRun: ...


class RequestDatabase(Protocol):
    """The stores that opening a run uses."""

    @property
    def repositories(self) -> Repositories: ...
    @property
    def remotes(self) -> Remotes: ...
    @property
    def runs(self) -> OpenRuns: ...


def open_run(database: RequestDatabase, key: RunKey, request: SyncRequest) -> SyncRun:
    """The run for ``request``; it keeps the remote as it uses it.

    Everything is checked before anything is written. A repeat gives the same run, begun anew. Raises
    :class:`InvalidReference`, :class:`ConfigurationError`, or the database's
    :class:`~registry_sync.errors.RecordNotFound` for a remote that does not exist.
    """
    mode = _choice(SyncMode, "mode", request.mode)
    name = checked_repository_name(request.repository, "repository: give the name to sync into")
    if request.url or request.upstream_name:
        remote = _defined(database, request, name)
        spec = remote.spec
    else:
        if request.remote is None:
            raise ConfigurationError("say where to sync from: the name of a remote, or url and upstream_name")
        remote = database.remotes.by_name(request.remote)
        spec = replace(remote.spec, **request.overrides()).checked()
    repository = database.repositories.ensure(name)
    return database.runs.begin(key, repository_id=repository.id, remote_id=remote.id, remote=spec, mode=mode)


def _defined(database: RequestDatabase, request: SyncRequest, repository: str) -> Remote:
    """The remote that the request describes. What a request cannot say stays as it is, such as limits and labels."""
    if not request.url or not request.upstream_name:
        missing = "upstream_name" if request.url else "url"
        raise ConfigurationError(f"url and upstream_name belong together: {missing} is missing")
    name = request.remote or repository
    said = {"url": request.url, "upstream_name": request.upstream_name, **request.overrides()}
    try:
        present = database.remotes.by_name(name).spec
    except RecordNotFound:
        return database.remotes.ensure(RemoteSpec(name=name, **said).checked())
    unsaid = RemoteSpec(name, "", "")
    forgotten = {field: getattr(unsaid, field) for field in SyncRequest.SAYABLE if field not in said}
    return database.remotes.ensure(replace(present, **forgotten, **said).checked())


def _choice(choices: type[Any], name: str, text: str) -> Any:
    try:
        return choices(text)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is one of {known}") from None


def _concurrency(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 1 <= int(text) <= MAX_CONCURRENCY:
        raise ConfigurationError(f"download_concurrency is {text[:40]!r}; give a number from 1 to {MAX_CONCURRENCY}")
    return int(text)


def _flag(name: str, text: bool | str | None) -> bool | None:
    if text is None or isinstance(text, bool):
        return text
    if text.lower() not in ("true", "false"):
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is true or false")
    return text.lower() == "true"
