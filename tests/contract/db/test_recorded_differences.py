"""A listing recorded as its difference to the latest version leads to what one recorded in full leads to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from registry_sync.db.database import Database
from registry_sync.db.engine import make_engine, read_url
from registry_sync.db.tables import run_tags, sync_runs
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Repository, RepositorySpec, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import ListedTag, RunState, SyncRun
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import RegistrySyncError, TooManyHolds
from support.examples import FUZZ
from support.metadata import LISTED_AT, Upstream, blobs_of, image, index, open_run, play_stages, sync, upstream_with
from support.statements import listening

NAMES = tuple("abcdefgh")


def moved(database: Database, *, tag_count: int) -> tuple[Repository, Upstream, SyncRun]:
    """A repository with a version of so many tags, and a run that found the first of them moved, not committed yet."""
    repository, upstream = database.repositories.ensure("app"), upstream_with(tag_count)
    sync(database, repository, upstream)
    upstream.tag("tag-00", image("moved"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    return repository, upstream, run


def row_count(database: Database, run: SyncRun) -> int:
    """How many tags of a run have a row."""
    with database.reading() as connection:
        statement = select(func.count()).select_from(run_tags).where(run_tags.c.sync_run_id == run.id)
        return connection.execute(statement).scalar_one()


def base_number(database: Database, run: SyncRun) -> int | None:
    """The version that the listing of a run is recorded as a difference to."""
    with database.reading() as connection:
        return connection.execute(select(sync_runs.c.base_number).where(sync_runs.c.id == run.id)).scalar_one()


def test_only_what_differs_is_recorded_and_everything_is_counted(database: Database) -> None:
    repository, upstream = database.repositories.ensure("app"), upstream_with(30)
    sync(database, repository, upstream)
    upstream.tag("tag-00", image("moved"))
    upstream.tag("new", image("new"))
    del upstream.tags["tag-29"]
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    assert row_count(database, run) == 3
    progress = database.runs.progress(run.id)
    assert (progress.tag_count, progress.unchanged_tag_count, progress.resolved_tag_count) == (30, 28, 2)
    version = database.versions.commit(run.id).version
    assert version is not None
    counts = version.summary.counts()
    assert {part: counts[part]["docker.tag"] for part in counts} == {"added": 2, "removed": 2, "present": 30}
    assert database.runs.get(run.id).counts.unchanged_tag_count == 28
    assert database.versions.tags(repository.id) == {name: found.digest for name, found in upstream.tags.items()}


def test_a_difference_larger_than_what_stays_is_recorded_in_full(database: Database) -> None:
    """An additive sync of few of many tags would have a row for each of the others."""
    repository, upstream = database.repositories.ensure("app"), upstream_with(30)
    sync(database, repository, upstream)
    few = Upstream()
    for name in ("tag-00", "tag-01"):
        few.tag(name, upstream.tags[name])
    few.tag("new", image("new"))
    run = open_run(database, repository, mode=SyncMode.ADDITIVE)
    play_stages(database, run, few)
    assert (row_count(database, run), base_number(database, run)) == (3, None)


def test_a_listing_that_was_compared_with_another_version_than_the_latest_is_recorded_in_full(
    database: Database,
) -> None:
    repository, upstream = database.repositories.ensure("app"), upstream_with(5)
    sync(database, repository, upstream)
    compared = database.versions.latest_tags(repository.id)
    upstream.tag("other", image("other"))
    run = open_run(database, repository)
    sync(database, repository, upstream)
    listed = [ListedTag(name, digest) for name, digest in compared.digests.items()]
    database.runs.record_listing(run.id, LISTED_AT, listed, base=compared)
    assert (row_count(database, run), base_number(database, run)) == (5, None)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("difference", ["moved", "removed"])
def test_a_commit_costs_what_differs_however_many_tags_do_not(database: Database, difference: str) -> None:
    def steps(tag_count: int) -> int:
        """Tens of instructions of SQLite's machine for the commit of one tag that differs among so many."""
        repository, upstream = database.repositories.ensure(f"of-{tag_count}"), Upstream()
        for number in range(tag_count):
            one = image(f"layer {number}")
            upstream.tag(f"tag-{number:02}", index(one, note=str(number)), one)
        sync(database, repository, upstream)
        if difference == "moved":
            upstream.tag("tag-00", index(moved := image("moved")), moved)
        else:
            del upstream.tags["tag-00"]
        run = open_run(database, repository, min_tags=2)
        play_stages(database, run, upstream)
        taken: list[int] = []

        def count(_connection: Any, cursor: Any, *_rest: Any) -> None:
            cursor.connection.set_progress_handler(lambda: taken.append(1), 10)

        with listening("before_cursor_execute", count):
            assert database.versions.commit(run.id).version is not None
        with database.reading() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(None, 0)
        return len(taken)

    few, many = steps(20), steps(200)
    assert many < few * 1.1


REMOVALS: dict[str, Callable[[Database, Repository], object]] = {
    "deleted, with a later one": lambda database, repository: database.versions.delete(repository.id, 2),
    "no longer retained": lambda database, repository: database.repositories.update(
        repository.id, RepositorySpec(repository.name, retain_versions=1)
    ),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_was_found_unchanged_outlives_the_version_it_was_compared_with(database: Database, removal: str) -> None:
    """Also a tag that the later version does not have: it is held, for it was not read."""
    repository, upstream = database.repositories.ensure("app"), upstream_with(5)
    sync(database, repository, upstream)
    upstream.tag("tag-00", image("second"))
    sync(database, repository, upstream)
    upstream.tag("tag-00", image("third"))
    run = open_run(database, repository, max_removed_share=None)
    play_stages(database, run, upstream)
    assert base_number(database, run) == 2
    database.versions.remove_tag(repository.id, TagName("tag-04"))
    REMOVALS[removal](database, repository)
    assert (row_count(database, run), base_number(database, run)) == (5, None)
    assert database.runs.progress(run.id).unchanged_tag_count == 4
    result = database.versions.commit(run.id)
    assert [(hold.tag, hold.reason) for hold in result.holds] == [
        ("tag-04", "the repository was changed after the tag was found unchanged")
    ]
    assert set(database.versions.tags(repository.id)) == {"tag-00", "tag-01", "tag-02", "tag-03"}


def test_the_removal_of_the_latest_version_by_the_commit_itself_records_nothing(database: Database) -> None:
    repository, upstream = database.repositories.ensure("app"), upstream_with(5)
    database.repositories.update(repository.id, RepositorySpec("app", retain_versions=1))
    sync(database, repository, upstream)
    upstream.tag("tag-00", image("moved"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    written: list[str] = []
    with listening("before_cursor_execute", lambda _connection, _cursor, statement, *_rest: written.append(statement)):
        result = database.versions.commit(run.id)
    assert result.version is not None
    assert result.version.number == 2
    assert any(statement.startswith("DELETE FROM repository_versions") for statement in written)
    assert [statement for statement in written if statement.startswith("INSERT INTO run_tags")] == []
    assert database.runs.get(run.id).counts.unchanged_tag_count == 4


def test_a_released_sync_holds_also_what_it_had_no_row_of(database: Database) -> None:
    _, _, run = moved(database, tag_count=5)
    database.runs.finish(run.id, RunState.FAILED, error="by the test")
    assert database.orphans.release_runs(utc_now() + timedelta(days=1)) == 1
    assert database.runs.progress(run.id).held_tag_count == 5
    assert database.orphans.release_runs(utc_now() + timedelta(days=1)) == 0


def test_a_sync_that_starts_again_has_no_base_any_more(database: Database) -> None:
    repository, _, run = moved(database, tag_count=5)
    open_run(database, repository, key=run.key)
    assert base_number(database, run) is None
    assert database.runs.progress(run.id).tag_count == 0


def test_a_referrer_tag_that_is_taken_later_has_no_row_twice(database: Database) -> None:
    """A tag that was unchanged stays so; one that the listing did not have is fetched."""
    repository, upstream = database.repositories.ensure("app"), upstream_with(5)
    sync(database, repository, upstream)
    absent = upstream.tags.pop("tag-04")
    upstream.tag("tag-00", image("moved"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    database.selections.take(run.id, [TagName("tag-01"), TagName("tag-04"), TagName("tag-05")], 1)
    assert [tag.name for tag in database.runs.tags_of_shard(run.id, 1)] == ["tag-04", "tag-05"]
    progress = database.runs.progress(run.id)
    assert (progress.tag_count, progress.unchanged_tag_count, progress.pending_tag_count) == (6, 3, 2)
    database.runs.resolve_tags(run.id, {TagName("tag-04"): absent.digest})
    database.runs.drop_tags(run.id, [TagName("tag-05")])
    assert database.versions.commit(run.id).version is not None
    assert set(database.versions.tags(repository.id)) == {f"tag-0{number}" for number in range(5)}


@pytest.mark.parametrize("in_full", [True, False])
def test_tags_that_the_listing_did_not_have_are_not_counted_among_its_own_when_they_are_held(
    database: Database, in_full: bool
) -> None:
    """Four tags that an additive sync keeps have lost their bytes: of its own seven that is more than half."""
    repository, upstream = database.repositories.ensure("app"), upstream_with(10)
    sync(database, repository, upstream)
    lost = blobs_of(*(upstream.tags.pop(f"tag-0{number}") for number in range(4)))
    database.contents.mark_lost(lost, FindingKind.MISSING, utc_now())
    upstream.tag("new", image("new"))
    run = open_run(database, repository, mode=SyncMode.ADDITIVE, max_held_share=0.5)
    play_stages(database, run, upstream, in_full=in_full, failing=dict.fromkeys(lost, "gone"))
    with pytest.raises(TooManyHolds, match="4 of 7 tags would be held"):
        database.versions.commit(run.id)


def test_digests_for_a_request_that_tests_access_are_those_of_unchanged_tags_first(database: Database) -> None:
    _, upstream, run = moved(database, tag_count=3)
    order = ("tag-01", "tag-02", "tag-00")
    assert database.runs.listed_digests(run.id) == [upstream.tags[name].digest for name in order]


def test_a_downgrade_records_what_was_found_unchanged(url: str) -> None:
    """An earlier release would remove from a mirror whatever has no row."""
    with Database.connect(url) as database:
        repository, upstream = database.repositories.ensure("app"), upstream_with(5)
        sync(database, repository, upstream)
        upstream.tag("tag-00", image("moved"))
        del upstream.tags["tag-01"]
        run = open_run(database, repository)
        play_stages(database, run, upstream)
        database.downgrade("0017")
    engine = make_engine(read_url(url))
    with engine.connect() as connection:
        found = connection.execute(select(run_tags.c.name, run_tags.c.state).order_by(run_tags.c.name)).all()
    engine.dispose()
    assert [tuple(row) for row in found] == [
        ("tag-00", "resolved"),
        *((f"tag-0{number}", "unchanged") for number in (2, 3, 4)),
    ]


@dataclass
class Twins:
    """Two repositories that the same happens to: of one the listings are recorded in full, of the other as differences.

    Steps that are refused are refused of both, with the same words.
    """

    database: Database
    dice: random.Random
    repositories: tuple[Repository, Repository]
    upstream: Upstream = field(default_factory=Upstream)
    under_way: list[tuple[SyncRun, SyncRun]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def both(self, act: Callable[[int], Any], what: str) -> None:
        """Does it to both, with the same result: a value, or the kind and words of an error."""
        outcomes = [self._outcome(act, number) for number in (0, 1)]
        assert outcomes[0] == outcomes[1], what
        self.seen[f"{what} {outcomes[0][0]}"] += 1

    def _outcome(self, act: Callable[[int], Any], number: int) -> tuple[str, Any]:
        repository = self.repositories[number]
        try:
            return "done", act(number)
        except RegistrySyncError as refused:
            words = str(refused).replace(repository.name, "twin").replace(repository.id, "twin")
            return type(refused).__name__, words

    def move_upstream(self) -> None:
        for name in self.dice.sample(NAMES, 2):
            kind = self.dice.randrange(4)
            if kind == 0:
                self.upstream.tags.pop(name, None)
            else:
                one = image(f"layer {self.dice.randrange(3)}")
                self.upstream.tag(name, *((one,) if kind == 1 else (index(one, note=str(kind)), one)))

    def begin(self) -> None:
        mode = self.dice.choice((SyncMode.MIRROR, SyncMode.MIRROR, SyncMode.ADDITIVE))
        options = self.dice.choice(
            ({"max_removed_share": None}, {}, {"max_removed_tags": 1}, {"min_tags": 5}, {"max_held_share": 0.3})
        )
        read = [name for name in self.upstream.tags if self.dice.random() < 0.1]
        held = dict.fromkeys((name for name in self.upstream.tags if self.dice.random() < 0.1), "by the test")
        gone = [name for name in self.upstream.tags if name not in held and self.dice.random() < 0.05]
        runs = []
        for number, repository in enumerate(self.repositories):
            run = open_run(self.database, repository, mode=mode, policy=Policy.ON_DEMAND, **options)
            played = {"held": held, "gone": gone, "reread": read}
            play_stages(self.database, run, self.upstream, in_full=number == 0, **played)
            runs.append(run)
        self.under_way.append((runs[0], runs[1]))
        self.seen["difference" if base_number(self.database, runs[1]) else "in full"] += 1
        assert base_number(self.database, runs[0]) is None

    def commit(self) -> None:
        runs = self.under_way.pop(self.dice.randrange(len(self.under_way)))
        assert self.database.runs.progress(runs[0].id) == self.database.runs.progress(runs[1].id)

        def made(number: int) -> Any:
            result = self.database.versions.commit(runs[number].id)
            version = result.version and replace(result.version, repository_id="", created_at=LISTED_AT)
            return version, result.holds, result.filtered_tags

        self.both(made, "commit")
        ended = [self.database.runs.get(run.id) for run in runs]
        assert (ended[0].state, ended[0].counts) == (ended[1].state, ended[1].counts)

    def other(self) -> None:
        versions, repositories = self.database.versions, self.repositories
        numbers = [version.number for version in versions.page(repositories[0].id).items]
        if not numbers:
            return
        number_of_version, name = self.dice.choice(numbers), TagName(self.dice.choice(NAMES))
        kind = self.dice.choice(("delete", "roll back", "retain", "tag"))
        retained = self.dice.choice((None, None, 1, 2))

        def act(number: int) -> Any:
            repository = repositories[number]
            if kind == "delete":
                return versions.delete(repository.id, number_of_version)
            if kind == "roll back":
                return versions.roll_back(repository.id, number_of_version).missing_blob_count
            if kind == "retain":
                spec = RepositorySpec(repository.name, retain_versions=retained)
                return self.database.repositories.update(repository.id, spec).retain_versions
            return versions.remove_tag(repository.id, name).missing_blob_count

        self.both(act, kind)

    def assert_alike(self) -> None:
        tags = [self.database.versions.latest_tags(repository.id) for repository in self.repositories]
        assert tags[0] == tags[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4 * max(1, FUZZ)))
def test_random_histories_are_the_same_either_way(database: Database, seed: int) -> None:
    dice = random.Random(seed)
    twins = Twins(database, dice, (database.repositories.ensure("full"), database.repositories.ensure("differing")))
    for name in NAMES:
        twins.upstream.tag(name, image(name))
    for _ in range(30):
        step = dice.choice(("move", "begin", "begin", "commit", "commit", "other"))
        if step == "commit" and not twins.under_way:
            step = "begin"
        {"move": twins.move_upstream, "begin": twins.begin, "commit": twins.commit, "other": twins.other}[step]()
        twins.assert_alike()
    assert twins.seen["difference"], "none was recorded as a difference"
