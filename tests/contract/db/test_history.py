"""Going back, copying, deleting and retaining versions: what each does, refuses, and leaves alone when it fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, select

from registry_sync.db.database import Database
from registry_sync.db.versions.version_differences import version_difference
from registry_sync.db.versions.version_rows import INTERVALS
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import (
    Annotation,
    PageRequest,
    Repository,
    RepositorySpec,
    SyncMode,
    VersionOriginKind,
)
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import ManifestLink, RunState
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import NothingSynced, OnlyVersion, RecordNotFound, VersionConflict
from support.metadata import Upstream, image, index, layer, open_run, play_stages, sync
from support.small_histories import OLDEST_FIRST, gaps_of_latest, numbers, sync_links, upstream

# -- rollback --------------------------------------------------------------------------------------------------------


def test_a_rollback_makes_a_new_version_that_holds_what_the_old_one_holds(database: Database, app: Repository) -> None:
    made = database.versions.roll_back(app.id, 1, by="ada", description="bad release").version
    assert made is not None
    assert (made.number, made.base_number, made.description) == (4, 3, "bad release")
    assert (made.origin.kind, made.origin.repository_id, made.origin.number, made.origin.created_by) == (
        VersionOriginKind.ROLLBACK,
        app.id,
        1,
        "ada",
    )
    assert database.versions.tags(app.id) == database.versions.tags(app.id, 1)
    assert made.summary.counts()["added"] == {"docker.tag": 2, "docker.manifest": 2, "docker.blob": 4}
    assert database.versions.get(app.id, 4) == made == database.versions.latest(app.id)


def test_going_back_to_where_one_is_makes_no_version(database: Database, app: Repository) -> None:
    assert database.versions.roll_back(app.id, 3).version is None
    assert database.versions.roll_back(app.id, 1).version is not None
    assert database.versions.roll_back(app.id, 1).version is None
    assert numbers(database, app) == [1, 2, 3, 4]


def test_a_rollback_to_what_is_not_there_says_so(database: Database, app: Repository) -> None:
    for repository_id, number in ((app.id, 9), (app.id, 0), ("nowhere", 1)):
        with pytest.raises(RecordNotFound):
            database.versions.roll_back(repository_id, number)
    assert numbers(database, app) == [1, 2, 3]


def test_holds_are_those_of_the_sync_and_not_of_who_goes_back(database: Database) -> None:
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream(a="a", b="b"), held={"b": "not there"})
    sync(database, repository, upstream(a="x"))
    made = database.versions.roll_back(repository.id, 1).version
    assert made is not None
    assert made.is_complete
    assert [hold.tag for hold in database.versions.get(repository.id, 1).holds] == ["b"]


def test_bytes_that_are_gone_do_not_stop_a_rollback_and_are_counted(database: Database, app: Repository) -> None:
    gone = image("a")
    assert gone.config is not None
    database.contents.mark_missing([gone.config.digest, layer("a").digest])
    derived = database.versions.roll_back(app.id, 1)
    assert derived.version is not None
    assert derived.missing_blob_count == 2
    assert derived.missing_blob_bytes == gone.config.size_bytes + layer("a").size_bytes
    run = open_run(database, app)
    play_stages(database, run, upstream(latest="a", old="o"), listed_at=utc_now())
    assert database.versions.missing_blob_count(app.id) == 0, "the next immediate sync of these tags fetched them"


def test_a_sync_that_was_under_way_does_not_undo_a_rollback(database: Database, app: Repository) -> None:
    run = open_run(database, app)
    play_stages(database, run, upstream(latest="d"), listed_at=utc_now())
    database.versions.roll_back(app.id, 1)
    with pytest.raises(VersionConflict, match=r"rolled back to version 1 .* made version 4"):
        database.versions.commit(run.id)
    assert database.versions.tags(app.id) == database.versions.tags(app.id, 1)
    later = open_run(database, app)
    play_stages(database, later, upstream(latest="d"), listed_at=utc_now())
    assert database.versions.commit(later.id).version is not None


def test_linked_manifests_come_back_with_a_rollback_gaps_too(database: Database) -> None:
    repository = database.repositories.ensure("app")
    one, other = image("one"), image("other")
    both = index(one, other)
    gap = ManifestLink(both.digest, other.digest, is_missing=True)
    sync_links(database, repository, both, [one, other], ManifestLink(both.digest, one.digest), gap)
    sync_links(database, repository, both, [one, other], ManifestLink(both.digest, other.digest))
    made = database.versions.roll_back(repository.id, 1).version
    assert made is not None
    assert gaps_of_latest(database, repository) == {one.digest: False, other.digest: True}
    assert made.summary.counts()["present"]["docker.manifest"] == 2
    assert database.versions.difference(repository.id, made.number, 1).is_empty
    assert database.versions.difference(repository.id, made.number, 2).has_other_links


@pytest.mark.parametrize("back_by", ["rollback", "deletion"])
def test_what_an_additive_sync_left_behind_is_swept_after_going_back_to_it(database: Database, back_by: str) -> None:
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream(latest="a"))
    sync(database, repository, upstream(latest="b"), mode=SyncMode.ADDITIVE)
    swept = sync(database, repository, upstream(latest="b")).version
    assert swept is not None
    if back_by == "rollback":
        database.versions.roll_back(repository.id, 2)
    else:
        database.versions.delete(repository.id, 3)
    run = open_run(database, repository)
    play_stages(database, run, upstream(latest="b"), listed_at=utc_now())
    again = database.versions.commit(run.id).version
    assert again is not None
    assert again.summary.counts()["removed"] == {"docker.manifest": 1, "docker.blob": 2}
    assert database.versions.difference(repository.id, again.number, 1).tags.moved_count == 1


# -- deletion and retention ------------------------------------------------------------------------------------------


def test_the_next_version_says_after_a_deletion_what_it_changed_since_the_one_before(
    database: Database, app: Repository
) -> None:
    database.versions.delete(app.id, 2)
    assert numbers(database, app) == [1, 3]
    third = database.versions.get(app.id, 3)
    assert third.base_number == 1
    assert third.summary.counts()["added"] == {"docker.tag": 1, "docker.manifest": 1, "docker.blob": 2}
    assert third.summary.counts()["removed"] == {"docker.tag": 2, "docker.manifest": 2, "docker.blob": 4}
    assert database.provenance.manifest(image("b").digest).holders == ()


def test_a_number_is_given_once(database: Database, app: Repository) -> None:
    database.versions.delete(app.id, 3)
    assert database.repositories.get(app.id).latest_number == 2
    assert database.versions.tags(app.id) == {"latest": image("b").digest}
    made = sync(database, app, upstream(latest="other")).version
    assert made is not None
    assert (made.number, made.base_number) == (4, 2)
    database.versions.delete(app.id, 4)
    back = database.versions.roll_back(app.id, 1).version
    assert back is not None
    assert (back.number, back.base_number) == (5, 2)


def test_the_last_version_stays(database: Database, app: Repository) -> None:
    for number in (3, 1):
        database.versions.delete(app.id, number)
    with pytest.raises(OnlyVersion, match="version 2 is the only one of repository 'app'"):
        database.versions.delete(app.id, 2)
    for number in (1, 3, 9):
        with pytest.raises(RecordNotFound):
            database.versions.delete(app.id, number)
    assert database.versions.tags(app.id) == {"latest": image("b").digest}


def test_a_sync_under_way_does_not_keep_tags_that_went_with_the_version_they_were_found_in(database: Database) -> None:
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream(a="a"))
    content, whole = upstream(a="a"), index(image("x"))
    content.tag("whole", whole, image("x"))
    sync(database, repository, content)
    run = open_run(database, repository)
    play_stages(database, run, content, listed_at=utc_now())
    database.versions.delete(repository.id, 2)
    with pytest.raises(NothingSynced, match="whole: the repository was changed after the tag was found unchanged"):
        database.versions.commit(run.id)
    made = sync(database, repository, content).version
    assert made is not None
    assert made.summary.counts()["present"] == {"docker.tag": 2, "docker.manifest": 3, "docker.blob": 4}


def test_after_the_latest_was_deleted_no_earlier_sync_is_believed_about_what_is_there(
    database: Database, app: Repository
) -> None:
    assert database.selections.selecting_remote(app.id, SyncMode.MIRROR) is not None
    assert database.selections.selecting_remote(app.id, SyncMode.ADDITIVE) is not None
    database.versions.delete(app.id, 3)
    assert database.selections.selecting_remote(app.id, SyncMode.MIRROR) is None
    sync(database, app, upstream(latest="other"))
    assert database.selections.selecting_remote(app.id, SyncMode.MIRROR) is not None


@pytest.mark.slow
def test_fewer_versions_are_kept_as_soon_as_fewer_are_wanted(database: Database, app: Repository) -> None:
    database.versions.delete(app.id, 2)
    sync(database, app, upstream(latest="d"))
    held = {number: database.versions.tags(app.id, number) for number in (3, 4)}
    assert database.repositories.update(app.id, RepositorySpec("app", retain_versions=2)).retain_versions == 2
    assert numbers(database, app) == [3, 4], "two versions, not two numbers"
    assert database.versions.get(app.id, 3).base_number is None
    assert {number: database.versions.tags(app.id, number) for number in (3, 4)} == held
    database.repositories.update(app.id, RepositorySpec("app"))
    sync(database, app, upstream(latest="e"))
    assert numbers(database, app) == [3, 4, 5]
    database.repositories.update(app.id, RepositorySpec("app", retain_versions=1))
    database.versions.roll_back(app.id, 5)
    database.versions.copy(app.id, CopyRequest(make_other(database).id))
    assert numbers(database, app) == [6], "whatever makes the next one"


def make_other(database: Database) -> Repository:
    other = database.repositories.ensure("other")
    sync(database, other, upstream(other="z"))
    return other


# -- what is said of versions ----------------------------------------------------------------------------------------


def test_words_about_a_version_may_change_and_nothing_else_does(database: Database, app: Repository) -> None:
    before = database.versions.get(app.id, 2)
    said = database.versions.annotate(app.id, 2, lambda _: Annotation("tested\x00", {"stage": "büro"}))
    assert (said.description, said.labels) == ("tested", {"stage": "büro"})
    assert replace(said, description=None, labels={}) == before
    assert database.versions.annotate(app.id, 2, lambda _: Annotation()) == before
    with pytest.raises(RecordNotFound):
        database.versions.annotate(app.id, 9, lambda _: Annotation("x"))


def test_a_version_says_which_run_made_it_or_which_version_and_who(database: Database, app: Repository) -> None:
    made_by = database.provenance.version(app.id, 2)
    assert made_by.run is not None
    assert (made_by.run.key.dag_id, made_by.run.state, made_by.run.version_number) == (
        "sync_registry",
        RunState.COMPLETED,
        2,
    )
    assert made_by.run.remote.source == "registry.example/library/app"
    assert None not in (made_by.run.listed_at, made_by.run.started_at, made_by.run.finished_at)
    target = database.repositories.ensure("released")
    database.versions.copy(target.id, CopyRequest(app.id, 2), by="ada")
    copied = database.provenance.version(target.id, 1)
    assert (copied.run, copied.origin_repository_name, copied.version.origin.created_by) == (None, "app", "ada")
    database.repositories.delete(app.id)
    assert database.provenance.version(target.id, 1).origin_repository_name is None
    with pytest.raises(RecordNotFound):
        database.provenance.version(target.id, 9)


def test_a_blob_says_where_it_came_from_and_who_holds_it(database: Database, app: Repository) -> None:
    digest = layer("a").digest
    database.contents.mark_missing([digest])
    assert database.provenance.blob(digest).stored_at is None
    database.contents.mark_stored([digest], source="registry.example/library/app")
    database.contents.mark_stored([digest], source="elsewhere.example/late")
    database.versions.roll_back(app.id, 1)
    target = database.repositories.ensure("a-target")
    database.versions.copy(target.id, CopyRequest(app.id, 1))
    found = database.provenance.blob(digest)
    assert (found.source, found.size_bytes) == ("registry.example/library/app", layer("a").size_bytes)
    assert found.stored_at is not None
    assert found.verified_at is None
    assert [(each.repository_name, each.first_number, each.is_in_latest) for each in found.holders] == [
        ("a-target", 1, True),
        ("app", 1, True),
    ]
    database.versions.roll_back(app.id, 3)
    assert [each.is_in_latest for each in database.provenance.blob(digest).holders] == [True, False]
    database.repositories.update(app.id, RepositorySpec("app", retain_versions=1))
    assert [each.repository_name for each in database.provenance.blob(digest).holders] == ["a-target"]
    for missing in (database.provenance.blob, database.provenance.manifest):
        with pytest.raises(RecordNotFound):
            missing(Digest.of(b"nowhere"))


# -- differences -----------------------------------------------------------------------------------------------------


def test_lists_of_a_difference_are_cut_and_its_counts_are_not(database: Database) -> None:
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream(**{f"tag{number}": f"text {number}" for number in range(7)}))
    whole = database.versions.difference(repository.id, 1, 0)
    part = database.versions.difference(repository.id, 1, 0, request=PageRequest(offset=5, limit=10))
    assert (whole.tags.added_count, part.tags.added_count, part.blobs.count.added) == (7, 7, 14)
    assert part.tags.page.items == whole.tags.page.items[5:]
    assert part.blobs.page.items == whole.blobs.page.items[5:]
    assert (part.tags.page.total_count, part.manifests.page.total_count) == (7, 7)
    assert part.blobs.size_bytes == whole.blobs.size_bytes


def test_a_difference_to_what_is_not_there_says_so(database: Database, app: Repository) -> None:
    for number, base, base_repository in ((9, 1, None), (1, 9, None), (1, 0, "nowhere"), (0, 1, "nowhere")):
        with pytest.raises(RecordNotFound):
            database.versions.difference(app.id, number, base, base_repository_id=base_repository)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_two_versions_share_costs_a_difference_no_more_than_adding_up_its_bytes(database: Database) -> None:
    def steps(tag_count: int) -> int:
        """Tens of instructions of SQLite's machine for one tag that moved among so many."""
        repository, content = database.repositories.ensure(f"of-{tag_count}"), Upstream()
        for number in range(tag_count):
            content.tag(f"tag{number}", image(f"layer {number}"))
        sync(database, repository, content)
        content.tag("tag0", image("another"))
        sync(database, repository, content)
        taken: list[int] = []
        with database.reading() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: taken.append(1), 10)
            found = version_difference(connection, (repository.id, 2), (repository.id, 1), PageRequest())
            driver.set_progress_handler(None, 0)
        assert (found.tags.moved_count, found.blobs.count.shared) == (1, 2 * tag_count - 2)
        return len(taken)

    few, many = 100, 500
    assert (steps(many) - steps(few)) / (many - few) < 6, (
        "a tag, a manifest and two blobs, looked at by all comparisons"
    )


# -- failures --------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """The test's own."""


def rows(database: Database) -> list[Any]:
    """Every interval, version and repository."""
    tables = [intervals.table for intervals in INTERVALS]
    tables += [tables[0].metadata.tables[name] for name in ("repository_versions", "repositories", "version_holds")]
    with database.reading() as connection:
        return [sorted(map(tuple, connection.execute(select(table))), key=repr) for table in tables]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["roll_back", "copy", "delete", "delete_latest", "update"])
def test_a_failure_at_any_statement_leaves_everything_as_it_was(database: Database, app: Repository, what: str) -> None:
    source = make_other(database)
    change: dict[str, Callable[[], object]] = {
        "roll_back": lambda: database.versions.roll_back(app.id, 1),
        "copy": lambda: database.versions.copy(app.id, CopyRequest(source.id, mode=SyncMode.MIRROR)),
        "delete": lambda: database.versions.delete(app.id, 2),
        "delete_latest": lambda: database.versions.delete(app.id, 3),
        "update": lambda: database.repositories.update(app.id, RepositorySpec("app", retain_versions=1)),
    }
    before = rows(database)
    for failing in range(1, 1000):
        seen: list[int] = []

        def count(*_parts: Any, seen: list[int] = seen, failing: int = failing) -> None:
            seen.append(1)
            if len(seen) == failing:
                raise _Broken

        event.listen(database._engine, "before_cursor_execute", count)
        try:
            change[what]()
        except _Broken:
            assert rows_without(database, count) == before
            continue
        finally:
            if event.contains(database._engine, "before_cursor_execute", count):
                event.remove(database._engine, "before_cursor_execute", count)
        break
    assert failing > 8, "it takes several statements"
    assert rows(database) != before


def rows_without(database: Database, listener: Any) -> list[Any]:
    event.remove(database._engine, "before_cursor_execute", listener)
    return rows(database)


@pytest.mark.slow
def test_versions_that_are_made_at_once_by_all_means_follow_each_other(database: Database, app: Repository) -> None:
    source = make_other(database)
    runs = []
    for number in range(2):
        run = open_run(database, app, mode=SyncMode.ADDITIVE, policy=Policy.ON_DEMAND)
        play_stages(database, run, upstream(**{f"new{number}": f"new {number}"}))
        runs.append(run)

    def copy() -> None:
        database.versions.copy(app.id, CopyRequest(source.id))

    def delete() -> None:
        database.versions.delete(app.id, 2)

    def commit(number: int) -> Callable[[], object]:
        return lambda: database.versions.commit(runs[number].id)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(action) for action in (copy, delete, commit(0), commit(1))]:
            done.result()
    versions = database.versions.page(app.id, OLDEST_FIRST).items
    assert [(version.number, version.base_number) for version in versions] == [
        (1, None),
        (3, 1),
        (4, 3),
        (5, 4),
        (6, 5),
    ]
    assert database.versions.tags(app.id).keys() == {"latest", "other", "new0", "new1"}
