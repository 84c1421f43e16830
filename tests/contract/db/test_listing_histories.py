"""Random histories of syncs that are under way at once: no tag ever goes back, and nobody is refused without need.

An upstream changes while some syncs list, others wait and others commit; copies, rollbacks and retention happen in
between. Each sync has looked at its upstream at one moment, which only the test knows.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import NothingSynced, VersionConflict
from support.examples import FUZZ
from support.metadata import LISTED_AT, Upstream, image, open_run, play_stages, sync

NAMES = ("a", "b", "c", "d")
KINDS = ("version", "unchanged", "refused", "late and let pass", "found unchanged", "listed again")
Tags = dict[str, int]


@dataclass(frozen=True)
class Move:
    """Upstream has a tag otherwise; None for no more."""

    name: str
    value: int | None


@dataclass(frozen=True)
class Begin:
    """A sync begins to list; ``looks_early`` says whether it has then seen the upstream, or only at the end."""

    include: tuple[str, ...] | None
    mode: SyncMode
    looks_early: bool
    clock_hours: int


@dataclass(frozen=True)
class Record:
    place: int


@dataclass(frozen=True)
class Commit:
    place: int


@dataclass(frozen=True)
class Other:
    """What is no sync: a ``copy``, a ``rollback``, or a ``retention`` of one version."""

    what: str
    place: int


INCLUDES = (None, None, ("a",), ("b", "c"), ("[ab]",))


def random_step(dice: random.Random) -> Any:
    """Mostly syncs, so that several are under way at any moment."""
    kind = dice.choices((Move, Begin, Record, Commit, Other), (3, 4, 4, 3, 2))[0]
    if kind is Move:
        return Move(dice.choice(NAMES), dice.choice((None, 0, 1, 2)))
    if kind is Begin:
        mode = dice.choice((SyncMode.MIRROR, SyncMode.ADDITIVE, SyncMode.ADDITIVE))
        return Begin(dice.choice(INCLUDES), mode, dice.random() < 0.5, dice.randint(-9, 9))
    if kind is Other:
        return Other(dice.choice(("copy", "rollback", "rollback", "rollback", "retention")), dice.randrange(6))
    return kind(dice.randrange(6))


@dataclass
class Under:
    """A sync under way. Times are counted in steps: when it began, looked, and was recorded."""

    run: SyncRun
    step: Begin
    began: int
    seen: Tags = field(default_factory=dict)
    looked: int = 0
    recorded: int | None = None
    unread: frozenset[str] = frozenset()
    compared: Tags = field(default_factory=dict)
    compared_number: int | None = None

    @property
    def is_mirror(self) -> bool:
        return self.step.mode is SyncMode.MIRROR

    def selected(self, names: Any) -> set[str]:
        return {str(name) for name in TagFilter.parse(self.step.include).select([TagName(name) for name in names])}

    def look(self, upstream: Tags, now: int) -> None:
        self.seen, self.looked = {name: upstream[name] for name in self.selected(upstream)}, now

    def wanted(self, latest: Tags) -> Tags:
        """What the repository is to hold then; a tag that was not read and that changed since stays as it is."""
        made = {} if self.is_mirror else dict(latest)
        for name, value in self.seen.items():
            if name not in self.unread or latest.get(name) == value:
                made[name] = value
            elif name in latest:
                made[name] = latest[name]
        return made

    def spoke_otherwise(self, name: str, value: int | None) -> bool:
        """Whether it said that the tag is another, or none."""
        if name in self.seen:
            return self.seen[name] != value
        return self.is_mirror and value is not None


@dataclass
class Player:
    """Plays steps in a repository, and knows what may become of each."""

    database: Database
    repository: Repository
    source: Repository
    outcomes: Counter[str]
    upstream: Tags = field(default_factory=dict)
    latest: Tags = field(default_factory=dict)
    versions: dict[int, Tags] = field(default_factory=dict)
    listing: list[Under] = field(default_factory=list)
    waiting: list[Under] = field(default_factory=list)
    settled: list[Under] = field(default_factory=list)
    rolled_back: int = 0
    now: int = 0

    def play(self, step: Any) -> None:
        self.now += 1
        if isinstance(step, Move):
            self.upstream.pop(step.name, None)
            if step.value is not None:
                self.upstream[step.name] = step.value
        elif isinstance(step, Begin):
            said = {"include_tags": step.include, "max_removed_share": None}
            run = open_run(self.database, self.repository, mode=step.mode, **said)
            self.begin(Under(run, step, self.now))
        elif isinstance(step, Record) and self.listing:
            self.record(self.listing.pop(step.place % len(self.listing)))
        elif isinstance(step, Commit) and self.waiting:
            self.commit(self.waiting.pop(step.place % len(self.waiting)))
        elif isinstance(step, Other):
            self.do_otherwise(step)
        found = {str(name): digest for name, digest in self.database.versions.tags(self.repository.id).items()}
        assert found == {name: image(f"{name}{value}").digest for name, value in self.latest.items()}

    def begin(self, under: Under) -> None:
        under.compared_number = self.database.versions.latest_number(self.repository.id)
        under.compared = dict(self.latest)
        if under.step.looks_early:
            under.look(self.upstream, self.now)
        self.listing.append(under)

    def found_unchanged(self, under: Under) -> bool:
        """What equals the version that it was compared with has ended, or lists again where that is not the latest."""
        if not under.seen or under.wanted(under.compared) != under.compared:
            return False
        number, began = under.compared_number, self.database.runs.get(under.run.id).listing_began
        if self.database.runs.settle_unchanged(under.run.id, LISTED_AT, latest_number=number, listing_began=began):
            assert self.latest == under.compared, "it was compared with what is the latest"
            under.recorded = self.now
            self.settled.append(under)
            self.outcomes["found unchanged"] += 1
            return True
        if self.rolled_back <= under.began:
            under.began = self.now
        self.begin(under)
        self.outcomes["listed again"] += 1
        return True

    def record(self, under: Under) -> None:
        if not under.step.looks_early:
            under.look(self.upstream, self.now)
        if self.found_unchanged(under):
            return
        under.recorded = self.now
        under.unread = frozenset(name for name, value in under.seen.items() if self.latest.get(name) == value)
        content = Upstream()
        for name, value in under.seen.items():
            content.tag(name, image(f"{name}{value}"))
        at = LISTED_AT + timedelta(hours=under.step.clock_hours)
        play_stages(self.database, under.run, content, listed_at=at)
        self.waiting.append(under)

    def commit(self, under: Under) -> None:
        wanted = under.wanted(self.latest)
        names = {*wanted, *self.latest}
        changed = {name for name in names if wanted.get(name) != self.latest.get(name)}
        stale = {name for name in under.unread if self.latest.get(name) != under.seen[name]}
        since = [other for other in self.settled if (other.recorded or 0) > under.began]
        try:
            version = self.database.versions.commit(under.run.id).version
        except VersionConflict:
            assert changed | stale, "who changes nothing is not refused"
            assert self.rolled_back > under.began or since, "who began to list last is not refused"
            others = set().union(*(other.selected(NAMES) for other in since if not other.is_mirror))
            if self.rolled_back < under.began and not any(other.is_mirror for other in since):
                assert others & (changed | stale), "additive syncs of other tags do not hinder each other"
            self.outcomes["refused"] += 1
            return
        except NothingSynced:
            assert stale or not self.latest, "there is nothing at all, or what was found unchanged is gone"
            assert not changed
            return
        for other in self.settled:
            if other.looked > under.looked:
                back = {name for name in changed if other.spoke_otherwise(name, wanted.get(name))}
                assert not back, f"tags went back: {back}"
        assert not changed or self.rolled_back < under.looked, "a rollback was undone"
        assert version is not None or not changed, "what differs is a version; what additive syncs left behind as well"
        self.outcomes["version" if changed else "unchanged"] += 1
        self.outcomes["late and let pass"] += bool(changed and since)
        self.settled.append(under)
        self.latest = wanted
        self.note(version)
        if version is None:
            assert self.database.runs.get(under.run.id).state is RunState.UNCHANGED

    def note(self, version: Any) -> None:
        if version is not None:
            self.versions[version.number] = dict(self.latest)
        kept = {found.number for found in self.database.versions.page(self.repository.id).items}
        self.versions = {number: tags for number, tags in self.versions.items() if number in kept}

    def do_otherwise(self, step: Other) -> None:
        versions = self.database.versions
        if step.what == "copy":
            request = CopyRequest(self.source.id, None, TagFilter.parse([NAMES[step.place % 2]]), SyncMode.ADDITIVE)
            made = versions.copy(self.repository.id, request).version
            self.latest = {**self.latest, NAMES[step.place % 2]: 9}
            self.note(made)
        elif step.what == "rollback" and self.versions:
            number = sorted(self.versions)[step.place % len(self.versions)]
            made = versions.roll_back(self.repository.id, number).version
            self.latest = dict(self.versions[number])
            if made is not None:
                self.rolled_back = self.now
            self.note(made)
        elif step.what == "retention":
            spec = self.database.repositories.get(self.repository.id).spec
            count = None if spec.retain_versions else 1
            self.database.repositories.update(self.repository.id, type(spec)(spec.name, retain_versions=count))
            self.note(None)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
def test_no_tag_goes_back_and_nobody_is_refused_without_need(database: Database, dialect: str) -> None:
    source, content = database.repositories.ensure("source"), Upstream()
    for name in NAMES[:2]:
        content.tag(name, image(f"{name}9"))
    sync(database, source, content)
    outcomes: Counter[str] = Counter()
    for seed in range((15 if dialect == "sqlite" else 12) * max(1, FUZZ)):
        dice = random.Random(seed)
        history = [Move("a", 0), Move("b", 0), *(random_step(dice) for _ in range(40))]
        player = Player(database, database.repositories.ensure(f"app-{seed}"), source, outcomes)
        for step in history:
            player.play(step)
    assert min(outcomes[kind] for kind in KINDS) > 0, outcomes
