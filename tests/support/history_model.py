"""What versions of repositories ought to hold, in the plainest way: sets in memory, and no intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Manifest
from registry_sync.domain.records import SyncMode, VersionOrigin, VersionOriginKind
from registry_sync.domain.runs import ManifestLink

#: What is included: from parent to child, whether the child is missing.
Links = Mapping[tuple[Digest, Digest], bool]
Catalog = Mapping[Digest, Manifest]


@dataclass(frozen=True)
class Content:
    """What one version holds."""

    tags: frozenset[tuple[str, Digest]] = frozenset()
    manifests: frozenset[Digest] = frozenset()
    blobs: frozenset[Digest] = frozenset()
    links: frozenset[tuple[Digest, Digest, bool]] = frozenset()

    @classmethod
    def of(cls, tags: Mapping[str, Digest], manifests: Iterable[Digest], links: Links, catalog: Catalog) -> Content:
        """Content of these manifests, with their blobs and those of the links that start at one of them."""
        held = frozenset(manifests)
        return cls(
            tags=frozenset(tags.items()),
            manifests=held,
            blobs=frozenset(blobs_of(held, catalog)),
            links=frozenset((*ends, missing) for ends, missing in links.items() if ends[0] in held),
        )

    @property
    def digest_of(self) -> dict[str, Digest]:
        """Tags by name."""
        return dict(self.tags)

    @property
    def link_map(self) -> dict[tuple[Digest, Digest], bool]:
        """Links by their ends."""
        return {(parent, child): missing for parent, child, missing in self.links}

    def assert_whole(self) -> None:
        """Checks that everything that is included exists, and starts at an existing manifest."""
        assert {digest for _, digest in self.tags} <= self.manifests
        for parent, child, missing in self.links:
            assert parent in self.manifests
            assert missing or child in self.manifests


def blobs_of(manifests: Iterable[Digest], catalog: Catalog, *, with_foreign: bool = True) -> set[Digest]:
    """Blobs that these manifests name."""
    named = (blob for digest in manifests for _, blob in catalog[digest].blobs())
    return {blob.digest for blob in named if with_foreign or not blob.is_foreign}


def reached(roots: Iterable[Digest], links: Links) -> set[Digest]:
    """``roots`` and everything that links lead to."""
    below: dict[Digest, list[Digest]] = {}
    for (parent, child), missing in links.items():
        if not missing:
            below.setdefault(parent, []).append(child)
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            waiting += below.get(digest, [])
    return found


def followed(
    roots: Iterable[Digest], catalog: Catalog, follow: Callable[[Manifest], list[ManifestLink]]
) -> list[ManifestLink]:
    """Every link on the way down from ``roots``, as a run notes them."""
    links: list[ManifestLink] = []
    seen: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in seen:
            seen.add(digest)
            found = follow(catalog[digest])
            links += found
            waiting += [link.child for link in found if not link.is_missing]
    return links


@dataclass
class History:
    """The versions of one repository: ``content`` by number, and the content that each is compared with."""

    content: dict[int, Content] = field(default_factory=dict)
    compared_with: dict[int, Content] = field(default_factory=dict)
    base_number: dict[int, int | None] = field(default_factory=dict)
    origin: dict[int, VersionOrigin] = field(default_factory=dict)
    last_number: int = 0
    retain: int | None = None

    @property
    def numbers(self) -> list[int]:
        """Those of the versions that exist."""
        return sorted(self.content)

    @property
    def latest(self) -> Content:
        """What the latest version holds."""
        return self.content[self.numbers[-1]] if self.content else Content()

    def add(self, content: Content, origin: VersionOrigin) -> int | None:
        """The number of the version that ``content`` makes, None when the latest is so already."""
        content.assert_whole()
        if content == self.latest:
            return None
        base = self.numbers[-1] if self.content else None
        self.last_number += 1
        self.content[self.last_number] = content
        self.base_number[self.last_number] = base
        self.compared_with[self.last_number] = self.content[base] if base else Content()
        self.origin[self.last_number] = origin
        self._retain()
        return self.last_number

    def keep(self, retain: int | None) -> None:
        self.retain = retain
        self._retain()

    def delete(self, number: int) -> None:
        numbers = self.numbers
        place = numbers.index(number)
        before = numbers[place - 1] if place else None
        if place + 1 < len(numbers):
            after = numbers[place + 1]
            self.base_number[after] = before
            if before is not None:
                self.compared_with[after] = self.content[before]
        self._forget(number)

    def _retain(self) -> None:
        if self.retain is not None:
            for number in self.numbers[: -self.retain]:
                self.delete(number)

    def _forget(self, number: int) -> None:
        for known in (self.content, self.compared_with, self.base_number, self.origin):
            del known[number]


def synced(
    latest: Content,
    read: Mapping[str, Digest],
    kept: Mapping[str, Digest],
    run_links: Iterable[ManifestLink],
    mode: SyncMode,
    catalog: Catalog,
) -> Content:
    """What a sync makes of ``latest``: ``read`` tags with ``run_links`` below them, and ``kept`` ones as they are."""
    noted = {(link.parent, link.child): link.is_missing for link in run_links}
    taken = reached(read.values(), noted)
    new = {ends: missing for ends, missing in noted.items() if ends[0] in taken}
    tags = {**kept, **read}
    if mode is SyncMode.MIRROR:
        links = {ends: missing for ends, missing in latest.link_map.items() if ends[0] not in taken} | new
        return Content.of(tags, reached(tags.values(), links), links, catalog)
    links = _with_gaps_filled(latest.link_map, new)
    tags = latest.digest_of | tags
    return Content.of(tags, latest.manifests | reached(tags.values(), links), links, catalog)


def copied(source: Content, names: Iterable[str], target: Content, mode: SyncMode, catalog: Catalog) -> Content:
    """What a copy of ``source``'s tags of these names makes of ``target``."""
    tags = {name: digest for name, digest in source.tags if name in set(names)}
    manifests = reached(tags.values(), source.link_map)
    links = {ends: missing for ends, missing in source.link_map.items() if ends[0] in manifests}
    if mode is SyncMode.MIRROR:
        return Content.of(tags, manifests, links, catalog)
    both = _with_gaps_filled(target.link_map, links)
    return Content.of(target.digest_of | tags, target.manifests | manifests, both, catalog)


def with_manifest(source: Content, digest: Digest, target: Content, catalog: Catalog) -> Content:
    """What a copy of one of ``source``'s manifests, with all below it, makes of ``target``."""
    manifests = reached([digest], source.link_map)
    links = {ends: missing for ends, missing in source.link_map.items() if ends[0] in manifests}
    both = _with_gaps_filled(target.link_map, links)
    return Content.of(target.digest_of, target.manifests | manifests, both, catalog)


def _with_gaps_filled(old: Links, new: Links) -> dict[tuple[Digest, Digest], bool]:
    links = dict(old)
    for ends, missing in new.items():
        links[ends] = links.get(ends, True) and missing
    return links


SYNC = VersionOrigin(VersionOriginKind.SYNC)
