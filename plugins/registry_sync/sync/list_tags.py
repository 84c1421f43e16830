"""The first stage: the upstream's tags, the digest of each, and which of them are new or moved.

A tag costs one HEAD, unless a list of digests shows that it has not moved (see ``digest_hints``). The digest from HEAD
is a hint: if it equals the latest version's, nothing is fetched, unless the selection below the tag has changed (see
``tags_to_read_again``); otherwise the manifest is fetched, hashed and judged by its bytes. A listing fails as a whole,
so that a lost page never makes a tag look deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.platforms import platforms_warning
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.references import TagName, looks_like_a_referrer_tag
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import (
    BLOB_OVERHEAD_BYTES,
    MIN_SHARD_BYTES,
    ListedTag,
    SyncRun,
    TagState,
    deal,
    shard_count,
)
from registry_sync.domain.tag_rules import TagTimes
from registry_sync.errors import NothingSynced
from registry_sync.sync.attached_artifacts import ComparedReferrers, ask_for_referrers_api
from registry_sync.sync.digest_hints import CONFIRM_AFTER, DigestHints
from registry_sync.sync.parallel import warn
from registry_sync.sync.tag_resolution import KnownReferrerTags, TagHeads, excluded_tags, tags_to_read_again
from registry_sync.sync.walk import Selection

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader
    from registry_sync.oci.tags import TagListing
    from registry_sync.sync.early_heads import EarlyHeads

_SHOWN_NAMES = 5


@dataclass(frozen=True)
class TagShard:
    """The tags of one task: the shard's number and the count of tags."""

    number: int
    tag_count: int


@dataclass(frozen=True)
class TagsListed:
    """The result of a listing. ``shards`` is empty when no tag is new or moved.

    A mirror will remove ``removed_count`` of the present tags, ``excluded_count`` of them because its own filters
    exclude them. ``missing_names`` are the tags that the filter names and that the upstream does not have.

    ``is_unchanged`` says that the latest version equals the upstream and holds all bytes that its policy requires, so
    that nothing remains to be done; it is never true when no tag passes the filters, or no index has a wanted platform.
    ``without_platform`` are tags that are known to have no wanted platform. ``by_list_count`` tags are unchanged by the
    registry's list of digests, without a request for each.
    ``not_versions`` are tags that a rule for versions left out because they are none.
    """

    listed_count: int
    selected_count: int
    changed_count: int
    removed_count: int
    skipped_names: tuple[str, ...]
    shards: tuple[TagShard, ...]
    is_unchanged: bool
    reread_count: int = 0
    excluded_count: int = 0
    missing_names: tuple[TagName, ...] = ()
    without_platform: tuple[TagName, ...] = ()
    by_list_count: int = 0
    not_versions: tuple[TagName, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the note of the run says of the selection."""
        return tuple(note for note in (self.missing_note, self.versions_note) if note)

    @property
    def versions_note(self) -> str | None:
        """How many tags are left out because they are no versions; None for none."""
        if not self.not_versions:
            return None
        count = len(self.not_versions)
        are = "is no version and was" if count == 1 else "are no versions and were"
        return f"{format_count(count, 'tag')} {are} left out: {_some(self.not_versions)}"

    @property
    def missing_note(self) -> str | None:
        """A warning about tags that ``include_tags`` names and that are missing; None when none is."""
        if not self.missing_names:
            return None
        count = format_count(len(self.missing_names), "tag")
        return f"include_tags names {count} that the upstream does not have: {_some(self.missing_names)}"

    def __str__(self) -> str:
        text = (
            f"{format_count(self.selected_count, 'tag')}, {self.changed_count:,} new or moved, "
            f"{self.removed_count - self.excluded_count:,} gone upstream"
        )
        if self.excluded_count:
            text = f"{text}, {self.excluded_count:,} excluded by the filters"
        return f"{text}, {self.reread_count:,} to be read again" if self.reread_count else text


def _some(names: Sequence[TagName]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join([*names[:_SHOWN_NAMES], *([f"{more:,} more"] if more > 0 else [])])


@dataclass(frozen=True)
class SelectedNames:
    """The listed names: the selected tags, and candidates for their referrer tags; ``listing`` is None without one.

    ``wanted`` has no tags that are held at a digest of the remote's. ``referrers`` are those of the latest version that
    were listed with the names, None for none.
    """

    wanted: list[TagName]
    candidates: list[TagName]
    listed_count: int
    skipped: tuple[str, ...]
    listed_at: datetime
    listing: TagListing | None = None
    not_versions: tuple[TagName, ...] = ()
    referrers: ComparedReferrers | None = None

    def unselected(self, tags: Iterable[TagName]) -> list[TagName]:
        """Those of ``tags`` that the upstream lists and the rules do not select."""
        present = set(tags)
        if self.listing is None or not present:
            return []
        return sorted(present.intersection(self.listing.tags).difference(self.wanted))


def list_tags(
    client: RegistryReader,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    max_shards: int,
    report: Callable[[str], None],
    min_shard_bytes: int = MIN_SHARD_BYTES,
    confirm_after: timedelta = CONFIRM_AFTER,
    names: SelectedNames | None = None,
    early: EarlyHeads | None = None,
) -> TagsListed:
    """Lists, selects and resolves the tags of ``remote`` and records them with ``run``; a repeat replaces the record.

    There are at most ``max_shards``, none with less work than ``min_shard_bytes``; a manifest is as much as the
    overhead of a blob. After ``confirm_after`` each tag is requested, whatever the registry's list of digests says.
    ``names`` are those of a list requested since the run's ``listing_began`` was read; None to request it, beside
    ``early``. Raises :class:`NothingSynced` when no tag passes the filters, and the client's and database's errors.
    """
    selection = Selection.of(remote)
    tag_heads = TagHeads(client, database.heads, run, remote, report)
    names = names or _names_of_list(client, database, run, remote, report=report, tag_heads=tag_heads, early=early)
    compared = database.versions.latest_tags(run.repository_id, () if names.listing is None else names.listing.tags)
    latest = compared.digests
    if not names.wanted and not remote.tag_filter.pinned:
        _refuse_empty(remote, run, names.listed_count, len(latest))
    hints = DigestHints(client, database.confirmations, run, remote, tag_heads, report, confirm_after)
    with tag_heads.kept_on_failure():
        by_list_count = hints.use(names.listing, latest, names.wanted) if names.listing else 0
        heads = tag_heads.resolve(names.wanted)
        heads.update(remote.tag_filter.pinned)
        missing = tuple(sorted(set(remote.tag_filter.exact_names).difference(heads)))
        if not heads:
            raise NothingSynced(f"{remote.upstream} has none of the requested tags: {', '.join(names.wanted[:5])}")
        if selection.with_referrers:
            known = KnownReferrerTags(client, database.selections, run, remote, latest, names.candidates)
            heads.update(known.heads(heads, tag_heads.resolve))
        moved = list(heads.differing(latest))
        excluded = excluded_tags(database, selection, heads, moved)
        unchanged = [tag for tag, digest in latest.items() if heads.get(tag) == digest]
        reread = tags_to_read_again(client, database, run, remote, unchanged, report=report, referrers=names.referrers)
    changed = [*(tag for tag in moved if tag not in excluded), *sorted(reread)]
    shards, numbers = _shards(changed, heads, max_shards, min_shard_bytes // BLOB_OVERHEAD_BYTES)
    if selection.with_referrers and len(shards) > 1 and not unchanged:
        with tag_heads.kept_on_failure():
            ask_for_referrers_api(
                client, database.selections, run, remote, (heads[tag] for tag in changed), report=report
            )
    removed = [tag for tag in latest if tag not in heads or tag in excluded] if run.mode is SyncMode.MIRROR else []
    unselected = names.unselected(tag for tag in latest if tag not in heads)
    listed = TagsListed(
        listed_count=names.listed_count,
        selected_count=len(heads),
        changed_count=len(changed) - len(reread),
        removed_count=len(removed),
        skipped_names=names.skipped,
        shards=shards,
        is_unchanged=bool(unchanged) and not changed and not removed and _is_whole(database, run, excluded),
        reread_count=len(reread),
        excluded_count=len(excluded.intersection(removed) | _excluded_by_filter(remote, removed, unselected)),
        missing_names=missing,
        without_platform=tuple(sorted(excluded)),
        by_list_count=by_list_count,
        not_versions=names.not_versions,
    )
    _report(listed, report)
    listed_at, began = min(names.listed_at, tag_heads.asked_at or names.listed_at), run.listing_began
    if listed.is_unchanged:
        if database.runs.settle_unchanged(run.id, listed_at, latest_number=compared.number, listing_began=began):
            if excluded:
                warn(report, platforms_warning(listed.without_platform, remote.platforms or ()))
            return listed
        report("another version was made while the tags were listed, so they are listed again")
        database.heads.forget(run.id)
        again = partial(list_tags, max_shards=max_shards, min_shard_bytes=min_shard_bytes, confirm_after=confirm_after)
        return again(client, database, database.runs.get(run.id), remote, report=report)
    tags = _Listed(heads, numbers, excluded, sorted({*names.candidates, *unselected}.difference(heads)))
    database.runs.record_listing(run.id, listed_at, tags, base=compared, listing_began=began)
    return listed


@dataclass(frozen=True)
class _Listed(Collection[ListedTag]):
    """The tags as they are recorded, each made as it is read; ``numbers`` are the shards of those to be fetched.

    ``others`` are not selected. Those of them that are present say to the commit that they are not gone upstream.
    """

    heads: Mapping[TagName, Digest | None]
    numbers: Mapping[TagName, int]
    excluded: Set[TagName]
    others: Sequence[TagName]

    def __len__(self) -> int:
        return len(self.heads) + len(self.others)

    def __contains__(self, tag: object) -> bool:
        return any(tag == one for one in self)

    def __iter__(self) -> Iterator[ListedTag]:
        for tag, digest in self.heads.items():
            state = TagState.FILTERED if tag in self.excluded else TagState.UNCHANGED
            yield ListedTag(tag, digest, self.numbers.get(tag), state)
        for tag in self.others:
            yield ListedTag(tag, unfetched=TagState.CANDIDATE)


def _report(listed: TagsListed, report: Callable[[str], None]) -> None:
    if listed.missing_note:
        warn(report, listed.missing_note)
    if listed.versions_note:
        report(listed.versions_note)
    report(str(listed))


def _times(
    client: RegistryReader, database: Database, run: SyncRun, remote: RemoteSpec, listing: TagListing
) -> TagTimes:
    """As :func:`~registry_sync.sync.tag_times.tag_times`, which most remotes do without."""
    if remote.tag_filter.needed_times is None:
        return TagTimes(now=utc_now())
    from registry_sync.sync.tag_times import tag_times

    return tag_times(client, database, run, remote, listing)


def _names_of_list(
    client: RegistryReader,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    report: Callable[[str], None],
    tag_heads: TagHeads,
    early: EarlyHeads | None,
) -> SelectedNames:
    """As :func:`select_names`, with ``early`` beside it unless an earlier try has left digests to ``tag_heads``."""
    with nullcontext() if early is None or tag_heads.has_earlier else early:
        times = partial(_times, client, database, run, remote)
        names = select_names(client, remote, Selection.of(remote), report, times)
    if early is not None:
        tag_heads.begin_with(early, names.wanted)
    return names


def select_names(
    client: RegistryReader,
    remote: RemoteSpec,
    selection: Selection,
    report: Callable[[str], None],
    times: Callable[[TagListing], TagTimes],
) -> SelectedNames:
    """The names that ``remote`` selects, of those that the registry lists where it is asked for a list.

    ``times`` gives since when listed tags are known. Raises as :meth:`RegistryReader.list_tags` and ``times`` do.
    """
    tag_filter = remote.tag_filter
    literal = tag_filter.literal_tags
    if literal is not None:
        wanted = sorted(set(literal).difference(tag_filter.pinned))
        return SelectedNames(wanted, [], len(literal), (), utc_now())
    listing = client.list_tags(remote.upstream)
    if listing.skipped:
        count = format_count(len(listing.skipped), "name")
        warn(report, f"skipped {count} that no tag can have: {listing.skipped[0][:40]!r}")
    found = tag_filter.select(listing.tags, times(listing))
    if found.without_time:
        count, which = format_count(len(found.without_time), "tag"), _some(found.without_time)
        warn(report, f"the registry does not list the push of {count}, which count as just pushed: {which}")
    others = set(listing.tags).difference(found.tags) if len(found.tags) < len(listing.tags) else ()
    candidates = sorted(tag for tag in others if selection.is_candidate(tag_filter.allows, tag))
    return SelectedNames(
        [tag for tag in found.tags if tag not in tag_filter.pinned],
        candidates,
        len(listing.tags),
        listing.skipped,
        listing.listed_at,
        listing,
        found.not_versions,
    )


def _refuse_empty(remote: RemoteSpec, run: SyncRun, listed_count: int, present_count: int) -> None:
    what = f"{remote.upstream} at {remote.url}: {_why_nothing(remote, listed_count)}"
    if present_count and run.mode is SyncMode.MIRROR:
        raise NothingSynced(
            f"{what}. A mirror would lose all of its {format_count(present_count, 'tag')}, so nothing was done; "
            "correct the filters, or use additive mode"
        )
    raise NothingSynced(f"{what}, so there is nothing to sync")


def _why_nothing(remote: RemoteSpec, listed_count: int) -> str:
    """The reason why the filters select nothing."""
    if remote.tag_filter.literal_tags is not None and not remote.tag_sets:
        exclude = " and ".join(remote.tag_rules(only=("exclude_tags", "exclude_regex")))
        return f"{exclude} excludes all of include_tags" if remote.include_tags else "include_tags names no tag"
    if not listed_count:
        return "it lists no tags"
    count = format_count(listed_count, "tag")
    return f"none of its {count} passes the filters {' and '.join(remote.tag_rules())}"


def _shards(
    changed: Sequence[TagName], heads: Mapping[TagName, Digest | None], max_shards: int, min_manifests: int
) -> tuple[tuple[TagShard, ...], dict[TagName, int]]:
    """Changed tags in shards; tags with the same digest share a shard, so that it is fetched once."""

    def key(tag: TagName) -> str:
        return heads[tag] or f"tag {tag}"

    ordered = sorted(changed, key=key)
    manifest_count = sum(1 for _ in groupby(ordered, key))
    count = shard_count(manifest_count, manifest_count, max_shards=max_shards, min_cost=min_manifests)
    dealt = deal((1 for _ in range(manifest_count)), count)
    numbers = {tag: number for (_, tags), number in zip(groupby(ordered, key), dealt, strict=True) for tag in tags}
    counts = Counter(numbers.values())
    return tuple(TagShard(number, counts[number]) for number in sorted(counts)), numbers


def _excluded_by_filter(remote: RemoteSpec, tags: Iterable[TagName], unselected: Iterable[TagName]) -> set[TagName]:
    """Those that a rule excludes, by name or beside others; referrer tags are not selected by name."""
    left_out = set(unselected)
    return {
        tag
        for tag in tags
        if (tag in left_out or not remote.tag_filter.wants(tag)) and not looks_like_a_referrer_tag(tag)
    }


def _is_whole(database: Database, run: SyncRun, excluded: Set[TagName]) -> bool:
    """Whether the latest version is complete; False when the platforms leave no index, which the commit judges."""
    if excluded and not database.selections.has_index(run.repository_id):
        return False
    return _has_all_bytes(database, run)


def _has_all_bytes(database: Database, run: SyncRun) -> bool:
    if run.policy is not Policy.IMMEDIATE:
        return True
    with_foreign = run.remote.include_foreign_layers
    return database.versions.missing_blob_count(run.repository_id, with_foreign=with_foreign) == 0
