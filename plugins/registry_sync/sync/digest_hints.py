"""Tags that have not moved by the registry's own list of digests, so that they need no HEAD each.

The list proves one thing: that a tag still has the digest of the latest version. What it says otherwise, or does not
say, is left to HEADs, and so is everything when it is refused, late or odd. It never adds, moves or removes a tag.

A list may be out of date without saying so. Three rules bound that:

- Of the tags that it shows as unchanged some are requested all the same, first those that have moved before. Where the
  registry itself has another digest and a second list does not have it either, the list is not used for a day. In a
  task of many mirrors these are some of all of them, until one speaks against a list of their registry.
- Every tag is requested once the last sync that did so is :func:`long enough ago <must_confirm>`.
- A list that was made before the last sync listed its tags, by the ``Age`` of a cache, is not used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import Confirmation, DigestListUse, SyncRun
from registry_sync.sync.parallel import warn
from registry_sync.sync.tag_resolution import TagHeads

if TYPE_CHECKING:
    from registry_sync.oci.client import RegistryReader
    from registry_sync.oci.tag_digests import TagDigests
    from registry_sync.oci.tags import TagListing
    from registry_sync.sync.shared_audits import SharedAudit

#: By default every tag is requested after a day; a mirror that is synced rarely may use the list a few times before.
CONFIRM_AFTER = timedelta(days=1)
MOST_USES = 6
LONGEST_UNCONFIRMED = 7
#: How long a list that is refused, or was found out of date, is not asked for.
PROBLEM_REMEMBERED = timedelta(days=1)
#: The number of tags that are requested although the list shows them as unchanged: this share, and at least so many.
SAMPLE_SHARE = 0.01
SAMPLE_COUNT = 3


def sample_size(tag_count: int) -> int:
    """How many of so many unchanged tags are requested."""
    return min(tag_count, max(SAMPLE_COUNT, math.ceil(SAMPLE_SHARE * tag_count)))


def must_confirm(known: Confirmation, now: datetime, confirm_after: timedelta) -> bool:
    """Whether a sync requests every tag: never done before, or ``confirm_after`` ago and the list used six times since.

    After seven times ``confirm_after`` it does in any case.
    """
    if known.confirmed_at is None:
        return True
    age = now - known.confirmed_at
    return age >= LONGEST_UNCONFIRMED * confirm_after or (age >= confirm_after and known.used_count >= MOST_USES)


class Confirmations(Protocol):
    """What earlier syncs found, and where this one's finding goes: the store's, or that of a look at a mirror."""

    def last(self, run: SyncRun, *, problems_since: datetime) -> Confirmation: ...

    def moving_tags(self, repository_id: str, count: int) -> list[TagName]: ...

    def record(
        self, run_id: str, use: DigestListUse | None, *, tag_count: int = 0, problem: str | None = None
    ) -> None: ...


@dataclass
class DigestHints:
    """The use of the registry's list in one try of a listing; ``heads`` sends the requests that remain.

    ``audit`` is the sample that the mirror shares with others; None where it has one of its own. ``relies_on_others``
    says afterwards whether tags are unchanged by the list that were left to that sample.
    """

    client: RegistryReader
    confirmations: Confirmations
    run: SyncRun
    remote: RemoteSpec
    heads: TagHeads
    report: Callable[[str], None]
    confirm_after: timedelta = CONFIRM_AFTER
    audit: SharedAudit | None = None
    relies_on_others: bool = False

    def use(self, listing: TagListing, latest: Mapping[TagName, Digest], wanted: Sequence[TagName]) -> int:
        """Lets ``heads`` do without the tags that are unchanged by the list; returns how many of ``wanted`` those are.

        ``latest`` are the tags of the latest version. Raises what HEADs raise.
        """
        present = [tag for tag in wanted if tag in latest]
        if not present or self.remote.digest_list is DigestList.OFF:
            return 0
        if listing.digest_list is None and not self.client.may_list_digests:
            self._record(None)
            return 0
        now = utc_now()
        known = self.confirmations.last(self.run, problems_since=now - PROBLEM_REMEMBERED)
        if known.problem is not None and known.problem_at is not None:
            if known.is_stale:
                self._end_shared_audit()
            until = known.problem_at + PROBLEM_REMEMBERED
            self.report(
                f"each tag is requested, because {known.problem}; the list of digests is tried again after "
                f"{until:%Y-%m-%d %H:%M} UTC"
            )
            return 0
        if must_confirm(known, now, self.confirm_after):
            self._record(None)
            return 0
        listed = self._list(listing, present)
        if listed is None:
            self._record(None)
            return 0
        return self._use(listed, listing, known, latest, present)

    def _use(
        self,
        listed: TagDigests,
        listing: TagListing,
        known: Confirmation,
        latest: Mapping[TagName, Digest],
        present: Sequence[TagName],
    ) -> int:
        if known.listed_at is not None and listed.as_of <= known.listed_at:
            return self._leave(DigestListUse.FAILED, "the registry's list of digests is older than the last sync")
        unchanged = _unchanged(listed, latest)
        by_list = unchanged.keys() & set(present)
        if not by_list:
            return self._leave_empty(listed)
        sampled = self._sample(by_list)
        moved = self._moved(sampled, unchanged)
        if None in moved.values():
            return self._leave_unconfirmed(moved)
        if moved:  # they may have moved since the list was read
            was_shared = self.relies_on_others
            self._end_shared_audit()
            again = self._list(self.client.list_tags(self.remote.upstream) if listing.digests else listing, present)
            if again is None:
                return self._leave_unconfirmed(moved)
            listed, unchanged = again, _unchanged(again, latest)
            if was_shared:  # from here on as one that is audited by itself
                own = self._sample(unchanged.keys() & set(present) - set(sampled))
                sampled = sampled + own
                moved |= self._moved(own, unchanged)
            if still := {tag: digest for tag, digest in moved.items() if tag in unchanged}:
                return self._leave_unconfirmed(still)
        self.heads.assume(unchanged, listed.as_of)
        count = len(unchanged.keys() & set(present) - set(sampled))
        self._record(DigestListUse.USED, tag_count=count, problem=listed.problem)
        early = f", which ended early: {listed.problem}" if listed.problem else ""
        self.report(
            f"{format_count(count, 'tag')} of {len(present):,} unchanged by the registry's list of digests{early}"
        )
        return count

    def _moved(self, sampled: list[TagName], unchanged: Mapping[TagName, Digest]) -> dict[TagName, Digest | None]:
        """Those of ``sampled`` of which the registry itself has another digest, or none."""
        found = self.heads.request(sampled) if sampled else {}
        return {tag: found[tag] for tag in sampled if tag in found and found[tag] != unchanged[tag]}

    def _leave_unconfirmed(self, moved: Mapping[TagName, Digest | None]) -> int:
        """Of a list that shows ``moved`` as unchanged."""
        self._end_shared_audit()
        if None in moved.values():
            return self._leave(
                DigestListUse.FAILED, "the registry sends no digests that could confirm its list of them"
            )
        return self._leave(
            DigestListUse.STALE,
            f"the registry's list of digests is out of date: tag {min(moved)} has moved and the list does not show it",
        )

    def _end_shared_audit(self) -> None:
        """Has all mirrors of the registry audited by themselves from now on."""
        self.relies_on_others = False
        if self.audit is not None:
            self.audit.of_registry.fail()

    def _list(self, listing: TagListing, present: Sequence[TagName]) -> TagDigests | None:
        """The digests in ``listing``, or those of an API of the registry; None where that takes too many requests."""
        if listing.digest_list is not None:
            return listing.digest_list
        # A page with digests is more work for a registry than a HEAD is.
        most_requests = len(present) // 2 - 1
        if most_requests < 1:
            return None
        names = frozenset(listing.tags)
        return self.client.list_tag_digests(self.remote.upstream, names, most_requests=most_requests)

    def _sample(self, unchanged: Set[TagName]) -> list[TagName]:
        """The tags that are requested although the list shows them as unchanged: half of them ones that have moved."""
        shared = None if self.audit is None else self.audit.draw(self.run.repository_id, unchanged)
        self.relies_on_others = shared is not None
        if shared is not None:
            return shared
        count = sample_size(len(unchanged))
        moving = self.confirmations.moving_tags(self.run.repository_id, count)
        chosen = [tag for tag in moving if tag in unchanged][: math.ceil(count / 2)]
        return chosen + random.sample(sorted(unchanged - set(chosen)), count - len(chosen))

    def _leave_empty(self, listed: TagDigests) -> int:
        """Of a list that shows no tag as unchanged."""
        if listed.problem is None:
            self._record(None)
            return 0
        use = DigestListUse.REFUSED if listed.is_lasting else DigestListUse.FAILED
        return self._leave(use, f"the registry gives no list of digests: {listed.problem}")

    def _leave(self, use: DigestListUse, problem: str) -> int:
        line = f"each tag is requested, because {problem}"
        if use is DigestListUse.STALE:
            warn(self.report, line)
        else:
            self.report(line)
        self._record(use, problem=problem)
        return 0

    def _record(self, use: DigestListUse | None, *, tag_count: int = 0, problem: str | None = None) -> None:
        self.confirmations.record(self.run.id, use, tag_count=tag_count, problem=problem)


def _unchanged(listed: TagDigests, latest: Mapping[TagName, Digest]) -> dict[TagName, Digest]:
    """The tags of the latest version that have the same digest in the list."""
    return {tag: digest for tag, digest in latest.items() if listed.digests.get(tag) == digest}
