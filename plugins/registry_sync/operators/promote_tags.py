"""``PromoteTagsOperator``: tags of one repository, with all content below them, as a new version of another one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from registry_sync.errors import RecordNotFound
from registry_sync.operators.lineage import LineageTask, repository_dataset, version_dataset
from registry_sync.operators.stage import RegistryRetryPolicy, open_stage
from registry_sync.operators.task_values import as_list, as_text
from registry_sync.operators.version_outputs import version_outlets

if TYPE_CHECKING:
    from airflow.sdk import Context


class PromoteTagsOperator(LineageTask):
    """Copies tags of a version into another repository, which gets a new version, or none when nothing differs.

    Nothing is downloaded: content is stored once and shared by all repositories.

    :param source: name of the repository to copy tags from
    :param target: name of the repository to copy them into; created when it does not exist
    :param number: version of the source; None for its latest
    :param tags: tags to copy, names or globs, as a list or text with commas; None for all
    :param exclude_tags: tags to exclude, likewise
    :param mode: ``additive`` to keep the target's other content, ``mirror`` to make it equal the selection
    :param description: description of the new version
    :param created_by: recorded as the version's creator; None for the user who triggered the run
    :param trust_triggers: whether a user who triggers the run may name an existing target in its parameters
    """

    template_fields: Sequence[str] = (
        "source",
        "target",
        "number",
        "tags",
        "exclude_tags",
        "mode",
        "description",
        "created_by",
    )
    ui_color = "#d8f0d8"

    def __init__(
        self,
        *,
        source: str,
        target: str,
        number: int | str | None = None,
        tags: Sequence[str] | str | None = None,
        exclude_tags: Sequence[str] | str | None = None,
        mode: str = "additive",
        description: str | None = None,
        created_by: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("outlets", version_outlets(target))
        super().__init__(**kwargs)
        self.source = source
        self.target = target
        self.number = number
        self.tags = tags
        self.exclude_tags = exclude_tags
        self.mode = mode
        self.description = description
        self.created_by = created_by

    def execute(self, context: Context) -> dict[str, Any]:
        """``repository``, ``version`` or None, ``unchanged_version`` or None, ``missing_blob_count``."""
        from registry_sync.domain.quantities import parse_choice
        from registry_sync.domain.records import SyncMode, checked_name
        from registry_sync.domain.references import TagFilter
        from registry_sync.domain.version_history import CopyRequest
        from registry_sync.operators.version_outputs import derived_result, find_number, withhold_declared

        withhold_declared(self)
        with open_stage(context) as stage:
            wanted = TagFilter.parse(as_list(self.tags), as_list(self.exclude_tags))
            mode = parse_choice(SyncMode, self.mode, "mode")
            source = stage.database.repositories.by_name(as_text(self.source) or "")
            number = find_number(stage, source, self.number)
            name = checked_name(as_text(self.target) or "", "target: give the name of a repository")
            with suppress(RecordNotFound):
                stage.database.repositories.by_name(name)
                self.require_author(context, stage.settings, f"the content of {name!r}")
            target = stage.database.repositories.ensure(name)
            made = stage.database.versions.copy(
                target.id,
                CopyRequest(source.id, number, wanted, mode),
                by=as_text(self.created_by) or context["dag_run"].triggering_user_name,
                description=as_text(self.description),
            )
            outcome = "it has them already" if made.version is None else f"version {made.version.number}"
            self.log.info("tags of %s version %s promoted to %s: %s", source.name, number, target.name, outcome)
            read = repository_dataset(source.name, number)
            self.record_lineage(read, version_dataset(target.name, made.version))
            return derived_result(stage, context, target, made)
