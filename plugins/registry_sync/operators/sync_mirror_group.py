"""``SyncMirrorGroupOperator``: syncs one part of a group of mirrors that a file declares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from registry_sync.errors import ConfigurationError
from registry_sync.operators.list_mirror_tags import declared_fleet
from registry_sync.operators.sync_mirrors import DEFAULT_CONCURRENCY, SyncMirrorsOperator
from registry_sync.operators.task_values import run_trigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.db.database import Database
    from registry_sync.domain.mirrors import Mirror
    from registry_sync.domain.runs import RunKey, RunTrigger, SyncRun
    from registry_sync.operators.stage import Stage
    from registry_sync.sync.mirror_tasks import MirrorSync

#: How many mirrors a task has about: fewer cost more tasks, more are lost to nobody but wait for each other.
PART_SIZE = 250


class SyncMirrorGroupOperator(SyncMirrorsOperator):
    """Syncs the enabled mirrors of a group as ``SyncMirrorsOperator`` does, after their records were made as declared.

    The file is read when the task runs. To be expanded over :func:`parts_of`: a mirror's part follows from its name, so
    that it stays the same when others are added, and the DAG does not change with each mirror.

    :param group: the name of the group
    :param part: ``{"number": 0, "parts": 4}``; None for the whole group
    :param fleet_path: the file or folder that declares it, an absolute path; None for the setting's
    :param concurrency: how many mirrors are synced at once, 1 to 64
    :param max_failed: how many mirrors may fail before the task does, as ``SyncMirrorsOperator``
    :param hand_over: whether large mirrors are handed over to the sync DAG; else they are synced in this task
    """

    template_fields: Sequence[str] = ()

    def __init__(
        self,
        *,
        group: str,
        part: Mapping[str, int] | None = None,
        fleet_path: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        max_failed: float | None = 0,
        hand_over: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(mirrors=(), concurrency=concurrency, max_failed=max_failed, hand_over=hand_over, **kwargs)
        self.group = group
        self.part = part
        self.fleet_path = fleet_path

    def _mirrors(self, stage: Stage, context: Context) -> list[MirrorSync]:
        from registry_sync.sync.declared_mirrors import expected_mirror_run
        from registry_sync.sync.mirror_tasks import MirrorSync

        fleet = declared_fleet(stage.settings, self.fleet_path)
        found = fleet.groups.get(self.group)
        if found is None:
            raise ConfigurationError(f"{str(fleet.path)!r} has no group {self.group!r} that is a batch")
        by = run_trigger(context)
        return [
            MirrorSync(
                name,
                partial(self._start, stage.database, mirror, by),
                mirror.priority,
                partial(expected_mirror_run, stage.database, mirror, by=by),
            )
            for name in found.repositories
            if self.owns(name) and (mirror := fleet.mirror(name))
        ]

    def owns(self, repository: str) -> bool:
        """Whether a mirror of the group is in this part of it."""
        return self.part is None or part_number(repository, self.part["parts"]) == self.part["number"]

    def _start(self, database: Database, mirror: Mirror, by: RunTrigger, key: RunKey) -> SyncRun:
        from registry_sync.sync.declared_mirrors import start_mirror

        run = start_mirror(database, mirror, key, by)
        if run.remote_changes:
            self.log.warning("%s: %s", mirror.repository, run.remote_changes)
        return run


def parts_of(count: int) -> list[dict[str, int]]:
    """The parts of a group of ``count`` mirrors, at least one."""
    parts = max(1, -(-count // PART_SIZE))
    return [{"number": number, "parts": parts} for number in range(parts)]


def part_number(repository: str, parts: int) -> int:
    """The part that a mirror is in."""
    return int.from_bytes(hashlib.sha256(repository.encode()).digest()[8:16], "big") % parts
