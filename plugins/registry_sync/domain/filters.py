"""Filters of lists as values: comparisons of fields, combined by AND, OR and NOT; and the expressions that say them.

An expression is what Pulp's ``q`` takes: ``name="app" AND NOT (name__startswith=old OR number__gt=3)``. A value is a
word, or a text in double quotes in which a backslash precedes a quote or a backslash. NOT binds closest, then AND.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from registry_sync.errors import InvalidReference

#: The most comparisons in an expression, and how deep its parentheses and NOTs go.
MOST_COMPARISONS = 50
MOST_NESTED = 10


class Operator(str, Enum):
    """How a field compares with values; its value is what follows the field's name and ``__`` in parameters."""

    EQUAL = ""
    NOT_EQUAL = "ne"
    IN = "in"
    CONTAINS = "contains"
    CONTAINS_ANY_CASE = "icontains"
    STARTS = "startswith"
    STARTS_ANY_CASE = "istartswith"
    EQUAL_ANY_CASE = "iexact"
    GREATER = "gt"
    GREATER_OR_EQUAL = "gte"
    LESS = "lt"
    LESS_OR_EQUAL = "lte"
    RANGE = "range"
    IS_NULL = "isnull"


@dataclass(frozen=True)
class Match:
    """``field`` compares with ``values``: with one, any number for ``in``, two for ``range``, a bool for ``isnull``."""

    field: str
    values: tuple[Any, ...]
    how: Operator = Operator.EQUAL


@dataclass(frozen=True)
class AllOf:
    """Every part matches; without parts, everything does."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class AnyOf:
    """A part matches; without parts, nothing does."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class Not:
    """The part does not match."""

    part: Filter


Filter: TypeAlias = Match | AllOf | AnyOf | Not
EVERYTHING = AllOf()
#: The field of a comparison that nothing matches: of what other servers have and this one has not.
NOTHING = "nothing"


def text_matches(text: str, match: Match) -> bool:
    """Whether a text that is in no column compares as wanted; for equality, ``in``, and parts of a text."""
    value = match.values[0] if match.values else ""
    compared = {
        Operator.CONTAINS: value in text,
        Operator.CONTAINS_ANY_CASE: value.lower() in text.lower(),
        Operator.STARTS: text.startswith(value),
        Operator.STARTS_ANY_CASE: text.lower().startswith(value.lower()),
        Operator.EQUAL_ANY_CASE: text.lower() == value.lower(),
    }
    return compared.get(match.how, text in match.values)


@dataclass(frozen=True)
class LabelRule:
    """What a label must be: present for ``value`` None, else equal to it, or with ``value`` in it (``is_part``).

    ``is_negated``: absent for ``value`` None, else present with another value.
    """

    key: str
    value: str | None = None
    is_part: bool = False
    is_negated: bool = False


_LABEL_RULE = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<no>[\w.-]{1,255})|(?P<key>[\w.-]{1,255})\s*(?:(?P<how>!=|=|~)\s*(?P<value>[^,]*?))?)\s*"
)


def read_label_rules(text: str) -> tuple[LabelRule, ...]:
    """The rules of ``key=value,other!=value,part~text,present,!absent``, which all must match.

    Raises :class:`InvalidReference`.
    """
    rules = []
    for part in text.split(","):
        found = _LABEL_RULE.fullmatch(part)
        if found is None:
            raise InvalidReference(
                f"{part[:100]!r} selects no label: write key, !key, key=value, key!=value or key~part, with commas"
            )
        if found["absent"]:
            rules.append(LabelRule(found["no"], is_negated=True))
        else:
            how = found["how"]
            rules.append(LabelRule(found["key"], found["value"], is_part=how == "~", is_negated=how == "!="))
    return tuple(rules)


# -- expressions -------------------------------------------------------------------------------------------------------

#: Reads one comparison of an expression: the name of a parameter, and its text. Raises :class:`InvalidReference`.
ReadMatch: TypeAlias = Callable[[str, str], Filter]

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()=])|"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<word>[^\s()="\\]+))""",
)


@dataclass(frozen=True)
class _Token:
    """A mark, a word or a quoted text; ``word`` is in capitals for AND, OR and NOT."""

    text: str
    kind: str
    word: str = ""


def read_expression(text: str, read_match: ReadMatch) -> Filter:
    """The filter that an expression says. Raises :class:`InvalidReference`."""
    return _Expression(list(_tokens(text)), read_match).whole()


def _tokens(text: str) -> Iterator[_Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            raise InvalidReference(f"the expression cannot be read from character {position + 1} on")
        position = found.end()
        kind = str(found.lastgroup)
        said = found[kind]
        if kind == "quoted":
            yield _Token(re.sub(r"\\(.)", r"\1", said), kind)
        else:
            yield _Token(said, kind, said.upper() if kind == "word" else "")


class _Expression:
    """Recursive descent: OR of ANDs of NOTs of comparisons and parentheses."""

    def __init__(self, tokens: list[_Token], read_match: ReadMatch) -> None:
        self._tokens = tokens
        self._read_match = read_match
        self._position = self._depth = self._count = 0

    def whole(self) -> Filter:
        found = self._either()
        if self._position < len(self._tokens):
            raise InvalidReference(f"{self._tokens[self._position].text[:40]!r} is not expected here; AND or OR is")
        return found

    def _either(self) -> Filter:
        parts = [self._both()]
        while self._takes("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._one()]
        while self._takes("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _one(self) -> Filter:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise InvalidReference(f"the expression is nested more than {MOST_NESTED} times")
        try:
            if self._takes("NOT"):
                return Not(self._one())
            token = self._next()
            if (token.text, token.kind) == ("(", "mark"):
                inner = self._either()
                self._expect(")")
                return inner
            return self._comparison(token)
        finally:
            self._depth -= 1

    def _comparison(self, field: _Token) -> Filter:
        self._count += 1
        if self._count > MOST_COMPARISONS:
            raise InvalidReference(f"the expression has more than {MOST_COMPARISONS} comparisons")
        if field.kind != "word":
            raise InvalidReference(f"{field.text[:40]!r} stands where a field is expected")
        self._expect("=")
        value = self._next()
        if value.kind == "mark":
            raise InvalidReference(f"{value.text!r} stands where a value is expected")
        return self._read_match(field.text, value.text)

    def _takes(self, word: str) -> bool:
        is_next = self._position < len(self._tokens) and self._tokens[self._position].word == word
        self._position += is_next
        return is_next

    def _next(self) -> _Token:
        if self._position == len(self._tokens):
            raise InvalidReference("the expression ends too early")
        self._position += 1
        return self._tokens[self._position - 1]

    def _expect(self, mark: str) -> None:
        token = self._next()
        if (token.text, token.kind) != (mark, "mark"):
            raise InvalidReference(f"{token.text[:40]!r} stands where {mark!r} is expected")
