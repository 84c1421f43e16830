"""``FetchAndCommitOperator``: everything of a sync after its listing, in one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_sync.errors import TooManyRemovals
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.stage import TaskReport, open_stage
from registry_sync.operators.task_values import find_sync_run

if TYPE_CHECKING:
    from airflow.sdk import Context

#: The name under which the template of a map index finds the repository.
REPOSITORY_LABEL = "repository"


class FetchAndCommitOperator(CommitVersionOperator):
    """Fetches the manifests and blobs that a listing found, and commits the version: the short form of a sync.

    It takes the place of ``FetchManifestsOperator``, ``PlanBlobsOperator``, ``FetchBlobsOperator`` and
    ``CommitVersionOperator``, for repositories that need no distribution over tasks. It is not expanded over shards, so
    that it may be in a task group that is expanded over repositories. A repeat continues with what is left.

    :param sync_run: id of the run, as pushed by a listing task; None for the one listing task upstream of this task
    :param approve_removals: whether the run may remove more tags than its remote allows, whichever these will be. It
        counts when the DAG's author sets it, not when the run's trigger does
    :param approval_timeout: how long a stopped run waits for a response; zero for not at all, None for the setting
        ``approval_hours``
    :param trust_triggers: whether a user who may trigger the DAG may approve removals in the parameters of a run
    """

    ui_color = "#d8f0e8"

    def execute(self, context: Context) -> dict[str, Any]:
        """What ``CommitVersionOperator`` returns, and the counts of manifests and blobs as XCom ``summary``."""
        context["ti"].xcom_push(key="summary", value=self._fetch(context))
        return _labelled(context, super().execute(context))

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        sync_run: str,
        seen: str,
        stopped_for: str,
        *,
        stopped_by: str = TooManyRemovals.__name__,
    ) -> dict[str, Any]:
        """As ``CommitVersionOperator``: everything is fetched when a person is asked."""
        return _labelled(
            context, super().execute_complete(context, event, sync_run, seen, stopped_for, stopped_by=stopped_by)
        )

    def _fetch(self, context: Context) -> dict[str, int]:
        """Counts of tags, manifests and blobs; empty for a sync that has ended."""
        from dataclasses import asdict

        from registry_sync.sync.fetch_blobs import fetch_small_run
        from registry_sync.sync.fetch_manifests import ManifestsFetched, fetch_manifests

        report = TaskReport(self.log)
        with open_stage(context, "fetch") as stage:
            run, remote = stage.find(find_sync_run(self, context, self.sync_run))
            if run.state.is_settled:
                self.log.info("the sync has ended %s, so there is nothing to fetch", run.state.value)
                return {}
            client, remote = stage.connect(remote)
            last, database = stage.is_last_try, stage.database
            manifests = ManifestsFetched()
            for shard in database.runs.pending_shards(run.id):
                manifests += fetch_manifests(
                    client, database, run, remote, shard=shard, is_last_try=last, report=report
                )
            self.log.info("%s", manifests)
            blobs = fetch_small_run(
                client,
                stage.blobs,
                database,
                run,
                remote,
                min_shard_bytes=None,
                is_last_try=last,
                report=report,
                on_plan=stage.count_planned,
            )
            stage.count(manifests__fetched=manifests.manifest_count)
            if blobs is not None:
                stage.count(blobs__fetched=blobs.fetched_count, blobs__failed=blobs.failed_count)
        return {**asdict(manifests), **asdict(blobs)} if blobs else asdict(manifests)


def _labelled(context: Context, committed: dict[str, Any]) -> dict[str, Any]:
    """``committed``, whose repository the template of a map index finds."""
    context[REPOSITORY_LABEL] = committed["repository"]  # type: ignore[literal-required]
    return committed
