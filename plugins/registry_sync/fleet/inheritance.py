"""What a mirror inherits: defaults, then its group, then what it says itself.

Maps are merged by key, lists and texts replace, null clears. Rules for tags are merged as their sets have it: an
inherited map goes into each set of a list, and exclusions add up (:func:`tag_options`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry_sync.domain.references import TagFilter
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.yaml_text import Entries, Fields

TAGS = "tags"
#: The options of a remote that have other names in a set of rules.
_OPTION_NAMES = {"include": "include_tags", "exclude": "exclude_tags"}


@dataclass(frozen=True)
class TagRuleLevels:
    """The rules for tags of a mirror as they stand in the file: inherited ones, and its own; None where there are none.

    ``inherited_sets`` is a list of sets that a group has and its mirror does not replace.
    """

    inherited: Fields | None = None
    inherited_sets: Entries | None = None
    own: Fields | Entries | None = None


def merged(below: Fields, above: Fields) -> Fields:
    """The fields of ``above`` over those of ``below``; neither is changed. Rules for tags are left out."""
    made = Fields(above.place)
    made.repeated, made.first = above.repeated, above.first
    for fields in (below, above):
        for key, value in fields.items():
            if key != TAGS:
                present = made.get(key)
                is_map = isinstance(value, Fields) and isinstance(present, Fields)
                made[key] = merged(present, value) if is_map and present is not None else value
                made.places[key] = fields.places[key]
    return made


def tag_levels(defaults: Fields, group: Fields | None, mirror: Fields) -> TagRuleLevels:
    """The rules for tags of a mirror, level by level."""
    inherited: Fields | None = None
    inherited_sets: Entries | None = None
    for level in (defaults, group):
        if level is None or TAGS not in level:
            continue
        said = level[TAGS]
        if isinstance(said, Entries):
            inherited_sets = said
        else:
            inherited_sets = None
            inherited = None if said is None else merged_rules(inherited, said)
    if TAGS not in mirror:
        return TagRuleLevels(inherited, inherited_sets)
    own = mirror[TAGS]
    return TagRuleLevels(None if own is None else inherited, None, own)


def merged_rules(below: Any, above: Any) -> Any:
    """Rules over inherited ones: exclusions add up."""
    if not isinstance(above, Fields) or not isinstance(below, Fields):
        return above
    made = merged(below, above)
    before, after = below.get("exclude"), above.get("exclude")
    if isinstance(before, Entries) and isinstance(after, Entries):
        both = Entries(after.place)
        both.extend([*before, *after])
        both.places = [*before.places, *after.places]
        made["exclude"] = both
    return made


def tag_options(inherited: dict[str, Any] | None, own: dict[str, Any] | list[dict[str, Any]] | None) -> dict[str, Any]:
    """The options of a remote for rules that were read; what both have not is absent.

    One set of rules becomes options of the remote itself, with the inherited ones. Several, or one that names a tag
    which inherited exclusions would take away, become ``tag_sets`` over the inherited ones.
    """
    base = {_OPTION_NAMES.get(name, name): value for name, value in (inherited or {}).items()}
    if own is None:
        return base
    if isinstance(own, list):
        return {**base, "tag_sets": own}
    if _names_excluded(own.get("include"), base.get("exclude_tags")):
        return {**base, "tag_sets": [own]}
    made = {**base, **{_OPTION_NAMES.get(name, name): value for name, value in own.items()}}
    excluded = [*base.get("exclude_tags", ()), *own.get("exclude", ())]
    return {**made, "exclude_tags": list(dict.fromkeys(excluded))} if excluded else made


def _names_excluded(include: list[str] | None, excluded: list[str] | None) -> bool:
    """Whether an exact name of ``include`` is one that ``excluded`` excludes."""
    if not include or not excluded:
        return False
    try:
        return len(TagFilter.parse(include, excluded).exact_names) < len(TagFilter.parse(include).exact_names)
    except RegistrySyncError:  # reported where the remote is made
        return False
