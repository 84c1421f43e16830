"""What whoever triggers a run may have it do, when nobody knows what else they may do.

Airflow lets people trigger DAGs who may change neither connections nor remotes, and a task cannot ask what they may. So
such a run creates what is new, and syncs what is there as it is stored; it may ask for less of it where that harms
nobody. The rules look at values only: what a run asks for stands beside what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry_sync.domain.records import Remote, RemoteSpec, Repository, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import SyncRun, is_fed_by
from registry_sync.domain.tag_filter import TagFilter
from registry_sync.errors import InvalidReference, TriggerRefused

if TYPE_CHECKING:
    from registry_sync.sync.open_run import SyncRequest

ADVICE = (
    "Nothing was changed. Whoever may do it does it over REST; the author of the DAG, or the settings of this "
    "installation, may trust triggers (trust_triggers)"
)


def refuse_untrusted(
    request: SyncRequest,
    *,
    mode: SyncMode,
    stored: Remote | None,
    used: RemoteSpec,
    repository: Repository | None,
    latest: SyncRun | None,
) -> None:
    """Raises :class:`TriggerRefused` with all that goes too far.

    ``stored`` is the remote that is there, None for a new one; ``used`` the remote as the run would use it, and as it
    would be stored where ``request`` describes it; ``repository`` None for a new one; ``latest`` the sync that last
    brought it up to date.
    """
    refused = [*_of_remote(request, mode, stored, used), *_of_repository(stored, repository, latest)]
    if request.replaces_upstream:
        refused.append("replace_upstream is not for a trigger to say")
    if refused:
        raise TriggerRefused(
            f"the parameters that this run was triggered with go further than a trigger may: {'; '.join(refused)}. "
            f"{ADVICE}"
        )


def _of_remote(request: SyncRequest, mode: SyncMode, stored: Remote | None, used: RemoteSpec) -> Iterator[str]:
    if not used.ssl_validation and (stored is None or stored.spec.ssl_validation):
        yield "ssl_validation would be turned off"
    if stored is None:
        return
    spec = stored.spec
    changed = [name for name in request.overrides() if getattr(used, name) != getattr(spec, name)]
    changed += [name for name in ("url", "upstream_name") if getattr(used, name) != getattr(spec, name)]
    if request.describes_remote:
        kept = [name for name in changed if name != "ssl_validation" or used.ssl_validation]
        if kept:
            yield f"{' and '.join(map(_said, kept))} of remote {spec.name!r} would change"
        return
    for name in changed:
        if name in ("include_tags", "exclude_tags"):
            if mode is not SyncMode.ADDITIVE or not _is_narrower(spec, used):
                yield f"{_said(name)} may only narrow those of remote {spec.name!r}, and only with mode additive"
        elif name == "download_concurrency":
            if used.download_concurrency > spec.download_concurrency:
                yield f"download_concurrency may only be lower than that of remote {spec.name!r}"
        elif name != "ssl_validation":
            yield f"{_said(name)} would be another than that of remote {spec.name!r}"


def _of_repository(stored: Remote | None, repository: Repository | None, latest: SyncRun | None) -> Iterator[str]:
    if repository is None:
        return
    if stored is None:
        yield f"a new remote would be synced into repository {repository.name!r}, which is there"
    elif not is_fed_by(repository, stored, latest):
        yield f"repository {repository.name!r} did not get its content from remote {stored.spec.name!r}"


def _is_narrower(spec: RemoteSpec, used: RemoteSpec) -> bool:
    """Whether every tag that ``used`` selects is one that ``spec`` selects, as far as the entries show it."""
    allowed = TagFilter.parse(spec.include_tags, spec.exclude_tags)
    if not set(spec.exclude_tags) <= set(used.exclude_tags):
        return False
    return spec.include_tags is None or all(
        entry in spec.include_tags or _is_selected(allowed, entry) for entry in used.include_tags or ("*",)
    )


def _is_selected(allowed: TagFilter, entry: str) -> bool:
    try:
        return bool(allowed.select([TagName(entry)]))
    except InvalidReference:  # a glob
        return False


def _said(name: str) -> str:
    """The name by which people say a field."""
    return "tags" if name == "include_tags" else name
