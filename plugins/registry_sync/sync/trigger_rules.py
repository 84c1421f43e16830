"""What the trigger of a run may request when its other rights are unknown.

Airflow lets users trigger DAGs who may change neither connections nor remotes, and a task cannot query a user's rights.
Such a run therefore may create new records and sync existing ones as they are stored; it may narrow the selection where
that harms nobody. The rules compare values only: the requested ones with the stored ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagName, TagPattern
from registry_sync.domain.remote import OPTIONS, Remote, RemoteSpec, parameter_name
from registry_sync.domain.runs import SyncRun, is_fed_by
from registry_sync.errors import TriggerRefused

if TYPE_CHECKING:
    from registry_sync.sync.open_run import SyncRequest

ADVICE = (
    "Nothing was changed. A user with the right to do it can do it over REST; the author of the DAG, or the settings "
    "of this installation, may trust triggers (trust_triggers)"
)


def refuse_untrusted(
    request: SyncRequest,
    *,
    mode: SyncMode,
    stored: Remote | None,
    used: RemoteSpec,
    repository: Repository | None,
    latest: SyncRun | None,
    base_path: str | None = None,
) -> None:
    """Raises :class:`TriggerRefused` with everything that exceeds the rights of a trigger.

    ``stored`` is the existing remote, None for a new one; ``used`` the remote as the run would use it, and as it would
    be stored where ``request`` describes it; ``repository`` None for a new one; ``latest`` the sync that last updated
    it; ``base_path`` where it would be published, None where that changes nothing.
    """
    refused = [*_of_remote(request, mode, stored, used), *_of_repository(stored, repository, latest)]
    if request.replaces_upstream:
        refused.append("replace_upstream is not allowed for a trigger")
    if base_path is not None:
        refused.append(f"nothing is published under {base_path!r} yet, and publish_as would change that")
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
            yield f"{' and '.join(map(parameter_name, kept))} of remote {spec.name!r} would change"
        return
    for name in changed:
        if name in ("include_tags", "exclude_tags"):
            if mode is not SyncMode.ADDITIVE or not _is_narrower(spec, used):
                parameter = parameter_name(name)
                others = "; other tags would become the newest" if spec.newest is not None else ""
                yield f"{parameter} may only narrow those of remote {spec.name!r}, and only with mode additive{others}"
        elif name in OPTIONS and OPTIONS[name].may_be_lowered:
            if not _is_lower(getattr(used, name), getattr(spec, name)):
                yield f"{name} may only be lower than that of remote {spec.name!r}"
        elif name != "ssl_validation":
            yield f"{parameter_name(name)} would differ from that of remote {spec.name!r}"


def _of_repository(stored: Remote | None, repository: Repository | None, latest: SyncRun | None) -> Iterator[str]:
    if repository is None:
        return
    if stored is None:
        yield f"a new remote would be synced into repository {repository.name!r}, which exists"
    elif not is_fed_by(repository, stored, latest):
        yield f"repository {repository.name!r} did not get its content from remote {stored.spec.name!r}"


def _is_lower(used: int | None, stored: int | None) -> bool:
    """None is no limit."""
    return used is not None and (stored is None or used < stored)


def _is_narrower(spec: RemoteSpec, used: RemoteSpec) -> bool:
    """Whether every tag that ``used`` selects is selected by ``spec``, as far as the entries show.

    Of the newest, others would take the places of those that are left out, so that only exact names narrow them.
    """
    if spec.tag_sets or not set(spec.exclude_tags) <= set(used.exclude_tags):
        return False
    if used.include_tags is None and spec.include_tags is not None:
        return False
    if spec.newest is not None and used.tag_filter.literal_tags is None:
        return False
    return all(_is_included(spec, name) for entry in used.include_tags or () for name in entry.alternatives)


def _is_included(spec: RemoteSpec, name: str) -> bool:
    """Whether ``spec`` selects whatever the exact name or glob ``name``, without braces, adds to its other rules."""
    if any(name in entry.alternatives for entry in spec.include_tags or ()):
        return True
    selector = spec.tag_filter
    if TagPattern(name).is_glob:
        (rules,) = selector.sets
        return rules.names.include is None and not rules.regex.patterns
    # An exact name skips the rules for versions, age and the newest.
    return selector.is_by_name and selector.wants(TagName(name))
