"""The second stage: the manifests below the tags of one shard, with their exact bytes, children before parents.

A tag was resolved once; everything below it is fetched by digest, level by level, and manifests in the database are not
fetched again. An error of one tag affects that tag alone: it is held with the reason, and the others continue. Finished
work is recorded as it is done, so that a repeat continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import takewhile
from operator import add
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import DEFAULT_LIMITS, Manifest, ManifestLimits
from registry_sync.domain.quantities import format_count
from registry_sync.domain.references import TagName, fallback_tag, referrer_tags
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import ListedTag, ManifestLink, SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.attached_artifacts import EarlierRuns, add_referrers, present_referrer_tags, report_unknown
from registry_sync.sync.parallel import Progress, for_each, requests_at_once, warn
from registry_sync.sync.verdicts import Refusals, Verdict, reason, verdict
from registry_sync.sync.walk import Selection, Walk, is_missing_upstream

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.db.held_claims import HeldClaims
    from registry_sync.oci.client import RegistryReader

#: Roots that are walked together and recorded at once; bounds memory and the work that a crash repeats.
ROOTS_AT_ONCE = 250
#: As many as have this many manifests, by those of the roots before; digests are in no order, so that these are alike.
MANIFESTS_AT_ONCE = 640
#: While it is not known how many manifests a root has.
_FIRST_ROOTS = 100


@dataclass
class ManifestsFetched:
    """Counts of one shard: tags by outcome, new manifests, entries that the registry does not have."""

    tag_count: int = 0
    manifest_count: int = 0
    held_count: int = 0
    gone_count: int = 0
    filtered_count: int = 0
    missing_count: int = 0

    def __add__(self, other: ManifestsFetched) -> ManifestsFetched:
        """The counts of two shards together."""
        return ManifestsFetched(*map(add, astuple(self), astuple(other)))

    def __str__(self) -> str:
        texts = [format_count(self.tag_count, "tag"), format_count(self.manifest_count, "new manifest")]
        if self.held_count:
            texts.append(f"{self.held_count:,} held")
        if self.gone_count:
            texts.append(f"{self.gone_count:,} gone")
        if self.filtered_count:
            texts.append(f"{self.filtered_count:,} without a wanted platform")
        if self.missing_count:
            texts.append(f"{format_count(self.missing_count, 'manifest')} missing")
        return ", ".join(texts)


def fetch_manifests(
    client: RegistryReader,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    shard: int,
    is_last_try: bool,
    report: Callable[[str], None],
    limits: ManifestLimits = DEFAULT_LIMITS,
    is_over: Callable[[], bool] = lambda: False,
    on_manifest: Callable[[Manifest], None] | None = None,
) -> ManifestsFetched:
    """Fetches and records the manifests of the pending tags of ``shard``; those left when ``is_over`` stay pending.

    ``on_manifest`` gets each manifest that was fetched, before it is recorded, and whatever becomes of its tag.

    Temporary failures are raised after everything else was done, so that a retry finds only those left; on the last try
    the tags are held instead. Errors that affect every request, such as refused credentials, are raised at once.
    """
    selection = Selection.of(remote)
    refusals = Refusals(client, remote, lambda: database.runs.listed_digests(run.id))
    pending = database.runs.tags_of_shard(run.id, shard)
    progress = Progress(report, "tag", len(pending))
    with database.held_claims() as claims:
        stage = _Stage(client, database, run, remote, selection, shard, is_last_try, limits, report, refusals, claims)
        stage.on_manifest = on_manifest
        for group in takewhile(lambda _group: not is_over(), _groups(pending, lambda: stage.roots_at_once)):
            stage.fetch_with_referrer_tags(group)
            progress.add(len(group))
    progress.finish()
    if stage.retry is not None:
        raise stage.retry
    return stage.counts


def _groups(tags: Sequence[ListedTag], most: Callable[[], int]) -> Iterator[list[ListedTag]]:
    """Tags in groups of at most as many distinct manifests as ``most`` says when the group is made."""
    group: list[ListedTag] = []
    roots: set[str] = set()
    for tag in sorted(tags, key=lambda tag: (tag.digest or "", tag.name)):
        root = tag.digest or f"tag {tag.name}"
        if root not in roots and len(roots) >= most():
            yield group
            group, roots = [], set()
        group.append(tag)
        roots.add(root)
    if group:
        yield group


@dataclass
class _Outcome:
    """The outcome of the tags of one group."""

    roots: dict[TagName, Digest] = field(default_factory=dict)
    held: dict[TagName, RegistrySyncError] = field(default_factory=dict)
    gone: list[TagName] = field(default_factory=list)
    filtered: dict[TagName, Digest] = field(default_factory=dict)
    excluded: dict[Digest, None] = field(default_factory=dict)


@dataclass
class _Stage:
    """The shard's work, group by group; ``retry`` is the last temporary failure that requires another try."""

    client: RegistryReader
    database: Database
    run: SyncRun
    remote: RemoteSpec
    selection: Selection
    shard: int
    is_last_try: bool
    limits: ManifestLimits
    report: Callable[[str], None]
    refusals: Refusals
    claims: HeldClaims
    on_manifest: Callable[[Manifest], None] | None = None
    counts: ManifestsFetched = field(default_factory=ManifestsFetched)
    retry: RegistrySyncError | None = None
    roots_at_once: int = field(default_factory=lambda: _FIRST_ROOTS)
    _walked_count: int = 0
    _candidates: set[TagName] | None = None
    _sought: set[Digest] = field(default_factory=set)
    _has_api: bool | None = None
    _kept: Mapping[Digest, frozenset[Digest]] | None = None

    def fetch_with_referrer_tags(self, group: list[ListedTag]) -> None:
        """As :meth:`fetch`, followed by the referrer tags of what was found, and so on."""
        root_count, self._walked_count = len({tag.digest or tag.name for tag in group}), 0
        while group:
            group = [ListedTag(name, None, self.shard) for name in self.fetch(group)]
        most = MANIFESTS_AT_ONCE * root_count // max(1, self._walked_count)
        self.roots_at_once = max(1, min(ROOTS_AT_ONCE, most))

    def fetch(self, group: list[ListedTag]) -> list[TagName]:
        """Walks below the tags of ``group``, records manifests, then the outcome of each tag.

        Returns the referrer tags of what was found; they belong to the shard from then on, even if this task fails.
        """
        walk = Walk(
            self.client,
            self.database.contents,
            self.remote,
            self.selection,
            self.limits,
            self._refuse_fatal,
            self.refusals,
            self.claims,
            self.on_manifest,
        )
        outcome = _Outcome()
        self._resolve(group, walk, outcome)
        walk.descend(dict.fromkeys(outcome.roots.values()))
        self._follow_moved(walk, outcome)
        self._exclude_filtered(walk, outcome)
        if self.selection.with_referrers:
            self._add_referrers(walk)
        self._walked_count += len(walk.fetched) + len(walk.stored)
        trees = walk.trees(outcome.roots.values())
        # Manifests below a tag that is tried again are stored, so that they need not be fetched again.
        unfinished = walk.fetched_below(
            digest
            for digest, error in trees.broken.items()
            if verdict(error, is_last_try=self.is_last_try) is Verdict.RETRY
        )
        # Excluded indexes are stored too, so that the next sync excludes them without a request.
        excluded = [walk.fetched[digest] for digest in outcome.excluded if digest in walk.fetched]
        with self.database.together():
            self.database.contents.add_manifests([*trees.new, *excluded, *unfinished])
            self.database.selections.record(self.run.id, trees.read, trees.links)
        self.claims.release([*walk.fetched, *walk.failures])
        self._report_missing(trees.links, walk)
        referrer_tags = self._referrer_tags(trees.read) if self.selection.with_referrers else []
        outcome.held |= {tag: trees.broken[digest] for tag, digest in outcome.roots.items() if digest in trees.broken}
        with self.database.together():
            self.database.selections.take(self.run.id, referrer_tags, self.shard)
            self._record(outcome)
        self.counts.manifest_count += len(trees.new)
        return referrer_tags

    def _resolve(self, group: Sequence[ListedTag], walk: Walk, outcome: _Outcome) -> None:
        """Finds the digest of each tag; those without a digest from HEAD are fetched by name and hashed."""
        outcome.roots.update({tag.name: tag.digest for tag in group if tag.digest is not None})

        def done(tag: TagName, manifest: Manifest) -> None:
            if tag == fallback_tag(manifest.digest) and not self.remote.tag_filter.wants(tag):
                # The registry treats such a tag as the digest, and responds with the subject itself. A tag that the
                # filter selects stays a tag: some tools name every image after its digest.
                outcome.gone.append(tag)
                return
            walk.add(manifest)
            outcome.roots[tag] = manifest.digest

        def failed(tag: TagName, error: RegistrySyncError) -> None:
            error = self.refusals.settled(error, tag)
            if is_missing_upstream(error):
                outcome.gone.append(tag)
            else:
                self._refuse_fatal(error)
                outcome.held[tag] = error

        for_each(
            lambda tag: self.client.get_manifest(self.remote.upstream, tag),
            [tag.name for tag in group if tag.digest is None],
            threads=requests_at_once(self.client, self.remote),
            done=done,
            failed=failed,
        )

    def _follow_moved(self, walk: Walk, outcome: _Outcome) -> None:
        """Tags whose manifest is gone are requested again by name: they were moved, or they are gone too."""
        pinned = self.remote.tag_filter.pinned
        lost = [
            tag
            for tag, digest in outcome.roots.items()
            if is_missing_upstream(walk.failures.get(digest)) and pinned.get(tag) != digest
        ]
        if lost:
            for tag in lost:
                del outcome.roots[tag]
            self._resolve([ListedTag(tag, None, None) for tag in lost], walk, outcome)
            walk.descend({outcome.roots[tag]: None for tag in lost if tag in outcome.roots})

    def _exclude_filtered(self, walk: Walk, outcome: _Outcome) -> None:
        """Excludes tags that lead to an index without a wanted platform, at any depth."""
        for tag, digest in list(outcome.roots.items()):
            if self.selection.platforms is not None and (indexes := walk.excluded_indexes(digest)):
                outcome.filtered[tag] = outcome.roots.pop(tag)
                outcome.excluded.update(dict.fromkeys(indexes))

    def _add_referrers(self, walk: Walk) -> None:
        selections = self.database.selections
        if self._has_api is None and selections.lacks_referrers_api(self.run.id):
            self._has_api = False
        listed = add_referrers(
            walk,
            has_api=self._has_api,
            earlier=EarlierRuns.before(self.run, selections),
            kept=self._kept_referrers,
            report=self.report,
        )
        if listed.has_api is not None and listed.has_api is not self._has_api:
            self._has_api = listed.has_api
            selections.record_referrers_api(self.run.id, exists=listed.has_api)
        if listed.problem is not None:
            report_unknown(selections, self.run, listed, self.report)

    def _kept_referrers(self) -> Mapping[Digest, frozenset[Digest]]:
        if self._kept is None:
            self._kept = self.database.selections.kept_referrers(self.run.repository_id)
        return self._kept

    def _report_missing(self, links: Sequence[ManifestLink], walk: Walk) -> None:
        for link in links:
            if link.is_missing:
                name = walk.names.get(link.child, "an entry")
                warn(self.report, f"index {link.parent} lists {name}, {link.child}, which the registry does not have")
                self.counts.missing_count += 1

    def _referrer_tags(self, digests: Sequence[Digest]) -> list[TagName]:
        """Referrer tags of ``digests`` that have not been requested yet."""
        new = [digest for digest in digests if digest not in self._sought]
        self._sought.update(new)
        if self.remote.tag_filter.literal_tags is not None:
            return present_referrer_tags(self.client, self.remote, new, failed=self._fail_referrer_tag)
        if self._candidates is None:
            self._candidates = self.database.selections.candidates(self.run.id)
        names = referrer_tags(self._candidates, new)
        self._candidates.difference_update(names)
        return names

    def _fail_referrer_tag(self, tag: TagName, error: RegistrySyncError) -> None:
        """A referrer tag whose HEAD fails is fetched nevertheless, and held if that fails too."""
        error = self.refusals.settled(error, tag)
        self._refuse_fatal(error)
        warn(self.report, f"tag {tag}: {reason(error)}")
        if verdict(error, is_last_try=self.is_last_try) is Verdict.RETRY:
            self.retry = error

    def _refuse_fatal(self, error: RegistrySyncError) -> None:
        if verdict(error, is_last_try=self.is_last_try) is Verdict.FATAL:
            raise error

    def _record(self, outcome: _Outcome) -> None:
        held = outcome.held
        retried = [tag for tag, error in held.items() if verdict(error, is_last_try=self.is_last_try) is Verdict.RETRY]
        for tag in retried:
            self.retry = held.pop(tag)
        for tag, error in sorted(held.items()):
            warn(self.report, f"tag {tag} is held: {reason(error)}")
        runs, skipped = self.database.runs, {*held, *retried}
        resolved: Mapping[TagName, Digest] = {t: d for t, d in outcome.roots.items() if t not in skipped}
        runs.resolve_tags(self.run.id, resolved)
        runs.hold_tags(self.run.id, {tag: reason(error) for tag, error in held.items()})
        for tag in set(outcome.gone).intersection(self.remote.tag_filter.exact_names):
            warn(self.report, f"tag {tag}, which include_tags names, is gone since it was listed")
        runs.drop_tags(self.run.id, outcome.gone)
        runs.filter_tags(self.run.id, outcome.filtered)
        self.counts.tag_count += len(resolved)
        self.counts.held_count += len(held)
        self.counts.gone_count += len(outcome.gone)
        self.counts.filtered_count += len(outcome.filtered)
