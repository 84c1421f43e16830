"""A listing that failed in its middle goes on in the next try: what was answered is not asked again."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import RunKey
from registry_sync.errors import RateLimited, ServerUnavailable
from registry_sync.sync import tag_resolution
from support.hostile_registry import wait_until
from support.images import RepositoryContent
from support.memory_registry import MemoryRegistry, MemoryResponse, refusal
from support.shapes import every_kind, many_tags
from support.syncing import Installation

pytestmark = pytest.mark.rule("A9.13")
NAME = "library/app"


@pytest.fixture(scope="module")
def content() -> RepositoryContent:
    return many_tags(tags=60, images=6)


@pytest.fixture
def registry(content: RepositoryContent) -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.serve(NAME, content)
    return registry


def refuse(registry: MemoryRegistry, content: RepositoryContent, tag: str, status: int) -> None:
    """Refuses ``tag`` with a long wait once all tags were asked for: after that nothing is asked."""

    def refused() -> MemoryResponse:
        assert wait_until(lambda: registry.log().manifest_head_count == len(content.tags), 30)
        return refusal(status, retry_after_seconds=120)

    registry.on("HEAD", "manifest", tag, refused)


def asked(registry: MemoryRegistry) -> list[str]:
    """The tags that were asked for since the last call."""
    tags = [request.reference for request in registry.log().select("HEAD", "manifest")]
    registry.reset_counts()
    return tags


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, ServerUnavailable)])
def test_responses_before_a_retry_after_are_not_requested_again(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent, status: int, error: type[Exception]
) -> None:
    last = max(content.tags)
    refuse(registry, content, last, status)
    with pytest.raises(error):
        here.sync("app", registry.url, NAME, run_id="r")
    first = asked(registry)
    assert sorted(first) == sorted(content.tags), "each once"
    registry.serve(NAME, content)
    repeated_at = utc_now()
    version = here.sync("app", registry.url, NAME, run_id="r")
    assert asked(registry) == [last]
    assert version is not None
    assert here.database.versions.tags(version.repository_id) == content.tags
    run = here.database.runs.by_key(RunKey("registry_sync", "r"))
    assert run.listed_at is not None
    assert run.started_at < run.listed_at < repeated_at, "it is as old as the oldest answer that it stands on"
    assert any("59 tags of 60 were resolved by an earlier try" in line for line in here.lines)


def test_a_kill_in_the_middle_loses_no_more_than_the_last_seconds(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written at the end of the try then."""
    monkeypatch.setattr(tag_resolution, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(tag_resolution.TagHeads, "kept_on_failure", lambda _self: nullcontext())
    last = max(content.tags)
    refuse(registry, content, last, 429)
    with pytest.raises(RateLimited):
        here.sync("app", registry.url, NAME, run_id="r")
    asked(registry)
    monkeypatch.undo()
    registry.serve(NAME, content)
    here.sync("app", registry.url, NAME, run_id="r")
    assert asked(registry) == [last]


def test_responses_of_another_time_are_requested_again(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent
) -> None:
    last = max(content.tags)
    refuse(registry, content, last, 429)
    with pytest.raises(RateLimited):
        here.sync("app", registry.url, NAME, run_id="r")
    registry.serve(NAME, content)
    here.sync("app", registry.url, NAME, run_id="other")
    asked(registry)
    here.sync("app", registry.url, NAME, run_id="r")
    assert len(asked(registry)) == len(content.tags), "another listing was recorded meanwhile"


def test_responses_are_kept_for_an_hour_at_most(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent
) -> None:
    last = max(content.tags)
    refuse(registry, content, last, 429)
    with pytest.raises(RateLimited):
        here.sync("app", registry.url, NAME, run_id="r")
    run = here.database.runs.by_key(RunKey("registry_sync", "r"))
    kept = here.database.heads.since(run.id, datetime.now(timezone.utc) - tag_resolution.LONGEST_KEPT)
    assert len(kept) == len(content.tags) - 1
    here.database.heads.forget(run.id)
    old = datetime.now(timezone.utc) - tag_resolution.LONGEST_KEPT - timedelta(seconds=1)
    here.database.heads.keep(run.id, {TagName(tag): head.digest for tag, head in kept.items()}, old)
    registry.serve(NAME, content)
    asked(registry)
    here.sync("app", registry.url, NAME, run_id="r")
    assert len(asked(registry)) == len(content.tags)


def test_what_was_fetched_below_an_index_is_not_fetched_again_when_one_entry_was_refused(here: Installation) -> None:
    """Each would be a pull of a registry that counts them."""
    content = every_kind(seed=91)
    index = next(manifest for manifest in content.manifests.values() if len(manifest.children) > 1)
    registry, refused = MemoryRegistry(), index.children[0]
    registry.serve(NAME, content)
    registry.on("GET", "manifest", refused, refusal(503))
    with pytest.raises(ServerUnavailable):
        here.sync("app", registry.url, NAME, run_id="r")
    registry.serve(NAME, content)
    version = here.sync("app", registry.url, NAME, run_id="r")
    pulls = Counter(request.reference for request in registry.log().select("GET", "manifest"))
    assert version is not None
    assert version.is_complete
    assert pulls.pop(refused) == 2 + 1, "as often as one try may ask, and once more"
    assert set(pulls.values()) == {1}
