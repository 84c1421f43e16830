"""``ReclaimBlobsOperator``: frees the space used by the bytes of repositories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry_sync.errors import ConfigurationError
from registry_sync.operators.stage import RegistryRetryPolicy, open_stage
from registry_sync.operators.task_values import as_flag, as_list
from registry_sync.operators.triggered import TriggeredTask

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReclaimBlobsOperator(TriggeredTask):
    """Removes the bytes of blobs that only these repositories hold; their versions stay, and list the missing blobs.

    :param repositories: names of repositories
    :param keep_latest: whether the blobs of their latest versions keep their bytes
    :param preview: whether to report only what would be removed; a trigger may request no more than that
    :param trust_triggers: whether a trigger may request removal as well
    """

    template_fields: Sequence[str] = ("repositories", "keep_latest", "preview")
    ui_color = "#efe0e0"

    def __init__(
        self,
        *,
        repositories: Sequence[str] | str,
        keep_latest: bool | str = False,
        preview: bool | str = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        super().__init__(**kwargs)
        self.repositories = repositories
        self.keep_latest = keep_latest
        self.preview = preview

    def execute(self, context: Context) -> dict[str, Any]:
        """``blob_count`` and ``size_bytes`` of what was, or would be, removed."""
        from registry_sync.sync.maintenance.collect import reclaim_blobs

        with open_stage(context) as stage:
            names = as_list(self.repositories)
            if names is None:
                raise ConfigurationError("repositories: give the repositories whose bytes to reclaim")
            keep_latest, previews = as_flag(self.keep_latest, "keep_latest"), as_flag(self.preview, "preview")
            if not previews:
                self.require_author(context, stage.settings, "which bytes are removed")
            found = [stage.database.repositories.by_name(name) for name in names]
            latest = [(repository.id, repository.latest_number) for repository in found]
            gone = reclaim_blobs(
                stage.database,
                stage.blobs,
                [repository.id for repository in found],
                kept=[(owner, number) for owner, number in latest if keep_latest and number is not None],
                is_dry_run=previews,
                report=self.log.info,
            )
        return {"dry_run": previews, "blob_count": gone.count, "size_bytes": gone.size_bytes}
