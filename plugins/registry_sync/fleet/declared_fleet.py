"""A fleet: the mirrors that files declare, and the mistakes in these files.

The fleet's path is a file, or a folder. In a folder ``mirrors.yaml`` is the main file and every other ``*.yaml`` is
included; without it each file stands for itself. Included files have the connections, groups and defaults of the main
file, and may have further ones of their own.

A mistake in one mirror hurts that mirror, one in an included file the mirrors of that file. Reading is the same for
everybody: what depends on an environment is the values of ``${NAME}``, which are part of what was read.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from registry_sync.domain.mirrors import Mirror, MirrorGroup, Mistake
from registry_sync.errors import ConfigurationError

MAIN_FILE = "mirrors.yaml"
_SUFFIXES = (".yaml", ".yml")
MAX_FILES = 10_000


@dataclass(frozen=True)
class FleetSources:
    """What a fleet was read from: hashes by path below ``folder``, patterns of included files, and variables.

    A missing file has the hash None.
    """

    files: Mapping[str, str | None]
    included: tuple[str, ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Fleet:
    """The mirrors of files, by repository, and the mistakes.

    ``documents`` are those of :meth:`Mirror.document`, in the order of the files; ``group_documents`` those of groups
    that are synced as a batch.
    """

    path: Path
    documents: tuple[Mapping[str, Any], ...] = ()
    group_documents: tuple[Mapping[str, Any], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    sources: FleetSources = field(default_factory=lambda: FleetSources({}))
    #: Whether nothing could be read: the main file is missing, or is not YAML.
    is_unreadable: bool = False

    @cached_property
    def mirrors(self) -> tuple[Mirror, ...]:
        """All mirrors in the order of the files."""
        with without_garbage_collection():
            return tuple(map(Mirror.of_document, self.documents))

    @cached_property
    def _by_name(self) -> Mapping[str, Mapping[str, Any]]:
        return {document["repository"]: document for document in self.documents}

    def mirror(self, repository: str) -> Mirror:
        """The mirror of that repository. Raises :class:`ConfigurationError`, with the mistakes in it if there are."""
        found = self._by_name.get(repository)
        if found is not None:
            return Mirror.of_document(found)
        mistakes = [str(mistake) for mistake in self.mistakes if mistake.repository == repository]
        if mistakes:
            raise ConfigurationError(f"the mirror {repository!r} cannot be used: {'; '.join(mistakes)}")
        raise ConfigurationError(f"no mirror of {str(self.path)!r} is of repository {repository!r}")

    @cached_property
    def groups(self) -> Mapping[str, MirrorGroup]:
        """The groups that are synced as a batch, by name."""
        found: dict[str, list[tuple[int, str]]] = {document["name"]: [] for document in self.group_documents}
        for document in self.documents:
            if document.get("is_batched") and document.get("is_enabled", True):
                found[document["group"]].append((-document.get("priority", 0), document["repository"]))
        return {
            document["name"]: MirrorGroup.of_document(
                document, tuple(name for _, name in sorted(found[document["name"]], key=itemgetter(0)))
            )
            for document in self.group_documents
        }

    @property
    def broken(self) -> Mapping[str, tuple[Mistake, ...]]:
        """Mistakes by the repositories of mirrors that cannot be used because of them."""
        found: dict[str, list[Mistake]] = {}
        for mistake in self.mistakes:
            if mistake.repository is not None and mistake.repository not in self._by_name:
                found.setdefault(mistake.repository, []).append(mistake)
        return {repository: tuple(mistakes) for repository, mistakes in found.items()}


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Reading makes many small objects and no garbage; looking for it costs more than the reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def root_files(path: Path) -> tuple[Path, list[str], tuple[str, ...]]:
    """The folder of a fleet, its main files, and the patterns that a folder includes."""
    if not path.is_dir():
        return path.parent, [path.name], ()
    if (path / MAIN_FILE).is_file():
        return path, [MAIN_FILE], ("*.yaml", "*.yml")
    return path, sorted(entry.name for entry in path.iterdir() if entry.suffix in _SUFFIXES), ()


def included_files(folder: Path, patterns: tuple[str, ...], main: list[str]) -> list[str]:
    """The files of patterns, relative to ``folder``, sorted, without the main ones and without hidden ones."""
    found = {
        entry.relative_to(folder).as_posix()
        for pattern in patterns
        for entry in folder.glob(pattern)
        if entry.is_file() and not entry.name.startswith(".")
    }
    return sorted(found - set(main))[:MAX_FILES]


def file_hash(data: bytes) -> str:
    """The hash by which the content of a file is known."""
    return hashlib.sha256(data).hexdigest()
