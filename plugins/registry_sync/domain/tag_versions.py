"""Versions in tags: numbers with a variant behind them, their order, and ranges of them.

Image tags are no semantic versions: ``22.04``, ``3.19-alpine``, ``8.0.36_ubi9``, ``1.25.3.4`` are versions to people.
So a tag is read as numbers and a suffix, a range compares the numbers, and missing numbers are 0. What is neither is no
version: a name such as ``latest``, or a commit such as ``1a2b3c4``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import zip_longest

from registry_sync.errors import ConfigurationError

#: Words that mark a suffix as that of a pre-release, with digits behind them or not.
PRERELEASE_WORDS = frozenset({"rc", "alpha", "beta", "pre", "preview", "snapshot", "nightly", "canary"})
#: Numbers from here on are dates or serials, and so are single numbers of this many digits.
FIRST_SERIAL = 10_000
SERIAL_DIGITS = 6

_VERSION = re.compile(r"[vV]?(?P<numbers>\d+(?:[._]\d+)*)(?:[-_+](?P<suffix>.*)|(?P<letters>[A-Za-z].*))?")
_COMMIT = re.compile(r"(?=.*[a-f])[0-9a-f]{7,40}", re.IGNORECASE)
_SUFFIX_PARTS = re.compile(r"[-_.+]")
_NUMBER_BEHIND = re.compile(r"(?P<word>\D*)\d*")

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class TagVersion:
    """``numbers`` as written, at least one; ``suffix`` is what stands behind them, empty for a plain version."""

    numbers: Numbers
    suffix: str = ""
    is_serial: bool = False

    @classmethod
    def parse(cls, tag: str) -> TagVersion | None:
        """The version of a tag: an optional ``v``, numbers with ``.`` or ``_`` between them, and a suffix behind ``-``,
        ``_``, ``+`` or at a letter. None for what is no version.
        """
        found = _VERSION.fullmatch(tag)
        if found is None or _COMMIT.fullmatch(tag):
            return None
        written = re.split("[._]", found["numbers"])
        numbers = tuple(map(int, written))
        is_long = len(written) == 1 and len(written[0]) >= SERIAL_DIGITS
        return cls(numbers, found["suffix"] or found["letters"] or "", is_long or numbers[0] >= FIRST_SERIAL)

    @cached_property
    def key(self) -> Numbers:
        """The numbers without zeros at their end: equal for ``1.25`` and ``1.25.0``, and in the order of versions."""
        return without_zeros(self.numbers)

    def is_prerelease(self, words: Iterable[str] = PRERELEASE_WORDS) -> bool:
        """Whether a part of the suffix is one of ``words``, in any case, with digits behind it or not."""
        wanted = {word.lower() for word in words}
        parts = _SUFFIX_PARTS.split(self.suffix.lower())
        return any(found["word"] in wanted for part in parts if (found := _NUMBER_BEHIND.fullmatch(part)))

    @property
    def shorter(self) -> Iterator[Numbers]:
        """The numbers of shorter names that move with this version: ``17`` and ``17.2`` for ``17.2.1``."""
        return (self.numbers[:count] for count in range(1, len(self.numbers)))


def without_zeros(numbers: Numbers) -> Numbers:
    """``numbers`` without zeros at their end."""
    kept = len(numbers)
    while kept and not numbers[kept - 1]:
        kept -= 1
    return numbers[:kept]


class SuffixRule(str, Enum):
    """What a range makes of suffixes: it ignores them, excludes versions with one, or orders them as SemVer does."""

    IGNORE = "ignore"
    EXCLUDE = "exclude"
    PRECEDENCE = "precedence"


@dataclass(frozen=True)
class _Bound:
    """``operator`` is ``>=``, ``<``, ``>``, ``<=``, ``=`` or ``!=``; ``until`` is where what ``!=`` excludes ends."""

    operator: str
    numbers: Numbers
    suffix: str = ""
    until: Numbers | None = None

    def allows(self, version: TagVersion, rule: SuffixRule) -> bool:
        order = _order(version, self, rule)
        if self.operator == "!=":
            below_end = self.until is None or version.key < without_zeros(self.until)
            return order < 0 or (order > 0 if self.until is None else not below_end)
        return {">=": order >= 0, "<": order < 0, ">": order > 0, "<=": order <= 0, "=": order == 0}[self.operator]

    @property
    def is_serial(self) -> bool:
        return self.numbers[0] >= FIRST_SERIAL


@dataclass(frozen=True)
class VersionRange:
    """Alternatives, of which one must allow a version; each is a list of bounds that all must."""

    text: str
    alternatives: tuple[tuple[_Bound, ...], ...]
    suffixes: SuffixRule = SuffixRule.IGNORE

    @classmethod
    def parse(cls, text: str, suffixes: SuffixRule = SuffixRule.IGNORE) -> VersionRange:
        """Reads ``>=3.12 <4 || ^2.1``, with ``> >= < <= = != ~ ^ x *`` and ``1.2 - 1.4`` as npm means them.

        Blanks and commas are *and*, ``||`` is *or*; missing numbers of ``>`` and ``<=`` are any. Raises
        :class:`ConfigurationError`.
        """
        alternatives = tuple(tuple(_bounds(part, text)) for part in text.split("||"))
        if suffixes is not SuffixRule.PRECEDENCE and any(bound.suffix for bounds in alternatives for bound in bounds):
            raise ConfigurationError(
                f"the version range {text[:80]!r} has a suffix; suffixes are compared only with suffixes: precedence"
            )
        return cls(text, alternatives, suffixes)

    def allows(self, version: TagVersion) -> bool:
        """Whether ``version`` is in the range. Dates and serials are only in ranges whose bounds are such numbers."""
        if self.suffixes is SuffixRule.EXCLUDE and version.suffix:
            return False
        return any(
            any(bound.is_serial for bound in bounds) is version.is_serial
            and all(bound.allows(version, self.suffixes) for bound in bounds)
            for bounds in self.alternatives
        )


_TOKEN = re.compile(r"(?P<operator>>=|<=|!=|[<>=~^]?)\s*(?P<version>[vV]?[0-9xX*][0-9A-Za-z.*+_-]*)\s*")
_HYPHEN = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_ANY = ("x", "X", "*")


def _bounds(part: str, text: str) -> Iterator[_Bound]:
    """The bounds of one alternative; none for ``*``."""
    hyphen = _HYPHEN.fullmatch(part)
    if hyphen is not None:
        part = f">={hyphen[1]} <={hyphen[2]}"
    rest = part.replace(",", " ").strip()
    if not rest:
        raise ConfigurationError(f"the version range {text[:80]!r} is empty or has nothing beside ||; * is any version")
    while rest:
        found = _TOKEN.match(rest)
        if found is None:
            raise ConfigurationError(
                f"the version range {text[:80]!r} cannot be read at {rest[:40]!r}; give one such as >=1.2 <2 or 3.x"
            )
        yield from _bounds_of(found["operator"], found["version"], text)
        rest = rest[found.end() :]


def _bounds_of(operator: str, written: str, text: str) -> Iterator[_Bound]:
    numbers, suffix, is_whole = _numbers(written, text)
    if not numbers:
        if operator in ("<", ">", "!="):
            raise ConfigurationError(f"the version range {text[:80]!r} allows nothing: {operator}{written}")
        return
    after = _next(numbers)
    if operator in (">=", "<"):
        yield _Bound(operator, numbers, suffix)
    elif operator in ("~", "^"):
        yield _Bound(">=", numbers, suffix)
        yield _Bound("<", _end(operator, numbers))
    elif is_whole:
        yield _Bound(operator or "=", numbers, suffix)
    elif operator == ">":
        yield _Bound(">=", after)
    elif operator == "<=":
        yield _Bound("<", after)
    elif operator == "!=":
        yield _Bound("!=", numbers, until=after)
    else:
        yield _Bound(">=", numbers)
        yield _Bound("<", after)


def _numbers(written: str, text: str) -> tuple[Numbers, str, bool]:
    """The numbers of a bound up to the first ``x``, its suffix, and whether it has three numbers or more."""
    parts = written.lstrip("vV").split(".")
    kept = next((place for place, part in enumerate(parts) if part in _ANY), len(parts))
    if kept == 0:
        return (), "", False
    version = TagVersion.parse(".".join(parts[:kept]))
    if version is None or (len(version.numbers) != kept and not version.suffix):
        raise ConfigurationError(f"the version range {text[:80]!r} has {written[:40]!r}, which is no version")
    # A number that is a date or serial stands for itself, and not for what begins with it.
    is_whole = (len(version.numbers) > 2 or version.is_serial) and kept == len(parts)
    return version.numbers, version.suffix, is_whole


def _next(numbers: Numbers) -> Numbers:
    return (*numbers[:-1], numbers[-1] + 1)


def _end(operator: str, numbers: Numbers) -> Numbers:
    """Where ``~`` and ``^`` end: behind the second number, or behind the first that is not 0."""
    if operator == "~":
        return _next(numbers[:2])
    place = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    return _next(numbers[: place + 1])


def _order(version: TagVersion, bound: _Bound, rule: SuffixRule) -> int:
    """Less than, equal to or greater than 0, as ``version`` is below, at or above the bound."""
    here, there = version.key, without_zeros(bound.numbers)
    if here != there:
        return -1 if here < there else 1
    return _suffix_order(version.suffix, bound.suffix) if rule is SuffixRule.PRECEDENCE else 0


def _suffix_order(here: str, there: str) -> int:
    """The order of pre-releases (Semantic Versioning 2.0.0, 11.3 and 11.4): none is above any, numbers below texts."""
    if here == there:
        return 0
    if not here or not there:
        return 1 if not here else -1
    for own, other in zip_longest(here.split("."), there.split(".")):
        if own is None or other is None:
            return -1 if own is None else 1
        if own != other:
            return -1 if _identifier(own) < _identifier(other) else 1
    return 0


def _identifier(text: str) -> tuple[bool, int, str]:
    is_number = text.isascii() and text.isdigit()
    return (not is_number, int(text) if is_number else 0, "" if is_number else text)
