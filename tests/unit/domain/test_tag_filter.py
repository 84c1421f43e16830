"""Which tags are wanted: names and globs to include, then the same to leave out."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.references import TagFilter, TagName
from registry_sync.errors import InvalidReference

TAGS = [TagName(name) for name in ("1.0", "1.1", "2.0", "latest", "Latest", "v1", "nightly-1", "nightly-2")]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, sorted(TAGS)),
        ([], None, []),
        (["latest"], None, ["latest"]),
        (["1.*", "latest"], None, ["1.0", "1.1", "latest"]),
        (["nightly-?"], ["*-2"], ["nightly-1"]),
        (["[12].0"], None, ["1.0", "2.0"]),
        (["[!1].0"], None, ["2.0"]),
        (None, ["*"], []),
        (None, ["nightly-*", "v1", "[Ll]atest"], ["1.0", "1.1", "2.0"]),
        (["1"], None, []),
        (["gone"], None, []),
    ],
)
def test_a7_12_globs_match_whole_names_with_case(
    include: list[str] | None, exclude: list[str] | None, expected: list[str]
) -> None:
    assert TagFilter.parse(include, exclude).select([*TAGS, *TAGS]) == expected


def test_entries_are_trimmed_and_kept_once() -> None:
    assert TagFilter.parse([" latest ", "latest", "", " "], ["v*", "v*"]) == TagFilter(("latest",), ("v*",))


@pytest.mark.parametrize("entry", ["a/b", "a:b", "a b", ".a", "x" * 129, "a\nb", "(a|b)"])
def test_what_is_neither_tag_nor_glob_is_refused(entry: str) -> None:
    with pytest.raises(InvalidReference):
        TagFilter.parse([entry])
    with pytest.raises(InvalidReference):
        TagFilter.parse(None, [entry])


@pytest.mark.parametrize(
    ("include", "exclude", "literal"),
    [
        (None, (), None),
        (["a", "b"], (), ("a", "b")),
        (["a", "b*"], (), None),
        (["a", "b"], ["b"], ("a",)),
        (["a1", "b"], ["a*"], ("b",)),
        ([], (), ()),
    ],
)
def test_exact_names_alone_need_no_listing(
    include: list[str] | None, exclude: list[str], literal: tuple[str, ...] | None
) -> None:
    assert TagFilter.parse(include, exclude).literal_tags == literal


def test_names_that_are_requested_are_distinguished_from_globs() -> None:
    assert TagFilter.parse(["v1", "v*", "v2", "rc"], ["v2", "r*"]).exact_names == ("v1",)
    assert TagFilter.parse(None, ["v2"]).exact_names == ()


def test_a_hostile_glob_takes_no_time() -> None:
    started = time.perf_counter()
    TagFilter.parse(["*a" * 60 + "b"]).select([TagName("a" * 128)])
    assert time.perf_counter() - started < 1


@given(st.lists(st.text("ab*?[]!.-", min_size=1, max_size=8), max_size=4))
def test_any_glob_selects_or_is_refused(entries: list[str]) -> None:
    try:
        chosen = TagFilter.parse(entries).select(TAGS)
    except InvalidReference:
        return
    assert chosen == sorted(set(chosen) & set(TAGS))


@pytest.mark.parametrize(
    ("tag", "filter_name"),
    [("v1", None), ("v2", "exclude_tags"), ("w1", "include_tags"), ("w2", "exclude_tags")],
)
def test_the_filter_that_leaves_a_tag_out_is_named(tag: str, filter_name: str | None) -> None:
    tag_filter = TagFilter.parse(["v*"], ["?2"])
    assert tag_filter.excluding_filter(TagName(tag)) == filter_name
    assert tag_filter.wants(TagName(tag)) is (filter_name is None)
