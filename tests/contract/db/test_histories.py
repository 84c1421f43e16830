"""Random histories of an upstream, committed and compared with a plain model in memory, version by version."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Manifest
from registry_sync.domain.pages import PageRequest
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.units import Relation, UnitQuery
from registry_sync.errors import NothingSynced
from support.metadata import Upstream, image, index, layer, sync

NAMES = ("a", "b", "c", "d", "e")
EVERYTHING = PageRequest(limit=10_000)


def make_catalog(seed: int) -> list[tuple[Manifest, ...]]:
    """Roots with what is below each: images that share layers, indexes that share images, indexes of indexes."""
    dice = random.Random(seed)
    layers = [layer(f"layer {number} of {seed}", is_foreign=number == 0) for number in range(6)]
    images = [
        image(*dice.sample(layers, dice.randint(0, 3)), config=dice.choice((None, "{}")), note=f"{seed} {number}")
        for number in range(6)
    ]
    indexes: list[Manifest] = []
    for number in range(5):
        children = dice.sample([*images, *indexes], dice.randint(0, 3))
        indexes.append(index(*children, note=f"{seed} {number}"))
    return [(entry, *images, *indexes) for entry in (*images, *indexes)]


@dataclass(frozen=True)
class Step:
    """One sync: the tags that upstream has, and what goes wrong."""

    tags: dict[str, int]
    mode: SyncMode
    held: frozenset[str]
    gone: frozenset[str]
    failing_layer: int | None


steps = st.builds(
    Step,
    tags=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10), max_size=len(NAMES)),
    mode=st.sampled_from((SyncMode.MIRROR, SyncMode.MIRROR, SyncMode.ADDITIVE)),
    held=st.frozensets(st.sampled_from(NAMES), max_size=1),
    gone=st.frozensets(st.sampled_from(NAMES), max_size=1),
    failing_layer=st.one_of(st.none(), st.none(), st.integers(0, 5)),
)

Contents = tuple[set[tuple[str, Digest]], set[Digest], set[Digest]]


@dataclass
class Model:
    """What the versions ought to hold, in the plainest way."""

    catalog: dict[Digest, Manifest]
    stored: set[Digest] = field(default_factory=set)
    versions: list[Contents] = field(default_factory=lambda: [(set(), set(), set())])

    def below(self, roots: Iterable[Digest]) -> set[Digest]:
        found: set[Digest] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting += [child.digest for child in self.catalog[digest].children]
        return found

    def blobs(self, manifests: Iterable[Digest], *, foreign: bool = True) -> set[Digest]:
        named = (blob for digest in manifests for _, blob in self.catalog[digest].blobs())
        return {blob.digest for blob in named if foreign or not blob.is_foreign}

    def commit(self, wanted: dict[str, Digest], step: Step, failing: set[Digest]) -> dict[str, Digest | None]:
        """Adds the version that the step ought to make, if any, and gives the holds that it ought to have."""
        tags, manifests, blobs = self.versions[-1]
        present = dict(tags)
        held = {name for name in wanted if name in step.held}
        listed = {name: digest for name, digest in wanted.items() if name not in step.gone or name in held}
        changed = {name: digest for name, digest in listed.items() if present.get(name) != digest and name not in held}
        needed = self.blobs(self.below(changed.values()), foreign=False)
        kept = {name: digest for name, digest in listed.items() if name not in held and name not in changed}
        needed |= self.blobs(self.below(kept.values()), foreign=False)
        self.stored |= needed - failing
        for name, digest in changed.items():
            if not self.blobs(self.below([digest]), foreign=False) <= self.stored:
                held.add(name)
        after = {name: digest for name, digest in listed.items() if name not in held}
        after |= {name: digest for name, digest in present.items() if name in held}
        if step.mode is SyncMode.ADDITIVE:
            after = present | after
        new_manifests = self.below(after.values())
        new_blobs = self.blobs(new_manifests)
        if step.mode is SyncMode.ADDITIVE:
            new_manifests, new_blobs = new_manifests | manifests, new_blobs | blobs
        version: Contents = (set(after.items()), new_manifests, new_blobs)
        if version != self.versions[-1]:
            self.versions.append(version)
        return {name: present.get(name) for name in held}


def read(database: Database, repository: Repository, number: int, relation: Relation) -> Contents:
    query = UnitQuery(repository.id, number, relation)
    return (
        {(unit.name, unit.digest) for unit in database.units.tags(query, EVERYTHING).items},
        {unit.digest for unit in database.units.manifests(query, EVERYTHING).items},
        {unit.digest for unit in database.units.blobs(query, EVERYTHING).items},
    )


def assert_versions(database: Database, repository: Repository, model: Model) -> None:
    """Every version holds, added, removed and counts what the model says."""
    page = database.versions.page(repository.id, PageRequest(ordering="number"))
    assert [version.number for version in page.items] == list(range(1, len(model.versions)))
    for version in page.items:
        before, now = model.versions[version.number - 1], model.versions[version.number]
        expected = {
            Relation.PRESENT: now,
            Relation.ADDED: tuple(new - old for old, new in zip(before, now, strict=True)),
            Relation.REMOVED: tuple(old - new for old, new in zip(before, now, strict=True)),
        }
        counts = version.summary.counts()
        for relation, units in expected.items():
            assert read(database, repository, version.number, relation) == units
            sizes = dict(zip(("docker.tag", "docker.manifest", "docker.blob"), map(len, units), strict=True))
            assert counts[relation.value] == {kind: size for kind, size in sizes.items() if size}
        assert database.versions.tags(repository.id, version.number) == {TagName(n): d for n, d in now[0]}


def play(database: Database, repository: Repository, seed: int, history: list[Step]) -> None:
    roots = make_catalog(seed)
    model = Model({manifest.digest: manifest for below in roots for manifest in below})
    for step in history:
        upstream = Upstream()
        for name, number in step.tags.items():
            upstream.tag(name, *roots[number])
        failing = set() if step.failing_layer is None else {layer(f"layer {step.failing_layer} of {seed}").digest}
        failing -= model.stored
        held = {name: "held by the test" for name in step.held if name in step.tags}
        gone = [name for name in step.gone if name in step.tags and name not in held]
        before = len(model.versions)
        expected = model.commit({n: m.digest for n, m in upstream.tags.items()}, step, failing)
        made_version = len(model.versions) > before
        reasons = dict.fromkeys(failing, "failed by the test")
        try:
            result = sync(database, repository, upstream, mode=step.mode, held=held, gone=gone, failing=reasons)
        except NothingSynced:
            assert expected, "nothing is refused unless a tag is held"
            assert not made_version
            continue
        assert (result.version is not None) == made_version
        if made_version:
            assert {hold.tag: hold.digest for hold in result.holds} == expected
    assert_versions(database, repository, model)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
def test_versions_equal_a_plain_model_whatever_the_history(database: Database, dialect: str) -> None:
    numbers = iter(range(10_000))

    @settings(
        max_examples=60 if dialect == "sqlite" else 25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(history=st.lists(steps, min_size=1, max_size=7))
    def check(history: list[Step]) -> None:
        number = next(numbers)
        play(database, database.repositories.ensure(f"repository-{number}"), number, history)

    check()
