"""The walk below manifests: selects content by a remote's options, level by level, and fetches only new manifests.

Below an index are its selected entries, below any manifest its referrers. A tree is complete when everything below its
root was read; it may be a graph, and referrers may even form a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry_sync.domain.content_units import KnownManifest
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, ManifestKind, ManifestLimits
from registry_sync.domain.platforms import Platform, entry_name, is_attestation, names_an_image, select_entries
from registry_sync.domain.references import TagName, looks_like_a_referrer_tag
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import LinkKind, ManifestLink
from registry_sync.errors import ContentError, LimitExceeded, NotFound, RegistrySyncError
from registry_sync.sync.parallel import for_each, requests_at_once
from registry_sync.sync.verdicts import Refusals

if TYPE_CHECKING:
    from registry_sync.db.content.contents import ContentStore
    from registry_sync.db.held_claims import HeldClaims
    from registry_sync.oci.client import RegistryReader


#: How long another sync is waited for that fetches a manifest: it stores a group of them at a time.
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Selection:
    """The content that a remote selects. ``platforms`` None selects every entry of an index.

    See :class:`RemoteSpec` for the other options. Two syncs with equal selections include the same from the same
    content.
    """

    platforms: tuple[Platform, ...] | None
    with_referrers: bool
    allow_sparse: bool

    @classmethod
    def of(cls, remote: RemoteSpec) -> Selection:
        """The selection of a remote."""
        return cls(remote.platforms, remote.include_referrers, remote.allow_sparse)

    def entries(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        """The selected entries of an index, each digest once; empty for other kinds. Raises as ``select_entries``."""
        selected = select_entries(manifest.children, self.platforms, manifest.digest)
        return tuple({entry.digest: entry for entry in selected}.values())

    def excludes(self, manifest: Manifest) -> bool:
        """Whether no image of an index runs on a wanted platform. Raises as :meth:`entries` does."""
        return (
            self.platforms is not None
            and names_an_image(manifest.children)
            and not names_an_image(self.entries(manifest))
        )

    def is_candidate(self, allows: Callable[[TagName], bool], tag: TagName) -> bool:
        """Whether an unselected tag may be a referrer tag; ``allows`` is the tag filter's method."""
        return self.with_referrers and looks_like_a_referrer_tag(tag) and allows(tag)


@dataclass(frozen=True)
class Trees:
    """``new`` are manifests to store, children before parents; ``read`` and ``links`` cover the complete trees.

    ``broken`` are roots whose tree is not complete, with the reason.
    """

    new: list[Manifest]
    read: list[Digest]
    links: list[ManifestLink]
    broken: dict[Digest, RegistrySyncError]


@dataclass
class Walk:
    """One group of roots. ``refuse_fatal`` raises an error that would affect every other request too.

    What is fetched is under ``claims`` until the caller has stored it and releases them. ``on_manifest`` gets each
    manifest that was fetched.
    """

    client: RegistryReader
    contents: ContentStore
    remote: RemoteSpec
    selection: Selection
    limits: ManifestLimits
    refuse_fatal: Callable[[RegistrySyncError], None]
    refusals: Refusals
    claims: HeldClaims
    on_manifest: Callable[[Manifest], None] | None = None
    fetched: dict[Digest, Manifest] = field(default_factory=dict)
    stored: dict[Digest, KnownManifest] = field(default_factory=dict)
    failures: dict[Digest, RegistrySyncError] = field(default_factory=dict)
    entries: dict[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)
    referrers: dict[Digest, tuple[Digest, ...]] = field(default_factory=dict)
    names: dict[Digest, str] = field(default_factory=dict)

    def add(self, manifest: Manifest) -> None:
        """Adds a fetched manifest; its entries are read by the next :meth:`descend`."""
        self.fetched[manifest.digest] = manifest
        self._list_entries(manifest)
        if self.on_manifest is not None:
            self.on_manifest(manifest)

    def has_read(self, digest: Digest) -> bool:
        """Whether the entries and the subject of ``digest`` are known."""
        return digest in self.fetched or digest in self.stored

    def index(self, digest: Digest) -> Manifest | None:
        """The index of that digest, None when it is of another kind or was not read."""
        if digest in self.fetched:
            fetched = self.fetched[digest]
            return fetched if fetched.kind is ManifestKind.INDEX else None
        return self.stored[digest].index if digest in self.stored else None

    def excluded_indexes(self, root: Digest) -> list[Digest]:
        """The indexes at and below ``root``, the lowest first, when the selection leaves no image in any of them.

        Empty when an image remains, when one could not be read, or when there was no image to exclude.
        """
        found: list[Digest] = []
        waiting, seen, has_excluded = [root], {root}, False
        while waiting:
            digest = waiting.pop()
            index = self.index(digest)
            if index is None or digest in self.failures:
                return []
            found.append(digest)
            images = [entry for entry in self.entries.get(digest, ()) if not is_attestation(entry)]
            has_excluded = has_excluded or len(images) < len(
                {e.digest for e in index.children if not is_attestation(e)}
            )
            waiting += [entry.digest for entry in images if entry.digest not in seen]
            seen.update(entry.digest for entry in images)
        return found[::-1] if has_excluded else []

    def refers_to(self, digest: Digest, subject: Digest) -> bool:
        """Whether a manifest that was read names ``subject`` as its subject."""
        if digest in self.fetched:
            return self.fetched[digest].refers_to(subject)
        return digest in self.stored and self.stored[digest].subject == subject

    def descend(self, wanted: Mapping[Digest, Descriptor | None]) -> None:
        """Reads ``wanted``, by digest with the referring descriptor, and all entries below, level by level."""
        level = dict(wanted)
        for _ in range(self.limits.depth + 2):
            self._read(level)
            level = {
                child.digest: child
                for digest in level
                for child in self.entries.get(digest, ())
                if not self.has_read(child.digest) and child.digest not in self.failures
            }
            if not level:
                return
        for digest in level:
            problem = f"indexes are nested deeper than {self.limits.depth}"
            self.failures.setdefault(digest, LimitExceeded(problem, digest=digest, limit="depth"))

    def fail(self, digest: Digest, error: RegistrySyncError) -> None:
        """Records that ``digest``, or something that is required with it, cannot be fetched."""
        error = self.refusals.settled(error, digest)
        self.refuse_fatal(error)
        self.failures[digest] = error

    def _read(self, level: Mapping[Digest, Descriptor | None]) -> None:
        unread = {d: e for d, e in level.items() if not self.has_read(d) and d not in self.failures}
        lacking = self._not_stored(unread)
        if not lacking:
            return
        others = self.claims.take_all(lacking)
        self._fetch({digest: expected for digest, expected in lacking.items() if digest not in others})
        if others:
            self._await_others({digest: expected for digest, expected in lacking.items() if digest in others})

    def _not_stored(self, wanted: Mapping[Digest, Descriptor | None]) -> dict[Digest, Descriptor | None]:
        """Those of ``wanted`` that are not stored; the others are read."""
        known = self.contents.stored_manifests(wanted)
        self.stored.update(known)
        for entry in known.values():
            if entry.index is not None:
                self._list_entries(entry.index)
        return {digest: expected for digest, expected in wanted.items() if digest not in known}

    def _fetch(self, wanted: Mapping[Digest, Descriptor | None]) -> None:
        for_each(
            lambda item: self.client.get_manifest(self.remote.upstream, item[0], expected=item[1]),
            list(wanted.items()),
            threads=requests_at_once(self.client, self.remote),
            done=lambda _item, manifest: self._add_served(manifest),
            failed=lambda item, error: self.fail(item[0], error),
        )

    def _await_others(self, wanted: Mapping[Digest, Descriptor | None]) -> None:
        """Reads manifests that other syncs fetch once they have stored them; fetches those that they did not."""
        self._store_fetched()
        for ready in self.claims.awaited(list(wanted), lambda digest: digest, longest_seconds=_LONGEST_WAIT_SECONDS):
            self._fetch(self._not_stored({digest: wanted[digest] for digest in ready}))
            self._store_fetched()
            self.claims.release(ready)

    def _store_fetched(self) -> None:
        """Stores what was fetched so far, before others are waited for, who may wait for it."""
        self.contents.add_manifests(list(self.fetched.values()))
        self.claims.release([*self.fetched, *self.failures])

    def _add_served(self, manifest: Manifest) -> None:
        self.refusals.record_served(manifest.digest)
        self.add(manifest)

    def _list_entries(self, manifest: Manifest) -> None:
        self.names.update((entry.digest, entry_name(entry)) for entry in manifest.children)
        try:
            self.entries[manifest.digest] = self.selection.entries(manifest)
        except ContentError as error:
            self.failures[manifest.digest] = error

    def fetched_below(self, roots: Iterable[Digest]) -> list[Manifest]:
        """The manifests fetched at and below ``roots``, complete or not, children before parents as far as known."""
        seen: dict[Digest, None] = {}
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest not in seen:
                seen[digest] = None
                waiting += [child.digest for child in self.entries.get(digest, ())]
                waiting += self.referrers.get(digest, ())
        return [self.fetched[digest] for digest in reversed(seen) if digest in self.fetched]

    def trees(self, roots: Iterable[Digest]) -> Trees:
        """The trees below ``roots`` as far as they were read."""
        visit = _Visit(self)
        broken = {digest: problem for digest in roots if (problem := visit.visit(digest)) is not None}
        complete = [digest for digest, problem in visit.verdicts.items() if problem is None]
        # In a cycle, a link may have been recorded before its target turned out to be broken.
        links = [
            link
            for digest in complete
            for link in visit.links[digest]
            if link.is_missing or visit.verdicts[link.child] is None
        ]
        return Trees(visit.new, complete, links, broken)


def is_missing_upstream(error: RegistrySyncError | None) -> bool:
    """Whether a registry reports that a manifest does not exist, not that access is denied or fails temporarily."""
    return isinstance(error, NotFound) and error.kind != "repository"


@dataclass
class _Visit:
    """A depth-first traversal of the manifests that were read; ``verdicts`` None means complete."""

    walk: Walk
    verdicts: dict[Digest, RegistrySyncError | None] = field(default_factory=dict)
    links: dict[Digest, list[ManifestLink]] = field(default_factory=dict)
    new: list[Manifest] = field(default_factory=list)
    _sizes: dict[Digest, int] = field(default_factory=dict)
    _above: set[Digest] = field(default_factory=set)

    def visit(self, digest: Digest) -> RegistrySyncError | None:
        """The error of ``digest`` or of a manifest below it; None when there is none, or while it is being visited."""
        if digest in self.verdicts or digest in self._above:
            return self.verdicts.get(digest)
        self._above.add(digest)
        self.verdicts[digest] = self._look(digest)
        self._above.remove(digest)
        if self.verdicts[digest] is None and digest in self.walk.fetched:
            self.new.append(self.walk.fetched[digest])
        return self.verdicts[digest]

    def _named(self, problem: RegistrySyncError, digest: Digest, of: str, parent: Digest) -> RegistrySyncError:
        """``problem`` of ``digest`` with its role in the parent; errors from deeper levels already say it."""
        name = self.walk.names.get(digest)
        if digest not in self.walk.failures or name is None:
            return problem
        return problem.with_message(f"{name} {of} {parent[:19]}: {problem.message}")

    def _look(self, digest: Digest) -> RegistrySyncError | None:
        walk = self.walk
        if digest in walk.failures:
            return walk.failures[digest]
        if not walk.has_read(digest):
            return NotFound(f"manifest {digest} was not found")
        links: list[ManifestLink] = []
        problems: list[RegistrySyncError] = []
        for child in walk.entries.get(digest, ()):
            problem = self.visit(child.digest)
            is_gap = walk.selection.allow_sparse and is_missing_upstream(walk.failures.get(child.digest))
            links.append(ManifestLink(digest, child.digest, LinkKind.CHILD, is_missing=is_gap))
            if problem is not None and not is_gap:
                problems.append(self._named(problem, child.digest, "of index", digest))
        for referrer in walk.referrers.get(digest, ()):
            problem = self.visit(referrer)
            links.append(ManifestLink(digest, referrer, LinkKind.REFERRER))
            if problem is not None:
                problems.append(self._named(problem, referrer, "of manifest", digest))
        self.links[digest] = list({link.child: link for link in reversed(links)}.values())
        self._sizes[digest] = 1 + sum(self._sizes.get(link.child, 1) for link in self.links[digest])
        limit = walk.limits.manifests_per_reference
        if not problems and self._sizes[digest] > limit:
            text = f"manifest {digest} leads to more than {limit:,} manifests"
            problems.append(LimitExceeded(text, digest=digest, limit="manifests_per_reference"))
        return problems[0] if problems else None
