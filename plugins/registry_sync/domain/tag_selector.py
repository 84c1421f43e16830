"""The tags that a remote selects: its own rules, or what any of its sets of rules selects.

Options that a set does not have are those of the remote. Exclusions add up: a set's own beat everything, and those of
the remote leave alone what the set includes by its exact name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import Reference, TagFilter, TagName
from registry_sync.domain.tag_options import TagSet
from registry_sync.domain.tag_rules import RegexSet, TagOrder, TagRules, TagSelection, TagTimes
from registry_sync.errors import ConfigurationError

#: A digest that is held without a tag has one of this and its hexadecimal part: versions hold what tags lead to.
UNTAGGED_PREFIX = "digest-"
_UNTAGGED = re.compile(rf"{UNTAGGED_PREFIX}[0-9a-f]{{32,}}")
_SELECTING = ("include", "regex", "regex_all", "semver", "newest", "newer_than")


@dataclass(frozen=True)
class TagSelector:
    """``sets`` are OR'ed, at least one. ``digests`` are held whatever the sets select: texts of :class:`Reference`.

    Raises :class:`ConfigurationError` for two orders of times, of which a listing has one.
    """

    sets: tuple[TagRules, ...] = (TagRules(),)
    digests: tuple[str, ...] = ()
    has_sets: bool = False

    def __post_init__(self) -> None:
        if len({order for rules in self.sets if (order := rules.needed_times) is not None}) > 1:
            raise ConfigurationError(
                "the sets of tag_sets have the orders first_seen and pushed; use one of them", option="tag_sets"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any], sets: Iterable[TagSet]) -> TagSelector:
        """The selector of a remote's own ``options``, by their names in a set, and of its ``sets``."""
        sets = tuple(sets)
        made = tuple(_rules(options, one.given) for one in sets) or (_rules(options, None),)
        digests = [*(options.get("digests") or ())]
        digests += [digest for one in sets for digest in one.given.get("digests") or ()]
        return cls(made, tuple(dict.fromkeys(digests)), bool(sets))

    @cached_property
    def pinned(self) -> Mapping[TagName, Digest]:
        """Tags that are held at a digest, whatever the upstream's tag is; a digest alone has a name of its own."""
        found: dict[TagName, Digest] = {}
        for reference in map(Reference.parse, self.digests):
            if reference.digest is not None:
                found[reference.tag or TagName(f"{UNTAGGED_PREFIX}{reference.digest.encoded[:64]}")] = reference.digest
        return found

    @cached_property
    def literal_tags(self) -> tuple[TagName, ...] | None:
        """The selected tags when all are exact names, so that no listing is needed; else None."""
        return None if any(rules.needs_listing for rules in self.sets) else self.exact_names

    @cached_property
    def exact_names(self) -> tuple[TagName, ...]:
        """The tags that are selected by their exact names, in order and without duplicates."""
        return tuple(dict.fromkeys(tag for rules in self.sets for tag in rules.exact_names()))

    @property
    def needed_times(self) -> TagOrder | None:
        """The order whose times :meth:`select` needs; None for none."""
        return next((order for rules in self.sets if (order := rules.needed_times) is not None), None)

    @property
    def is_by_name(self) -> bool:
        """Whether each tag is judged by its name alone, and not by its age or beside others."""
        return all(rules.newest is None and rules.newer_than is None for rules in self.sets)

    @property
    def option_beside_others(self) -> str:
        """The option that excludes a tag beside others: of the newest, or by its age."""
        if self.has_sets:
            return "tag_sets"
        return "newest" if self.sets[0].newest is not None else "newer_than"

    def wants(self, tag: TagName) -> bool:
        """Whether ``tag`` is selected as far as its name shows; the newest and the age are not looked at."""
        return self.excluding_option(tag) is None

    def allows(self, tag: TagName) -> bool:
        """Whether ``tag`` is not excluded."""
        return any(rules.is_kept(tag) for rules in self.sets)

    def excluding_option(self, tag: TagName) -> str | None:
        """The option that excludes ``tag`` by its name; None when it may be selected."""
        if tag in self.pinned:
            return None
        if _UNTAGGED.fullmatch(tag):
            return "digests"
        found = [rules.excluding_option(tag) for rules in self.sets]
        if None in found:
            return None
        return found[0] if not self.has_sets or set(found) == {"exclude_tags"} else "tag_sets"

    def select(self, tags: Iterable[TagName], times: TagTimes | None = None) -> TagSelection:
        """What any of the sets selects of ``tags``, the complete list of an upstream: :meth:`TagRules.select`."""
        listed = tuple(tags)
        found = [rules.select(listed, times) for rules in self.sets]
        if len(found) == 1:
            return found[0]
        selected = {tag for one in found for tag in one.tags}
        not_versions = {tag for one in found for tag in one.not_versions} - selected
        without_time = {tag for one in found for tag in one.without_time}
        return TagSelection(tuple(sorted(selected)), tuple(sorted(not_versions)), tuple(sorted(without_time)))


def _rules(options: Mapping[str, Any], own: Mapping[str, Any] | None) -> TagRules:
    """The rules of one set: ``own`` options, and the remote's where it has none; None for the remote without sets."""
    said = {**options, **(own or {})}
    include = said.get("include")
    if include is None and said.get("digests") and not any(said.get(name) for name in _SELECTING):
        include = ()  # digests alone select no tags besides
    excluded = tuple(options.get("exclude") or ())
    return TagRules(
        TagFilter(include, excluded if own is None else tuple(own.get("exclude") or ())),
        TagFilter(None, () if own is None else excluded),
        regex=RegexSet(said.get("regex") or ()),
        regex_all=RegexSet(said.get("regex_all") or ()),
        exclude_regex=RegexSet(said.get("exclude_regex") or ()),
        versions=said.get("semver"),
        newest=said.get("newest"),
        order=said.get("order") or TagOrder.VERSION,
        newer_than=said.get("newer_than"),
    )
