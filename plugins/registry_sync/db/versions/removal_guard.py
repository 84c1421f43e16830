"""The limits of a remote: how many tags may be held, how many tags a mirror may remove, and how few a version may have.

Shares apply to any number of tags: of one or two tags, too, more than half is the majority. Tags of signatures and
other referrers are counted separately, and those whose image is removed as well are not counted.

Tags that lead to an index without any wanted platform: new ones are excluded, present ones never silently.

If the platforms were selected differently before, the change of selection is the reason, and removing the tags that it
leaves without any image takes an approval. If the upstream republished a tag without them, that tag is held and the
others continue. A selection that leaves nothing at all is an error, and so is one that leaves nothing of any index,
where the latest version has none of these tags either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, Subquery, func, or_, select

from registry_sync.db.content.closures import hold_tags, is_in_latest, is_present
from registry_sync.db.queries import built_once, in_batches, is_one_of
from registry_sync.db.remotes import last_synced_by
from registry_sync.db.runs.unchanged_tags import tags_without_row
from registry_sync.db.tables import (
    manifest_children,
    manifests,
    repositories,
    repository_tags,
    repository_versions,
    run_tags,
    sync_runs,
    tags,
)
from registry_sync.db.versions.membership import Difference, Membership
from registry_sync.domain.digests import Digest
from registry_sync.domain.media_types import INDEX_TYPES
from registry_sync.domain.platforms import platform_text
from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import Hold, SyncMode
from registry_sync.domain.references import TagName, looks_like_a_referrer_tag, subject_by_name
from registry_sync.domain.remote import RemoteSpec, shown_value
from registry_sync.domain.runs import COUNTED_TAG_STATES, TagState
from registry_sync.errors import NothingSynced, TooFewTags, TooManyHolds, TooManyRemovals

_SELECTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value, TagState.HELD.value)
_SHOWN_PLATFORMS = 10
#: The type of a held tag that was not read is unknown.
_MAY_BE_AN_INDEX = or_(manifests.c.media_type.in_(sorted(INDEX_TYPES)), manifests.c.id.is_(None))


def settle_filtered(connection: Connection, run: Row[Any], remote: RemoteSpec) -> None:
    """Holds the tags that a mirror would remove because the upstream no longer has any wanted platform of them.

    Tags that another selection of platforms would remove keep their state, for the guard of removals. A run that was
    approved in advance holds none; an approval of refused removals does not cover tags that were held then. Raises
    :class:`NothingSynced` when the platforms leave no image at all, or nothing of any index.
    """
    filtered = _tags_in_states(connection, run.id, [TagState.FILTERED.value])
    if not filtered:
        return
    _refuse_to_leave_nothing(connection, run, remote, filtered)
    is_approved_in_advance = run.removals_approved_by is not None and run.refused_removals is None
    if run.mode != SyncMode.MIRROR.value or is_approved_in_advance:
        return
    if not platforms_are_unchanged(connection, run.repository_id, remote):
        return
    digest_of = {row.name: row.digest for row in filtered}
    kept = _present(connection, run.repository_id, digest_of)
    listed = _platforms_by_index(connection, [digest_of[name] for name in kept])
    text = "the upstream now has it for {}, and for none of the platforms {} of the remote"
    wanted = ", ".join(map(str, remote.platforms or ()))
    reasons = {name: text.format(_shown(listed.get(digest_of[name], ())), wanted) for name in kept}
    hold_tags(connection, run.id, reasons)


def tags_without_platform(connection: Connection, run_id: str) -> list[TagName]:
    """Tags of a run that lead to an index without any wanted platform, by name, until the run settles."""
    return sorted(TagName(row.name) for row in _tags_in_states(connection, run_id, [TagState.FILTERED.value]))


def platforms_are_unchanged(connection: Connection, repository_id: str, remote: RemoteSpec) -> bool:
    """Whether the last sync of the repository selected the same platforms."""
    before = last_synced_by(connection, repository_id)
    return before is not None and _platforms(before) == _platforms(remote)


def platforms_there(connection: Connection, digests: Iterable[str]) -> str:
    """The platforms that these indexes list, in a remote's notation: the first ones, and the count of the others."""
    found = _platforms_by_index(connection, digests)
    return _shown({platform for platforms in found.values() for platform in platforms})


def _platforms_by_index(connection: Connection, digests: Iterable[str]) -> Mapping[str, Collection[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for batch in in_batches(sorted(set(digests))):
        listed = (
            select(manifests.c.digest, manifest_children.c.platform)
            .join(manifests, manifests.c.id == manifest_children.c.parent_id)
            .where(is_one_of(connection, manifests.c.digest, batch), manifest_children.c.platform.is_not(None))
        )
        for row in connection.execute(listed):
            if (text := platform_text(row.platform)) is not None:
                found[row.digest].add(text)
    return found


def _shown(platforms: Collection[str]) -> str:
    names = sorted(platforms)
    more = f" and {len(names) - _SHOWN_PLATFORMS} more" if len(names) > _SHOWN_PLATFORMS else ""
    return ", ".join(names[:_SHOWN_PLATFORMS]) + more if names else "no platform that is named"


def _refuse_to_leave_nothing(
    connection: Connection, run: Row[Any], remote: RemoteSpec, filtered: Sequence[Any]
) -> None:
    """Plain images name no platform, so they do not show whether the platforms were selected on purpose."""
    tag = _selected(run)
    selected, is_plain_name = select(tag), tag.c.name.not_like("sha256-%")
    # Nearly always one query; names in the form of a digest are checked one by one.
    if connection.execute(selected.where(is_plain_name, tag.c.may_be_an_index).limit(1)).first() is not None:
        return
    own = [row for row in connection.execute(selected.where(~is_plain_name)) if not _belongs_to_another(row)]
    if any(row.may_be_an_index for row in own):
        return
    remedy, whose = "correct the platforms", "the only tag" if len(filtered) == 1 else f"any of {len(filtered):,} tags"
    if own or connection.execute(selected.where(is_plain_name).limit(1)).first() is not None:
        if _present(connection, run.repository_id, (row.name for row in filtered)):
            return
        whose += " that is an index" if len(filtered) == 1 else " that are indexes"
        remedy += ", or exclude these tags with exclude_tags"
    raise NothingSynced(
        f"platforms {', '.join(map(str, remote.platforms or ()))} of remote {remote.name!r} leave nothing of {whose}; "
        f"available are {platforms_there(connection, [row.digest for row in filtered])}. Nothing was synced; {remedy}"
    )


def _selected(run: Row[Any]) -> Subquery:
    """Tags that the run selects or holds: ``name``, ``digest``, and whether each ``may_be_an_index``."""
    columns = (run_tags.c.name, run_tags.c.digest, _MAY_BE_AN_INDEX.label("may_be_an_index"))
    known = run_tags.outerjoin(manifests, manifests.c.digest == run_tags.c.digest)
    rows = select(*columns).select_from(known).where(run_tags.c.sync_run_id == run.id, run_tags.c.state.in_(_SELECTED))
    if run.base_number is None:
        return rows.subquery("selected")
    unchanged = (tags.c.name, manifests.c.digest, manifests.c.media_type.in_(sorted(INDEX_TYPES)))
    return rows.union_all(tags_without_row(run.id).with_only_columns(*unchanged)).subquery("selected")


def _belongs_to_another(row: Row[Any]) -> bool:
    return subject_by_name(TagName(row.name), None if row.digest is None else Digest(row.digest)) is not None


def _tags_in_states(connection: Connection, run_id: str, states: Collection[str]) -> list[Any]:
    return list(connection.execute(*_in_states(run_id, states=tuple(states))))


@built_once
def _in_states(run_id: str, *, states: tuple[str, ...]) -> Select[Any]:
    is_wanted = (run_tags.c.sync_run_id == run_id) & run_tags.c.state.in_(states)
    return select(run_tags.c.name, run_tags.c.digest).where(is_wanted)


def _present(connection: Connection, repository_id: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are tags of the latest version."""
    found: list[str] = []
    for batch in in_batches(sorted(names)):
        statement = (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(tags.c.name.in_(batch), is_present(repository_tags, repository_id))
        )
        found += connection.execute(statement).scalars()
    return found


def _platforms(remote: RemoteSpec) -> frozenset[Any] | None:
    return None if remote.platforms is None else frozenset(remote.platforms)


_SHOWN = 5


def refuse_too_many_holds(connection: Connection, run_id: str, remote: RemoteSpec, holds: Sequence[Hold]) -> None:
    """Raises :class:`TooManyHolds` when a larger share of the run's tags is held than its remote allows."""
    if remote.max_held_share is None or not holds:
        return
    wanted = run_tags.c.state.in_([state.value for state in COUNTED_TAG_STATES])
    count = select(func.count()).select_from(run_tags).where(run_tags.c.sync_run_id == run_id, wanted)
    without_row = select(sync_runs.c.base_tag_count).where(sync_runs.c.id == run_id)
    total = connection.execute(count).scalar_one() + connection.execute(without_row).scalar_one()
    if len(holds) > remote.max_held_share * total:
        raise TooManyHolds(
            f"{len(holds):,} of {format_count(total, 'tag')} would be held, more than max_held_share "
            f"{remote.max_held_share:g} of remote {remote.name!r} allows, so no version was made: {first_holds(holds)}"
        )


@dataclass(frozen=True)
class _Tag:
    """A tag of the previous version; ``subject`` is the digest in its name, ``state`` the run's record of it."""

    name: TagName
    digest: Digest
    subject: Digest | None
    state: str | None = None


@dataclass(frozen=True)
class TagsToRemove:
    """The tags that a mirror is about to remove, and the tag counts: of images, and the ``others`` by name."""

    membership: Membership
    remote: RemoteSpec
    base_number: int | None
    lost: Sequence[_Tag]
    own_count: int
    others: frozenset[str]
    present_subjects: frozenset[Digest]

    @classmethod
    def of(cls, membership: Membership, remote: RemoteSpec, base_number: int | None) -> TagsToRemove | None:
        """The tags to be removed from version ``base_number``, read before the intervals are written; None for none."""
        connection, repository_id = membership.connection, membership.repository_id
        names = membership.tags_to_remove()
        if not names:
            return None
        states = _states(connection, membership.run_id, names)
        lost = [
            _Tag(TagName(row.name), Digest(row.digest), _subject(row), states.get(row.name))
            for batch in in_batches(names)
            for row in connection.execute(_present_tags(repository_id).where(tags.c.name.in_(batch)))
        ]
        others = _referrer_tags(connection, repository_id)
        own_count = _tag_count(connection, repository_id) - len(others)
        present = _held_manifests(membership, {tag.subject for tag in lost if tag.subject is not None})
        return cls(membership, remote, base_number, lost, own_count, others, frozenset(present))

    def refuse_too_many(self, difference: Difference) -> None:
        """Raises :class:`TooManyRemovals`. To be called after the intervals are written, by ``difference``.

        Tags that another selection of platforms leaves without any image always take an approval, however few they are.
        """
        to_remove = self.present_subjects - _held_manifests(self.membership, self.present_subjects)
        counted = [tag for tag in self.lost if tag.subject not in to_remove]
        uncounted = {tag.name for tag in self.lost}.difference(tag.name for tag in counted)
        other_count = len(self.others - uncounted)
        all_count = self.own_count + other_count
        allowed = f"of remote {self.remote.name!r} allows"
        groups = ((True, "tag", self.own_count), (False, "tag of signatures and other referrers", other_count))
        for is_own, noun, total in groups:
            lost = [tag for tag in counted if (tag.subject is None) == is_own]
            share = self.remote.max_removed_share
            if share is not None and len(lost) > share * total:
                limit = f"more than max_removed_share {share:g} {allowed}"
                raise self._refusal(lost, total, noun, limit, difference)
        most = self.remote.max_removed_tags
        if most is not None and len(counted) > most:
            limit = f"more than max_removed_tags {most} {allowed}"
            raise self._refusal(counted, all_count, "tag", limit, difference)
        filtered = [tag for tag in counted if tag.state == TagState.FILTERED.value]
        if filtered:
            raise self._refusal(filtered, all_count, "tag", "which takes an approval", difference)

    def _refusal(
        self,
        lost: Sequence[_Tag],
        total: int,
        noun: str,
        limit: str,
        difference: Difference,
    ) -> TooManyRemovals:
        causes = Counter(self._cause(tag) for tag in lost)
        said = [(count, self._predicate(cause, lost, count)) for cause, count in causes.most_common()]
        of_all = f"the only {noun}" if total == 1 else f"{len(lost)} of {total} {noun.replace('tag', 'tags', 1)}"
        if len(said) == 1:
            what = f"{of_all} {said[0][1]}"
        else:
            what = f"{of_all} would be removed: " + ", ".join(f"{count} {predicate}" for count, predicate in said)
        changes = "".join(f"; {change}" for change in (*self._few_left(difference), *self._changes(causes)))
        names = [tag.name for tag in lost]
        refused = TooManyRemovals(
            f"{what}, {limit}, so no version was made{changes}: {', '.join(names[:_SHOWN])}{_more(len(names))}. To "
            "remove them, approve the removals of this run"
        )
        # Removed tags that no limit counts are among those that are approved.
        refused.tags = tuple(sorted((str(tag.name), str(tag.digest)) for tag in self.lost))
        refused.fingerprint = _fingerprint(refused.tags)
        return refused

    def _few_left(self, difference: Difference) -> list[str]:
        """What the remote's ``min_tags`` says of the tags that would be left: one approval is for both."""
        count = _own_tag_count(self.membership, difference)
        if self.remote.min_tags is None or count >= self.remote.min_tags:
            return []
        return [f"{format_count(count, 'tag')} would be left, fewer than min_tags {self.remote.min_tags}"]

    def _cause(self, tag: _Tag) -> str:
        """The filter or option that excludes the tag, ``upstream`` when none does."""
        if tag.state == TagState.FILTERED.value:
            return "platforms"
        excluded_by = self.remote.tag_filter.excluding_option(tag.name)
        if excluded_by == "include_tags" and tag.subject is not None and looks_like_a_referrer_tag(tag.name):
            if not self.remote.include_referrers:
                return "include_referrers"
            return "subject" if tag.state == TagState.CANDIDATE.value else "upstream"
        if excluded_by is None and tag.state == TagState.CANDIDATE.value:  # listed, and not among the newest
            return self.remote.tag_filter.option_beside_others
        return excluded_by or "upstream"

    def _predicate(self, cause: str, lost: Sequence[_Tag], count: int) -> str:
        remote, are = self.remote, "is" if count == 1 else "are"
        if cause == "platforms":
            digests = _filtered_digests(self.membership, [tag.name for tag in lost])
            listed = platforms_there(self.membership.connection, digests)
            has = "has" if count == 1 else "have"
            return f"{has} none of the platforms {_few(remote.platforms)}; available are {listed}"
        return {
            "exclude_tags": f"{are} excluded by exclude_tags {_few(remote.exclude_tags)}",
            "exclude_regex": f"{are} excluded by exclude_regex {_few(remote.exclude_regex)}",
            **{
                name: f"{are} not among {name} {shown_value(name, remote)}"
                for name in ("include_tags", "regex", "regex_all", "semver", "newest", "newer_than", "digests")
            },
            "tag_sets": f"{are} in none of the sets of tag_sets",
            "include_referrers": f"{are} excluded by include_referrers false",
            "subject": f"{'belongs' if count == 1 else 'belong'} to nothing that is selected",
        }.get(cause, f"{are} gone upstream")

    def _changes(self, causes: Iterable[str]) -> list[str]:
        """The options behind the removals that had other values for the previous version."""
        run = select(sync_runs.c.remote_spec).join(
            repository_versions, repository_versions.c.sync_run_id == sync_runs.c.id
        )
        is_base = repository_versions.c.number == self.base_number
        of_base = run.where(repository_versions.c.repository_id == self.membership.repository_id, is_base)
        row = self.membership.connection.execute(of_base).first()
        if row is None:
            return []
        before, changes = RemoteSpec.of_document(row.remote_spec), []
        for option in sorted({"source" if cause == "upstream" else cause for cause in causes} - {"subject"}):
            was = getattr(before, option)
            if was != getattr(self.remote, option):
                shown = str(was).lower() if isinstance(was, bool) or option == "source" else shown_value(option, before)
                name = "the upstream" if option == "source" else option
                changes.append(f"{name} was {shown} for version {self.base_number}")
        return changes


def refuse_too_few_tags(membership: Membership, remote: RemoteSpec, difference: Difference) -> None:
    """Raises :class:`TooFewTags` when fewer tags than its remote requires are present once the intervals are written.

    Tags of signatures and other referrers are not counted.
    """
    connection, repository_id = membership.connection, membership.repository_id
    if remote.min_tags is None or _own_tag_count(membership, difference) >= remote.min_tags:
        return
    others = _referrer_tags(connection, repository_id)
    found = [(row.name, row.digest) for row in connection.execute(_present_tags(repository_id))]
    names = [name for name, _ in found if name not in others]
    which = f": {', '.join(names[:_SHOWN])}{_more(len(names))}" if names else ""
    refused = TooFewTags(
        f"the version would have {format_count(len(names), 'tag') if names else 'no tag'}, fewer than min_tags "
        f"{remote.min_tags} of remote {remote.name!r} requires, so no version was made{which}. If these are all that "
        "there should be, approve this run"
    )
    refused.tags = tuple(sorted(found))
    refused.fingerprint = _fingerprint(refused.tags)
    raise refused


def _own_tag_count(membership: Membership, difference: Difference) -> int:
    """How many tags are present once the intervals are written, without those of signatures and other referrers."""
    connection, repository_id = membership.connection, membership.repository_id
    count = _tag_count(connection, repository_id) + difference.added["tags"] - difference.removed["tags"]
    return count - len(_referrer_tags(connection, repository_id))


def _tag_count(connection: Connection, repository_id: str) -> int:
    """How many tags the latest version has, as it says itself; 0 before the first."""
    versions = repository_versions.c
    is_latest = (versions.repository_id == repositories.c.id) & (versions.number == repositories.c.latest_number)
    count = select(versions.tags_present).join(repositories, is_latest).where(repositories.c.id == repository_id)
    return connection.execute(count).scalar_one_or_none() or 0


def _referrer_tags(connection: Connection, repository_id: str) -> frozenset[str]:
    """The present tags of signatures and other referrers; only names in the form of a digest are checked one by one."""
    name = repository_tags.c.name
    named = connection.execute(_present_tags(repository_id).where(name >= "sha256-", name < "sha256."))
    return frozenset(row.name for row in named if _subject(row) is not None)


def _fingerprint(found: Iterable[tuple[str, str]]) -> Digest:
    """The same for the same tags at the same digests."""
    return Digest.of("\n".join(f"{name} {digest}" for name, digest in found).encode())


def first_holds(holds: Sequence[Hold]) -> str:
    """The first held tags with their reasons, and how many more there are."""
    shown = "; ".join(f"{hold.tag}: {hold.reason}" for hold in holds[:_SHOWN])
    return f"{shown}{_more(len(holds))}"


def _held_manifests(membership: Membership, digests: Iterable[Digest]) -> set[Digest]:
    """Those of ``digests`` that the latest version holds; the previous one, until the intervals are written."""
    connection, found = membership.connection, set[Digest]()
    for batch in in_batches(sorted(digests)):
        statement = select(manifests.c.digest).where(
            is_one_of(connection, manifests.c.digest, batch),
            is_in_latest("manifests", manifests.c.id, membership.repository_id),
        )
        found.update(map(Digest, connection.execute(statement).scalars()))
    return found


def _present_tags(repository_id: str) -> Any:
    return (
        select(tags.c.name, manifests.c.digest)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(is_present(repository_tags, repository_id))
        .order_by(tags.c.name)
    )


def _subject(row: Row[Any]) -> Digest | None:
    return subject_by_name(TagName(row.name), Digest(row.digest))


def _states(connection: Connection, run_id: str, names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for batch in in_batches(names):
        statement = select(run_tags.c.name, run_tags.c.state).where(
            run_tags.c.sync_run_id == run_id, run_tags.c.name.in_(batch)
        )
        found.update({row.name: row.state for row in connection.execute(statement)})
    return found


def _filtered_digests(membership: Membership, names: Sequence[str]) -> list[str]:
    """Digests of the indexes that these tags now lead to."""
    found: list[str] = []
    for batch in in_batches(names):
        statement = select(run_tags.c.digest).where(
            run_tags.c.sync_run_id == membership.run_id,
            run_tags.c.name.in_(batch),
            run_tags.c.state == TagState.FILTERED.value,
            run_tags.c.digest.is_not(None),
        )
        found += membership.connection.execute(statement).scalars()
    return found


def _few(values: Sequence[object] | None) -> str:
    if values is None:
        return "all"
    return (
        ", ".join(map(str, values[:_SHOWN])) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
        or "empty"
    )


def _more(count: int) -> str:
    return f"; and {count - _SHOWN} more" if count > _SHOWN else ""
