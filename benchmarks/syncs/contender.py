"""What is measured: something that syncs one repository into a place of its own."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.results import Usage
from support.images import RepositoryContent

FIRST, UNCHANGED, MOVED = PASSES = ("first", "unchanged", "one tag moved")


@dataclass(frozen=True)
class Source:
    """The repository of a registry at ``url``, whose certificate and those it redirects to ``ca_path`` verifies."""

    url: str
    repository: str
    ca_path: Path | None = None

    @property
    def name(self) -> str:
        """As container clients name it, host and port first."""
        return f"{urlsplit(self.url).netloc}/{self.repository}"

    @property
    def is_plain(self) -> bool:
        """Whether the registry has no TLS."""
        return self.url.startswith("http:")


def empty_folder(folder: Path) -> None:
    """Makes ``folder``, empty, whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


class Contender(Protocol):
    """Syncs one :class:`Source` again and again. ``passes`` are those of :data:`PASSES` that it can do."""

    name: str

    @property
    def passes(self) -> tuple[str, ...]: ...

    def empty(self) -> None:
        """Removes what it has, so that the next sync is a first one. Not measured."""
        ...

    def ready(self) -> AbstractContextManager[None]:
        """What it requires runs for the time of the block, in which its passes are."""
        ...

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        """One pass, of :data:`PASSES`. Raises :class:`RuntimeError` with the reason when it does not end well."""
        ...

    def check(self, content: RepositoryContent) -> None:
        """Raises :class:`RuntimeError` unless it has the tags of ``content`` and all that they reach, byte for byte."""
        ...
