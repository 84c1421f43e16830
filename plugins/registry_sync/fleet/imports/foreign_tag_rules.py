"""Rules for tags as other tools write them, as rules of ``mirrors.yaml`` with the same meaning.

Regular expressions here match whole tags, those of most tools a part of them. Version ranges differ in what missing
numbers mean, and in which suffixes they select: what a range means in its tool is written out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from registry_sync.domain.tag_versions import TagVersion
from registry_sync.errors import ConfigurationError
from registry_sync.fleet.imports.imported_fleet import FleetImport, literal_tag
from registry_sync.fleet.yaml_text import Place

_FLAGS = re.compile(r"\(\?[imsU]+\)")
_ESCAPED = re.compile(r"\\([.\-_])")
DATES_MESSAGE = (
    "there a range without an upper end selects tags that are dates, such as 20230329; here they are no versions "
    "unless the range has such numbers itself"
)
#: Suffixes behind _ are no versions there, and variants here.
_NO_UNDERSCORES = ["*_*"]


# -- regular expressions ----------------------------------------------------------------------------------------------


def whole_expression(pattern: str) -> str:
    """``pattern``, which is searched for in tags, as an expression that matches the whole of the same tags."""
    flags = _FLAGS.match(pattern)
    prefix = flags[0] if flags else ""
    branches = _branches(pattern[len(prefix) :])
    if branches is None:
        return f".*(?:{pattern}).*"
    anchors = [(branch.startswith("^"), _ends_anchored(branch)) for branch in branches]
    if not any(start or end for start, end in anchors):
        return f"{prefix}.*(?:{'|'.join(branches)}).*"
    return prefix + "|".join(_whole_branch(branch, *anchor) for branch, anchor in zip(branches, anchors, strict=True))


def _whole_branch(branch: str, starts: bool, ends: bool) -> str:
    inner = branch.lstrip("^") if starts else f".*{branch}"
    if not ends:
        return f"{inner}.*"
    while _ends_anchored(inner):
        inner = inner[:-1]
    return inner


def _ends_anchored(branch: str) -> bool:
    if not branch.endswith("$"):
        return False
    escapes = len(branch[:-1]) - len(branch[:-1].rstrip("\\"))
    return escapes % 2 == 0


def is_half_anchored(pattern: str) -> bool:
    r"""Whether ``^`` and ``$`` stand in different alternatives, as in ``^a|b$``."""
    branches = _branches(_FLAGS.sub("", pattern, count=1))
    if branches is None or len(branches) < 2:
        return False
    return any(branch.startswith("^") is not _ends_anchored(branch) for branch in branches)


def _branches(pattern: str) -> list[str] | None:
    """The alternatives of a pattern outside its groups and classes; None where that is not clear."""
    if "\\Q" in pattern:
        return None
    found, depth, start, place, in_class = [], 0, 0, 0, False
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            place += 1
        elif in_class:
            in_class = character != "]" or pattern[:place].endswith(("[", "[^"))
        elif character == "[":
            in_class = True
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and not depth:
            found.append(pattern[start:place])
            start = place + 1
        place += 1
    return None if depth or in_class else [*found, pattern[start:]]


def expression_rule(pattern: str, place: Place, into: FleetImport, *, literals: bool = True) -> tuple[str, str]:
    """``("include", tag)`` where a pattern can only mean one tag, else ``("regex", expression)``.

    A pattern is one that is searched for. ``literals`` False where a name would pass rules that it must not pass.
    """
    whole = whole_expression(pattern)
    if literals and pattern.startswith("^") and _ends_anchored(pattern):
        plain = _ESCAPED.sub(r"\1", whole)
        name = literal_tag(plain) if "\\" not in plain else None
        if name is not None:
            if "." in _ESCAPED.sub("", whole):
                into.note(place, "a pattern whose only special character is . became the tag; there . is any character")
            return "include", name
    if is_half_anchored(pattern):
        branches = _branches(pattern) or []
        meant = "|".join(branch.lstrip("^").rstrip("$") for branch in branches)
        into.warn(
            place,
            f"{pattern!r} anchors only parts of its alternatives, so that it takes more tags than it seems to; it was "
            f"carried over as {whole!r} with that meaning; probably {meant!r} was meant",
        )
    return "regex", whole


# -- version ranges ---------------------------------------------------------------------------------------------------

_TERM = re.compile(r"\s*(?P<operator>=>|=<|~>|>=|<=|!=|[<>=~^]?)(?P<blank>\s*)(?P<version>[vV]?[0-9xX*][^\s,|]*)\s*,?")
_HYPHEN = re.compile(r"(^|[\s,])(\S+)\s+-\s+(\S+)")
_SPELLINGS = {"=>": ">=", "=<": "<=", "~>": "~"}


def masterminds_sets(text: str, place: Place, into: FleetImport) -> list[dict[str, Any]]:
    """The sets of rules for a range as skopeo reads it. Raises :class:`ConfigurationError`.

    Plain versions of one to three numbers; alternatives in which a bound has a suffix select versions with one as well.
    """
    plain: list[str] = []
    suffixed: list[str] = []
    for alternative in text.split("||"):
        terms = list(_terms(_HYPHEN.sub(r"\1>=\2 <=\3", alternative), text))
        written = " ".join(f"{operator}{version.lstrip('vV')}" for operator, version, _ in terms)
        (suffixed if any("-" in version for _, version, _ in terms) else plain).append(written)
    made: list[dict[str, Any]] = []
    if plain:
        made.append({"semver": {"range": " || ".join(plain), "suffixes": "exclude", "components": "1-3"}})
    if suffixed:
        semver = {"range": " || ".join(suffixed), "suffixes": "precedence", "prereleases": True, "components": "1-3"}
        made.append({"semver": semver, "exclude": list(_NO_UNDERSCORES)})
    _warn_of_dates(text, place, into)
    return made


def regclient_set(text: str, place: Place, into: FleetImport) -> dict[str, Any]:
    """The set of rules for a range as regsync reads it: missing numbers are 0, suffixes are pre-releases.

    Raises :class:`ConfigurationError`, also for what regsync refuses.
    """
    if "||" in text or "," in text or _HYPHEN.search(text):
        raise ConfigurationError(f"regsync itself refuses the range {text[:80]!r}: it knows bounds with blanks between")
    bounds: list[str] = []
    for operator, version, has_blank in _terms(text, text):
        if has_blank or re.search(r"[xX*]", version.partition("-")[0]):
            raise ConfigurationError(f"regsync itself refuses the range {text[:80]!r} at {version[:40]!r}")
        bounds += _regclient_bounds(operator, version)
    _warn_of_dates(text, place, into)
    semver = {"range": " ".join(bounds), "suffixes": "precedence", "prereleases": True}
    return {"semver": semver, "exclude": list(_NO_UNDERSCORES)}


def blang_set(text: str, place: Place, into: FleetImport) -> dict[str, Any]:
    """The set of rules for a range as dregsy reads it: bounds of three numbers or x, suffixes are pre-releases.

    Raises :class:`ConfigurationError`, also for what dregsy refuses.
    """
    if "," in text or _HYPHEN.search(text) or re.search(r"[~^]", text):
        raise ConfigurationError(f"dregsy itself refuses the range {text[:80]!r}: it knows bounds with blanks and ||")
    alternatives = []
    for alternative in text.split("||"):
        bounds = []
        for operator, version, _ in _terms(re.sub(r"!(?!=)", "!=", alternative), text):
            if len(version.partition("-")[0].split(".")) != 3:
                raise ConfigurationError(f"dregsy itself refuses {version[:40]!r} in a range: it needs three numbers")
            bounds.append(f"{operator}{version.lstrip('vV')}")
        alternatives.append(" ".join(bounds))
    _warn_of_dates(text, place, into)
    semver = {"range": " || ".join(alternatives), "suffixes": "precedence", "prereleases": True, "components": "1-3"}
    return {"semver": semver, "exclude": list(_NO_UNDERSCORES)}


def _regclient_bounds(operator: str, written: str) -> Iterator[str]:
    numbers_text, dash, suffix = written.lstrip("vV").partition("-")
    numbers = [int(number) for number in numbers_text.split(".")]
    numbers += [0] * (3 - len(numbers))
    whole = ".".join(map(str, numbers)) + dash + suffix
    if operator == "~":
        yield f">={whole}"
        yield f"<{numbers[0]}.{numbers[1] + 1}.0"
    elif operator == "^":
        place = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
        end = [*numbers[:place], numbers[place] + 1, *[0] * (len(numbers) - place - 1)]
        yield f">={whole}"
        yield f"<{'.'.join(map(str, end))}"
    else:
        yield f"{operator or '='}{whole}"


def _terms(alternative: str, text: str) -> Iterator[tuple[str, str, bool]]:
    """Operator, version, and whether a blank stands between, of each bound."""
    rest = alternative.strip()
    if not rest:
        raise ConfigurationError(f"the version range {text[:80]!r} is empty or has nothing beside ||")
    while rest:
        found = _TERM.match(rest)
        if found is None:
            raise ConfigurationError(f"the version range {text[:80]!r} cannot be read at {rest[:40]!r}")
        version = found["version"]
        numbers = re.split(r"\.[xX*]", version.partition("-")[0])[0]
        if version[0] not in "xX*" and TagVersion.parse(numbers) is None:
            raise ConfigurationError(f"the version range {text[:80]!r} has {version[:40]!r}, which is no version")
        yield _SPELLINGS.get(found["operator"], found["operator"]), version, bool(found["blank"] and found["operator"])
        rest = rest[found.end() :].strip()


def _warn_of_dates(text: str, place: Place, into: FleetImport) -> None:
    if any(">" in part and "<" not in part for part in text.replace("~>", "~").split("||")):
        into.warn(place, DATES_MESSAGE)


def read_ranges(
    texts: list[tuple[str, Place]], into: FleetImport, read: Callable[[str, Place, FleetImport], Any]
) -> list[Any] | None:
    """What ``read`` makes of each range; None, with a warning, where one cannot be read."""
    place = texts[0][1] if texts else None
    try:
        return [read(text, place, into) for text, place in texts]
    except (ConfigurationError, ValueError) as problem:
        into.warn(place or Place(into.file, 0), f"{problem}; what it selects is left out")
        return None
