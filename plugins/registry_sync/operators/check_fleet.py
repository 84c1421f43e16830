"""Checks of a whole fleet: ``CheckFleetOperator`` of its files, ``CheckFreshnessOperator`` of its mirrors' ages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.domain.quantities import format_count
from registry_sync.errors import ConfigurationError
from registry_sync.operators.list_mirror_tags import declared_fleet
from registry_sync.operators.mirror_notifier import MirrorNotifier
from registry_sync.operators.run_notes import RunNote
from registry_sync.operators.stage import open_stage

if TYPE_CHECKING:
    from airflow.sdk import Context

_IN_NOTE, _MOST_NAMES = 5, 20
#: How much older than promised a mirror is before this finds it: its own run, or its deadline, says it first.
GRACE = timedelta(minutes=10)


class CheckFleetOperator(BaseOperator):
    """Reads the files again, logs every mistake with its file and line, and fails when there is one.

    Returns the counts ``mirrors``, ``groups`` and ``mistakes``.

    :param repository: only mistakes in this mirror; None for all of the fleet
    :param fleet_path: the file or folder that declares mirrors, an absolute path; None for the setting's
    """

    template_fields: Sequence[str] = ()

    def __init__(self, *, repository: str | None = None, fleet_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.fleet_path = fleet_path

    def execute(self, context: Context) -> dict[str, int]:
        """The counts."""
        with open_stage(context) as stage:
            fleet = declared_fleet(stage.settings, self.fleet_path)
            mistakes = fleet.mistakes
            if self.repository is not None:
                mistakes = fleet.broken.get(self.repository, ())
            for mistake in mistakes:
                self.log.error("%s", mistake)
            if mistakes:
                shown = tuple(map(str, mistakes[:_IN_NOTE]))
                RunNote("fleet", f"{format_count(len(mistakes), 'mistake')} in the file", shown).push(context)
                raise ConfigurationError(f"{format_count(len(mistakes), 'mistake')}: {'; '.join(shown)}")
            return {"mirrors": len(fleet.documents), "groups": len(fleet.groups), "mistakes": len(mistakes)}


class CheckFreshnessOperator(BaseOperator):
    """Notifies people of mirrors that are older than their ``freshness``, also where their runs never start.

    A paused DAG, or one without a schedule, has no run that could say it. A mirror that was never synced is as old as
    the file that declares it. Each recipient hears of it once, whether here, by a deadline or by a run.

    Returns the count of all mirrors that are too old as ``stale``, and at most 20 of their names as ``mirrors``.

    :param fleet_path: the file or folder that declares them, an absolute path; None for the setting's
    """

    template_fields: Sequence[str] = ()

    def __init__(self, *, fleet_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fleet_path = fleet_path

    def execute(self, context: Context) -> dict[str, Any]:
        """The count and the names."""
        with open_stage(context) as stage:
            fleet = declared_fleet(stage.settings, self.fleet_path)
            changed_at = fleet.path.stat().st_mtime
            found = MirrorNotifier(on=["stale"], fleet_path=self.fleet_path).notify_of_ages(
                stage.database,
                fleet.mirrors,
                context,
                declared_at=datetime.fromtimestamp(changed_at, timezone.utc),
                grace=GRACE,
            )
            if found:
                shown = ", ".join(found[:_IN_NOTE])
                self.log.warning("%s older than promised: %s", format_count(len(found), "mirror"), shown)
            return {"stale": len(found), "mirrors": found[:_MOST_NAMES]}
