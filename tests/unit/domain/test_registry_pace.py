"""What is remembered of how many requests at once a registry has served, and for how long."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from registry_sync.domain.registry_pace import REMEMBERED, RegistryPace

NOW = datetime(2026, 12, 1, 12, tzinfo=timezone.utc)
FOUND = RegistryPace(64, NOW, {"HEAD manifests": 0.08}, 61, lists_digests=True)


def test_the_next_sync_begins_with_it_and_knows_how_many_heads_there_were() -> None:
    begun = FOUND.next_for(400, NOW + timedelta(days=1))
    assert begun == RegistryPace(64, NOW, {"HEAD manifests": 0.08}, 400, lists_digests=True)


@pytest.mark.parametrize("later", [REMEMBERED, timedelta(days=400), timedelta(days=-1)])
def test_it_is_forgotten_after_a_time_and_one_from_the_future_is_none(later: timedelta) -> None:
    assert FOUND.next_for(61, NOW + later) is None


def test_the_next_sync_after_a_refusal_begins_without() -> None:
    assert RegistryPace(0, NOW).next_for(61, NOW) is None


@pytest.mark.parametrize(("count", "at_once"), [(1, 64), (3, 21), (4, 16)])
def test_tasks_at_the_same_time_have_a_part_of_it_each(count: int, at_once: int) -> None:
    assert FOUND.shared(count).at_once == at_once


def test_a_document_says_everything() -> None:
    assert RegistryPace.of_document(json.loads(json.dumps(FOUND.document()))) == FOUND


@pytest.mark.parametrize("document", [None, {}, "64", {"at_once": 64}, {**FOUND.document(), "found_at": "soon"}])
def test_what_cannot_be_read_is_no_pace(document: Any) -> None:
    assert RegistryPace.of_document(document) is None
