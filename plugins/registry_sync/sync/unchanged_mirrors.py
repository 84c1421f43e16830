"""A look at a mirror whose last sync left it in order: whether the upstream is as its latest version.

What is known of the mirror was read before, with that of many others. A look sends the requests of a listing and writes
nothing; of a mirror that has not changed, which most have not, that is all, and its sync is recorded with those of
others. Any other is synced as a single one, without the requests of the look.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.domain.remote import RemoteSpec, is_own_connection
from registry_sync.domain.runs import (
    Authority,
    CachedHead,
    Confirmation,
    DigestListUse,
    RunKey,
    RunState,
    RunTrigger,
    SyncRun,
)
from registry_sync.domain.serving import base_path_of
from registry_sync.domain.settled_mirrors import DigestListNote, SettledMirror
from registry_sync.sync.attached_artifacts import ComparedReferrers, EarlierRuns, compare_referrers
from registry_sync.sync.digest_hints import CONFIRM_AFTER, DigestHints
from registry_sync.sync.list_tags import SelectedNames, select_names
from registry_sync.sync.shared_audits import RegistryAudit, SharedAudit
from registry_sync.sync.tag_resolution import TagHeads
from registry_sync.sync.tag_times import tag_times
from registry_sync.sync.walk import Selection

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.open_run import SyncRequest

#: What is known is read of so many mirrors at once; it is some seconds old when the last of them is looked at.
READ_AT_ONCE = 100


def expected_run(request: SyncRequest, known: SettledMirror, by: RunTrigger) -> SyncRun | None:
    """The run that :func:`~registry_sync.sync.open_run.open_run` would record for the author of a DAG.

    None where it would change any record, or refuse the request. Raises what reading the request raises.
    """
    stored = known.remote.spec
    if request.repository != known.repository.name or (request.remote or request.repository) != stored.name:
        return None
    said = request.overrides()
    used = stored.changed(**said)
    if request.describes_remote:
        if not request.url or not request.upstream_name:
            return None
        url = RegistryUrl.parse(request.url)
        place = url, url.upstream_name(RepositoryName(request.upstream_name))
        if place != (stored.url, stored.upstream) or used != stored:
            return None
    if is_own_connection((used.conn_id or "").lower()) and used.conn_id != stored.conn_id:
        return None
    if request.publish_as is not None and base_path_of(request.publish_as) not in known.is_private_at:
        return None
    return run_like_the_last(known, used, SyncMode(request.mode) if request.mode in _MODES else None, by)


_MODES = frozenset(mode.value for mode in SyncMode)


def run_like_the_last(
    known: SettledMirror, remote: RemoteSpec, mode: SyncMode | None, by: RunTrigger
) -> SyncRun | None:
    """The run of a sync that selects exactly what the last one did; None for any other."""
    if remote != known.latest.remote or mode is not known.latest.mode:
        return None
    if Selection.of(remote).with_referrers and remote.tag_filter.literal_tags is not None:
        return None  # without a listing, each tag that a referrer may have is requested
    return SyncRun(
        id=str(uuid.uuid4()),
        key=known.key,
        repository_id=known.repository.id,
        remote_id=known.remote.id,
        mode=mode,
        remote=remote,
        state=RunState.RUNNING,
        started_at=utc_now(),
        authority=Authority.AUTHOR,
        repository_name=known.repository.name,
        triggered_by=by.triggered_by,
        listing_began=known.listing_began,
    )


class SettledMirrors:
    """What is known of the mirrors of a task, read for :data:`READ_AT_ONCE` of them at a time, in their order.

    ``keys`` has the keys of the runs to come by repository. Safe to use from several threads.
    """

    def __init__(self, database: Database, keys: Mapping[str, RunKey]) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._found: dict[str, SettledMirror] = {}
        self._unread: dict[str, dict[str, RunKey]] = {}
        self._audits: dict[RegistryUrl, RegistryAudit] = {}
        self._lists: dict[str, ListsOfMany] = {}
        for batch in in_parts(keys, READ_AT_ONCE):
            part = {name: keys[name] for name in batch}
            self._unread.update(dict.fromkeys(part, part))

    def take(self, repository: str) -> SettledMirror | None:
        """What is known of a mirror, once; None where it is not in order, and must be synced as any other."""
        with self._lock:
            part = self._unread.get(repository)
            if part is not None:
                found = self._database.unchanged_syncs.settled(part)
                self._found |= found
                lists = ListsOfMany(self._database, list(found.values()), self._audits)
                self._lists.update(dict.fromkeys(found, lists))
                for name in part:
                    del self._unread[name]
            return self._found.pop(repository, None)

    def lists_of(self, repository: str) -> ListsOfMany:
        """What is known of the list of digests of a mirror that was taken."""
        return self._lists[repository]


class ListsOfMany:
    """What earlier syncs found of their registries' lists of digests, and the tags that have moved before.

    ``mirrors`` were read together. What is known of their lists is read of all of them once one of them asks, which
    most registries give no reason for. Mirrors of one registry share the sample of tags by which its lists are audited;
    ``audits`` has what became of that in the task so far. Safe to use from several threads.
    """

    def __init__(
        self, database: Database, mirrors: Sequence[SettledMirror], audits: dict[RegistryUrl, RegistryAudit]
    ) -> None:
        self._store = database.confirmations
        self._runs = [mirror.latest for mirror in mirrors]
        tags: dict[RegistryUrl, dict[str, Collection[TagName]]] = defaultdict(dict)
        for mirror in mirrors:
            tags[mirror.latest.remote.url][mirror.repository.id] = mirror.tags.keys()
        self._shared = {
            url: SharedAudit(audits.setdefault(url, RegistryAudit()), of_each, self._all_moving)
            for url, of_each in tags.items()
        }
        self._lock = threading.Lock()
        self._last: Mapping[str, Confirmation] | None = None
        self._moving: Mapping[str, Sequence[TagName]] | None = None

    def last(self, run: SyncRun, *, problems_since: datetime) -> Confirmation:
        """As the store's."""
        with self._lock:
            if self._last is None:
                self._last = self._store.last_of_many(self._runs, problems_since=problems_since)
        return self._last.get(run.repository_id) or self._store.last(run, problems_since=problems_since)

    def moving_tags(self, repository_id: str, count: int) -> list[TagName]:
        """As the store's."""
        return list(self._all_moving().get(repository_id, ())[:count])

    def _all_moving(self) -> Mapping[str, Sequence[TagName]]:
        with self._lock:
            if self._moving is None:
                self._moving = self._store.moving_tags_of_many([run.repository_id for run in self._runs])
        return self._moving

    def audit_of(self, run: SyncRun) -> SharedAudit:
        """The sample that a mirror shares with the others of its registry."""
        return self._shared[run.remote.url]


def in_parts(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """``names`` in lists of at most ``size``, in order."""
    left = iter(names)
    while part := list(islice(left, size)):
        yield part


@dataclass
class _Unrecorded:
    """What a look would record with its run."""

    lists: ListsOfMany
    heads: dict[TagName, Digest | None] = field(default_factory=dict)
    asked_at: datetime | None = None
    note: DigestListNote = field(default_factory=DigestListNote)

    def since(self, run_id: str, earliest: datetime) -> dict[TagName, CachedHead]:  # noqa: ARG002  nothing is kept yet
        return {}

    def keep(
        self,
        run_id: str,  # noqa: ARG002  there is no such run yet
        heads: Mapping[TagName, Digest | None],
        asked_at: datetime,
        *,
        listing_began: int | None = None,  # noqa: ARG002
    ) -> None:
        self.heads |= heads
        self.asked_at = min(asked_at, self.asked_at or asked_at)

    def last(self, run: SyncRun, *, problems_since: datetime) -> Confirmation:
        return self.lists.last(run, problems_since=problems_since)

    def moving_tags(self, repository_id: str, count: int) -> list[TagName]:
        return self.lists.moving_tags(repository_id, count)

    def record(
        self,
        run_id: str,  # noqa: ARG002
        use: DigestListUse | None,
        *,
        tag_count: int = 0,
        problem: str | None = None,
    ) -> None:
        self.note = DigestListNote(use, tag_count, problem)


@dataclass
class Look:
    """A look at ``known`` by the expected ``run`` of it; ``listed_at`` and ``note`` are those of its listing.

    ``lists`` is what is known of the registry's list of digests. ``relies_on`` says whether that is trusted, where the
    tags were found unchanged by it and left to a sample of others; None where they were not.
    """

    client: RegistryReader
    database: Database
    lists: ListsOfMany
    known: SettledMirror
    run: SyncRun
    remote: RemoteSpec
    report: Callable[[str], None]
    confirm_after: timedelta = CONFIRM_AFTER
    listed_at: datetime = field(default_factory=utc_now)
    relies_on: RegistryAudit | None = None
    _unrecorded: _Unrecorded = field(init=False)
    _names: SelectedNames | None = None
    _referrers: ComparedReferrers | None = None

    def __post_init__(self) -> None:
        self._unrecorded = _Unrecorded(self.lists)

    @property
    def note(self) -> DigestListNote:
        """What became of the registry's list of digests."""
        return self._unrecorded.note

    @property
    def has_referrers_api(self) -> bool | None:
        """Whether the registry was found to have the referrers API; None where it was not asked."""
        return None if self._referrers is None else self._referrers.listed.has_api

    def finds_unchanged(self) -> bool:
        """Whether the upstream's selected tags are those of the latest version, with the same referrers.

        Raises as a listing does.
        """
        try:
            return self._finds_same_tags() and self._finds_same_referrers()
        finally:
            self.lists.audit_of(self.run).leave(self.run.repository_id)

    def _finds_same_referrers(self) -> bool:
        """Where they are synced and the registry may list them, as a sync that has found the same tags would."""
        known = self.known
        if not Selection.of(self.remote).with_referrers or known.has_referrers_api is False:
            return True
        earlier = EarlierRuns(lambda: known.has_referrers_api is True, lambda: known.referrers)
        self._referrers = compare_referrers(self.client, self.remote, earlier)
        return self._referrers.is_same

    def _finds_same_tags(self) -> bool:
        run, remote, latest = self.run, self.remote, self.known.tags
        times = partial(tag_times, self.client, self.database, run, remote)
        self._names = names = select_names(self.client, remote, Selection.of(remote), self.report, times)
        pinned = remote.tag_filter.pinned
        selected = {*names.wanted, *pinned}
        has_others = selected != latest.keys() if run.mode is SyncMode.MIRROR else not latest.keys() >= selected
        if names.candidates or not selected or has_others:
            return False
        heads = TagHeads(self.client, self._unrecorded, run, remote, self.report)
        audit = self.lists.audit_of(run)
        hints = DigestHints(self.client, self._unrecorded, run, remote, heads, self.report, self.confirm_after, audit)
        with heads.kept_on_failure():
            if names.listing:
                hints.use(names.listing, latest, names.wanted)
            if hints.relies_on_others:
                self.relies_on = audit.of_registry
            found = {**heads.resolve_few(names.wanted), **pinned}
        heads.keep()
        self.listed_at = min(names.listed_at, heads.asked_at or names.listed_at)
        has_all = selected == found.keys() and found.keys() >= set(remote.tag_filter.exact_names)
        return has_all and all(latest.get(tag) == digest for tag, digest in found.items())

    def pass_on_to(self, run: SyncRun) -> SelectedNames | None:
        """The names of its listing for ``run``, the recorded one of the same mirror; requested digests are kept for it.

        None, and nothing is kept, where another sync has listed since: they may be older than what it found.
        """
        kept = self._unrecorded
        if run.listing_began != self.known.listing_began:
            return None
        if kept.asked_at is not None:
            self.database.heads.keep(run.id, kept.heads, kept.asked_at, listing_began=run.listing_began)
        number = self.database.versions.latest_number(run.repository_id)
        if self._names is None or number != self.known.repository.latest_number:
            return self._names
        return replace(self._names, referrers=self._referrers)
