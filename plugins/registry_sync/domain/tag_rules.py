"""Tags by rule: patterns, version ranges and the newest N, applied to a complete list of tags.

The rules of a set are applied in this order: names, globs and regular expressions; versions; exclusions; age; the
newest. An exact name is selected whatever the rules for versions, age and the newest say. Regular expressions are
RE2's, which match in linear time and mean what they mean in the tools that people come from; the library is imported
only where one is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any

from registry_sync.domain.quantities import parse_duration, utc_now
from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.tag_versions import PRERELEASE_WORDS, TagVersion, VersionRange
from registry_sync.errors import ConfigurationError

MAX_REGEXES = 64
MAX_REGEX_CHARACTERS = 1000
MAX_NEWEST = 1_000_000
_REGEX_MEMORY_BYTES = 8 * 1024 * 1024
#: A tag that nobody has seen before is the newest.
_NOT_SEEN = datetime.max.replace(tzinfo=timezone.utc)


class TagOrder(str, Enum):
    """What *newest* means.

    The highest version; the latest first sight in our own history; the latest push, where the registry lists it; or the
    last name.
    """

    VERSION = "version"
    FIRST_SEEN = "first_seen"
    PUSHED = "pushed"
    NAME = "name"

    @property
    def is_of_times(self) -> bool:
        """Whether it is an order of times."""
        return self in (TagOrder.FIRST_SEEN, TagOrder.PUSHED)


class TagAge(str):
    """From when on tags are selected: a duration before now, such as ``90d``, or a date, such as ``2026-01-31``.

    A date is that of UTC, with a time behind ``T`` or without. Raises :class:`ConfigurationError`.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> TagAge:
        made = super().__new__(cls, text.strip())
        made.since(utc_now())
        return made

    def since(self, now: datetime) -> datetime:
        """The time from which on, seen from ``now``."""
        try:
            since = now - parse_duration(self) if self[-1:].isalpha() and self[-1:] != "Z" else _read_date(self)
        except (ValueError, OverflowError, ConfigurationError):
            raise ConfigurationError(
                f"newer_than is {self[:40]!r}; give a duration such as 90d or 12h, or a date such as 2026-01-31"
            ) from None
        return since if since.tzinfo else since.replace(tzinfo=timezone.utc)


def _read_date(text: str) -> datetime:
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


class CountOf(str, Enum):
    """What the newest N counts: distinct version numbers with all of their variants, or tags."""

    VERSIONS = "versions"
    TAGS = "tags"


@dataclass(frozen=True)
class TagTimes:
    """Since when tags are known, by the order that needs it; ``now`` is what ages are counted from."""

    first_seen_at: Mapping[TagName, datetime] = field(default_factory=dict)
    pushed_at: Mapping[TagName, datetime] = field(default_factory=dict)
    now: datetime = field(default_factory=utc_now)

    def of(self, order: TagOrder) -> Mapping[TagName, datetime]:
        """The times of an order; empty for one without."""
        return {TagOrder.FIRST_SEEN: self.first_seen_at, TagOrder.PUSHED: self.pushed_at}.get(order, {})


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


def replaced(pattern: str, replacement: str, text: str) -> str:
    r"""``text`` in which what ``pattern`` finds is replaced; ``\g<1>`` in ``replacement`` is its first group.

    Raises :class:`ConfigurationError` for a pattern that RE2 does not read, and a replacement that does not fit it.
    """
    compiled = _compile(pattern)
    try:
        found: str = compiled.sub(replacement, text)
    except (ValueError, IndexError, re.error):
        raise ConfigurationError(f"{replacement[:80]!r} does not fit the expression {pattern[:80]!r}") from None
    return found


@lru_cache(maxsize=1024)
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
class Newest:
    """How many of the candidates stay; ``of`` None counts versions in their order, and tags in any other."""

    count: int
    of: CountOf | None = None


@dataclass(frozen=True)
class TagSelection:
    """``tags`` are sorted by name. ``not_versions`` are candidates that a rule for versions left out as none.

    ``without_time`` are candidates that the registry lists without the time of their push; they count as just pushed.
    """

    tags: tuple[TagName, ...]
    not_versions: tuple[TagName, ...] = ()
    without_time: tuple[TagName, ...] = ()


@dataclass(frozen=True)
class TagRules:
    """A set of rules. Without ``names.include`` and ``regex`` every tag is a candidate.

    A tag is a candidate when a name, glob or one of ``regex`` matches it, and all of ``regex_all`` do. What
    ``also_exclude`` excludes stays where ``names`` includes it by its exact name. ``newer_than`` gives the time from
    which on a tag is selected, for the present time. ``newest`` is how many of the candidates stay; counting versions,
    every variant of a counted one stays, as does a shorter name of one (``17`` of ``17.2``).
    """

    names: TagFilter = field(default_factory=TagFilter)
    also_exclude: TagFilter = field(default_factory=TagFilter)
    regex: RegexSet = field(default_factory=lambda: RegexSet(()))
    regex_all: RegexSet = field(default_factory=lambda: RegexSet(()))
    exclude_regex: RegexSet = field(default_factory=lambda: RegexSet(()))
    versions: VersionRule | None = None
    newest: Newest | None = None
    order: TagOrder = TagOrder.VERSION
    newer_than: TagAge | None = None

    def __post_init__(self) -> None:
        if self.newest is not None and self.newest.of is CountOf.VERSIONS and self.order is not TagOrder.VERSION:
            raise ConfigurationError(
                f"newest counts versions, and order is {self.order.value}: count tags, or let order be version",
                option="newest",
            )
        if self.newer_than is not None and not self.order.is_of_times:
            raise ConfigurationError(
                f"newer_than is {self.newer_than}, and the order {self.order.value} has no times: let order be "
                "first_seen, or pushed where the registry lists it",
                option="newer_than",
            )

    @property
    def needs_listing(self) -> bool:
        """Whether the tags have to be listed: not when exact names are all that is selected."""
        return bool(self.regex.patterns) or self.names.literal_tags is None

    @property
    def needed_times(self) -> TagOrder | None:
        """The order whose times :meth:`select` needs; None for none."""
        has_order = self.newest is not None or self.newer_than is not None
        return self.order if has_order and self.order.is_of_times and self.needs_listing else None

    def exact_names(self) -> tuple[TagName, ...]:
        """The included entries that are exact names and not excluded, in order and without duplicates."""
        return tuple(tag for tag in self.names.exact_names if self.is_kept(tag))

    def is_kept(self, tag: TagName) -> bool:
        """Whether ``tag`` is not excluded, by name or by regular expression."""
        if not self.names.allows(tag) or self.exclude_regex.any(tag):
            return False
        return self.also_exclude.allows(tag) or tag in self._exact

    def excluding_option(self, tag: TagName) -> str | None:
        """The first option that excludes ``tag`` whatever else is listed, such as ``semver``; None for none."""
        if not self.is_kept(tag):
            return "exclude_regex" if self.exclude_regex.any(tag) else "exclude_tags"
        if tag in self._exact:
            return None
        if not self._is_named(tag):
            return "regex" if self.names.include is None else "include_tags"
        if not self.regex_all.all(tag):
            return "regex_all"
        return None if self._is_of_version(tag) else "semver"

    def _is_of_version(self, tag: TagName) -> bool:
        if self.versions is None:
            return True
        version = self.versions.version(tag)
        return version is not None and self.versions.allows(version)

    def select(self, tags: Iterable[TagName], times: TagTimes | None = None) -> TagSelection:
        """The selected ones of ``tags``, the complete list of an upstream.

        Of first sights a tag that ``times`` lacks is new, and without any time the order is that of versions. Raises
        :class:`ConfigurationError` when the newest are wanted and nothing has the order for it.
        """
        times = times or TagTimes()
        listed = sorted(set(tags))
        literal = {tag for tag in listed if tag in self._exact and self.is_kept(tag)}
        candidates = [tag for tag in listed if tag not in literal and self._is_candidate(tag)]
        not_versions: list[TagName] = []
        if self.versions is not None:
            rule = self.versions
            read = {tag: rule.version(tag) for tag in candidates}
            not_versions = [tag for tag, version in read.items() if version is None and self.is_kept(tag)]
            candidates = [tag for tag, version in read.items() if version is not None and rule.allows(version)]
        candidates = [tag for tag in candidates if self.is_kept(tag)]
        lacking = [tag for tag in candidates if tag not in times.pushed_at] if self.is_by_push else []
        if self.newer_than is not None:
            since, known = self.newer_than.since(times.now), times.of(self.order)
            candidates = [tag for tag in candidates if known.get(tag, _NOT_SEEN) >= since]
        if self.newest is not None and candidates:
            candidates, left_out = self._newest(candidates, self.newest, times)
            not_versions += left_out
        return TagSelection(
            tuple(sorted({*literal, *candidates})), tuple(sorted(set(not_versions) - literal)), tuple(lacking)
        )

    @property
    def is_by_push(self) -> bool:
        """Whether :meth:`select` needs the times of pushes."""
        return self.needed_times is TagOrder.PUSHED

    @cached_property
    def _exact(self) -> frozenset[TagName]:
        return frozenset(self.names.exact_names)

    def _is_named(self, tag: TagName) -> bool:
        is_open = self.names.include is None and not self.regex.patterns
        return is_open or (self.names.include is not None and self.names.includes(tag)) or self.regex.any(tag)

    def _is_candidate(self, tag: TagName) -> bool:
        return self._is_named(tag) and self.regex_all.all(tag)

    def _newest(
        self, candidates: Sequence[TagName], newest: Newest, times: TagTimes
    ) -> tuple[list[TagName], list[TagName]]:
        """The newest candidates, and those that have no place in the order."""
        count = newest.count
        if self.order is TagOrder.NAME:
            return sorted(candidates)[-count:], []
        read = {tag: self._version(tag) for tag in candidates}
        known = {tag: version for tag, version in read.items() if version is not None}
        if self.order.is_of_times and times.of(self.order):
            at = times.of(self.order)
            return sorted(candidates, key=lambda tag: (at.get(tag, _NOT_SEEN), *_place(tag, read[tag])))[-count:], []
        if self.order is TagOrder.PUSHED:
            raise ConfigurationError(
                f"newest {count} by push: the registry does not list when {len(candidates):,} tags were pushed; give "
                "another order"
            )
        if not known and self.order is TagOrder.FIRST_SEEN:  # the first sync has no other order
            return sorted(candidates)[-count:], []
        if not known:
            raise ConfigurationError(
                f"newest {count} by version: none of {len(candidates):,} tags is a version, such as "
                f"{candidates[0]!r}; give another order, first_seen or name"
            )
        left_out = [tag for tag in candidates if tag not in known]
        if newest.of is CountOf.TAGS:
            return sorted(known, key=lambda tag: _place(tag, known[tag]))[-count:], left_out
        return newest_versions(known, count), left_out

    def _version(self, tag: TagName) -> TagVersion | None:
        return TagVersion.parse(tag) if self.versions is None else self.versions.version(tag)


def _place(tag: TagName, version: TagVersion | None) -> tuple[Any, ...]:
    """The place among tags of one time: names, then versions, a plain one behind those with a suffix."""
    return (0, (), False, tag) if version is None else (1, version.key, not version.suffix, tag)


def newest_versions(versions: Mapping[TagName, TagVersion], count: int) -> list[TagName]:
    """The tags of the ``count`` highest distinct numbers, and the shorter names of these."""
    shortened = {numbers for version in versions.values() for numbers in version.shorter}
    whole = {tag: version for tag, version in versions.items() if version.numbers not in shortened}
    counted = set(sorted({version.key for version in whole.values()})[-count:])
    kept = {tag: version for tag, version in whole.items() if version.key in counted}
    moving_with = {numbers for version in kept.values() for numbers in version.shorter}
    shorter = {tag for tag, version in versions.items() if tag not in whole and version.numbers in moving_with}
    return sorted(kept.keys() | shorter)
