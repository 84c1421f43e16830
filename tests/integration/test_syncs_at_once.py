"""Two syncs that need the same manifests and blobs at the same time make one request for each between them."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.db.database import Database
from registry_sync.db.held_claims import HeldClaims
from support.images import RepositoryContent
from support.memory_registry import ANY, HELD, Held, MemoryRegistry
from support.shapes import documented_example
from support.syncing import Installation

NAME, SECONDS = "hello", 20.0


@pytest.fixture
def content() -> RepositoryContent:
    return documented_example()


@pytest.fixture
def registry(content: RepositoryContent) -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.serve(NAME, content)
    return registry


def requests(registry: MemoryRegistry, kind: str) -> Counter[str]:
    """How often each digest was requested with GET."""
    return Counter(request.reference for request in registry.log().select("GET", kind))


@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_what_one_is_fetching_the_other_does_not_request(
    here: Installation,
    registry: MemoryRegistry,
    content: RepositoryContent,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The first response is slow, until the second sync has come to what it can, and waits."""
    has_asked, may_respond, waits = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(HeldClaims, "pause", lambda _claims: (waits.set(), may_respond.wait(SECONDS)))

    def slowly() -> Held:
        has_asked.set()
        assert may_respond.wait(SECONDS)
        return HELD

    registry.on("GET", kind, ANY, slowly, HELD)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(here.sync, "first", registry.url, NAME)
        assert has_asked.wait(SECONDS)
        second = threads.submit(here.sync, "second", registry.url, NAME)
        is_waiting = waits.wait(SECONDS)
        may_respond.set()
        versions = [first.result(SECONDS), second.result(SECONDS)]
    assert is_waiting, "the second one waits for the first"
    assert all(version is not None for version in versions)
    assert set(requests(registry, kind).values()) == {1}, "each digest was requested once"
    assert set(requests(registry, kind)) == set(getattr(content, f"{kind}s"))


def test_what_a_process_that_died_was_fetching_is_fetched_by_the_next(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.db.held_claims.LAPSED_SECONDS", 0.5)
    dead = HeldClaims(here.database)
    dead.close()
    assert dead.take_all([*content.manifests, *content.blobs]) == set()
    assert here.sync("app", registry.url, NAME) is not None
    assert set(requests(registry, "blob")) == set(content.blobs)
    assert _left(here.database) == 0, "no claim outlives a sync"


def _left(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM blob_downloads").scalar_one())


def test_a_sync_leaves_no_lease(here: Installation, registry: MemoryRegistry) -> None:
    assert here.sync("app", registry.url, NAME) is not None
    assert _left(here.database) == 0
