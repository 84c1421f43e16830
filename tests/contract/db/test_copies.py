"""Copies of tags from one repository to another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.records import (
    Repository,
    SyncMode,
    VersionOriginKind,
)
from registry_sync.domain.references import TagFilter
from registry_sync.domain.runs import LinkKind, ManifestLink
from registry_sync.domain.version_history import Change, CopyRequest
from registry_sync.errors import InvalidReference, RecordNotFound
from support.metadata import Upstream, image, index, sync
from support.small_histories import gaps_of_latest, numbers, sync_links, upstream

# -- copies ----------------------------------------------------------------------------------------------------------


def test_a_copy_brings_the_tags_that_are_named_with_all_below_them(database: Database) -> None:
    source, target = (database.repositories.ensure(name) for name in ("tested", "released"))
    content, signed = Upstream(), index(image("x"), image("y"))
    content.tag("1.0", signed, image("x"), image("y"))
    content.tag("1.1-rc", image("rc"))
    sync(database, source, content)
    sync(database, target, upstream(keep="k"))
    request = CopyRequest(source.id, tags=TagFilter.parse(["1.*"], ["*-rc"]))
    made = database.versions.copy(target.id, request, by="ada").version
    assert made is not None
    assert (made.number, made.origin.kind, made.origin.repository_id, made.origin.number) == (
        2,
        VersionOriginKind.COPY,
        source.id,
        1,
    )
    assert database.versions.tags(target.id) == {"1.0": signed.digest, "keep": image("k").digest}
    assert made.summary.counts()["added"] == {"docker.tag": 1, "docker.manifest": 3, "docker.blob": 4}
    assert database.versions.copy(target.id, request).version is None, "a repeat makes none"
    mirrored = database.versions.copy(target.id, replace(request, mode=SyncMode.MIRROR)).version
    assert mirrored is not None
    assert database.versions.tags(target.id) == {"1.0": signed.digest}
    assert mirrored.summary.counts()["removed"] == {"docker.tag": 1, "docker.manifest": 1, "docker.blob": 2}


def test_a_copy_includes_signatures_and_what_the_source_excluded_stays_out(database: Database) -> None:
    source, target = (database.repositories.ensure(name) for name in ("tested", "released"))
    taken, left, signature = image("taken"), image("left"), image("signature")
    both = index(taken, left)
    links = [ManifestLink(both.digest, taken.digest), ManifestLink(taken.digest, signature.digest, LinkKind.REFERRER)]
    sync_links(database, source, both, [taken, left, signature], *links)
    database.versions.copy(target.id, CopyRequest(source.id))
    assert database.versions.difference(target.id, 1, 1, base_repository_id=source.id).is_empty
    assert database.provenance.manifest(signature.digest).holders[0].repository_name == "released"
    assert database.provenance.manifest(left.digest).holders == ()


def test_a_copy_fills_a_gap_of_the_target_and_never_makes_one_but_in_a_mirror(database: Database) -> None:
    lacking, whole = (database.repositories.ensure(name) for name in ("lacking", "whole"))
    child = image("child")
    root = index(child)
    sync_links(database, lacking, root, [child], ManifestLink(root.digest, child.digest, is_missing=True))
    sync_links(database, whole, root, [child], ManifestLink(root.digest, child.digest))
    assert database.versions.copy(whole.id, CopyRequest(lacking.id, 1)).version is None
    filled = database.versions.copy(lacking.id, CopyRequest(whole.id, 1)).version
    assert filled is not None
    assert filled.summary.counts()["added"] == {"docker.manifest": 1, "docker.blob": 2}
    assert gaps_of_latest(database, lacking) == {child.digest: False}
    mirrored = database.versions.copy(whole.id, CopyRequest(lacking.id, 1, mode=SyncMode.MIRROR)).version
    assert mirrored is not None
    assert gaps_of_latest(database, whole) == {child.digest: True}
    assert mirrored.summary.counts()["removed"] == {"docker.manifest": 1, "docker.blob": 2}


def test_a_copy_moves_a_tag_and_the_next_mirror_finds_what_it_left_behind(database: Database, app: Repository) -> None:
    target = database.repositories.ensure("released")
    database.versions.copy(target.id, CopyRequest(app.id, 1, TagFilter.parse(["latest"])))
    moved = database.versions.copy(target.id, CopyRequest(app.id, 2, TagFilter.parse(["latest"]))).version
    assert moved is not None
    assert moved.summary.counts()["removed"] == {"docker.tag": 1}
    change = database.versions.difference(target.id, 2, 1).tags.page.items[0]
    assert (change.change, change.before, change.after) == (Change.MOVED, image("a").digest, image("b").digest)
    swept = sync(database, target, upstream(latest="b")).version
    assert swept is not None
    assert swept.summary.counts()["removed"] == {"docker.manifest": 1, "docker.blob": 2}


def test_a_copy_that_cannot_be_made_says_why_and_leaves_all_as_it_was(database: Database, app: Repository) -> None:
    target = database.repositories.ensure("released")
    refused: list[tuple[type[Exception], str, str, CopyRequest]] = [
        (InvalidReference, "into itself", app.id, CopyRequest(app.id, 1)),
        (RecordNotFound, "'nowhere'", "nowhere", CopyRequest(app.id)),
        (RecordNotFound, "'nowhere'", target.id, CopyRequest("nowhere")),
        (RecordNotFound, "no version 9", target.id, CopyRequest(app.id, 9)),
        (RecordNotFound, "no version yet", app.id, CopyRequest(target.id)),
        (RecordNotFound, "has no tag 'gone'", target.id, CopyRequest(app.id, 1, TagFilter.parse(["latest", "gone"]))),
        (RecordNotFound, "no tag of version 1", target.id, CopyRequest(app.id, 1, TagFilter.parse(["x*"]))),
    ]
    for error, words, target_id, request in refused:
        with pytest.raises(error, match=words):
            database.versions.copy(target_id, request)
    assert (numbers(database, app), numbers(database, target)) == ([1, 2, 3], [])


@pytest.mark.slow
def test_copies_into_each_other_at_once_wait_and_do_not_block_each_other(database: Database) -> None:
    one, other = (database.repositories.ensure(name) for name in ("one", "other"))
    for number in range(4):
        sync(database, one, upstream(a=f"a{number}"))
        sync(database, other, upstream(b=f"b{number}"))

    def copy(number: int) -> int | None:
        source, target = (one, other) if number % 2 else (other, one)
        made = database.versions.copy(target.id, CopyRequest(source.id, number // 2 + 1)).version
        return made and made.number

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(copy, range(8)))
    assert sorted(made) == sorted([5, 6, 7, 8] * 2)
    for repository in (one, other):
        assert numbers(database, repository) == list(range(1, 9))
