"""The mirrors of a task of many, the task, and the order in which it takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.domain.settled_mirrors import SettledMirror

if TYPE_CHECKING:
    from datetime import datetime

_LONGEST_SCOPE = 250


@dataclass(frozen=True)
class MirrorSync:
    """One mirror to sync: its repository, and ``start``, which validates it and opens the run of a key.

    A larger ``priority`` is more important. ``start`` is called in a thread of its own, and raises as a sync does.
    ``expect`` gives the run that ``start`` would open by what is known of the mirror, and None where ``start`` would do
    more than that; it writes nothing.
    """

    repository: str
    start: Callable[[RunKey], SyncRun]
    priority: int = 0
    expect: Callable[[SettledMirror], SyncRun | None] = lambda _known: None


@dataclass(frozen=True)
class MirrorTask:
    """The task that syncs the mirrors, which identifies their syncs and results: all map indexes have the same.

    ``started_at`` is when its DAG run started, which changes when it is cleared; None when unknown.
    """

    dag_id: str
    run_id: str
    task_id: str
    started_at: datetime | None = None

    def key(self, repository: str) -> RunKey:
        """The key of a mirror's sync; its scope says the task and the repository."""
        scope = f"{self.task_id}:{repository}"
        if len(scope) > _LONGEST_SCOPE:
            digest = hashlib.sha256(scope.encode()).hexdigest()[:16]
            scope = f"{scope[: _LONGEST_SCOPE - 17]}-{digest}"
        return RunKey(self.dag_id, self.run_id, scope)


class MirrorPlace(NamedTuple):
    """A mirror at its place in the order; ``refused_count`` are the tries that its registry itself refused."""

    number: int
    mirror: MirrorSync
    refused_count: int = 0
