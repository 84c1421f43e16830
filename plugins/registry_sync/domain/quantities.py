"""The current time; booleans, choices and durations in user input; names, counts, sizes and durations for people."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import TypeVar

from registry_sync.errors import ConfigurationError

ChoiceT = TypeVar("ChoiceT", bound=Enum)


def utc_now() -> datetime:
    """The current time, aware and in UTC."""
    return datetime.now(timezone.utc)


def shortened(name: str, most: int = 60) -> str:
    """A name in at most so many characters: a long one by its beginning and its end, where long names differ.

    Airflow shows some 120 characters of a note's first line; counts follow a name there.
    """
    if len(name) <= most:
        return name
    end = most * 5 // 12
    return f"{name[: most - end - 1]}\N{HORIZONTAL ELLIPSIS}{name[-end:]}"


def parse_flag(value: object, name: str) -> bool | None:
    """``value`` as a boolean: one itself, or ``true`` or ``false`` in any case; None for None and for blank text.

    The one parser of booleans in settings, connections, parameters and requests. Raises :class:`ConfigurationError`
    with ``name`` for anything else: True may delete data, so nothing is guessed.
    """
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in ("true", "false", ""):
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is true or false")
    return text == "true" if text else None


def parse_choice(choices: type[ChoiceT], text: str, name: str) -> ChoiceT:
    """The one of ``choices`` with the value ``text``. Raises :class:`ConfigurationError`, which says all of them."""
    try:
        return choices(text)
    except ValueError:
        known = ", ".join(choice.value for choice in choices)
        raise ConfigurationError(f"{name} is {text[:40]!r}; it is one of {known}") from None


_DURATION = re.compile(
    r"(?:(?P<weeks>\d{1,4})w)?(?:(?P<days>\d{1,5})d)?(?:(?P<hours>\d{1,6})h)?"
    r"(?:(?P<minutes>\d{1,7})m(?:in)?)?(?:(?P<seconds>\d{1,9})s)?"
)


def parse_duration(text: str) -> timedelta:
    """``90d``, ``36h``, ``1h30m``, ``45s``: whole weeks, days, hours, minutes and seconds, in this order.

    Raises :class:`ConfigurationError`, for nothing and for 0 as well.
    """
    found = _DURATION.fullmatch(text.strip())
    numbers = {} if found is None else {unit: int(number) for unit, number in found.groupdict().items() if number}
    if not any(numbers.values()):
        raise ConfigurationError(f"{text[:40]!r} is no duration; give one such as 90d, 36h or 1h30m")
    return timedelta(**numbers)


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SECONDS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def format_bytes(size_bytes: float) -> str:
    """``340 MiB``: at most three digits, in binary units."""
    size = float(size_bytes)
    units = iter(_UNITS)
    unit = next(units)
    while size >= 1000 and (larger := next(units, None)) is not None:
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"


def format_count(count: int, noun: str) -> str:
    """``1 blob``, ``3,000 tags``, ``2 repositories``: the noun in singular or plural."""
    return f"{count:,} {noun if count == 1 else _plural(noun)}"


def format_duration(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``60 d 3 h``: at most two units."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    left = round(seconds)
    units: list[str] = []
    for unit, size in _SECONDS:
        if left >= size or units:
            units.append(f"{left // size} {unit}" if left // size else "")
            left %= size
        if len(units) == 2:
            break
    return " ".join(text for text in units if text)


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
