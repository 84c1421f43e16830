"""What requests ask of the database, and what they know without asking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from registry_sync.domain.serving import PublishedVersion
from registry_sync.serve.lookups import Lookups
from unit.serve.conftest import PullDesk


def _make_private(desk: PullDesk) -> None:
    distribution = desk.database.distributions.by_name("app")
    desk.database.distributions.change(distribution.id, lambda spec: replace(spec, is_private=True))


def test_a_name_is_asked_for_again_after_each_commit_and_not_before(
    desk: PullDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    published = desk.database.pulls.published

    def counted(names: Iterable[str]) -> dict[str, PublishedVersion]:
        asked.append(set(names))
        return published(names)

    monkeypatch.setattr(desk.database.pulls, "published", counted)

    async def story() -> None:
        lookups = Lookups(desk.database)
        for _ in range(3):
            version = await lookups.published("app")
            assert version is not None
            assert not version.is_private
            assert await lookups.published("nothing") is None
        assert asked == [{"app"}, {"nothing"}, {"nothing"}, {"nothing"}], "what is missing is not remembered"
        asked.clear()
        _make_private(desk)
        version = await lookups.published("app")
        assert version is not None
        assert version.is_private
        assert asked == [{"app"}]
        lookups.close()

    asyncio.run(story())


def test_a_commit_during_the_query_is_seen_by_the_next_request(desk: PullDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    published = desk.database.pulls.published

    def overtaken(names: Iterable[str]) -> dict[str, PublishedVersion]:
        found = published(names)
        monkeypatch.setattr(desk.database.pulls, "published", published)
        _make_private(desk)
        return found

    monkeypatch.setattr(desk.database.pulls, "published", overtaken)

    async def story() -> None:
        lookups = Lookups(desk.database)
        first, second = await lookups.published("app"), await lookups.published("app")
        assert first is not None
        assert second is not None
        assert (first.is_private, second.is_private) == (False, True)
        lookups.close()

    asyncio.run(story())
