"""``RollBackVersionOperator``: the content of an older version, as a new version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry_sync.operators.lineage import LineageTask, repository_dataset, version_dataset
from registry_sync.operators.stage import RegistryRetryPolicy, open_stage
from registry_sync.operators.task_values import as_text
from registry_sync.operators.version_outputs import version_outlets

if TYPE_CHECKING:
    from airflow.sdk import Context


class RollBackVersionOperator(LineageTask):
    """Makes a new version of a repository with the content of an older one, or none when the latest has it.

    Nothing is downloaded. The next mirror sync follows the upstream again.

    :param repository: name of the repository
    :param number: number of the version to roll back to
    :param description: description of the new version
    :param created_by: recorded as the version's creator; None for the user who triggered the run
    :param trust_triggers: whether a user who triggers the run may set all of this in its parameters
    """

    template_fields: Sequence[str] = ("repository", "number", "description", "created_by")
    ui_color = "#d8f0d8"

    def __init__(
        self,
        *,
        repository: str,
        number: int | str,
        description: str | None = None,
        created_by: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("outlets", version_outlets(repository))
        super().__init__(**kwargs)
        self.repository = repository
        self.number = number
        self.description = description
        self.created_by = created_by

    def execute(self, context: Context) -> dict[str, Any]:
        """``repository``, ``version`` or None, ``unchanged_version`` or None, ``missing_blob_count``."""
        from registry_sync.errors import InvalidReference
        from registry_sync.operators.version_outputs import derived_result, find_number, withhold_declared

        withhold_declared(self)
        with open_stage(context) as stage:
            repository = stage.database.repositories.by_name(as_text(self.repository) or "")
            if as_text(self.number) is None:
                raise InvalidReference("number: give the version to roll back to")
            self.require_author(context, stage.settings, f"the content of {repository.name!r}")
            number = find_number(stage, repository, self.number)
            made = stage.database.versions.roll_back(
                repository.id,
                number,
                by=as_text(self.created_by) or context["dag_run"].triggering_user_name,
                description=as_text(self.description),
            )
            outcome = "the latest version holds the same" if made.version is None else f"version {made.version.number}"
            self.log.info("%s rolled back to version %s: %s", repository.name, number, outcome)
            read = repository_dataset(repository.name, number)
            self.record_lineage(read, version_dataset(repository.name, made.version))
            return derived_result(stage, context, repository, made)
