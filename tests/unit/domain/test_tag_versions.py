"""Versions in tags as people mean them: which tags are versions, how they are ordered, and what ranges select."""

from __future__ import annotations

import itertools

import pytest

from registry_sync.domain.tag_versions import SuffixRule, TagVersion, VersionRange
from registry_sync.errors import ConfigurationError

#: Tags of the kinds that registries have.
TAGS = [
    "1.25",
    "1.25.0",
    "1.25.3",
    "1.25.3-alpine",
    "1.25-alpine",
    "1.25.0-rc.1",
    "1.26.0-rc1",
    "v1.26.0",
    "2",
    "2.0.0-rc1",
    "20230329",
    "3.12_rc1",
    "8.0.36_ubi9",
    "1.25.3.4",
    "01.25.03",
    "latest",
    "3.22-rfcurated",
]


def version(tag: str) -> TagVersion:
    found = TagVersion.parse(tag)
    assert found is not None, tag
    return found


def selected(text: str, suffixes: SuffixRule = SuffixRule.IGNORE, tags: list[str] = TAGS) -> set[str]:
    wanted = VersionRange.parse(text, suffixes)
    return {tag for tag in tags if (found := TagVersion.parse(tag)) is not None and wanted.allows(found)}


@pytest.mark.parametrize(
    ("tag", "numbers", "suffix"),
    [
        ("1.25.3-alpine", (1, 25, 3), "alpine"),
        ("v1.26.0", (1, 26, 0), ""),
        ("2", (2,), ""),
        ("3.12_rc1", (3, 12), "rc1"),
        ("8.0.36_ubi9", (8, 0, 36), "ubi9"),
        ("1.25.3.4", (1, 25, 3, 4), ""),
        ("01.25.03", (1, 25, 3), ""),
        ("3.22-rfcurated", (3, 22), "rfcurated"),
        ("1_2_3", (1, 2, 3), ""),
        ("1.25rc1", (1, 25), "rc1"),
        ("17-alpine3.19", (17,), "alpine3.19"),
        ("1.0+build", (1, 0), "build"),
        ("22.04", (22, 4), ""),
    ],
)
def test_a_version_is_numbers_and_what_stands_behind_them(tag: str, numbers: tuple[int, ...], suffix: str) -> None:
    assert (version(tag).numbers, version(tag).suffix) == (numbers, suffix)


@pytest.mark.parametrize(
    "tag", ["latest", "alpine-3.19", "v", "1a2b3c4", "DEADBEEF1", "1.2.", "1.2.x", "", "rc1", "1a2b3c4d" * 5]
)
def test_a_name_or_a_commit_is_no_version(tag: str) -> None:
    assert TagVersion.parse(tag) is None


@pytest.mark.parametrize(
    ("tag", "is_serial"),
    [("20230329", True), ("202303", True), ("12345", True), ("9999", False), ("2024.10", False), ("2024-01-15", False)],
)
def test_long_single_numbers_and_numbers_above_9999_are_dates_or_serials(tag: str, is_serial: bool) -> None:
    assert version(tag).is_serial is is_serial


def test_versions_are_ordered_by_their_numbers_and_missing_ones_are_zero() -> None:
    rising = ["0.9", "1", "1.0.1", "1.9", "1.10", "1.10.0.1", "2"]
    assert all(version(low).key < version(high).key for low, high in itertools.pairwise(rising))
    assert version("1").key == version("1.0").key == version("1.0.0-alpine").key


@pytest.mark.parametrize(
    ("tag", "is_prerelease"),
    [
        ("1.25.0-rc.1", True), ("1.26.0-RC1", True), ("3.12_rc1", True), ("2-beta", True), ("2-nightly-alpine", True),
        ("1.0-alphabet", False), ("1.0-dev", False), ("1.25.3-alpine", False), ("1.0", False),
    ],
)  # fmt: skip
def test_words_of_a_suffix_make_a_prerelease(tag: str, is_prerelease: bool) -> None:
    assert version(tag).is_prerelease() is is_prerelease
    assert version("1.0-dev7").is_prerelease(["dev"])
    assert not version(tag).is_prerelease(())


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (">=3.22", "8.0.36_ubi9 3.22-rfcurated"),
        (">=1.25.3 <1.26", "1.25.3 1.25.3-alpine 1.25.3.4 01.25.03"),
        (">= 1.25.3, < v1.26", "1.25.3 1.25.3-alpine 1.25.3.4 01.25.03"),
        ("1.25", "1.25 1.25.0 1.25.3 1.25.3-alpine 1.25-alpine 1.25.0-rc.1 1.25.3.4 01.25.03"),
        ("=1.25.0", "1.25 1.25.0 1.25-alpine 1.25.0-rc.1"),
        ("~1.25.3", "1.25.3 1.25.3-alpine 1.25.3.4 01.25.03"),
        ("^1.25.3", "1.25.3 1.25.3-alpine 1.25.3.4 01.25.03 1.26.0-rc1 v1.26.0"),
        ("1.26 - 2", "1.26.0-rc1 v1.26.0 2 2.0.0-rc1"),
        ("1.26 - 1.26.0", "1.26.0-rc1 v1.26.0"),
        (">1.26", "2 2.0.0-rc1 3.12_rc1 8.0.36_ubi9 3.22-rfcurated"),
        ("<=1.25", "1.25 1.25.0 1.25.3 1.25.3-alpine 1.25-alpine 1.25.0-rc.1 1.25.3.4 01.25.03"),
        ("3.x || ^8", "3.12_rc1 3.22-rfcurated 8.0.36_ubi9"),
        ("1.26.* != 1.26.0", ""),
        (">=2 !=3", "2 2.0.0-rc1 8.0.36_ubi9"),
        (">=20230101 <20240101", "20230329"),
        ("=20230329", "20230329"),
    ],
)
def test_a_range_compares_numbers_and_leaves_suffixes_to_patterns(text: str, tags: str) -> None:
    assert selected(text) == set(tags.split())


def test_any_version_is_every_one_but_dates_and_serials() -> None:
    assert selected("*") == set(TAGS) - {"latest", "20230329"}
    assert "20230329" not in selected(">=1")


@pytest.mark.parametrize(
    ("text", "low", "high", "out"),
    [("^0.2.3", "0.2.3", "0.2.9", "0.3"), ("^0.0.3", "0.0.3", "0.0.3.1", "0.0.4"), ("^0", "0.0.1", "0.9", "1"),
     ("~1", "1", "1.9", "2"), ("~1.2", "1.2", "1.2.9", "1.3"), ("^1.2", "1.2", "1.99", "2")],
)  # fmt: skip
def test_tilde_and_caret_end_where_npm_ends_them(text: str, low: str, high: str, out: str) -> None:
    assert selected(text, tags=[low, high, out]) == {low, high}


def test_suffixes_may_be_excluded_or_ordered_as_semantic_versions() -> None:
    assert selected(">=1.25.3 <1.26", SuffixRule.EXCLUDE) == {"1.25.3", "1.25.3.4", "01.25.03"}
    tags = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
    for place, tag in enumerate(tags):
        assert selected(f">={tag}", SuffixRule.PRECEDENCE, tags) == set(tags[place:])
        assert selected(f"<{tag}", SuffixRule.PRECEDENCE, tags) == set(tags[:place])


@pytest.mark.parametrize("text", ["", "latest", ">=1 ||", "1..2", ">=1.2 beta", "<*", "=>1", "1.2 -", ">=1.0-rc1"])
def test_what_is_no_range_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ConfigurationError, match="the version range '"):
        VersionRange.parse(text)
