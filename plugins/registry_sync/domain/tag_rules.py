"""Tags by rule: patterns, version ranges and the newest N, applied to a complete list of tags.

The rules of a set are applied in this order: names, globs and regular expressions; versions; exclusions; the newest. An
exact name is selected whatever the rules for versions say. Regular expressions are RE2's, which match in linear time
and mean what they mean in the tools that people come from; the library is imported only where one is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from functools import cached_property
from typing import Any

from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.tag_versions import PRERELEASE_WORDS, TagVersion, VersionRange
from registry_sync.errors import ConfigurationError

MAX_REGEXES = 64
MAX_REGEX_CHARACTERS = 1000
_REGEX_MEMORY_BYTES = 8 * 1024 * 1024
#: A tag that nobody has seen before is the newest.
_NOT_SEEN = datetime.max.replace(tzinfo=timezone.utc)


class TagOrder(str, Enum):
    """What *newest* means: the highest version, the latest first sight in our own history, or the last name."""

    VERSION = "version"
    FIRST_SEEN = "first_seen"
    NAME = "name"


@dataclass(frozen=True)
class RegexSet:
    """Regular expressions of RE2, matched against whole names. Raises :class:`ConfigurationError` when made."""

    patterns: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.patterns) > MAX_REGEXES:
            raise ConfigurationError(f"there are {len(self.patterns)} regular expressions; give at most {MAX_REGEXES}")
        _ = self._compiled

    def any(self, tag: str) -> bool:
        """Whether one of them matches the whole of ``tag``."""
        return any(compiled.fullmatch(tag) for compiled in self._compiled)

    def all(self, tag: str) -> bool:
        """Whether each of them matches the whole of ``tag``."""
        return all(compiled.fullmatch(tag) for compiled in self._compiled)

    @cached_property
    def _compiled(self) -> tuple[Any, ...]:
        return tuple(map(_compile, self.patterns))


def _compile(pattern: str) -> Any:
    if len(pattern) > MAX_REGEX_CHARACTERS:
        raise ConfigurationError(
            f"the regular expression {pattern[:40]!r}… has {len(pattern):,} characters; give at most "
            f"{MAX_REGEX_CHARACTERS:,}"
        )
    try:
        import re2
    except ImportError:
        raise ConfigurationError(
            f"the regular expression {pattern[:80]!r} needs the package google-re2, which is not installed; globs such "
            "as 3.* do without"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as problem:
        (reason,) = problem.args
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ConfigurationError(f"the regular expression {pattern[:80]!r} is not one of RE2: {said}") from None


@dataclass(frozen=True)
class VersionRule:
    """Which versions are selected, and how a version is read from a tag.

    ``prerelease_words`` are excluded, empty for none. ``fewest_numbers`` and ``most_numbers`` bound how many numbers a
    version has. ``version_from`` is a regular expression whose group ``v`` is the version; tags that do not match it
    are no versions.
    """

    range: VersionRange
    prerelease_words: frozenset[str] = PRERELEASE_WORDS
    fewest_numbers: int = 1
    most_numbers: int | None = None
    version_from: str | None = None

    def __post_init__(self) -> None:
        if self._version_from is not None and "v" not in self._version_from.groupindex:
            raise ConfigurationError(
                f"version_from is {str(self.version_from)[:80]!r}; name the version in it, as in ^(?P<v>.+)-amd64$"
            )

    def version(self, tag: str) -> TagVersion | None:
        """The version of a tag; None for what is none."""
        if self._version_from is None:
            return TagVersion.parse(tag)
        found = self._version_from.fullmatch(tag)
        return None if found is None or not found.group("v") else TagVersion.parse(found.group("v"))

    def allows(self, version: TagVersion) -> bool:
        """Whether ``version`` is selected."""
        count = len(version.numbers)
        return (
            count >= self.fewest_numbers
            and (self.most_numbers is None or count <= self.most_numbers)
            and not version.is_prerelease(self.prerelease_words)
            and self.range.allows(version)
        )

    @cached_property
    def _version_from(self) -> Any:
        return None if self.version_from is None else _compile(self.version_from)


@dataclass(frozen=True)
class TagSelection:
    """``tags`` are sorted by name. ``not_versions`` are candidates that a rule for versions left out as none."""

    tags: tuple[TagName, ...]
    not_versions: tuple[TagName, ...] = ()


@dataclass(frozen=True)
class TagRules:
    """A set of rules. Without ``names.include`` and ``regex`` every tag is a candidate.

    A tag is a candidate when a name, glob or one of ``regex`` matches it, and all of ``regex_all`` do. ``newest`` is
    how many of the candidates stay; in the order of versions it counts distinct numbers, and every variant of them
    stays, as does a shorter name of one (``17`` of ``17.2``). In other orders it counts tags.
    """

    names: TagFilter = field(default_factory=TagFilter)
    regex: RegexSet = field(default_factory=lambda: RegexSet(()))
    regex_all: RegexSet = field(default_factory=lambda: RegexSet(()))
    exclude_regex: RegexSet = field(default_factory=lambda: RegexSet(()))
    versions: VersionRule | None = None
    newest: int | None = None
    order: TagOrder = TagOrder.VERSION

    def __post_init__(self) -> None:
        if self.newest is not None and self.newest < 1:
            raise ConfigurationError(f"newest is {self.newest}; give a number from 1 on, or none for all")

    @property
    def needs_listing(self) -> bool:
        """Whether the tags have to be listed: not when exact names are all that is selected."""
        return bool(self.regex.patterns) or self.names.literal_tags is None

    def select(self, tags: Iterable[TagName], first_seen_at: Mapping[TagName, datetime] | None = None) -> TagSelection:
        """The selected ones of ``tags``, the complete list of an upstream.

        ``first_seen_at`` says since when we know a tag; what it lacks is new, and with none of it the order is that of
        versions. Raises :class:`ConfigurationError` when the newest are wanted and nothing has the order for it.
        """
        listed = sorted(set(tags))
        exact = set(self.names.exact_names)
        literal = {tag for tag in listed if tag in exact and self._is_kept(tag)}
        candidates = [tag for tag in listed if tag not in literal and self._is_candidate(tag)]
        not_versions: list[TagName] = []
        if self.versions is not None:
            rule = self.versions
            read = {tag: rule.version(tag) for tag in candidates}
            not_versions = [tag for tag, version in read.items() if version is None]
            candidates = [tag for tag, version in read.items() if version is not None and rule.allows(version)]
        candidates = [tag for tag in candidates if self._is_kept(tag)]
        if self.newest is not None and candidates:
            candidates, left_out = self._newest(candidates, self.newest, first_seen_at or {})
            not_versions += left_out
        return TagSelection(tuple(sorted({*literal, *candidates})), tuple(sorted(not_versions)))

    def _is_candidate(self, tag: TagName) -> bool:
        is_open = self.names.include is None and not self.regex.patterns
        is_named = self.names.include is not None and self.names.includes(tag)
        return (is_open or is_named or self.regex.any(tag)) and self.regex_all.all(tag)

    def _is_kept(self, tag: TagName) -> bool:
        return self.names.allows(tag) and not self.exclude_regex.any(tag)

    def _newest(
        self, candidates: Sequence[TagName], count: int, first_seen_at: Mapping[TagName, datetime]
    ) -> tuple[list[TagName], list[TagName]]:
        """The newest candidates, and those that have no place in the order."""
        if self.order is TagOrder.NAME:
            return sorted(candidates)[-count:], []
        if self.order is TagOrder.FIRST_SEEN and first_seen_at:
            return sorted(candidates, key=lambda tag: (first_seen_at.get(tag, _NOT_SEEN), tag))[-count:], []
        read = {tag: self._version(tag) for tag in candidates}
        known = {tag: version for tag, version in read.items() if version is not None}
        if not known and self.order is TagOrder.FIRST_SEEN:  # the first sync has no other order
            return sorted(candidates)[-count:], []
        if not known:
            raise ConfigurationError(
                f"newest {count} by version: none of {len(candidates):,} tags is a version, such as "
                f"{candidates[0]!r}; give another order, first_seen or name"
            )
        return newest_versions(known, count), [tag for tag in candidates if tag not in known]

    def _version(self, tag: TagName) -> TagVersion | None:
        return TagVersion.parse(tag) if self.versions is None else self.versions.version(tag)


def newest_versions(versions: Mapping[TagName, TagVersion], count: int) -> list[TagName]:
    """The tags of the ``count`` highest distinct numbers, and the shorter names of these."""
    shortened = {numbers for version in versions.values() for numbers in version.shorter}
    whole = {tag: version for tag, version in versions.items() if version.numbers not in shortened}
    counted = set(sorted({version.key for version in whole.values()})[-count:])
    kept = {tag: version for tag, version in whole.items() if version.key in counted}
    moving_with = {numbers for version in kept.values() for numbers in version.shorter}
    shorter = {tag for tag, version in versions.items() if tag not in whole and version.numbers in moving_with}
    return sorted(kept.keys() | shorter)
