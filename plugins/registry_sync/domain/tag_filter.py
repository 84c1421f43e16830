"""Which tags of a repository are wanted: exact names and globs to include, and the same to leave out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from registry_sync.domain.references import TagName
from registry_sync.errors import InvalidReference

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_PATTERN = re.compile(r"[a-zA-Z0-9_.*?\[\]!-]{1,128}")


@dataclass(frozen=True)
class TagFilter:
    """``include`` None means every tag, an empty tuple none; ``exclude`` is applied after it.

    An entry is a tag name or a glob (``*``, ``?``, ``[ab]``, ``[!ab]``), matched against the whole name, with case.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None) -> TagFilter:
        """Checks every entry; blanks around entries and empty entries are dropped. Raises :class:`InvalidReference`."""
        return cls(None if include is None else _entries(include), _entries(exclude or ()))

    @property
    def literal_tags(self) -> tuple[TagName, ...] | None:
        """The tags asked for, when all are exact names, so that no listing is needed; else None."""
        if self.include is None or any(_GLOB_CHARACTERS.search(entry) for entry in self.include):
            return None
        return self.exact_names

    def wants(self, tag: TagName) -> bool:
        """Whether ``tag`` is asked for, by its name, by a glob or with all."""
        return bool(self.select([tag]))

    def left_out_by(self, tag: TagName) -> str | None:
        """The filter that does not let ``tag`` in, ``include_tags`` or ``exclude_tags``; None when it is wanted."""
        if not self.allows(tag):
            return "exclude_tags"
        return None if self.wants(tag) else "include_tags"

    def allows(self, tag: TagName) -> bool:
        """Whether ``tag`` is not among those to leave out."""
        return not _matcher(self.exclude)(tag)

    @property
    def exact_names(self) -> tuple[TagName, ...]:
        """The entries to include that are names, in their order, as far as they are not excluded."""
        excluded = _matcher(self.exclude)
        exact = (entry for entry in self.include or () if not _GLOB_CHARACTERS.search(entry))
        return tuple(TagName(entry) for entry in exact if not excluded(entry))

    def select(self, tags: Iterable[TagName]) -> list[TagName]:
        """The wanted ones of ``tags``, each once, sorted."""
        included = (lambda _name: True) if self.include is None else _matcher(self.include)
        excluded = _matcher(self.exclude)
        return sorted({tag for tag in tags if included(tag) and not excluded(tag)})


def _entries(entries: Iterable[str]) -> tuple[str, ...]:
    cleaned = []
    for entry in entries:
        text = entry.strip()
        if not text:
            continue
        if not _PATTERN.fullmatch(text):
            raise InvalidReference(f"{text[:80]!r} is neither a tag nor a glob of tags")
        if not _GLOB_CHARACTERS.search(text):
            TagName(text)
        cleaned.append(text)
    return tuple(dict.fromkeys(cleaned))


def _matcher(entries: tuple[str, ...]):  # type: ignore[no-untyped-def]
    exact = frozenset(entry for entry in entries if not _GLOB_CHARACTERS.search(entry))
    globs = [fnmatch.translate(entry) for entry in entries if entry not in exact]
    pattern = re.compile("|".join(globs)) if globs else None
    return lambda name: name in exact or (pattern is not None and pattern.match(name) is not None)
