"""Since when the tags of an upstream are known, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from registry_sync.db.database import Database
from registry_sync.db.tables import seen_tags
from registry_sync.domain.records import Repository
from registry_sync.domain.references import TagName
from registry_sync.errors import RecordNotFound
from support.statements import listening

NOON = datetime(2099, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
LATER = NOON + timedelta(hours=1)


@pytest.fixture
def fresh(database: Database) -> Repository:
    """A repository that has held nothing."""
    return database.repositories.ensure("fresh")


def names(*tags: str) -> list[TagName]:
    return [TagName(tag) for tag in tags]


def record(
    database: Database, repository: Repository, tags: Iterable[str], now: datetime = NOON
) -> dict[str, datetime]:
    return dict(database.seen_tags.record(repository.id, names(*tags), now))


def stored(database: Database, repository: Repository) -> dict[str, datetime]:
    query = select(seen_tags.c.name, seen_tags.c.first_seen_at).where(seen_tags.c.repository_id == repository.id)
    with database.reading() as connection:
        return {row.name: row.first_seen_at for row in connection.execute(query)}


def test_a_repeat_gives_the_same_and_writes_nothing(database: Database, fresh: Repository) -> None:
    first = record(database, fresh, ("b", "a"))
    assert first == {"a": NOON, "b": NOON} == stored(database, fresh)
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        sent.append(statement.split(maxsplit=1)[0])

    with listening("before_cursor_execute", note):
        assert record(database, fresh, ("a", "b", "a"), LATER) == first
    assert set(sent) <= {"SELECT", "BEGIN", "SET"}, sent


def test_a_tag_that_comes_later_is_new_and_the_others_stay(database: Database, fresh: Repository) -> None:
    record(database, fresh, ("a", "b"))
    assert record(database, fresh, ("a", "c"), LATER) == {"a": NOON, "c": LATER} == stored(database, fresh)


def test_at_the_first_record_tags_are_as_old_as_the_history_says(database: Database, app: Repository) -> None:
    """Also a tag that the repository holds no more; the others were there before its oldest."""
    seen = record(database, app, ("latest", "old", "unselected"))
    assert seen["latest"] < NOON
    assert seen["old"] < NOON
    assert seen["unselected"] == min(seen["latest"], seen["old"])
    assert record(database, app, ("latest", "old", "unselected", "new"), LATER) == {**seen, "new": LATER}


def test_a_tag_that_comes_back_is_new_also_where_the_repository_has_held_it(
    database: Database, app: Repository
) -> None:
    record(database, app, ("latest", "old", "other"))
    latest = record(database, app, ("latest",), LATER)["latest"]
    again = LATER + timedelta(hours=1)
    assert record(database, app, ("latest", "old", "other"), again) == {"latest": latest, "old": again, "other": again}


def test_an_empty_list_forgets_nothing(database: Database, fresh: Repository) -> None:
    record(database, fresh, ("a",))
    assert record(database, fresh, (), LATER) == {}
    assert record(database, fresh, ("a", "b"), LATER) == {"a": NOON, "b": LATER}


def test_names_that_differ_by_case_are_two(database: Database, fresh: Repository) -> None:
    record(database, fresh, ("v1",))
    assert record(database, fresh, ("v1", "V1"), LATER) == {"v1": NOON, "V1": LATER}


def test_repositories_have_their_own_times_and_lose_them_with_their_deletion(
    database: Database, fresh: Repository
) -> None:
    other = database.repositories.ensure("other")
    record(database, fresh, ("a",))
    record(database, other, ("a",), LATER)
    database.repositories.delete(fresh.id)
    assert stored(database, fresh) == {}
    assert stored(database, other) == {"a": LATER}
    with pytest.raises(RecordNotFound, match="the repository of this sync was deleted"):
        record(database, fresh, ("a",))
    assert stored(database, fresh) == {}
    again = database.repositories.ensure("fresh")
    assert record(database, again, ("a",), LATER) == {"a": LATER}, "one of the same name is another one"


def test_listings_at_once_are_recorded_one_after_the_other(database: Database, app: Repository) -> None:
    """Each gets a time for each of its tags, and the last list remains, whole."""
    lists = [[f"tag-{number:03}" for number in range(start, start + 150)] for start in (0, 50, 100, 150)]
    ready = threading.Barrier(len(lists))

    def listing(tags: list[str]) -> dict[str, datetime]:
        ready.wait(60)
        return record(database, app, tags)

    for _ in range(3):
        with ThreadPoolExecutor(len(lists)) as pool:
            seen = list(pool.map(listing, lists))
        assert [list(times) for times in seen] == lists
        assert sorted(stored(database, app)) in lists


@pytest.mark.slow
def test_ten_thousand_tags_are_recorded_and_forgotten_in_batches(database: Database, fresh: Repository) -> None:
    many = [f"build-{number:05}" for number in range(10_000)]
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        sent.append(statement)

    with listening("before_cursor_execute", note):
        assert record(database, fresh, many) == dict.fromkeys(many, NOON)
        assert record(database, fresh, many, LATER) == dict.fromkeys(many, NOON)
        moved = [*many[9_000:], *(f"new-{number:05}" for number in range(9_000))]
        seen = record(database, fresh, moved, LATER)
    assert len(sent) < 150
    assert seen == stored(database, fresh)
    assert sum(at == LATER for at in seen.values()) == 9_000
