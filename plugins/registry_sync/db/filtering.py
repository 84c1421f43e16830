"""Filters as SQL, the same on SQLite and PostgreSQL.

What is equal to a value, is among values, begins with a text or lies in a range is found in an index of the field where
there is one; text within a text, text in any case, and labels are looked for in all rows of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, false, func, not_, or_, true

from registry_sync.domain.filters import NOTHING, AllOf, AnyOf, Filter, LabelRule, Match, Not, Operator
from registry_sync.errors import InvalidReference

#: A column, or what makes the condition of a comparison that concerns more than one.
Searched: TypeAlias = ColumnElement[Any] | Callable[[Match], ColumnElement[bool]]
_LAST_CHARACTER = chr(0x10FFFF)


def condition(wanted: Filter, columns: Mapping[str, Searched]) -> ColumnElement[bool]:
    """The condition of a filter over ``columns``, by field. Raises :class:`InvalidReference` for another field."""
    if isinstance(wanted, AllOf):
        return and_(true(), *(condition(part, columns) for part in wanted.parts))
    if isinstance(wanted, AnyOf):
        return or_(false(), *(condition(part, columns) for part in wanted.parts))
    if isinstance(wanted, Not):
        inner = condition(wanted.part, columns)
        # NULL is neither: what has no value does not match, so its negation does.
        return not_(func.coalesce(inner, false()))
    if wanted.field == NOTHING:
        return false()
    searched = columns.get(wanted.field)
    if searched is None:
        raise InvalidReference(f"nothing is searched by {wanted.field[:40]!r} here")
    return compared(searched, wanted) if isinstance(searched, ColumnElement) else searched(wanted)


def compared(column: ColumnElement[Any], match: Match) -> ColumnElement[bool]:
    """The condition that one column compares as wanted."""
    if match.how is Operator.IN:
        return column.in_(match.values) if match.values else false()
    value = match.values[0]
    if match.how is Operator.RANGE:
        return column.between(value, match.values[1])
    if match.how is Operator.IS_NULL:
        return column.is_(None) if value else column.is_not(None)
    conditions: dict[Operator, Callable[[], ColumnElement[bool]]] = {
        Operator.EQUAL: lambda: column == value,
        Operator.NOT_EQUAL: lambda: column.is_distinct_from(value),
        Operator.CONTAINS: lambda: _contains(column, value),
        Operator.CONTAINS_ANY_CASE: lambda: column.icontains(value, autoescape=True),
        Operator.STARTS: lambda: _starts(column, value),
        Operator.STARTS_ANY_CASE: lambda: column.istartswith(value, autoescape=True),
        Operator.EQUAL_ANY_CASE: lambda: func.lower(column) == func.lower(value),
        Operator.GREATER: lambda: column > value,
        Operator.GREATER_OR_EQUAL: lambda: column >= value,
        Operator.LESS: lambda: column < value,
        Operator.LESS_OR_EQUAL: lambda: column <= value,
    }
    return conditions[match.how]()


def without_dashes(column: Any, *, after: int = 0) -> ColumnElement[str]:
    """A text without its dashes, and without its first ``after`` characters."""
    return func.replace(func.substr(column, after + 1), "-", "")


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """LIKE ignores case on SQLite and not on PostgreSQL; replacing does not on either."""
    return func.replace(column, text, "") != column if text else true()


def _starts(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """A range, which an index of a column that is compared byte by byte finds."""
    if not text:
        return true()
    return and_(column >= text, column < text + _LAST_CHARACTER)


def labels_match(labels: Any, rules: Sequence[LabelRule]) -> ColumnElement[bool]:
    """The condition that a JSON column of labels follows all ``rules``."""
    return and_(true(), *(_label_matches(labels[rule.key].as_string(), rule) for rule in rules))


def _label_matches(label: ColumnElement[Any], rule: LabelRule) -> ColumnElement[bool]:
    if rule.value is None:
        return label.is_(None) if rule.is_negated else label.is_not(None)
    if rule.is_part:
        return and_(label.is_not(None), _contains(label, rule.value))
    return and_(label.is_not(None), label != rule.value if rule.is_negated else label == rule.value)
