"""Differences as values: what is said of a change, and when two versions are alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Page
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import (
    Amounts,
    Change,
    TagChange,
    TagDifference,
    UnitDifference,
    VersionDifference,
)

ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")
NO_TAGS = TagDifference(Page((), 0), 0, 0, 0, shared_count=3)
NO_UNITS = UnitDifference(Page((), 0), Amounts(shared=3), Amounts(shared=300))
ALIKE = VersionDifference("id", 2, "id", 1, NO_TAGS, NO_UNITS, NO_UNITS)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(None, ONE, Change.ADDED), (ONE, None, Change.REMOVED), (ONE, OTHER, Change.MOVED)],
)
def test_a_tag_is_added_removed_or_moved(before: Digest | None, after: Digest | None, change: Change) -> None:
    assert TagChange(TagName("v1"), before, after).change is change


def test_versions_are_alike_when_nothing_differs_though_a_page_may_be_empty_for_another_reason() -> None:
    assert ALIKE.is_empty
    beyond_the_last = Page[TagChange]((), total_count=1)
    assert not replace(ALIKE, tags=replace(NO_TAGS, page=beyond_the_last)).is_empty
    assert not replace(ALIKE, blobs=replace(NO_UNITS, page=Page((), 1))).is_empty
    assert not replace(ALIKE, manifests=replace(NO_UNITS, page=Page((), 1))).is_empty
    assert not replace(ALIKE, has_other_links=True).is_empty
