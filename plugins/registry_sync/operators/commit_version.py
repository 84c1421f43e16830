"""``CommitVersionOperator``: the repository version with its content summary, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import AssetAlias, BaseOperator

from registry_sync.errors import RegistrySyncError
from registry_sync.operators.retry import RegistryRetryPolicy
from registry_sync.operators.stage import SYNC_RUN_TEMPLATE, Stage, open_stage

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.records import RepositoryVersion

#: How long a partial download waits for the task that continues it.
PARTIALS_KEPT_SECONDS = 7 * 24 * 3600
#: Every new version is an event of this alias, and of an asset of its repository; schedule DAGs on it.
VERSIONS_ALIAS = "registry_sync_versions"


class CommitVersionOperator(BaseOperator):
    """Commits the version that a run fetched, or none when nothing differs, and tells Airflow's assets of it.

    Runs when no earlier stage failed, skipped ones included.

    :param sync_run: id of the run, as ``list_tags`` hands it on
    """

    template_fields: Sequence[str] = ("sync_run",)
    ui_color = "#d8f0d8"

    def __init__(self, *, sync_run: str = SYNC_RUN_TEMPLATE, **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("trigger_rule", "none_failed")
        kwargs.setdefault("outlets", [AssetAlias(VERSIONS_ALIAS)])
        super().__init__(**kwargs)
        self.sync_run = sync_run

    def execute(self, context: Context) -> dict[str, Any]:
        """``repository``, ``version`` in the documented shape or None, ``holds`` as tag, digest and reason.

        ``unchanged_version`` is the latest version when nothing differed from it, else None.
        """
        from registry_sync.sync.commit_version import SHOWN_HOLDS, commit_version, version_document

        with open_stage(context) as stage:
            run, _ = stage.find(self.sync_run)
            result = commit_version(stage.database, run, tell=self.log.info)
            repository = stage.database.repositories.get(run.repository_id)
            latest = stage.database.versions.latest(run.repository_id) if result.version is None else None
            self._sweep(stage)
        if result.version is not None:
            self._tell_assets(context, repository.name, result.version)
        return {
            "repository": repository.name,
            "version": version_document(result.version) if result.version else None,
            "unchanged_version": version_document(latest) if latest else None,
            "hold_count": len(result.holds),
            "holds": [
                {"tag": hold.tag, "digest": hold.digest, "reason": hold.reason} for hold in result.holds[:SHOWN_HOLDS]
            ],
        }

    def _sweep(self, stage: Stage) -> None:
        """Removes partial downloads that nobody came back for; the version is committed, so a failure is only told."""
        try:
            count = stage.blobs.sweep_partials(PARTIALS_KEPT_SECONDS)
        except RegistrySyncError as problem:
            self.log.warning("partial downloads could not be swept: %s", problem)
            return
        if count:
            self.log.info("swept %s partial downloads that nobody continued", count)

    def _tell_assets(self, context: Context, repository: str, version: RepositoryVersion) -> None:
        from airflow.sdk import Asset

        uri = f"x-registry-sync://repositories/{version.repository_id}"
        asset = Asset(name=f"registry_sync/{repository}", uri=uri)
        extra: dict[str, Any] = {
            "repository": repository,
            "number": version.number,
            "href": version.href,
            "counts": version.summary.counts(),
        }
        context["outlet_events"][AssetAlias(VERSIONS_ALIAS)].add(asset, extra=extra)
