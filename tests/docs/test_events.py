"""The page of events, compared with the events that the code makes."""

from __future__ import annotations

import re
from pathlib import Path

from local_airflow.layout import CHECKOUT
from registry_sync.domain.asset_names import FORMER_NAMES_ALIAS, PUBLICATIONS_ALIAS, VERSIONS_ALIAS
from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event
from support.metadata import two_versions
from support.ready_databases import ready_database

PAGE = (CHECKOUT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")


def fields_below(words: str) -> set[str]:
    """The fields in the first table after these words."""
    table = PAGE[PAGE.index(words) :].split("| field |", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_every_field_of_the_event_of_a_version_has_a_line_and_no_other_has(tmp_path: Path) -> None:
    with ready_database(tmp_path / "registry_sync.db") as database:
        repository = two_versions(database, "hello")
        version = database.versions.get(repository.id, 2)
        event = version_event("hello", version, database.versions.tag_difference(version, limit=1))
    assert fields_below("## A new version") == set(event)
    assert fields_below("In `tags`:") == set(event["tags"])
    assert f"An event lists at most {MAX_EVENT_TAGS} tags" in PAGE


def test_every_alias_has_a_line() -> None:
    assert set(re.findall(r"\| `(registry_sync_\w+)` \|", PAGE)) == {
        VERSIONS_ALIAS,
        FORMER_NAMES_ALIAS,
        PUBLICATIONS_ALIAS,
    }
