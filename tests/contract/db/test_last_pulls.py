"""When tags were last pulled, on both databases."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.db.database import Database
from registry_sync.db.last_pulls import KEPT_DAYS
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import PageRequest, Repository
from support.emptied_databases import filled
from support.metadata import two_versions

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=timezone.utc)
TUESDAY = MONDAY + timedelta(days=1)


@pytest.fixture
def repository(database: Database) -> Repository:
    """Its latest version has the tags ``latest`` and ``new``; ``old`` is gone."""
    return filled(database, two_versions, "app")


def _pulled(database: Database, repository: Repository, **options: datetime) -> dict[str, datetime | None]:
    page = database.last_pulls.tags(repository.id, **options)
    assert page.total_count == len(page.items)
    return {tag.name: tag.last_pulled for tag in page.items}


def test_tags_of_the_latest_version_are_listed_with_their_last_pull(database: Database, repository: Repository) -> None:
    assert _pulled(database, repository) == {"latest": None, "new": None}
    database.last_pulls.record({(repository.id, "latest"): MONDAY, (repository.id, "old"): TUESDAY})
    assert _pulled(database, repository) == {"latest": MONDAY, "new": None}


def test_a_pull_by_digest_is_one_of_the_tag_that_stands_for_it(database: Database, repository: Repository) -> None:
    (tag,) = (tag for tag in database.last_pulls.tags(repository.id).items if tag.name == "new")
    database.last_pulls.record({(repository.id, tag.digest): TUESDAY, (repository.id, "latest"): MONDAY})
    assert _pulled(database, repository) == {"latest": MONDAY, "new": TUESDAY}
    database.last_pulls.record({(repository.id, "new"): MONDAY})
    assert _pulled(database, repository)["new"] == TUESDAY
    database.last_pulls.record({(repository.id, "new"): TUESDAY + timedelta(hours=1)})
    assert _pulled(database, repository)["new"] == TUESDAY + timedelta(hours=1)


def test_the_later_pull_counts_in_whichever_order_they_are_written(database: Database, repository: Repository) -> None:
    for at in (TUESDAY, MONDAY, TUESDAY):
        database.last_pulls.record({(repository.id, "latest"): at})
        assert _pulled(database, repository)["latest"] == TUESDAY


def test_what_nobody_pulled_since_a_time_is_found(database: Database, repository: Repository) -> None:
    database.last_pulls.record({(repository.id, "latest"): MONDAY})
    assert set(_pulled(database, repository, unused_since=MONDAY)) == {"new"}
    assert set(_pulled(database, repository, unused_since=TUESDAY)) == {"latest", "new"}


def test_what_was_never_pulled_is_the_oldest(database: Database, repository: Repository) -> None:
    database.last_pulls.record({(repository.id, "latest"): MONDAY})
    for ordering, names in (("last_pulled", ["new", "latest"]), ("-last_pulled", ["latest", "new"])):
        page = database.last_pulls.tags(repository.id, PageRequest(ordering=ordering))
        assert [tag.name for tag in page.items] == names
    second = database.last_pulls.tags(repository.id, PageRequest(1, 1, "last_pulled"))
    assert ([tag.name for tag in second.items], second.total_count) == (["latest"], 2)


def test_a_repository_without_versions_has_no_tags(database: Database) -> None:
    empty = database.repositories.ensure("empty")
    database.last_pulls.record({(empty.id, "latest"): MONDAY})
    assert _pulled(database, empty) == {}


def test_pulls_of_a_repository_end_with_it_and_those_of_one_that_is_gone_are_dropped(
    database: Database, repository: Repository
) -> None:
    other = database.repositories.ensure("other")
    database.last_pulls.record({(repository.id, "latest"): MONDAY})
    database.repositories.delete(other.id)
    database.last_pulls.record({(other.id, "latest"): TUESDAY, (repository.id, "new"): TUESDAY})
    assert _pulled(database, repository) == {"latest": MONDAY, "new": TUESDAY}
    database.repositories.delete(repository.id)
    assert database.last_pulls.forget(TUESDAY + timedelta(days=1)) == 0


def test_old_pulls_are_forgotten(database: Database, repository: Repository) -> None:
    now = utc_now()
    kept, old = now - timedelta(days=KEPT_DAYS - 1), now - timedelta(days=KEPT_DAYS + 1)
    database.last_pulls.record({(repository.id, "latest"): kept, (repository.id, "new"): old})
    assert database.last_pulls.forget() == 1
    assert _pulled(database, repository) == {"latest": kept, "new": None}


def test_several_processes_write_the_same_tags_at_once(database: Database, repository: Repository) -> None:
    references = [f"tag-{number}" for number in range(700)]  # more than one batch
    problems: list[Exception] = []

    def write(step: int) -> None:
        pulls = {(repository.id, name): MONDAY + timedelta(seconds=step) for name in references[::step]}
        try:
            database.last_pulls.record({**pulls, (repository.id, "latest"): MONDAY + timedelta(seconds=step)})
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is reported below
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(step,)) for step in (1, -1, 2, -2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert _pulled(database, repository)["latest"] == MONDAY + timedelta(seconds=2)
