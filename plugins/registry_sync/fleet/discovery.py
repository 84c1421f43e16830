"""Mirrors for the repositories that a registry lists: which are meant, and the file that declares them.

The file is an ordinary included one, which people review, commit and edit. It only grows: what it has is kept as it
stands, also when the repository is gone upstream, and what is new is added at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from string import Formatter

from registry_sync.domain.references import RepositoryName
from registry_sync.errors import ConfigurationError, RegistrySyncError
from registry_sync.fleet.yaml_text import Entries, Fields, Misread, parse_yaml

_GLOB_PART = re.compile(r"\*\*|\*|\?")
_MEANINGS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
#: At most this many stars, so that a pattern takes no long time.
MAX_STARS = 8
_HEADER = """\
# yaml-language-server: $schema=./mirrors.schema.json
# Written by `airflow registry-sync fleet discover`, which adds repositories at the end and removes none.
version: 1
mirrors:
"""


@dataclass(frozen=True)
class DiscoveryRule:
    """Which repositories are meant: any of the globs ``include``, none of ``exclude``.

    ``*`` stands for text within a part of a name, ``**`` for any. ``repository`` is what each is named here, with
    ``{name}`` for the path and ``{last}`` for its last part; ``group`` is the group of the mirrors. More than ``most``
    repositories are an error.
    """

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    repository: str = "{name}"
    group: str | None = None
    most: int = 500

    def selected(self, names: Iterable[RepositoryName]) -> list[RepositoryName]:
        """Those of ``names`` that are meant. Raises :class:`ConfigurationError` for too many."""
        included, excluded = [[_expression(glob) for glob in globs] for globs in (self.include, self.exclude)]
        found = [
            name
            for name in names
            if any(one.fullmatch(name) for one in included) and not any(one.fullmatch(name) for one in excluded)
        ]
        if len(found) > self.most:
            raise ConfigurationError(
                f"{len(found):,} repositories match {', '.join(self.include)}, more than {self.most:,}: narrow it with "
                "--include and --exclude, or raise --max; nothing was written"
            )
        return found

    def named(self, name: RepositoryName) -> RepositoryName:
        """What a repository is named here. Raises :class:`ConfigurationError`."""
        try:
            fields = {key for _, key, _, _ in Formatter().parse(self.repository) if key is not None}
            if not fields or fields - {"name", "last"}:
                raise ConfigurationError(f"{self.repository[:80]!r} has to have {{name}} or {{last}}, and no other")
            return RepositoryName(self.repository.format(name=name, last=name.rpartition("/")[2]))
        except (ValueError, RegistrySyncError) as problem:
            raise ConfigurationError(f"the name of a repository here: {problem}") from None


@dataclass(frozen=True)
class Discovered:
    """The file as it is to be; ``gone`` are sources that it has and the registry lists no more."""

    text: str
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = field(default=())


def discovered(
    present: str, file: str, registry: str, names: Sequence[RepositoryName], rule: DiscoveryRule
) -> Discovered:
    """``present``, the text of the file, empty for a new one, with a mirror for each of ``names`` that it lacks.

    ``registry`` is what sources begin with: a host, with ``http://`` for a plain one. Raises
    :class:`ConfigurationError` for a file to whose end no mirror can be added, and for two sources of one repository.
    """
    sources, repositories = _declared(present, file)
    meant = rule.selected(names)
    added, lines = [], []
    for name in meant:
        source, repository = f"{registry}/{name}", str(rule.named(name))
        if source in sources:
            continue
        if repository in repositories:
            raise ConfigurationError(
                f"{file}: {repository!r} would be filled from {source} and is from {repositories[repository]}; give "
                "another --repository, such as mirror/{name}; nothing was written"
            )
        repositories[repository] = source
        added.append(source)
        more = f", group: {rule.group}" if rule.group else ""
        lines.append(f"- {{repository: {repository}, source: '{source}'{more}}}\n")
    text = present or _HEADER
    text += "" if text.endswith("\n") else "\n"
    if not lines and not present:
        raise ConfigurationError(f"{registry} lists no repository that matches {', '.join(rule.include)}")
    text += "".join(lines)
    if set(_declared(text, file)[0]) != {*sources, *added}:
        raise ConfigurationError(
            f"{file}: no mirror can be added at the end of this file; it has to end with mirrors, an entry a line"
        )
    listed = {f"{registry}/{name}" for name in names}
    matching = {source for source in sources if source.startswith(f"{registry}/") and _is_meant(source, registry, rule)}
    return Discovered(text, tuple(added), tuple(sorted(matching - listed)))


def _is_meant(source: str, registry: str, rule: DiscoveryRule) -> bool:
    name = source.removeprefix(f"{registry}/")
    return any(_expression(glob).fullmatch(name) for glob in rule.include)


def _declared(text: str, file: str) -> tuple[set[str], dict[str, str]]:
    """The sources of a file, and the source of each repository."""
    if not text.strip():
        return set(), {}
    try:
        top = parse_yaml(text.encode(), file)
    except Misread as misread:
        raise ConfigurationError(f"{file}:{misread.place.line}: {misread.message}") from None
    entries = top.get("mirrors") if isinstance(top, Fields) else None
    if entries is not None and not isinstance(entries, Entries):
        raise ConfigurationError(f"{file}: mirrors is no list")
    found: dict[str, str] = {}
    sources = set()
    for entry in entries or ():
        if isinstance(entry, Fields) and entry.get("source") is not None:
            source = str(entry["source"])
            sources.add(source)
            found[str(entry.get("repository") or source.rpartition("://")[2].partition("/")[2])] = source
    return sources, found


def _expression(glob: str) -> re.Pattern[str]:
    """A glob as an expression. Raises :class:`ConfigurationError` for one with too many stars."""
    parts = _GLOB_PART.split(glob)
    wild = _GLOB_PART.findall(glob)
    if len(wild) > MAX_STARS or not re.fullmatch(r"[a-z0-9._/*?-]+", glob):
        raise ConfigurationError(
            f"{glob[:80]!r} is no glob of repositories: lower case letters, digits, . _ - / and at most {MAX_STARS} "
            "of * within a part, ** across parts, and ?"
        )
    made = re.escape(parts[0])
    for token, part in zip(wild, parts[1:], strict=True):
        made += _MEANINGS[token] + re.escape(part)
    return re.compile(made)
