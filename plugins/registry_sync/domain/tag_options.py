"""The rules for tags as options of a remote: read from JSON values and from text, and written as JSON values.

Each option is read by :data:`RULE_READERS`, with the same meaning in a remote and in one of its sets of rules. A value
is accepted as typed (``3``, ``{"count": 3, "of": "tags"}``), as stored, and as already read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.quantities import parse_choice
from registry_sync.domain.references import Reference, TagPattern, split_patterns
from registry_sync.domain.tag_rules import MAX_NEWEST, CountOf, Newest, RegexSet, TagAge, TagOrder, VersionRule
from registry_sync.domain.tag_versions import PRERELEASE_WORDS, SuffixRule, VersionRange
from registry_sync.errors import ConfigurationError, InvalidReference

MAX_SETS = 50
MAX_DIGESTS = 10_000
_MAX_TEXT = 100_000
_SEMVER_KEYS = ("range", "suffixes", "prereleases", "components", "version_from")


#: What each rule is, by the name of the option of a remote.
RULE_DESCRIPTIONS: Mapping[str, str] = {
    "regex": "Regular expressions (RE2) of whole tags, of which one must match where no name or glob does",
    "regex_all": "Regular expressions that must all match",
    "exclude_regex": "Regular expressions of tags to exclude",
    "semver": "A range of versions such as >=1.2 <2, or an object with range, suffixes, prereleases, components and "
    "version_from",
    "newest": "How many of the newest: versions with their variants, or tags; or an object with count and of",
    "order": "What the newest are, and what the age of a tag is",
    "newer_than": "Only newer tags: a duration such as 90d, or a date; with order first_seen or pushed",
    "digests": "Digests to hold: tag@sha256:… under that tag, sha256:… under a name of its own",
    "tag_sets": "Sets of rules for tags, of which any may select a tag; what one does not have is as beside it",
}


def read_document(name: str, given: Any) -> Any:
    """``given``, or the JSON value in a text that begins as an object or a list. Raises :class:`ConfigurationError`."""
    if not isinstance(given, str) or not given.lstrip().startswith(("{", "[")):
        return given
    try:
        return json.loads(given)
    except ValueError as problem:
        raise ConfigurationError(f"{name} is {given[:80]!r}, which is no JSON: {problem}") from None


def read_semver(name: str, given: Any) -> VersionRule:
    """A range, or an object with a range and what it says of suffixes, pre-releases and the count of numbers."""
    if isinstance(given, VersionRule):
        return given
    given = read_document(name, given)
    if isinstance(given, str):
        given = {"range": given}
    document = _object(name, given, _SEMVER_KEYS, "a range such as '>=1.2 <2', or an object with it as range")
    suffixes = parse_choice(SuffixRule, _text(f"{name}.suffixes", document.get("suffixes", "ignore")), "suffixes")
    fewest, most = _components(f"{name}.components", document.get("components", "any"))
    version_from = document.get("version_from")
    return VersionRule(
        VersionRange.parse(_text(f"{name}.range", document.get("range", "*")), suffixes),
        _prerelease_words(f"{name}.prereleases", document.get("prereleases", False)),
        fewest,
        most,
        None if version_from is None else _text(f"{name}.version_from", version_from),
    )


def semver_value(rule: VersionRule) -> str | dict[str, Any]:
    """What :func:`read_semver` reads as ``rule``: the range alone where nothing else is said."""
    more: dict[str, Any] = {}
    if rule.range.suffixes is not SuffixRule.IGNORE:
        more["suffixes"] = rule.range.suffixes.value
    if rule.prerelease_words != PRERELEASE_WORDS:
        more["prereleases"] = sorted(rule.prerelease_words) or True
    if (rule.fewest_numbers, rule.most_numbers) != (1, None):
        more["components"] = f"{rule.fewest_numbers}-{rule.most_numbers or ''}"
    if rule.version_from is not None:
        more["version_from"] = rule.version_from
    return {"range": rule.range.text, **more} if more else rule.range.text


def read_newest(name: str, given: Any) -> Newest:
    """A number, or an object with it as ``count`` and what it counts: ``of`` versions or tags."""
    if isinstance(given, Newest):
        return given
    given = read_document(name, given)
    if isinstance(given, int | str):
        given = {"count": given}
    document = _object(name, given, ("count", "of"), "a number, or an object with it as count")
    count, of = document.get("count"), document.get("of")
    if isinstance(count, str) and count.isascii() and count.isdigit():
        count = int(count[:12])
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_NEWEST:
        raise ConfigurationError(f"{name} is {str(count)[:40]!r}; give a number from 1 to {MAX_NEWEST}")
    return Newest(count, None if of is None else parse_choice(CountOf, _text(f"{name}.of", of), f"{name}.of"))


def newest_value(newest: Newest) -> int | dict[str, Any]:
    """What :func:`read_newest` reads as ``newest``."""
    return newest.count if newest.of is None else {"count": newest.count, "of": newest.of.value}


def read_regexes(name: str, given: Any) -> tuple[str, ...]:
    """A list of patterns, or a text with one on each line. Raises :class:`ConfigurationError` for what is not RE2."""
    lines = given.splitlines() if isinstance(given, str) else given
    patterns = tuple(pattern for pattern in _texts(name, lines, "regular expressions") if pattern.strip())
    try:
        RegexSet(patterns)
    except ConfigurationError as problem:
        raise problem.with_message(f"{name}: {problem}") from None
    return patterns


def read_digests(name: str, given: Any) -> tuple[str, ...]:
    """A list, or a text with commas or lines, of ``sha256:…`` and ``tag@sha256:…``.

    An object with ``digest`` and ``tag`` is an entry as well.
    """
    given = read_document(name, given)
    if isinstance(given, str):
        given = given.replace("\n", ",").split(",")
    entries = [_digest(name, entry) for entry in _list(name, given, "digests")]
    found = tuple(dict.fromkeys(entry for entry in entries if entry))
    if len(found) > MAX_DIGESTS:
        raise ConfigurationError(f"{name} has {len(found):,} entries; give at most {MAX_DIGESTS:,}")
    tags = [tag for entry in found if (tag := Reference.parse(entry).tag) is not None]
    twice = next((tag for tag in tags if tags.count(tag) > 1), None) if len(set(tags)) < len(tags) else None
    if twice is not None:
        raise ConfigurationError(f"{name} has two digests for the tag {twice}; give one")
    return found


def _digest(name: str, entry: Any) -> str:
    if isinstance(entry, Mapping):
        document = _object(name, entry, ("digest", "tag"), "a digest, or an object with it as digest")
        digest, tag = _text(f"{name}.digest", document.get("digest", "")), document.get("tag")
        entry = digest if tag is None else f"{_text(f'{name}.tag', tag)}@{digest}"
    text = _text(name, entry).strip()
    if text and Reference.parse(text).digest is None:
        raise InvalidReference(f"{name}: {text[:80]!r} is no digest; give sha256:… or tag@sha256:…")
    return text


def _patterns(name: str, given: Any) -> tuple[TagPattern, ...]:
    entries = split_patterns(given) if isinstance(given, str) else given
    return TagPattern.parse_all(_texts(name, entries, "tags and globs of tags"))


def _age(name: str, given: Any) -> TagAge:
    return TagAge(_text(name, given))


def _order(name: str, given: Any) -> TagOrder:
    return given if isinstance(given, TagOrder) else parse_choice(TagOrder, _text(name, given), name)


#: By the names of the options in a set of rules, called with the name and the value; never with None.
RULE_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "include": _patterns,
    "exclude": _patterns,
    "regex": read_regexes,
    "regex_all": read_regexes,
    "exclude_regex": read_regexes,
    "semver": read_semver,
    "newest": read_newest,
    "order": _order,
    "newer_than": _age,
    "digests": read_digests,
}


@dataclass(frozen=True)
class TagSet:
    """One of the sets of rules of a remote: the options that it has itself, read; None where it clears one."""

    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, document: Any) -> TagSet:
        """Raises :class:`ConfigurationError`, :class:`InvalidReference`; ``name`` says of which set."""
        known = _object(name, document, tuple(RULE_READERS), "an object with rules for tags")
        return cls(
            {
                option: None if value is None else RULE_READERS[option](f"{name}.{option}", value)
                for option, value in known.items()
            }
        )

    def document(self) -> dict[str, Any]:
        """The JSON object that :meth:`parse` reads."""
        return {option: rule_value(value) for option, value in self.given.items()}


def read_tag_sets(name: str, given: Any) -> tuple[TagSet, ...]:
    """A list of sets of rules, or one of them."""
    given = read_document(name, given)
    if isinstance(given, Mapping):
        given = [given]
    entries = _list(name, given, "sets of rules")
    if len(entries) > MAX_SETS:
        raise ConfigurationError(f"{name} has {len(entries)} sets; give at most {MAX_SETS}")
    return tuple(
        entry if isinstance(entry, TagSet) else TagSet.parse(f"{name}[{place}]", entry)
        for place, entry in enumerate(entries)
    )


def rule_value(value: Any) -> Any:
    """A value of one of these options as a JSON value."""
    if isinstance(value, VersionRule):
        return semver_value(value)
    if isinstance(value, Newest):
        return newest_value(value)
    if isinstance(value, TagSet):
        return value.document()
    if isinstance(value, TagOrder):
        return value.value
    if isinstance(value, tuple):
        return [rule_value(entry) if isinstance(entry, TagSet) else str(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


def _object(name: str, given: Any, keys: Sequence[str], wanted: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} is {str(given)[:40]!r}; give {wanted}")
    unknown = next((key for key in given if key not in keys), None)
    if unknown is not None:
        raise ConfigurationError(f"{name} has no {str(unknown)[:40]!r}; it has {', '.join(keys)}")
    return given


def _list(name: str, given: Any, of: str) -> Sequence[Any]:
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} is {str(given)[:40]!r}; give a list of {of}")
    return list(given)


def _texts(name: str, given: Any, of: str) -> list[str]:
    return [_text(name, entry) for entry in _list(name, given, of)]


def _text(name: str, given: Any) -> str:
    """A text as it is: a number might be one that has lost what was written, such as the 0 of ``1.10``."""
    if not isinstance(given, str) or len(given) > _MAX_TEXT:
        kind = type(given).__name__
        raise ConfigurationError(f"{name} is {str(given)[:40]!r}, of type {kind}; give text, in quotes where needed")
    return given


def _components(name: str, given: Any) -> tuple[int, int | None]:
    text = str(given).strip()
    low, dash, high = text.partition("-")
    bounds = [int(part) for part in (low, high) if part.isascii() and part.isdigit() and len(part) < 3]
    if text == "any":
        return 1, None
    if isinstance(given, bool) or len(bounds) != 1 + bool(dash and high) or not 1 <= bounds[0] <= bounds[-1]:
        raise ConfigurationError(f"{name} is {text[:40]!r}; give any, a number such as 3, or a range such as 1-3")
    return bounds[0], None if dash and not high else bounds[-1]


def _prerelease_words(name: str, given: Any) -> frozenset[str]:
    """The words that are left out: none for true, the usual ones for false, or a list of others."""
    if isinstance(given, bool):
        return frozenset() if given else PRERELEASE_WORDS
    if isinstance(given, str):
        raise ConfigurationError(f"{name} is {given[:40]!r}; give true, false, or a list of words that are left out")
    return frozenset(word.strip().lower() for word in _texts(name, given, "words") if word.strip())
