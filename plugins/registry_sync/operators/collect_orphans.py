"""``CollectOrphansOperator``: garbage collection of content that no version and no running sync references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry_sync.operators.stage import RegistryRetryPolicy, Stage, open_stage
from registry_sync.operators.task_values import as_flag, as_number, dag_run_end
from registry_sync.operators.triggered import TriggeredTask

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class CollectOrphansOperator(TriggeredTask):
    """Records unreachable content, and removes what was recorded longer ago than the grace period.

    Runs concurrently with syncs; a repeat continues where a killed one stopped.

    :param grace_hours: how long orphans are kept; None for ``[registry_sync] orphan_grace_hours``
    :param preview: whether to report only what would be removed
    :param trust_triggers: whether a user who triggers a run may set a shorter grace period than the setting
    """

    template_fields: Sequence[str] = ("grace_hours", "preview")
    ui_color = "#efe0e0"

    def __init__(self, *, grace_hours: float | str | None = None, preview: bool | str = False, **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        super().__init__(**kwargs)
        self.grace_hours = grace_hours
        self.preview = preview

    def execute(self, context: Context) -> dict[str, Any]:
        """Counts and bytes of content that was, or would be, removed, and of content within its grace period."""
        from registry_sync.sync.maintenance.collect import collect_orphans, end_lost_runs, preview_collection

        with open_stage(context) as stage:
            previews, grace = as_flag(self.preview, "preview"), self._grace(stage)
            if not previews and grace < stage.settings.orphan_grace:
                self.require_author(context, stage.settings, "orphan_grace_hours to a shorter period")
            if not previews:
                end_lost_runs(stage.database.run_ends, lambda run: dag_run_end(context, run), report=self.log.info)
            work = preview_collection if previews else collect_orphans
            done = work(stage.database, stage.blobs, grace=grace, report=self.log.info)
        return {
            "dry_run": done.is_dry_run,
            "manifest_count": done.manifests.count,
            "blob_count": done.blobs.count,
            "untracked_count": done.untracked.count,
            "freed_bytes": done.freed_bytes,
            "waiting_manifest_count": done.waiting_manifests.count,
            "waiting_blob_count": done.waiting_blobs.count,
            "waiting_bytes": done.waiting_blobs.size_bytes,
            "released_run_count": done.released_runs,
        }

    def _grace(self, stage: Stage) -> timedelta:
        from datetime import timedelta

        from registry_sync.errors import ConfigurationError
        from registry_sync.hooks.settings import MOST_HOURS

        hours = as_number(self.grace_hours, "grace_hours")
        if hours is None:
            return stage.settings.orphan_grace
        if not 0 <= hours <= MOST_HOURS:
            raise ConfigurationError(f"grace_hours is {hours}; give a number from 0 to {MOST_HOURS:,}")
        return timedelta(hours=hours)
