"""Tags by rule: patterns, ranges and the newest N on a complete list of tags."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.tag_rules import MAX_REGEXES, Newest, RegexSet, TagOrder, TagRules, TagTimes, VersionRule
from registry_sync.domain.tag_versions import VersionRange
from registry_sync.errors import ConfigurationError

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
POSTGRES = [
    "latest",
    "17",
    "17.2",
    "17.2-alpine",
    "17.1",
    "17.1-alpine",
    "17-alpine",
    "16.6",
    "16.6-alpine",
    "16",
    "18beta1",
    "nightly",
]


def rules(include: Any = None, exclude: Any = (), semver: str | None = None, **more: Any) -> TagRules:
    for name in ("regex", "regex_all", "exclude_regex"):
        if name in more:
            more[name] = RegexSet(tuple(more[name]))
    if "newest" in more:
        more["newest"] = Newest(more["newest"])
    versions = None if semver is None else VersionRule(VersionRange.parse(semver), **more.pop("versions", {}))
    return TagRules(TagFilter.parse(include, exclude), versions=versions, **more)


def taken(given: TagRules, tags: Any = POSTGRES, **times: Any) -> set[str]:
    return set(given.select(map(TagName, tags), TagTimes(**times) if times else None).tags)


def test_without_rules_every_tag_is_selected_once_and_in_order() -> None:
    assert TagRules().select([TagName("b"), TagName("a"), TagName("b")]).tags == ("a", "b")


def test_versions_with_a_variant_are_selected_by_range_and_glob() -> None:
    assert taken(rules(["*-alpine"], semver=">=16 <17.2")) == {"16.6-alpine", "17.1-alpine", "17-alpine"}


def test_what_is_no_version_is_left_out_and_counted() -> None:
    found = rules(semver="*").select(map(TagName, POSTGRES))
    assert found.not_versions == ("latest", "nightly")
    assert "18beta1" not in found.tags, "a pre-release"
    assert "18beta1" in taken(rules(semver="*", versions={"prerelease_words": frozenset()}))


def test_an_exact_name_skips_the_rules_for_versions_and_not_an_exclusion() -> None:
    assert taken(rules(["latest", "17*"], semver=">=17.2", newest=1)) == {"latest", "17.2", "17.2-alpine"}
    assert "latest" not in taken(rules(["latest", "17*"], ["lat*"], semver=">=17.2"))
    assert "latest" not in taken(rules(["latest"], exclude_regex=["l.*"]))


def test_a_count_of_numbers_bounds_versions() -> None:
    assert taken(rules(semver="17", versions={"fewest_numbers": 2})) == {"17.2", "17.2-alpine", "17.1", "17.1-alpine"}
    assert taken(rules(semver="17", versions={"most_numbers": 1})) == {"17", "17-alpine"}


def test_a_version_may_stand_inside_a_tag() -> None:
    given = rules(semver=">=2", versions={"version_from": r"^release-(?P<v>.+)-amd64$"})
    found = given.select(map(TagName, ["release-1.9-amd64", "release-2.1-amd64", "2.1"]))
    assert (found.tags, found.not_versions) == (("release-2.1-amd64",), ("2.1",))
    with pytest.raises(ConfigurationError, match="name the version in it"):
        VersionRule(VersionRange.parse("*"), version_from="^(.+)-amd64$")


# -- regular expressions ------------------------------------------------------------------------------------------


def test_a_regular_expression_matches_the_whole_name() -> None:
    """Also where it has alternatives, which other tools anchor on one side only."""
    assert taken(rules(regex=[r"16|17"])) == {"16", "17"}
    assert taken(rules(regex=[r"17\.\d", r"16\.\d"])) == {"17.2", "17.1", "16.6"}
    assert taken(rules(regex=[r"17.*"], regex_all=[r".*\d", r".*2"])) == {"17.2"}
    assert taken(rules(["16"], regex=[r"17\.\d"], exclude_regex=[r".*1"])) == {"16", "17.2"}


def test_it_takes_linear_time() -> None:
    """Python's own expressions need more than the age of the universe for this one."""
    assert not RegexSet(("(a+)+",)).any("a" * 127 + "b")


@pytest.mark.parametrize("pattern", ["(a", "(?=a)b", r"(a)\1", "a{1001}"])
def test_what_is_not_of_re2_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is not one of RE2"):
        RegexSet((pattern,))


def test_their_number_and_length_are_bounded() -> None:
    with pytest.raises(ConfigurationError, match="at most 64"):
        RegexSet(("a",) * (MAX_REGEXES + 1))
    with pytest.raises(ConfigurationError, match="1,001 characters"):
        RegexSet(("a" * 1001,))


def test_where_the_library_is_missing_globs_go_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert taken(rules(["16*"])) == {"16", "16.6", "16.6-alpine"}
    with pytest.raises(ConfigurationError, match="needs the package google-re2"):
        RegexSet(("never compiled before",))


# -- the newest ---------------------------------------------------------------------------------------------------


def test_the_newest_versions_keep_their_variants_and_their_shorter_names() -> None:
    found = rules(semver="*", newest=1).select(map(TagName, POSTGRES))
    assert set(found.tags) == {"17", "17-alpine", "17.2", "17.2-alpine"}
    assert taken(rules(semver="*", newest=3)) == set(POSTGRES) - {"latest", "nightly", "18beta1"}
    assert taken(rules(semver="<17", newest=1)) == {"16", "16.6", "16.6-alpine"}


def test_ten_is_newer_than_nine() -> None:
    assert taken(rules(newest=2), ["1.8", "1.9", "1.10"]) == {"1.9", "1.10"}
    assert taken(rules(newest=2, order=TagOrder.NAME), ["1.8", "1.9", "1.10"]) == {"1.8", "1.9"}


def test_the_newest_of_no_versions_is_refused_with_another_order() -> None:
    with pytest.raises(ConfigurationError, match=r"none of 2 tags is a version, such as 'a'; .* first_seen or name"):
        rules(newest=1).select(map(TagName, ["a", "b"]))
    assert taken(rules(newest=1), []) == set(), "nothing is selected, and nothing wrong with the order"


def test_by_first_sight_a_tag_that_is_new_is_the_newest() -> None:
    seen = {TagName(name): START + timedelta(days=day) for day, name in enumerate(("c0ffee1", "abc1234", "beef123"))}
    given = rules(newest=2, order=TagOrder.FIRST_SEEN)
    assert taken(given, seen, first_seen_at=seen) == {"abc1234", "beef123"}
    assert taken(given, [*seen, "0a0a0a0"], first_seen_at=seen) == {"beef123", "0a0a0a0"}


def test_by_first_sight_the_first_sync_has_the_order_of_versions_and_then_that_of_names() -> None:
    given = rules(newest=1, order=TagOrder.FIRST_SEEN)
    assert taken(given, ["1.9", "1.10"]) == {"1.10"}
    assert taken(given, ["c0ffee1", "abc1234"]) == {"c0ffee1"}


def test_exact_names_alone_need_no_listing() -> None:
    assert not rules(["1.0", "latest"]).needs_listing
    assert rules(["1.0", "3.*"]).needs_listing
    assert rules().needs_listing
    assert rules(["1.0"], regex=["2.*"]).needs_listing
