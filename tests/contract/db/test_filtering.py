"""Filters as SQL: the same rows on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.filters import (
    EVERYTHING,
    AllOf,
    AnyOf,
    Filter,
    LabelRule,
    Match,
    Not,
    Operator,
)
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import RepositorySpec
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import InvalidReference
from support.emptied_databases import filled

LABELS: dict[str, dict[str, str]] = {
    "a%b": {},
    "app": {"env": "prod", "a.b": "x"},
    "app-old": {"env": "test"},
    "zoo": {"env": "", "tier": "1"},
}


@pytest.fixture
def labeled(database: Database) -> Database:
    filled(database, _with_labels)
    return database


def _with_labels(database: Database) -> None:
    for name, labels in LABELS.items():
        database.remotes.create(
            RemoteSpec.parse(name=name.replace("%", "-"), url="https://r.example", upstream_name="x")
        )
        if "%" not in name:
            database.repositories.create(RepositorySpec(name, retain_versions=len(labels) or None, labels=labels))


def found(database: Database, where: Filter) -> list[str]:
    return [repository.name for repository in database.repositories.page(where=where).items]


def by(field: str, *values: Any, how: Operator = Operator.EQUAL) -> Match:
    return Match(field, values, how)


@pytest.mark.parametrize(
    ("how", "value", "names"),
    [
        (Operator.EQUAL, "app", ["app"]),
        (Operator.NOT_EQUAL, "app", ["app-old", "zoo"]),
        (Operator.CONTAINS, "o", ["app-old", "zoo"]),
        (Operator.CONTAINS, "O", []),
        (Operator.CONTAINS, "", ["app", "app-old", "zoo"]),
        (Operator.CONTAINS, "%", []),
        (Operator.CONTAINS_ANY_CASE, "O", ["app-old", "zoo"]),
        (Operator.CONTAINS_ANY_CASE, "_", []),
        (Operator.STARTS, "app", ["app", "app-old"]),
        (Operator.STARTS, "APP", []),
        (Operator.STARTS, "", ["app", "app-old", "zoo"]),
        (Operator.STARTS_ANY_CASE, "APP-", ["app-old"]),
        (Operator.EQUAL_ANY_CASE, "ZOO", ["zoo"]),
        (Operator.GREATER, "app", ["app-old", "zoo"]),
        (Operator.GREATER_OR_EQUAL, "app-old", ["app-old", "zoo"]),
        (Operator.LESS, "app-old", ["app"]),
        (Operator.LESS_OR_EQUAL, "app-old", ["app", "app-old"]),
    ],
)
def test_text_compares_alike_everywhere(labeled: Database, how: Operator, value: str, names: list[str]) -> None:
    assert found(labeled, by("name", value, how=how)) == names


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ((LabelRule("env"),), ["app", "app-old", "zoo"]),
        ((LabelRule("tier", is_negated=True),), ["app", "app-old"]),
        ((LabelRule("env", "prod"),), ["app"]),
        ((LabelRule("env", ""),), ["zoo"]),
        ((LabelRule("env", "prod", is_negated=True),), ["app-old", "zoo"]),
        ((LabelRule("env", "e", is_part=True),), ["app-old"]),
        ((LabelRule("a.b", "x"),), ["app"]),
        ((LabelRule("a"),), []),
        ((LabelRule("env"), LabelRule("tier")), ["zoo"]),
    ],
)
def test_labels_are_selected_alike_everywhere(
    labeled: Database, rules: tuple[LabelRule, ...], names: list[str]
) -> None:
    assert found(labeled, by("labels", rules)) == names


def test_filters_are_combined(labeled: Database) -> None:
    app, zoo = by("name", "app"), by("name", "zoo")
    assert found(labeled, EVERYTHING) == ["app", "app-old", "zoo"]
    assert found(labeled, AnyOf()) == []
    assert found(labeled, AnyOf((app, zoo))) == ["app", "zoo"]
    assert found(labeled, AllOf((app, zoo))) == []
    assert found(labeled, Not(AnyOf((app, zoo)))) == ["app-old"]
    assert found(labeled, by("name", how=Operator.IN)) == []
    assert found(labeled, by("name", "zoo", "app", "nobody", how=Operator.IN)) == ["app", "zoo"]


def test_what_has_no_value_matches_no_comparison_and_every_negation(labeled: Database) -> None:
    labeled.repositories.create(RepositorySpec("none"))
    two, none = ["app", "zoo"], ["none"]
    assert found(labeled, by("retain_versions", 2)) == two
    assert found(labeled, Not(by("retain_versions", 2))) == ["app-old", "none"]
    assert found(labeled, by("retain_versions", 2, how=Operator.NOT_EQUAL)) == ["app-old", "none"]
    assert found(labeled, by("retain_versions", 1, 2, how=Operator.RANGE)) == ["app", "app-old", "zoo"]
    assert found(labeled, by("retain_versions", True, how=Operator.IS_NULL)) == none
    assert found(labeled, Not(by("retain_versions", True, how=Operator.IS_NULL))) == ["app", "app-old", "zoo"]


def test_times_are_compared(labeled: Database) -> None:
    later = utc_now() + timedelta(hours=1)
    assert found(labeled, by("created_at", later, how=Operator.LESS)) == ["app", "app-old", "zoo"]
    assert found(labeled, by("updated_at", later, how=Operator.GREATER_OR_EQUAL)) == []


def test_a_field_that_is_not_searched_is_refused(labeled: Database) -> None:
    with pytest.raises(InvalidReference, match="former_names"):
        found(labeled, by("former_names", "x"))


def test_a_record_is_changed_and_deleted_only_as_it_was_seen(labeled: Database) -> None:
    class Seen(Exception):
        pass

    def refuse(record: object) -> None:
        raise Seen(record)

    app = labeled.repositories.by_name("app")
    with pytest.raises(Seen):
        labeled.repositories.change(app.id, lambda spec: RepositorySpec("changed"), refuse)
    with pytest.raises(Seen):
        labeled.repositories.delete(app.id, refuse)
    assert labeled.repositories.get(app.id) == app
