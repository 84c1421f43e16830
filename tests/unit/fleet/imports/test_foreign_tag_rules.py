"""Expressions and ranges of other tools select the tags that they select there."""

from __future__ import annotations

import re

import pytest

from registry_sync.domain.references import TagName
from registry_sync.domain.tag_options import TagSet
from registry_sync.domain.tag_selector import TagSelector
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.imports.foreign_tag_rules import (
    expression_rule,
    masterminds_sets,
    read_ranges,
    regclient_set,
    whole_expression,
)
from registry_sync.fleet.imports.imported_fleet import FleetImport
from registry_sync.fleet.yaml_text import Place

AT = Place("theirs.yaml", 3)
WORDS = ["", "a", "b", "c", "ab", "xb", "bx", "cx", "xc", "abc", "1.2", "v1.2", "1.2-rc", "a|b", "b$", "x1.2y"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("v1", ".*(?:v1).*"),
        ("^v1", "v1.*"),
        ("-rc$", ".*-rc"),
        ("^v1$", "v1"),
        ("a|b", ".*(?:a|b).*"),
        ("^(a|b)$", "(a|b)"),
        ("^a|b|c$", "a.*|.*b.*|.*c"),
        ("^a$|^b$", "a|b"),
        ("[|$]b", ".*(?:[|$]b).*"),
        ("[]|]b", ".*(?:[]|]b).*"),
        (r"b\$", r".*(?:b\$).*"),
        (r"a\|b", r".*(?:a\|b).*"),
        ("(?i)^A$", "(?i)A"),
        ("(^a|b$)", ".*(?:(^a|b$)).*"),
        (r"^\Qa|b\E", r".*(?:^\Qa|b\E).*"),
    ],
)
def test_an_expression_that_is_searched_for_matches_the_same_whole_tags(pattern: str, expected: str) -> None:
    assert whole_expression(pattern) == expected
    if "\\Q" not in pattern:
        searched = [word for word in WORDS if re.search(pattern, word)]
        assert [word for word in WORDS if re.fullmatch(expected, word)] == searched


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("^1.25$", ("include", "1.25")),
        (r"^1\.25-alpine$", ("include", "1.25-alpine")),
        ("^latest$", ("include", "latest")),
        ("latest", ("regex", ".*(?:latest).*")),
        (r"^1\.2\d$", ("regex", r"1\.2\d")),
        ("^1.[ab]$", ("regex", "1.[ab]")),
        ("^a+$", ("regex", "a+")),
    ],
)
def test_an_expression_of_one_name_needs_no_listing(pattern: str, rule: tuple[str, str]) -> None:
    assert expression_rule(pattern, AT, FleetImport("f")) == rule
    assert expression_rule(pattern, AT, FleetImport("f"), literals=False)[0] == "regex"


def test_what_was_probably_meant_by_half_anchored_alternatives_is_shown() -> None:
    into = FleetImport("f")
    expression_rule("^1.*|latest$", AT, into)
    (warning, *_) = [str(finding) for finding in into.finish().findings if finding.place == AT]
    assert warning.startswith("theirs.yaml:3: warning: '^1.*|latest$' anchors only parts")
    assert "'1.*.*|.*latest' with that meaning; probably '1.*|latest' was meant" in warning


# -- ranges: the tags, and what each range selects of them in its own tool --------------------------------------------

TAGS = [
    *("1.25", "1.25.0", "1.25.3", "1.25.3-alpine", "1.25-alpine", "1.25.0-rc.1", "1.26.0-rc1", "v1.26.0", "2"),
    *("2.0.0-rc1", "3.12_rc1", "8.0.36_ubi9", "1.25.3.4", "01.25.03", "latest", "3.22-rfcurated"),
]
PLAIN = {"1.25", "1.25.0", "1.25.3", "v1.26.0", "2", "01.25.03"}
SUFFIXED = {"1.25.3-alpine", "1.26.0-rc1", "2.0.0-rc1", "3.22-rfcurated"}


def selected(sets: list[dict[str, object]]) -> set[str]:
    made = tuple(TagSet.parse("tag_sets", one) for one in sets)
    return {str(tag) for tag in TagSelector.of({}, made).select(map(TagName, TAGS)).tags}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">=1.25.0", PLAIN),
        (">= 1.25.0", PLAIN),
        ("=>1.25.0", PLAIN),
        (">=1.25.0-0", PLAIN | SUFFIXED | {"1.25-alpine", "1.25.0-rc.1"}),
        ("<2.0.0", PLAIN - {"2"}),
        ("1.25", {"1.25", "1.25.0", "1.25.3", "01.25.03"}),
        ("=1.25", {"1.25", "1.25.0", "1.25.3", "01.25.03"}),
        ("~1", PLAIN - {"2"}),
        ("~>1", PLAIN - {"2"}),
        ("^0", set()),
        (">=1.25.1, <2", {"1.25.3", "v1.26.0", "01.25.03"}),
        (">=1.25.1 <2 || 2.x", {"1.25.3", "v1.26.0", "01.25.03", "2"}),
        ("v1.25 - v1.25.0", {"1.25", "1.25.0"}),
        ("1.25.3 || >=2.0.0-0 <3", {"1.25.3", "01.25.03", "2", "2.0.0-rc1"}),
    ],
)
def test_a_range_of_skopeo_selects_what_skopeo_does(text: str, expected: set[str]) -> None:
    assert selected(masterminds_sets(text, AT, FleetImport("f"))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">=1.25.0", PLAIN | SUFFIXED | {"1.25.3.4"}),
        (
            "<2.0.0",
            (PLAIN - {"2"}) | {"1.25.3-alpine", "1.25-alpine", "1.25.0-rc.1", "1.26.0-rc1", "2.0.0-rc1", "1.25.3.4"},
        ),
        ("1.25", {"1.25", "1.25.0"}),
        ("=1.25", {"1.25", "1.25.0"}),
        ("~1", set()),
        ("~1.25", {"1.25", "1.25.0", "1.25.3", "01.25.03", "1.25.3-alpine", "1.25.3.4", "1.26.0-rc1"}),
        ("^0", set()),
        (">=1.25.1 <1.26", {"1.25.3", "01.25.03", "1.25.3-alpine", "1.25.3.4", "1.26.0-rc1"}),
    ],
)
def test_a_range_of_regsync_selects_what_regsync_does(text: str, expected: set[str]) -> None:
    assert selected([regclient_set(text, AT, FleetImport("f"))]) == expected


@pytest.mark.parametrize("text", [">= 1.25.0", "1 || 2", ">=1, <2", "1.2 - 1.4", "1.x", "", "next"])
def test_what_regsync_refuses_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        regclient_set(text, AT, FleetImport("f"))


def test_a_range_that_cannot_be_read_is_a_warning() -> None:
    into = FleetImport("f")
    assert read_ranges([(">=1", AT), ("next", AT)], into, masterminds_sets) is None
    assert "cannot be read at 'next'" in "".join(map(str, into.finish().findings))
