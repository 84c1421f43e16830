"""``CheckFleetOperator``: fails with the mistakes of files that declare mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.domain.quantities import format_count
from registry_sync.errors import ConfigurationError
from registry_sync.operators.list_mirror_tags import declared_fleet
from registry_sync.operators.run_notes import RunNote
from registry_sync.operators.stage import open_stage

if TYPE_CHECKING:
    from airflow.sdk import Context

_IN_NOTE = 5


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
