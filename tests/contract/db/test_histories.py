"""Random histories of repositories, compared with a plain model in memory after every step, version by version.

Upstreams change and are synced, with holds, failures and other choices of what is taken along; versions are rolled
back to, copied from one repository to another, retained and deleted, tags are set and removed, and what nothing needs
is collected. Whatever happens, no version that stays changes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import select

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.db.tables import (
    blobs,
    manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    tags,
)
from registry_sync.db.versions.version_store import VersionStore
from registry_sync.domain.content_units import Relation
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest
from registry_sync.domain.records import (
    PageRequest,
    Repository,
    RepositoryVersion,
)
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import Amounts, Change, TagChange, UnitDifference
from registry_sync.hooks.stores import open_blob_store
from support.examples import examples
from support.histories import (
    EVERYTHING,
    Catalog,
    Player,
    histories,
    read,
)
from support.history_model import Content, History
from support.metadata import image, index, layer


def make_catalog(seed: int) -> Catalog:
    """Images that share layers, indexes that share images, indexes of indexes, and signatures of some of them."""
    dice = random.Random(seed)
    layers = [layer(f"layer {number} of {seed}", is_foreign=number == 0) for number in range(6)]
    images = [
        image(*dice.sample(layers, dice.randint(0, 3)), config=dice.choice((None, "{}")), note=f"{seed} {number}")
        for number in range(6)
    ]
    indexes: list[Manifest] = []
    for number in range(5):
        children = dice.sample([*images, *indexes], dice.randint(0, 3))
        indexes.append(index(*children, note=f"{seed} {number}"))
    signatures = []
    for signed in dice.sample([*images, *indexes], 3):
        subject = Descriptor(signed.media_type, signed.digest, signed.size_bytes)
        signatures.append(replace(image(note=f"signature of {signed.digest}"), subject=subject))
    known = {manifest.digest: manifest for manifest in (*images, *indexes, *signatures)}
    return Catalog(seed, tuple(manifest.digest for manifest in (*images, *indexes)), known)


def rows_of(database: Database, repository: Repository) -> Callable[[int | None], Content]:
    """What the rows of the repository say that one of its versions holds; the one before all others is empty."""
    links, at_tag = repository_links, repository_tags.c.tag_id == tags.c.id
    of_tags = select(repository_tags, tags.c.name, manifests.c.digest).join(tags, at_tag)
    selected = (
        (repository_tags, of_tags.join(manifests, manifests.c.id == tags.c.manifest_id)),
        (repository_manifests, select(repository_manifests, manifests.c.digest).join(manifests)),
        (repository_blobs, select(repository_blobs, blobs.c.digest).join(blobs)),
        (links, select(links, manifests.c.digest).join(manifests, manifests.c.id == links.c.parent_id)),
    )
    with database.reading() as connection:
        tag_rows, manifest_rows, blob_rows, link_rows = (
            connection.execute(statement.where(table.c.repository_id == repository.id)).all()
            for table, statement in selected
        )

    def at(number: int | None) -> Content:
        def held(rows: Sequence[Any]) -> Iterator[Any]:
            end = number or 0
            return (
                r for r in rows if r.version_added <= end and (r.version_removed is None or end < r.version_removed)
            )

        return Content(
            frozenset((row.name, row.digest) for row in held(tag_rows)),
            frozenset(row.digest for row in held(manifest_rows)),
            frozenset(row.digest for row in held(blob_rows)),
            frozenset((row.digest, row.child_digest, row.child_id is None) for row in held(link_rows)),
        )

    return at


def state_of(
    database: Database, repository: Repository, known: dict[Any, dict[Relation, Content]]
) -> dict[int, tuple[RepositoryVersion, dict[Relation, Content]]]:
    """Each version, and what it holds, added and removed; ``known`` is what was read while the same rows held."""
    page, at = database.versions.page(repository.id, PageRequest(ordering="number")), rows_of(database, repository)
    state = {}
    for version in page.items:
        key = (version.number, at(version.number), at(version.base_number))
        if key not in known:
            known[key] = {relation: read(database, repository, version.number, relation) for relation in Relation}
        state[version.number] = (version, known[key])
    return state


def assert_none_changed(before: dict[int, Any], after: dict[int, Any]) -> None:
    """Versions that stay hold what they held, and say what they said, but for the comparison with their base."""
    for number in before.keys() & after.keys():
        (version, content), (version_now, content_now) = before[number], after[number]
        assert content_now[Relation.PRESENT] == content[Relation.PRESENT]
        assert version_now.summary.present == version.summary.present
        assert replace(version_now, base_number=version.base_number, summary=version.summary) == version


def assert_versions(state: dict[int, tuple[RepositoryVersion, dict[Relation, Content]]], history: History) -> None:
    """Every version holds, added, removed and counts what the model says."""
    assert list(state) == history.numbers
    for version, found in state.values():
        before, now = history.compared_with[version.number], history.content[version.number]
        assert version.base_number == history.base_number[version.number]
        assert version.origin == history.origin[version.number]
        expected = {
            Relation.PRESENT: now,
            Relation.ADDED: Content(now.tags - before.tags, now.manifests - before.manifests, now.blobs - before.blobs),
            Relation.REMOVED: Content(
                before.tags - now.tags, before.manifests - now.manifests, before.blobs - now.blobs
            ),
        }
        assert found == expected
        counts = version.summary.counts()
        for relation, content in expected.items():
            sizes = {
                "docker.tag": len(content.tags),
                "docker.manifest": len(content.manifests),
                "docker.blob": len(content.blobs),
            }
            assert counts[relation.value] == {kind: size for kind, size in sizes.items() if size}


def assert_differences(player: Player, seed: int) -> None:
    """Versions compare as sets do, whichever they are; the empty version is one of them."""
    contents = {
        (repository.id, number): content
        for repository, history in zip(player.repositories, player.histories, strict=True)
        for number, content in {0: Content(), **history.content}.items()
    }
    shuffled = sorted(contents)
    random.Random(seed).shuffle(shuffled)
    for one, other in [*pairwise(shuffled[:3]), (shuffled[0], shuffled[0])]:
        found = player.database.versions.difference(*one, other[1], base_repository_id=other[0], request=EVERYTHING)
        new, old = contents[one], contents[other]
        before, after = old.digest_of, new.digest_of
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        assert list(found.tags.page.items) == [TagChange(TagName(n), before.get(n), after.get(n)) for n in names]
        assert found.tags.added_count == len(after.keys() - before.keys())
        assert found.tags.removed_count == len(before.keys() - after.keys())
        assert found.tags.moved_count == len(names) - found.tags.added_count - found.tags.removed_count
        assert found.tags.shared_count == len(new.tags & old.tags)
        sizes = {digest: manifest.size_bytes for digest, manifest in player.catalog.manifests.items()}
        named = (blob for manifest in player.catalog.manifests.values() for _, blob in manifest.blobs())
        sizes |= {blob.digest: blob.size_bytes for blob in named}
        assert_unit_difference(found.manifests, new.manifests, old.manifests, sizes)
        assert_unit_difference(found.blobs, new.blobs, old.blobs, sizes)
        assert found.has_other_links == (new.links != old.links)
        assert found.is_empty == (new == old)
        assert_tag_difference(player.database, one, contents)


def assert_tag_difference(database: Database, one: tuple[str, int], contents: dict[tuple[str, int], Content]) -> None:
    """The first tags that differ from the base, moved ones before added and removed ones."""
    if one[1] == 0:
        return
    version = database.versions.get(*one)
    before, after = contents[one[0], version.base_number or 0].digest_of, contents[one].digest_of
    names = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    names.sort(key=lambda name: (name not in after, name not in before, name))
    found = database.versions.tag_difference(version, limit=2)
    assert [str(tag.name) for tag in found.page.items] == names[:2]
    assert (found.page.total_count, found.added_count) == (len(names), len(after.keys() - before.keys()))


def assert_unit_difference(
    found: UnitDifference, new: frozenset[Digest], old: frozenset[Digest], sizes: dict[Digest, int]
) -> None:
    parts = (new - old, new & old, old - new)
    assert found.count == Amounts(*map(len, parts))
    assert found.size_bytes == Amounts(*(sum(sizes[digest] for digest in part) for part in parts))
    assert found.page.total_count == len(new ^ old)
    assert [(unit.digest, unit.change, unit.size_bytes) for unit in found.page.items] == [
        (digest, Change.ADDED if digest in new else Change.REMOVED, sizes[digest]) for digest in sorted(new ^ old)
    ]


def play(database: Database, store: BlobStore, seed: int, history: list[Any]) -> None:
    repositories = tuple(database.repositories.ensure(f"{name}-{seed}") for name in ("tested", "released"))
    player = Player(database, store, make_catalog(seed), (repositories[0], repositories[1]))
    states: list[dict[int, Any]] = [{}, {}]
    known: tuple[dict[Any, dict[Relation, Content]], ...] = ({}, {})
    for number, step in enumerate(history):
        player.play(step)
        for place, (repository, expected) in enumerate(zip(repositories, player.histories, strict=True)):
            if number == len(history) - 1:
                known[place].clear()  # at the end everything is read again
            now = state_of(database, repository, known[place])
            assert_none_changed(states[place], now)
            assert_versions(now, expected)
            latest = database.repositories.get(repository.id).latest_number
            assert latest == (expected.numbers or [None])[-1]
            assert database.versions.tags(repository.id) == {TagName(n): d for n, d in expected.latest.tags}
            states[place] = now
        assert_differences(player, number)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
def test_versions_equal_a_plain_model_whatever_the_history_and_none_ever_changes(
    database: Database, dialect: str, tmp_path: Path
) -> None:
    numbers = iter(range(10_000))
    store = open_blob_store((tmp_path / "blobs").as_uri())

    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    chosen = examples(8 if dialect == "sqlite" else 3) | {"suppress_health_check": list(HealthCheck)}

    @settings(phases=phases, **chosen)
    @given(history=histories)
    def check(history: list[Any]) -> None:
        play(database, store, next(numbers), history)

    check()


def test_every_way_to_make_change_or_remove_a_version_is_in_these_histories_or_makes_no_difference_to_them() -> None:
    reading = {"latest", "latest_number", "latest_tags", "get", "page", "tags", "missing_blob_count"}
    reading |= {"difference", "tag_difference", "first_names"}
    words_only = {"annotate"}
    played = {"commit", "roll_back", "copy", "copy_manifests", "set_tag", "remove_tag", "delete"}
    assert {name for name in vars(VersionStore) if not name.startswith("_")} == reading | words_only | played
