"""The shapes have the counts and sizes that benchmarks and documentation name."""

from __future__ import annotations

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import read_manifest
from support import shapes
from support.images import Blob, ContentBuilder, RepositoryContent


def counted(content: RepositoryContent) -> tuple[int, int, int]:
    return len(content.tags), len(content.manifests), len(content.blobs)


def test_the_documented_example_has_its_counts() -> None:
    content = shapes.documented_example()
    assert counted(content) == (8, 21, 31)
    assert content.blob_bytes == pytest.approx(18_000, rel=0.1)


def test_an_application_has_its_counts_at_any_scale() -> None:
    assert counted(shapes.application(scale=0.001)) == (61, 300, 614)


def test_a_wide_repository_has_its_counts() -> None:
    content = shapes.wide()
    assert counted(content) == (400, 400, 1600)
    assert content.blob_bytes == pytest.approx(11_000_000, rel=0.05)


def test_many_tags_have_their_counts() -> None:
    content = shapes.many_tags()
    assert counted(content) == (3000, 300, 601)
    assert content.blob_bytes == pytest.approx(700_000, rel=0.05)


def test_a_big_repository_has_its_counts_at_any_scale() -> None:
    content = shapes.big(scale=0.01)
    assert counted(content) == (4, 4, 12)
    assert content.blob_bytes == pytest.approx(8 * 128 * 1024 * 1024 * 0.01, rel=0.01)


def test_a_nested_repository_is_three_indexes_deep() -> None:
    content = shapes.nested()
    assert counted(content) == (1, 8, 8)

    def depth(digest: Digest) -> int:
        children = content.manifests[digest].children
        return 1 + max(map(depth, children)) if children else 0

    assert depth(content.tags["latest"]) == 3


@pytest.mark.parametrize(
    "content",
    [
        shapes.documented_example(),
        shapes.application(0.001),
        shapes.nested(),
        shapes.every_kind(artifact_manifest=True),
    ],
    ids=["documented_example", "application", "nested", "every_kind"],
)
def test_the_truth_is_what_the_manifests_say(content: RepositoryContent) -> None:
    for built in content.manifests.values():
        manifest = read_manifest(built.data, content_type=built.media_type, digest=built.digest)
        assert tuple(child.digest for child in manifest.children) == built.children
        assert tuple(blob.digest for _, blob in manifest.blobs()) == built.blobs
        for _, blob in manifest.blobs():
            assert content.blobs[blob.digest].size_bytes == blob.size_bytes
    seen: set[Digest] = set()
    for built in content.manifests.values():
        assert seen.issuperset(built.children)
        seen.add(built.digest)


def test_the_same_calls_build_the_same_content() -> None:
    assert shapes.every_kind() == shapes.every_kind()


@pytest.mark.parametrize("size_bytes", [0, 1, 7, 1000, 1024 * 1024, 1024 * 1024 + 1, 3_000_000])
def test_a_random_blob_gives_the_bytes_of_its_digest(size_bytes: int) -> None:
    blob = Blob.random(9, size_bytes)
    assert len(blob.data) == size_bytes
    assert blob.digest == Digest.of(blob.data)
    assert all(0 < len(piece) <= 1024 * 1024 for piece in blob.pieces())


def test_two_seeds_give_two_blobs() -> None:
    assert Blob.random(1, 2_000_000).digest != Blob.random(2, 2_000_000).digest


def test_a_closure_holds_what_its_tags_reach_and_nothing_else() -> None:
    build = ContentBuilder()
    shared = build.blob(100)
    one, other = build.image([shared]), build.image([shared, build.blob(100)])
    build.tag("one", one)
    build.tag("other", build.index([other]))
    part = build.content().closure(["one"])
    assert set(part.tags) == {"one"}
    assert set(part.manifests) == {one}
    assert set(part.blobs) == set(build.content().manifests[one].blobs)


def test_merged_content_has_the_newer_tags() -> None:
    build = ContentBuilder()
    build.tag("latest", build.image())
    older = build.content()
    build.tag("latest", build.image())
    assert older.merged(build.content()) == build.content()
