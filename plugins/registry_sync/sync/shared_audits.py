"""The sample of tags that are requested although a registry's list shows them as unchanged, shared by many mirrors.

A list that is out of date is found by requesting some of the tags that it vouches for. In a task of many mirrors of one
registry the sample is drawn from all of them, so that it costs what it would in one large repository. Each tag has the
same chance, tags that have moved before make up half of it, and the draw is complete whatever the order in which the
mirrors come: a mirror that turns out to need no list leaves its part to those after it.

From the first finding against a list on, each mirror of that registry has a sample of its own again; those that were
found unchanged before are audited by themselves too, see :mod:`registry_sync.sync.sync_mirrors`.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry_sync.sync.digest_hints import sample_size

if TYPE_CHECKING:
    from registry_sync.domain.references import TagName


@dataclass
class _Draw:
    """``wanted`` of ``left`` tags that are to come, each with the same chance."""

    left: int
    wanted: int

    def take(self, expected: int, tags: Collection[TagName]) -> list[TagName]:
        """Those of ``tags`` that are drawn, of a part for which ``expected`` were among those to come."""
        count = 0
        for _ in range(expected):
            count += random.random() * self.left < self.wanted - count
            self.left -= 1
        count = min(count, len(tags))
        self.wanted -= count
        return random.sample(sorted(tags), count)


class RegistryAudit:
    """Whether the lists of one registry have been trusted so far in a task; shared by all of its mirrors there."""

    def __init__(self) -> None:
        self.has_failed = False

    def fail(self) -> None:
        """Takes note of a finding against a list: from now on each mirror is audited by itself."""
        self.has_failed = True


@dataclass
class SharedAudit:
    """The sample of mirrors that are read together, all of one registry; safe to use from several threads.

    ``tags`` are those of each mirror's latest version by the id of its repository. ``moving`` gives those of them that
    have moved before, and is called once a mirror draws.
    """

    of_registry: RegistryAudit
    tags: Mapping[str, Collection[TagName]]
    moving: Callable[[], Mapping[str, Sequence[TagName]]]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _parts: dict[str, tuple[frozenset[TagName], int]] | None = None
    _of_moving: _Draw = field(default_factory=lambda: _Draw(0, 0))
    _of_others: _Draw = field(default_factory=lambda: _Draw(0, 0))

    def draw(self, repository_id: str, unchanged: Set[TagName]) -> list[TagName] | None:
        """The tags of a mirror to request, of those that its list shows as ``unchanged``; once for each mirror.

        None where the mirror is to be audited by itself.
        """
        with self._lock:
            if self.of_registry.has_failed:
                return None
            moving, other_count = self._all_parts().pop(repository_id, (frozenset(), 0))
            chosen = self._of_moving.take(len(moving), unchanged & moving)
            return chosen + self._of_others.take(other_count, unchanged - moving)

    def leave(self, repository_id: str) -> None:
        """Takes note that a mirror needs no sample, unless it has drawn: its part is left to the others."""
        with self._lock:
            if self._parts is None:
                self.tags = {id_: tags for id_, tags in self.tags.items() if id_ != repository_id}
                return
            moving, other_count = self._parts.pop(repository_id, (frozenset(), 0))
            self._of_moving.left -= len(moving)
            self._of_others.left -= other_count

    def _all_parts(self) -> dict[str, tuple[frozenset[TagName], int]]:
        """The moving tags of each mirror that is to come, and how many others it has."""
        if self._parts is None:
            moving = self.moving()
            self._parts = {
                id_: ((these := frozenset(moving.get(id_, ())).intersection(tags)), len(tags) - len(these))
                for id_, tags in self.tags.items()
            }
            moving_count = sum(len(these) for these, _ in self._parts.values())
            other_count = sum(count for _, count in self._parts.values())
            size = sample_size(moving_count + other_count)
            of_moving = min(moving_count, max(math.ceil(size / 2), size - other_count))
            self._of_moving = _Draw(moving_count, of_moving)
            self._of_others = _Draw(other_count, size - of_moving)
        return self._parts
