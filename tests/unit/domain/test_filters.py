"""Filters as values, and the expressions that say them."""

from __future__ import annotations

import pytest

from registry_sync.domain.filters import (
    MOST_COMPARISONS,
    MOST_NESTED,
    AllOf,
    AnyOf,
    Filter,
    LabelRule,
    Match,
    Not,
    read_expression,
    read_label_rules,
)
from registry_sync.errors import InvalidReference


def equal(field: str, value: str) -> Match:
    return Match(field, (value,))


A, B, C = equal("a", "1"), equal("b", "2"), equal("c", "3")


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("a=1", A),
        (' a = "1" ', A),
        ("(a=1)", A),
        ("a=1 AND b=2", AllOf((A, B))),
        ("a=1 and b=2 or c=3", AnyOf((AllOf((A, B)), C))),
        ("a=1 AND (b=2 OR c=3)", AllOf((A, AnyOf((B, C))))),
        ("NOT a=1 AND b=2", AllOf((Not(A), B))),
        ("NOT (a=1 AND b=2)", Not(AllOf((A, B)))),
        ("NOT NOT a=1", Not(Not(A))),
        ("a=1 OR b=2 OR c=3", AnyOf((A, B, C))),
        ('a="b AND (c=3)"', equal("a", "b AND (c=3)")),
        (r'a="say \"hi\" \\"', equal("a", 'say "hi" \\')),
        ('a=""', equal("a", "")),
        ("name__in=x,y:z/@sha", equal("name__in", "x,y:z/@sha")),
        ('a="AND"', equal("a", "AND")),
    ],
)
def test_an_expression_is_read(text: str, filter_: Filter) -> None:
    assert read_expression(text, equal) == filter_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a=",
        "=1",
        "a=1 b=2",
        "a=1 AND",
        "AND a=1",
        "(a=1",
        "a=1)",
        "()",
        "a==1",
        'a="1',
        '"a"=1',
        "NOT",
        "a=(1)",
        "a=1 OR OR b=2",
        "a=\\",
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        read_expression(text, equal)


def test_expressions_are_bounded() -> None:
    assert read_expression(" OR ".join(["a=1"] * MOST_COMPARISONS), equal)
    with pytest.raises(InvalidReference, match="more than 50 comparisons"):
        read_expression(" OR ".join(["a=1"] * (MOST_COMPARISONS + 1)), equal)
    assert read_expression("(" * (MOST_NESTED - 1) + "a=1" + ")" * (MOST_NESTED - 1), equal) == A
    for opening in ("(", "NOT "):
        with pytest.raises(InvalidReference, match="nested"):
            read_expression(opening * 5000 + "a=1", equal)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("env", LabelRule("env")),
        ("!env", LabelRule("env", is_negated=True)),
        ("env=prod", LabelRule("env", "prod")),
        ("env=", LabelRule("env", "")),
        ("env!=prod 2", LabelRule("env", "prod 2", is_negated=True)),
        (" env ~ pr ", LabelRule("env", "pr", is_part=True)),
        ("a.b-c_d=x=y", LabelRule("a.b-c_d", "x=y")),
    ],
)
def test_labels_are_selected_by_rules(text: str, rule: LabelRule) -> None:
    assert read_label_rules(text) == (rule,)
    assert read_label_rules(f"{text},other") == (rule, LabelRule("other"))


@pytest.mark.parametrize("text", ["", "a,,b", "=x", 'a"b', "a b", "!a=b", "$.x"])
def test_what_selects_no_label_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="selects no label"):
        read_label_rules(text)
