"""Upstreams of any shape that change and fail at random: every version is whole, and in the end nothing is missing."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from registry_sync.errors import RegistrySyncError
from support.choosing import NAME, sync
from support.held import Held
from support.images import RepositoryContent
from support.invariants import assert_whole
from support.memory_registry import ANY, NO_RESPONSE, MemoryRegistry, MemoryResponse, Script, refusal
from support.memory_registry import Held as WhatIsHeld
from support.shapes import any_shape
from support.signatures import with_companions
from support.syncing import Installation

#: More in a row than a task takes for an outage of the whole registry would test nothing else.
MOST_FAULTS = 6


def changed(content: RepositoryContent, seed: int, dice: random.Random) -> RepositoryContent:
    """The same upstream later: some tags are gone, others moved or came, and what has no tag is there still."""
    kept = {name: digest for name, digest in content.tags.items() if dice.random() < 0.7}
    return RepositoryContent(kept, content.manifests, content.blobs).merged(any_shape(seed))


def fail(registry: MemoryRegistry, content: RepositoryContent, dice: random.Random) -> None:
    """Scripts faults of some tags, manifests, blobs and subjects of ``content``."""
    for _ in range(dice.randint(1, MOST_FAULTS)):
        fault: Script = dice.choice((refusal(404), refusal(403, "DENIED"), refusal(503), refusal(429), NO_RESPONSE))
        kind = dice.choice(("tag", "manifest", "blob", "referrers"))
        if kind == "tag":
            registry.on(dice.choice(("HEAD", "GET")), "manifest", dice.choice(sorted(content.tags)), fault)
        elif kind == "manifest":
            other = MemoryResponse(data=b"other bytes", media_type="application/json")
            registry.on("GET", "manifest", dice.choice(list(content.manifests)), dice.choice((fault, other)))
        elif kind == "blob":
            digest = dice.choice(list(content.blobs))
            other = MemoryResponse(data=bytes(content.blobs[digest].size_bytes))
            registry.on("GET", "blob", digest, dice.choice((fault, other, WhatIsHeld(breaks_after=1))))
        else:
            registry.on("GET", "referrers", dice.choice([ANY, *content.manifests]), fault)


@pytest.mark.parametrize("has_referrers_api", [True, False], ids=["referrers", "no referrers"])
@pytest.mark.parametrize("seed", range(6))
def test_every_version_is_whole_and_the_last_sync_misses_nothing(
    here: Installation, seed: int, has_referrers_api: bool
) -> None:
    dice = random.Random(seed)
    registry, content = MemoryRegistry(has_referrers_api=has_referrers_api, page_size=3), any_shape(100 * seed)
    limits = {"max_removed_share": None, "max_held_share": 1.0}
    for step in range(3):
        registry.serve(NAME, content)
        fail(registry, content, dice)
        with suppress(RegistrySyncError):
            sync(here, registry, is_last_try=dice.random() < 0.5, **limits)
        assert_whole(here.database, here.store)
        registry.forget("referrers")
        content = changed(content, 100 * seed + step + 1, dice)
    registry.serve(NAME, content)
    sync(here, registry, **limits)
    held = Held.read(here.database, here.store, "app")
    assert held.tags == content.tags
    expected = with_companions(content, content.tags) if has_referrers_api else content.closure(content.tags)
    assert set(held.manifests) == set(expected.manifests)
    assert held.blobs == {digest: blob.data for digest, blob in expected.blobs.items()}
    assert sync(here, registry, **limits) is None, "nothing is left to do"
