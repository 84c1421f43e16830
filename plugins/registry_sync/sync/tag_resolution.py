"""Resolution of tags: the digest of each tag by one HEAD, unchanged tags to be read again, and known referrer tags.

Referrer tags of new content are found when it is fetched; those of content that is about to be removed are ignored.

A tag with the same manifest as in the latest version may still need reading: when the remote's selection has changed,
when an entry was missing upstream and may exist now, when it has a new referrer.

A registry that stops responding, or requests a delay, fails the task. The responses until then are in the database, and
the next try requests the rest, unless too much time has passed: a listing represents one point in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Manifest
from registry_sync.domain.packed_tags import PackedTags
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.references import TagName, fallback_tag, referrer_tags
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CachedHead, SyncRun
from registry_sync.errors import ContentError, NotFound, RegistryError, RegistrySyncError
from registry_sync.sync.attached_artifacts import (
    ComparedReferrers,
    EarlierRuns,
    compare_referrers,
    present_referrer_tags,
    report_unknown,
)
from registry_sync.sync.parallel import Progress, for_each, requests_at_once
from registry_sync.sync.verdicts import MAX_PROBES, Refusals, Verdict, verdict
from registry_sync.sync.walk import Selection

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.db.runs.selections import SelectionStore
    from registry_sync.oci.client import RegistryReader
    from registry_sync.oci.http.many_heads import StartedRequest
    from registry_sync.sync.early_heads import EarlyHeads


Heads = Mapping[TagName, Digest | None]
_Done = Callable[[TagName, Digest | None], None]
_Failed = Callable[[TagName, RegistrySyncError], None]


@dataclass(frozen=True)
class KnownReferrerTags:
    """``latest`` are the tags of the latest version, ``candidates`` the listed tags that the filter does not select.

    Without a listing, the referrer tags that are held are requested again, and those that a tag's own manifest may
    have.
    """

    client: RegistryReader
    selections: SelectionStore
    run: SyncRun
    remote: RemoteSpec
    latest: Mapping[TagName, Digest]
    candidates: Sequence[TagName]

    def heads(self, heads: Heads, resolve: Callable[[list[TagName]], Heads]) -> dict[TagName, Digest | None]:
        """The referrer tags of the unchanged ones of ``heads``, and referrer tags of these, with digests.

        None where a HEAD has no digest, as in ``heads``; ``resolve`` sends the HEADs.
        """
        has_listing = self.remote.tag_filter.literal_tags is None
        if has_listing and not self.candidates:
            return {}
        found: dict[TagName, Digest | None] = {}
        unchanged = self._unchanged(heads)
        while unchanged:
            below = self.selections.below(self.run.repository_id, unchanged)
            names = referrer_tags(self.candidates if has_listing else self.latest, below)
            if not has_listing:
                names += self._existing(unchanged.values())
            resolved = resolve([name for name in dict.fromkeys(names) if name not in heads and name not in found])
            # Some registries treat the tag as the digest in its name.
            resolved = {n: digest for n, digest in resolved.items() if digest is None or n != fallback_tag(digest)}
            found |= resolved
            unchanged = self._unchanged(resolved)
        return found

    def _unchanged(self, heads: Heads) -> dict[TagName, Digest]:
        return {tag: digest for tag, digest in self.latest.items() if heads.get(tag) == digest}

    def _existing(self, digests: Iterable[Digest]) -> list[TagName]:
        def failed(_tag: TagName, error: RegistrySyncError) -> None:
            raise error

        return present_referrer_tags(self.client, self.remote, digests, failed=failed)


def excluded_tags(database: Database, selection: Selection, heads: Heads, names: Iterable[TagName]) -> set[TagName]:
    """Those of ``names`` that refer to a stored index without any wanted platform."""
    if selection.platforms is None:
        return set()
    digests = {tag: heads[tag] for tag in names}
    known = database.contents.stored_manifests(digest for digest in digests.values() if digest is not None)
    excluded = {digest for digest, manifest in known.items() if manifest.index and _excludes(selection, manifest.index)}
    return {tag for tag, digest in digests.items() if digest in excluded}


def _excludes(selection: Selection, index: Manifest) -> bool:
    try:
        return selection.excludes(index)
    except ContentError:  # held with this reason by the stage that reads it
        return False


def tags_to_read_again(
    client: RegistryReader,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    unchanged: Collection[TagName],
    *,
    report: Callable[[str], None],
    referrers: ComparedReferrers | None = None,
) -> set[TagName]:
    """Those of ``unchanged`` whose content has to be read, although their digest is known.

    ``referrers`` are those that a look has listed just now; None to request them.
    """
    if not unchanged:
        return set()
    selections, selection = database.selections, Selection.of(remote)
    previous = selections.selecting_remote(run.repository_id, run.mode)
    if previous is None or Selection.of(previous) != selection:
        report("the content below the tags was selected differently before, so all of them are read again")
        return set(unchanged)
    again = selections.tags_above_gaps(run.repository_id) | selections.held_tags(run.repository_id)
    again.intersection_update(unchanged)
    if selection.with_referrers:
        changed = _with_other_referrers(client, database, run, remote, report=report, compared=referrers)
        if changed:
            report(f"{format_count(len(changed), 'manifest')} with other referrers than before")
            again |= selections.tags_above(run.repository_id, changed).intersection(unchanged)
    return again


def _with_other_referrers(
    client: RegistryReader,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    report: Callable[[str], None],
    compared: ComparedReferrers | None,
) -> Set[Digest]:
    """Manifests of the latest version for which the registry lists other referrers than the version holds."""
    selections = database.selections
    if compared is None:
        if selections.lacks_referrers_api(run.id):
            return set()
        compared = compare_referrers(client, remote, EarlierRuns.before(run, selections))
    if compared.listed.has_api is not None:
        selections.record_referrers_api(run.id, exists=compared.listed.has_api)
    report_unknown(selections, run, compared.listed, report)
    return compared.other


#: Older digests are requested again; a list of tags may take as long.
LONGEST_KEPT = timedelta(hours=1)
#: How often digests are stored; most listings end before the first time.
KEEP_SECONDS = 5.0


class KeptHeads(Protocol):
    """Where responses are kept: in the database, or by a look at a mirror until it is known whether they are needed."""

    def since(self, run_id: str, earliest: datetime) -> dict[TagName, CachedHead]: ...

    def keep(
        self,
        run_id: str,
        heads: Mapping[TagName, Digest | None],
        asked_at: datetime,
        *,
        listing_began: int | None = None,
    ) -> None: ...


_Resolved = TypeVar("_Resolved", bound="MutableMapping[TagName, Digest | None]")


@dataclass
class TagHeads:
    """The HEADs of one try of a listing, and what makes some of them needless.

    ``asked_at`` is when the first digest in use was requested, None for none.
    """

    client: RegistryReader
    kept: KeptHeads
    run: SyncRun
    remote: RemoteSpec
    report: Callable[[str], None]
    asked_at: datetime | None = None
    _earlier: Mapping[TagName, CachedHead] = field(default_factory=dict)
    _known: dict[TagName, Digest | None] = field(default_factory=dict)
    _gone: set[TagName] = field(default_factory=set)
    _started: dict[str, StartedRequest] = field(default_factory=dict)
    _new: list[tuple[Heads, list[TagName]]] = field(default_factory=list)  # what is not kept yet
    _new_at: datetime = field(default_factory=utc_now)
    _kept_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._earlier = self.kept.since(self.run.id, utc_now() - LONGEST_KEPT)

    @property
    def has_earlier(self) -> bool:
        """Whether an earlier try has left digests."""
        return bool(self._earlier)

    def begin_with(self, early: EarlyHeads, wanted: Collection[TagName]) -> None:
        """Takes what was requested before the list, of the tags that are ``wanted`` by it."""
        early.keep_only(wanted)
        self._started = early.started
        if early.found:
            self._known.update(early.found)
            self._new.append((early.found, list(early.found)))
            self._new_at = early.began_at
        if early.found or early.started:
            self._record_time(early.began_at)

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Wraps the rest of the try: on failure the responses so far are kept for the next one."""
        try:
            yield
        except BaseException:
            with suppress(RegistrySyncError):
                self.keep()
            raise

    def request(self, names: list[TagName]) -> PackedTags:
        """As :meth:`resolve`, of tags that a later :meth:`resolve` does not request again."""
        found = self.resolve(names)
        self._known.update(found)
        self._gone.update(set(names).difference(found))
        return found

    def assume(self, digests: Mapping[TagName, Digest], as_of: datetime) -> None:
        """Takes these digests, as they were at ``as_of``, for those of HEADs; tags that were requested keep theirs."""
        self._known = {**digests, **self._known}
        self._record_time(as_of)

    def resolve(self, names: list[TagName]) -> PackedTags:
        """Tag to digest, None where HEAD has no digest; tags that the registry does not have are omitted.

        Raises the client's errors for a registry that does not respond.
        """
        return self._resolve(names, PackedTags(names))

    def resolve_few(self, names: list[TagName]) -> dict[TagName, Digest | None]:
        """As :meth:`resolve`, of so few tags that they need not be packed."""
        return self._resolve(names, {})

    def _resolve(self, names: list[TagName], heads: _Resolved) -> _Resolved:
        """``heads`` with what was found."""
        known = [tag for tag in names if tag in self._earlier] if self._earlier else []
        if known:
            self.report(f"{format_count(len(known), 'tag')} of {len(names):,} were resolved by an earlier try")
            self._record_time(min(self._earlier[tag].asked_at for tag in known))
        heads.update((tag, self._known[tag]) for tag in names if tag in self._known)
        heads.update((tag, self._earlier[tag].digest) for tag in known)
        self._request([tag for tag in names if tag not in heads and tag not in self._gone], heads)
        return heads

    def _request(self, names: list[TagName], heads: MutableMapping[TagName, Digest | None]) -> None:
        if not names:
            return
        progress = Progress(self.report, "tag", len(names))
        refusals = Refusals(self.client, self.remote)
        has_listing = self.remote.tag_filter.literal_tags is None
        new: list[TagName] = []

        def done(tag: TagName, digest: Digest | None) -> None:
            refusals.record_served(tag)
            heads[tag] = digest
            new.append(tag)
            if time.monotonic() - self._kept_at >= KEEP_SECONDS:
                self.keep()
            progress.add(1)

        def failed(tag: TagName, error: RegistrySyncError) -> None:
            # A password that has not worked yet is not tried on one tag after another: that locks accounts.
            if has_listing or not isinstance(error, RegistryError) or error.status != 401:
                refusals.others = lambda: names[:: max(1, len(names) // MAX_PROBES)]
            error = refusals.settled(error, tag)
            if isinstance(error, NotFound) and error.kind == "repository":
                raise error
            if isinstance(error, NotFound):
                if has_listing:
                    self.report(f"tag {tag} is gone since the listing")
            elif verdict(error, is_last_try=False) is Verdict.HOLD:
                heads[tag] = None
            else:
                raise error
            progress.add(1)

        if not any(unkept for _, unkept in self._new):
            self._new_at = utc_now()
        self._new.append((heads, new))
        # Without a listing before it the first request is sent alone: a wrong password is sent once, not by every
        # thread.
        alone = 0 if has_listing else 1
        self._request_each(names[:alone], {}, done, failed)
        self._request_many(names[alone:], done, failed)

    def _request_many(self, names: Sequence[TagName], done: _Done, failed: _Failed) -> None:
        """From this thread, as far as that can be done; what needs a wait, or another connection, in threads."""
        most = requests_at_once(self.client, self.remote)
        if self._started:
            begun: dict[str, StartedRequest] = {tag: self._started.pop(tag) for tag in names if tag in self._started}
            self._request_each([tag for tag in names if tag in begun], begun, done, failed)
            names = [tag for tag in names if tag not in begun]
        while names:
            left = self.client.head_manifests(self.remote.upstream, names, done, most=most)
            count = most() if len(left.waiting) < len(names) else len(names)
            waiting = cast("list[TagName]", [*left.started, *left.waiting])  # as they were given
            count += len(left.started)
            self._request_each(waiting[:count], left.started, done, failed)
            names = waiting[count:]

    def _request_each(
        self, names: Sequence[TagName], started: Mapping[str, StartedRequest], done: _Done, failed: _Failed
    ) -> None:
        if not names:
            return
        for_each(
            lambda tag: self.client.head_manifest(self.remote.upstream, tag, started=started.get(tag)).digest,
            names,
            threads=requests_at_once(self.client, self.remote),
            done=done,
            failed=failed,
        )

    def keep(self) -> None:
        """Stores the responses so far for the next try."""
        new = {tag: heads[tag] for heads, unkept in self._new for tag in unkept}
        for _, unkept in self._new:
            unkept.clear()
        self.kept.keep(self.run.id, new, self._new_at, listing_began=self.run.listing_began)
        self._new_at, self._kept_at = utc_now(), time.monotonic()

    def _record_time(self, asked_at: datetime) -> None:
        self.asked_at = min(asked_at, self.asked_at or asked_at)
