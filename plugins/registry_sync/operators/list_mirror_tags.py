"""``ListMirrorTagsOperator``: starts the sync of a mirror that a file declares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_sync.errors import ConfigurationError
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.task_values import run_key, run_trigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.db.database import Database
    from registry_sync.domain.mirrors import Mirror
    from registry_sync.domain.runs import SyncRun
    from registry_sync.domain.sync_plans import PlannedNames
    from registry_sync.fleet.declared_fleet import Fleet
    from registry_sync.hooks.settings import Settings
    from registry_sync.operators.stage import Stage


class ListMirrorTagsOperator(ListTagsOperator):
    """Makes the records of a declared mirror as the file says, and lists its tags as ``ListTagsOperator`` does.

    The file is read when the task runs, and it alone says what is synced: neither the run's ``conf`` nor options that
    were changed over REST count. What had to be changed is in the task's log and in the note of the run.

    :param repository: the mirror's repository, as the file has it
    :param fleet_path: the file or folder that declares it, an absolute path; None for the setting's
    :param preview: whether the run only finds what a sync would do, and changes nothing
    """

    template_fields: Sequence[str] = ("preview",)

    def __init__(
        self, *, repository: str, fleet_path: str | None = None, preview: bool | str = False, **kwargs: Any
    ) -> None:
        super().__init__(repository=repository, preview=preview, **kwargs)
        self.fleet_path = fleet_path

    def _start(self, stage: Stage, context: Context, database: Database) -> SyncRun:
        """The run in ``database``, after the records there were made as declared."""
        from registry_sync.sync.declared_mirrors import start_mirror

        return start_mirror(database, self._mirror(stage.settings), run_key(context), run_trigger(context))

    def _planned_names(self, stage: Stage, context: Context) -> PlannedNames:  # noqa: ARG002  as of its base
        from registry_sync.sync.declared_mirrors import planned_mirror_names

        return planned_mirror_names(self._mirror(stage.settings))

    def _mirror(self, settings: Settings) -> Mirror:
        return declared_fleet(settings, self.fleet_path).mirror(self.repository)


def declared_fleet(settings: Settings, fleet_path: str | Path | None = None) -> Fleet:
    """The fleet at ``fleet_path``, None for the setting's. Raises :class:`ConfigurationError` where there is none."""
    from registry_sync.fleet.loading import load_fleet

    path = settings.fleet_path if fleet_path is None else Path(fleet_path)
    if path is None:
        raise ConfigurationError(
            "no file declares mirrors: set [registry_sync] fleet_path to a file, or a folder of files"
        )
    return load_fleet(path, settings.fleet_cache)
