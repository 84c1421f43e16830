"""``CompareVersionsOperator``: the difference of two versions, for a person who decides about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from registry_sync.operators.stage import RegistryRetryPolicy, Stage, open_stage, skip
from registry_sync.operators.task_values import as_flag, as_list, as_text

if TYPE_CHECKING:
    from airflow.sdk import Context


class CompareVersionsOperator(BaseOperator):
    """Compares a version with another one, of the same repository or another, and reports it in Markdown.

    :param repository: name of the repository
    :param number: number of the version; None for the latest
    :param base_repository: name of the repository to compare with, the same by default. One that does not exist or has
        no version counts as empty
    :param base_number: number of the version to compare with; None for the latest of another repository, and for the
        base of the version in the same one
    :param tags: only these tags, names or globs, as a list or text with commas; None for all
    :param exclude_tags: tags to exclude, likewise
    :param mode: ``mirror`` for every difference, ``additive`` to exclude tags that only the base has
    :param skip_when_equal: whether downstream tasks are skipped when nothing differs
    """

    template_fields: Sequence[str] = (
        "repository",
        "number",
        "base_repository",
        "base_number",
        "tags",
        "exclude_tags",
        "mode",
        "skip_when_equal",
    )
    ui_color = "#e8f4f8"

    def __init__(
        self,
        *,
        repository: str,
        number: int | str | None = None,
        base_repository: str | None = None,
        base_number: int | str | None = None,
        tags: Sequence[str] | str | None = None,
        exclude_tags: Sequence[str] | str | None = None,
        mode: str = "mirror",
        skip_when_equal: bool | str = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        super().__init__(**kwargs)
        self.repository = repository
        self.number = number
        self.base_repository = base_repository
        self.base_number = base_number
        self.tags = tags
        self.exclude_tags = exclude_tags
        self.mode = mode
        self.skip_when_equal = skip_when_equal

    def execute(self, context: Context) -> dict[str, Any]:
        """``number``, ``base_number``, ``is_equal``, ``counts`` and ``names`` of tags by change, ``markdown``."""
        from registry_sync.domain.quantities import parse_choice
        from registry_sync.domain.records import SyncMode
        from registry_sync.domain.references import TagFilter
        from registry_sync.sync.compare_versions import compare_versions

        with open_stage(context) as stage:
            wanted = TagFilter.parse(as_list(self.tags), as_list(self.exclude_tags))
            mode = parse_choice(SyncMode, self.mode, "mode")
            does_skip = as_flag(self.skip_when_equal, "skip_when_equal")
            version, base = self._sides(stage)
            compared = compare_versions(stage.database.versions, version, base, tags=wanted, mode=mode)
        self.log.info("%s", compared.markdown())
        returned = compared.as_json()
        if compared.is_equal and does_skip:
            context["ti"].xcom_push(key="return_value", value=returned)
            skip(context, self.get_flat_relative_ids(upstream=False))
        return returned

    def _sides(self, stage: Stage) -> tuple[tuple[str, int], tuple[str, int]]:
        """Id and number of the version and of the base, number 0 for the empty version."""
        from registry_sync.errors import RecordNotFound
        from registry_sync.operators.version_outputs import find_number

        repository = stage.database.repositories.by_name(as_text(self.repository) or "")
        number = find_number(stage, repository, self.number)
        version, base_name = (repository.id, number), as_text(self.base_repository)
        if base_name is None or base_name == repository.name:
            if as_text(self.base_number) is None:
                return version, (repository.id, stage.database.versions.get(*version).base_number or 0)
            return version, (repository.id, find_number(stage, repository, self.base_number))
        try:
            base = stage.database.repositories.by_name(base_name)
        except RecordNotFound:
            if as_text(self.base_number) is None:
                return version, (repository.id, 0)
            raise
        if base.latest_number is None and as_text(self.base_number) is None:
            return version, (base.id, 0)
        return version, (base.id, find_number(stage, base, self.base_number))
