"""Random histories of versions: their steps, and who plays them on a database and on a plain model at once."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from sqlalchemy import select

from registry_sync.blobs.store import BlobStore
from registry_sync.db.content.closures import is_in_version
from registry_sync.db.database import Database
from registry_sync.db.tables import manifests, repository_links
from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import (
    PageRequest,
    Repository,
    RepositorySpec,
    RepositoryVersion,
    SyncMode,
    VersionOrigin,
    VersionOriginKind,
)
from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CommitResult, LinkKind, ListedTag, ManifestLink
from registry_sync.domain.version_history import CopyRequest, ManifestCopy
from registry_sync.errors import NothingSynced, OnlyVersion, RecordNotFound
from registry_sync.sync.maintenance.collect import collect_orphans
from support.history_model import SYNC, Content, History, blobs_of, copied, followed, reached, synced, with_manifest
from support.metadata import layer, new_key

NAMES = ("a", "b", "c", "d", "e")
EVERYTHING = PageRequest(limit=10_000)
_days = itertools.count(1)


@dataclass(frozen=True)
class Choice:
    """What is taken along: which entries of indexes, and whether referrers are; one entry may not be there."""

    number: int

    @property
    def spec(self) -> RemoteSpec:
        """A remote that chooses so; the words do not matter here, only that they differ."""
        platforms = None if self.number == 0 else (f"linux/choice{self.number}",)
        url, name = "https://registry.example", "library/app"
        return RemoteSpec.parse("upstream", url, name, platforms=platforms, max_removed_share=None)

    def follow(self, manifest: Manifest, catalog: dict[Digest, Manifest]) -> list[ManifestLink]:
        entries = [child.digest for child in manifest.children]
        if self.number == 1:
            entries = entries[::2]
        links = [ManifestLink(manifest.digest, child) for child in dict.fromkeys(entries)]
        if self.number == 2 and links:
            links[-1] = replace(links[-1], is_missing=True)
        if self.number != 1:
            referring = (other for other in catalog.values() if other.refers_to(manifest.digest))
            links += [ManifestLink(manifest.digest, other.digest, LinkKind.REFERRER) for other in referring]
        return links


@dataclass(frozen=True)
class Catalog:
    """Manifests that upstreams may have: ``roots`` are what tags may stand for."""

    seed: int
    roots: tuple[Digest, ...]
    manifests: dict[Digest, Manifest]


@dataclass(frozen=True)
class Sync:
    """The tags that upstream has, and what goes wrong."""

    repository: int
    tags: dict[str, int | None]
    mode: SyncMode
    choice: Choice
    held: frozenset[str]
    gone: frozenset[str]
    failing_layer: int | None


@dataclass(frozen=True)
class Rollback:
    repository: int
    place: int


@dataclass(frozen=True)
class Copy:
    source: int
    place: int
    include: tuple[str, ...] | None
    mode: SyncMode


@dataclass(frozen=True)
class ManifestCopying:
    """The manifest at a place of a version is copied to the other repository, with what is below it."""

    source: int
    place: int
    manifest: int


@dataclass(frozen=True)
class Tagging:
    """A tag is set to the manifest at that place of the latest version, or removed for None."""

    repository: int
    name: str
    manifest: int | None


@dataclass(frozen=True)
class Deletion:
    repository: int
    place: int


@dataclass(frozen=True)
class Retention:
    repository: int
    count: int | None


@dataclass(frozen=True)
class Collect:
    """Removes what no version needs, as if days had passed."""


which = st.integers(0, 1)


place = st.integers(0, 5)


syncs = st.builds(
    Sync,
    repository=st.sampled_from((0, 0, 1)),
    tags=st.fixed_dictionaries({name: st.one_of(st.none(), st.integers(0, 10), st.integers(0, 10)) for name in NAMES}),
    mode=st.sampled_from((SyncMode.MIRROR, SyncMode.MIRROR, SyncMode.ADDITIVE)),
    choice=st.builds(Choice, st.sampled_from((0, 0, 0, 1, 2))),
    held=st.frozensets(st.sampled_from(NAMES), max_size=1),
    gone=st.frozensets(st.sampled_from(NAMES), max_size=1),
    failing_layer=st.one_of(st.none(), st.none(), st.integers(0, 5)),
)


copies = st.builds(
    Copy,
    source=which,
    place=place,
    include=st.sampled_from((None, ("a",), ("[abc]",), ("a", "[cd]"), ("?",))),
    mode=st.sampled_from((SyncMode.ADDITIVE, SyncMode.MIRROR)),
)


steps = st.one_of(
    syncs,
    syncs,
    st.builds(Rollback, which, place),
    copies,
    st.builds(ManifestCopying, which, place, st.integers(0, 10)),
    st.builds(Tagging, which, st.sampled_from(NAMES), st.one_of(st.none(), st.integers(0, 10), st.integers(0, 10))),
    st.builds(Deletion, which, place),
    st.builds(Retention, which, st.sampled_from((None, 2, 3))),
    st.builds(Collect),
)


#: Something to go back to, first of all.
histories = st.tuples(st.lists(syncs, min_size=4, max_size=4), st.lists(steps, min_size=6, max_size=6)).map(
    lambda parts: [*parts[0], *parts[1]]
)


@dataclass
class Player:
    """Plays the same step in the database and in the model."""

    database: Database
    store: BlobStore
    catalog: Catalog
    repositories: tuple[Repository, Repository]
    histories: tuple[History, History] = field(default_factory=lambda: (History(), History()))
    stored: set[Digest] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    def play(self, step: Any) -> None:
        plays: dict[type, Callable[[Any], None]] = {
            Sync: self.sync,
            Rollback: self.roll_back,
            Copy: self.copy,
            ManifestCopying: self.copy_manifest,
            Tagging: self.set_tag,
            Deletion: self.delete,
            Retention: self.retain,
            Collect: self.collect,
        }
        plays[type(step)](step)

    def number(self, repository: int, place: int) -> int | None:
        """The number of one of the versions that exist."""
        numbers = self.histories[repository].numbers
        return numbers[place % len(numbers)] if numbers else None

    def sync(self, step: Sync) -> None:
        repository, history, known = self.repositories[step.repository], self.histories[step.repository], self.catalog
        wanted = {name: known.roots[number] for name, number in step.tags.items() if number is not None}
        held = {name for name in wanted if name in step.held}
        gone = {name for name in wanted if name in step.gone and name not in held}
        latest, unread = history.latest, self.unread(step, repository, wanted)
        kept = {name: digest for name, digest in wanted.items() if name in unread - held - gone}
        read = {name: digest for name, digest in wanted.items() if name not in held | gone and name not in kept}
        failing = set()
        if step.failing_layer is not None:
            failing = {layer(f"layer {step.failing_layer} of {known.seed}").digest} - self.stored
        links = followed(read.values(), known.manifests, lambda manifest: step.choice.follow(manifest, known.manifests))
        ends = {(link.parent, link.child): link.is_missing for link in links}
        needed = blobs_of(reached(read.values(), ends), known.manifests, with_foreign=False)
        needed |= blobs_of(reached(kept.values(), latest.link_map), known.manifests, with_foreign=False)
        self.stored |= needed - failing
        for name, digest in list(read.items()):
            if not blobs_of(reached([digest], ends), known.manifests, with_foreign=False) <= self.stored:
                held.add(name)
                del read[name]
        kept |= {name: digest for name, digest in latest.digest_of.items() if name in held}
        expected = synced(latest, read, kept, links, step.mode, known.manifests)
        if step.mode is SyncMode.MIRROR and not held:
            self.assert_is_whole(step, expected, {name: digest for name, digest in wanted.items() if name not in gone})
        number = history.add(expected, SYNC)
        try:
            result = self._sync(step, repository, wanted, gone, links, failing)
        except NothingSynced:
            assert held or not latest.tags, "nothing is refused unless a tag is held, or there is nothing at all"
            assert number is None
            return
        assert (result.version.number if result.version else None) == number
        if result.version is not None:
            assert {hold.tag: hold.digest for hold in result.holds} == {n: latest.digest_of.get(n) for n in held}

    def unread(self, step: Sync, repository: Repository, wanted: dict[str, Digest]) -> set[str]:
        """Tags that need not be read, as a sync decides it."""
        selections = self.database.selections
        selecting_remote = selections.selecting_remote(repository.id, step.mode)
        if selecting_remote is None or selecting_remote.platforms != step.choice.spec.platforms:
            return set()
        latest, held = self.database.versions.tags(repository.id), selections.held_tags(repository.id)
        return {name for name, digest in wanted.items() if latest.get(TagName(name)) == digest and name not in held}

    def assert_is_whole(self, step: Sync, content: Content, tags: dict[str, Digest]) -> None:
        """A mirror that holds nothing back equals what is chosen of the upstream, whatever was before."""
        known = self.catalog.manifests
        links = followed(tags.values(), known, lambda manifest: step.choice.follow(manifest, known))
        ends = {(link.parent, link.child): link.is_missing for link in links}
        assert content == Content.of(tags, reached(tags.values(), ends), ends, known)

    def _sync(
        self,
        step: Sync,
        repository: Repository,
        wanted: dict[str, Digest],
        gone: set[str],
        links: list[ManifestLink],
        failing: set[Digest],
    ) -> CommitResult:
        database, spec = self.database, step.choice.spec
        remote = database.remotes.ensure(spec)
        run = database.runs.begin(
            new_key(), repository_id=repository.id, remote_id=remote.id, remote=spec, mode=step.mode
        )
        unread = self.unread(step, repository, wanted)
        held = {TagName(name) for name in wanted if name in step.held}
        listed = [
            ListedTag(TagName(name), digest, None if name in unread - held - gone else 0)
            for name, digest in sorted(wanted.items())
        ]
        database.runs.record_listing(run.id, utc_now(), listed, base=database.versions.latest_tags(repository.id))
        database.runs.hold_tags(run.id, dict.fromkeys(held, "held by the test"))
        database.runs.drop_tags(run.id, [TagName(name) for name in gone])
        pending = {tag.name: wanted[tag.name] for tag in database.runs.tags_of_shard(run.id, 0)}
        there = {*pending.values(), *(link.child for link in links if not link.is_missing)}
        below = {*there, *(link.parent for link in links)}
        database.contents.add_manifests([self.catalog.manifests[digest] for digest in reversed(self._sorted(below))])
        database.selections.record(run.id, below, links)
        database.runs.resolve_tags(run.id, pending)
        needed = [blob for blob in database.runs.required_blobs(run.id) if not blob.is_foreign and not blob.is_stored]
        database.runs.record_plan(run.id, ((0, blob) for blob in needed))
        database.contents.mark_stored([blob.digest for blob in needed if blob.digest not in failing])
        database.runs.fail_blobs(run.id, dict.fromkeys(failing, "failed by the test"))
        return database.versions.commit(run.id)

    def _sorted(self, digests: set[Digest]) -> list[Digest]:
        """Parents before children: the catalog was made from the bottom up."""
        return [digest for digest in reversed(list(self.catalog.manifests)) if digest in digests]

    def roll_back(self, step: Rollback) -> None:
        repository, history = self.repositories[step.repository], self.histories[step.repository]
        number = self.number(step.repository, step.place)
        if number is None:
            with pytest.raises(RecordNotFound):
                self.database.versions.roll_back(repository.id, 1)
            return
        origin = VersionOrigin(VersionOriginKind.ROLLBACK, repository.id, number, "ada")
        made = history.add(history.content[number], origin)
        derived = self.database.versions.roll_back(repository.id, number, by="ada", description="back")
        self.assert_derived(step.repository, derived.version, made, derived.missing_blob_count)
        if derived.version is not None:
            assert derived.version.description == "back"

    def copy(self, step: Copy) -> None:
        source, target = self.histories[step.source], self.histories[1 - step.source]
        ids = (self.repositories[step.source].id, self.repositories[1 - step.source].id)
        tags = TagFilter.parse(step.include)
        number = self.number(step.source, step.place)
        request = CopyRequest(ids[0], number, tags, step.mode)
        present = source.content[number].digest_of if number else {}
        names = tags.select(TagName(name) for name in present)
        if not names or not set(tags.exact_names) <= set(names):
            with pytest.raises(RecordNotFound):
                self.database.versions.copy(ids[1], request)
            return
        assert number is not None
        content = copied(source.content[number], names, target.latest, step.mode, self.catalog.manifests)
        made = target.add(content, VersionOrigin(VersionOriginKind.COPY, ids[0], number, "ada"))
        derived = self.database.versions.copy(ids[1], request, by="ada")
        self.assert_derived(1 - step.source, derived.version, made, derived.missing_blob_count)
        assert self.database.versions.copy(ids[1], request).version is None, "a repeat makes none"

    def copy_manifest(self, step: ManifestCopying) -> None:
        source, target = self.histories[step.source], self.histories[1 - step.source]
        ids = (self.repositories[step.source].id, self.repositories[1 - step.source].id)
        number = self.number(step.source, step.place)
        present = sorted(source.content[number].manifests) if number else []
        if not present:
            with pytest.raises(RecordNotFound):
                self.database.versions.copy_manifests(ids[1], ManifestCopy(ids[0], number))
            return
        assert number is not None
        digest = present[step.manifest % len(present)]
        request = ManifestCopy(ids[0], number, (digest,))
        content = with_manifest(source.content[number], digest, target.latest, self.catalog.manifests)
        made = target.add(content, VersionOrigin(VersionOriginKind.COPY, ids[0], number, "ada"))
        derived = self.database.versions.copy_manifests(ids[1], request, by="ada")
        self.assert_derived(1 - step.source, derived.version, made, derived.missing_blob_count)
        assert self.database.versions.copy_manifests(ids[1], request).version is None, "a repeat makes none"

    def set_tag(self, step: Tagging) -> None:
        repository, history, name = self.repositories[step.repository], self.histories[step.repository], step.name
        versions, latest = self.database.versions, history.latest
        tags, present = latest.digest_of, sorted(latest.manifests)
        if not present or (step.manifest is None and name not in tags):
            with pytest.raises(RecordNotFound):
                versions.remove_tag(repository.id, TagName(name))
            return
        before = history.numbers[-1]
        if step.manifest is None:
            del tags[name]
            derived = versions.remove_tag(repository.id, TagName(name), by="ada")
        else:
            tags[name] = present[step.manifest % len(present)]
            derived = versions.set_tag(repository.id, TagName(name), tags[name], by="ada")
        origin = VersionOrigin(VersionOriginKind.TAG, repository.id, before, "ada")
        made = history.add(replace(latest, tags=frozenset(tags.items())), origin)
        self.assert_derived(step.repository, derived.version, made, derived.missing_blob_count)

    def delete(self, step: Deletion) -> None:
        repository, history = self.repositories[step.repository], self.histories[step.repository]
        number = self.number(step.repository, step.place)
        if number is None or len(history.numbers) == 1:
            with pytest.raises(RecordNotFound if number is None else OnlyVersion):
                self.database.versions.delete(repository.id, number or 1)
            return
        history.delete(number)
        self.database.versions.delete(repository.id, number)
        with pytest.raises(RecordNotFound):
            self.database.versions.get(repository.id, number)

    def retain(self, step: Retention) -> None:
        repository, history = self.repositories[step.repository], self.histories[step.repository]
        history.keep(step.count)
        self.database.repositories.update(repository.id, RepositorySpec(repository.name, retain_versions=step.count))

    def collect(self, _step: Collect) -> None:
        for _ in range(3):
            clock = partial(operator.add, utc_now(), timedelta(days=next(_days)))
            collect_orphans(self.database, self.store, grace=timedelta(hours=1), report=self.lines.append, clock=clock)
        self.stored = {digest for digest in self.stored if self._is_stored(digest)}

    def _is_stored(self, digest: Digest) -> bool:
        try:
            return self.database.contents.blob(digest).is_stored
        except RecordNotFound:
            return False

    def assert_derived(
        self, repository: int, version: RepositoryVersion | None, number: int | None, missing_count: int
    ) -> None:
        assert (version.number if version else None) == number
        held = self.histories[repository].latest.manifests
        lacking = blobs_of(held, self.catalog.manifests, with_foreign=False) - self.stored
        assert missing_count == len(lacking)


def links_of(database: Database, repository_id: str, number: int) -> frozenset[tuple[Digest, Digest, bool]]:
    statement = (
        select(manifests.c.digest, repository_links.c.child_digest, repository_links.c.child_id)
        .join(manifests, manifests.c.id == repository_links.c.parent_id)
        .where(is_in_version(repository_links, repository_id, number))
    )
    with database.reading() as connection:
        rows = connection.execute(statement).all()
    return frozenset((Digest(row.digest), Digest(row.child_digest), row.child_id is None) for row in rows)


def read(database: Database, repository: Repository, number: int, relation: Relation) -> Content:
    query = UnitQuery(repository.id, number, relation)
    return Content(
        frozenset((unit.name, unit.digest) for unit in database.units.tags(query, EVERYTHING).items),
        frozenset(unit.digest for unit in database.units.manifests(query, EVERYTHING).items),
        frozenset(unit.digest for unit in database.units.blobs(query, EVERYTHING).items),
        links_of(database, repository.id, number) if relation is Relation.PRESENT else frozenset(),
    )
