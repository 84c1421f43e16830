"""Watched tags of one registry: which have moved since they were last seen, with as few requests as it allows.

One watch serves many tags of many repositories. It keeps to a budget of requests: what a turn cannot look at is looked
at in the next ones, in order. Where a registry lists digests, a list stands in for the requests of the tags that it
shows as unchanged, except once in a while, as a list may be out of date. A tag that it shows elsewhere is requested.

What is known of a repository's tags is a plain mapping, JSON for whoever stores it: name to digest, None for a tag that
does not exist, and empty text for one whose digest is not known yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName, TagFilter, TagName
from registry_sync.errors import NotFound, RegistrySyncError
from registry_sync.sync.parallel import for_each

if TYPE_CHECKING:
    from registry_sync.oci.client import RegistryReader
    from registry_sync.oci.tag_digests import TagDigests

#: Seconds until every tag is requested whatever a list of digests says.
CONFIRM_SECONDS = 3600.0
#: Seconds until a repository that could not be read is tried again, doubled each time up to the second number.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 900.0
#: A list of digests is not worth its request for fewer tags.
FEWEST_LISTED = 4
_THREADS = 8
UNKNOWN = ""

Known = Mapping[str, str | None]


@dataclass(frozen=True)
class Observation:
    """What a turn saw of one repository; tags that are in neither were not looked at.

    ``digests`` has the tags that were found, ``gone`` those that do not exist. ``listed`` are all names of a listing,
    None without one.
    """

    digests: Mapping[TagName, Digest] = field(default_factory=dict)
    gone: frozenset[TagName] = frozenset()
    listed: frozenset[TagName] | None = None


@dataclass(frozen=True)
class WatchedChange:
    """A tag that is not as it was known: ``before`` None for a new one, ``after`` None for one that is gone.

    ``after`` is empty for a new tag of a listing whose digest was not requested.
    """

    name: str
    before: str | None
    after: str | None


def compare(
    known: Known, seen: Observation, tag_filter: TagFilter
) -> tuple[tuple[WatchedChange, ...], dict[str, str | None]]:
    """The changes of the tags that pass ``tag_filter``, by name, and what is known from now on.

    A tag that was never seen is no change unless the repository's names were listed before: it may merely not have
    been looked at yet.
    """
    now, changes = dict(known), []
    for name, digest in seen.digests.items():
        if tag_filter.wants(name):
            before = known.get(name, UNKNOWN)
            if before not in (UNKNOWN, digest):
                changes.append(WatchedChange(str(name), before, str(digest)))
            now[str(name)] = str(digest)
    for name in seen.gone:
        if tag_filter.wants(name):
            if known.get(name):
                changes.append(WatchedChange(str(name), known[name], None))
            now[str(name)] = None
    if seen.listed is not None and tag_filter.literal_tags is None:
        selected = set(tag_filter.select(tuple(seen.listed)))
        for new in selected.difference(known):
            if known:
                changes = [change for change in changes if change.name != new]
                changes.append(WatchedChange(str(new), None, now.get(new) or UNKNOWN))
            now.setdefault(str(new), UNKNOWN)
        for former in known.keys() - selected:
            if known[former] is not None:
                changes.append(WatchedChange(former, known[former] or None, None))
            del now[former]
    return tuple(sorted(changes, key=lambda change: change.name)), now


@dataclass(frozen=True)
class WatchedTags:
    """The tags of a repository that one watcher looks at, and what it knows of them."""

    tag_filter: TagFilter
    known: Known = field(default_factory=dict)


@dataclass
class _Repository:
    """What the watch remembers of a repository between turns; ``queue`` are the tags to request, in order."""

    confirmed_at: float
    queue: deque[TagName] = field(default_factory=deque)
    digests: dict[TagName, Digest] = field(default_factory=dict)
    has_no_list: bool = False
    not_before: float = float("-inf")
    failure_count: int = 0

    def seed(self, watched: Sequence[WatchedTags]) -> None:
        """Takes over what watchers know from before, where nothing was seen since."""
        for each in watched:
            for name, digest in each.known.items():
                if digest:
                    self.digests.setdefault(TagName(name), Digest(digest))


class TagWatch:
    """Looks at watched tags in turns; ``requests_per_turn`` bounds the HEADs of a turn, lists come on top.

    Not safe for several threads. The client waits and retries as it does in a sync, and keeps to the limits of its
    connection.
    """

    def __init__(
        self,
        client: RegistryReader,
        *,
        requests_per_turn: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._budget = requests_per_turn
        self._report = report
        self._clock = clock
        self._repositories: dict[RepositoryName, _Repository] = {}

    def use(self, client: RegistryReader) -> None:
        """Lets the next turns use another client of the same registry."""
        self._client = client

    def turn(self, watched: Mapping[RepositoryName, Sequence[WatchedTags]]) -> dict[RepositoryName, Observation]:
        """Looks at the repositories, each with those who watch it, those that waited longest first.

        One that cannot be read is reported, and left for a while. Raises nothing of the registry's.
        """
        for name in self._repositories.keys() - watched.keys():
            del self._repositories[name]
        for name in watched:
            repository = self._repositories.setdefault(name, _Repository(confirmed_at=self._clock()))
            repository.seed(watched[name])
        left, seen = self._budget, {}
        for name, repository in list(self._repositories.items()):
            if self._clock() < repository.not_before:
                continue
            try:
                filters = [each.tag_filter for each in watched[name]]
                seen[name], used = self._look(name, repository, filters, left)
            except RegistrySyncError as problem:
                self._pause(name, repository, problem)
                continue
            repository.failure_count = 0
            left -= used
            if used:  # behind all others in the next turn
                self._repositories[name] = self._repositories.pop(name)
        return seen

    def _look(
        self, name: RepositoryName, repository: _Repository, filters: Sequence[TagFilter], left: int
    ) -> tuple[Observation, int]:
        """What is seen of one repository, and the number of HEADs; ``left`` are allowed."""
        names, listed, digest_list = self._names(name, filters)
        for other in repository.digests.keys() - names.keys():
            del repository.digests[other]
        if digest_list is None:
            digest_list = self._list(name, repository, names)
        shown = {} if digest_list is None else {t: d for t, d in digest_list.digests.items() if t in names}
        unchanged = {
            tag: digest for tag, digest in shown.items() if repository.digests.setdefault(tag, digest) == digest
        }
        self._fill_queue(repository, names, unchanged)
        batch = list(dict.fromkeys([*(shown.keys() - unchanged.keys()), *repository.queue]))[: max(0, left)]
        digests, gone = self._request(name, batch)
        repository.queue = deque(tag for tag in repository.queue if tag not in set(batch))
        repository.digests |= digests
        for tag in gone:
            repository.digests.pop(tag, None)
        found = {tag: digest for tag, digest in unchanged.items() if tag not in gone}
        return Observation({**found, **digests}, frozenset(gone), listed), len(batch)

    def _fill_queue(
        self, repository: _Repository, names: Mapping[TagName, None], unchanged: Mapping[TagName, Digest]
    ) -> None:
        """Once each tag had its turn: those that no list shows as unchanged; all of them when that is due."""
        repository.queue = deque(tag for tag in repository.queue if tag in names)
        if repository.queue:
            return
        if self._clock() - repository.confirmed_at >= CONFIRM_SECONDS:
            repository.confirmed_at, unchanged = self._clock(), {}
        repository.queue.extend(tag for tag in names if tag not in unchanged)

    def _names(
        self, name: RepositoryName, filters: Sequence[TagFilter]
    ) -> tuple[dict[TagName, None], frozenset[TagName] | None, TagDigests | None]:
        """The watched names, all listed ones, and the digests beside these; None for both where nothing is listed."""
        literal = [tag_filter.literal_tags for tag_filter in filters]
        if None not in literal:
            return dict.fromkeys(tag for tags in literal for tag in tags or ()), None, None
        listing = self._client.list_tags(name)
        wanted = dict.fromkeys(tag for tag in listing.tags if any(each.wants(tag) for each in filters))
        exact = (tag for each in filters for tag in each.literal_tags or ())
        return wanted | dict.fromkeys(exact), frozenset(listing.tags), listing.digest_list

    def _list(self, name: RepositoryName, repository: _Repository, names: Mapping[TagName, None]) -> TagDigests | None:
        """The digests by an API of the registry; None where it has none, or the list costs more than it saves."""
        if repository.has_no_list or len(names) < FEWEST_LISTED:
            return None
        found = self._client.list_tag_digests(name, frozenset(names), most_requests=len(names) // 2 - 1)
        if found is None or found.is_lasting:
            repository.has_no_list = True
            return None
        return found

    def _request(self, name: RepositoryName, batch: list[TagName]) -> tuple[dict[TagName, Digest], set[TagName]]:
        """One HEAD for each; raises the first error that is not of one tag alone."""
        digests: dict[TagName, Digest] = {}
        gone: set[TagName] = set()

        def done(tag: TagName, digest: Digest | None) -> None:
            if digest is not None:
                digests[tag] = digest

        def failed(tag: TagName, error: RegistrySyncError) -> None:
            if isinstance(error, NotFound) and error.kind == "manifest":
                gone.add(tag)
            else:
                raise error

        # A wrong password is sent once, not by every thread.
        for part in (batch[:1], batch[1:]):
            for_each(
                lambda tag: self._client.head_manifest(name, tag).digest,
                part,
                threads=_THREADS,
                done=done,
                failed=failed,
            )
        return digests, gone

    def _pause(self, name: RepositoryName, repository: _Repository, problem: RegistrySyncError) -> None:
        wait = min(FIRST_PAUSE_SECONDS * 2**repository.failure_count, LONGEST_PAUSE_SECONDS)
        wait = max(wait, getattr(problem, "retry_after_seconds", None) or 0)
        repository.failure_count += 1
        repository.not_before = self._clock() + wait
        self._report(f"tags of {name} are looked at again in {wait:.0f} s: {type(problem).__name__}: {problem}")
