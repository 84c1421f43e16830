"""``CommitVersionOperator``: the repository version with its content summary, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from registry_sync.domain.platforms import platforms_warning
from registry_sync.domain.quantities import format_count, utc_now
from registry_sync.errors import ApprovalRequired, RegistrySyncError, RunEnded, SyncError, TooFewTags, TooManyRemovals
from registry_sync.operators.approvals import ApprovalResponse, can_ask, question, wait_for_response
from registry_sync.operators.lineage import LineageTask, upstream_dataset, version_dataset
from registry_sync.operators.links import SYNC_LINKS, set_links
from registry_sync.operators.mirror_notifier import notify_of_waiting
from registry_sync.operators.run_notes import (
    RunNote,
    about_sync,
    approved_note,
    held_note,
    referrers_note,
    version_summary,
)
from registry_sync.operators.stage import RegistryRetryPolicy, Stage, TaskReport, open_stage
from registry_sync.operators.task_values import as_flag, find_sync_run
from registry_sync.operators.version_outputs import emit_asset_events, has_event, version_outlets, withhold_declared

if TYPE_CHECKING:
    from airflow.sdk import Context

    from registry_sync.domain.runs import CommitResult, SyncRun

#: How long a resumable download is kept for the task that continues it.
RESUMABLES_KEPT_SECONDS = 7 * 24 * 3600


_APPROVABLE: dict[str, type[ApprovalRequired]] = {kind.__name__: kind for kind in (TooManyRemovals, TooFewTags)}


class CommitVersionOperator(LineageTask):
    """Commits the version that a run fetched, or none when nothing differs, and emits events of Airflow's assets.

    Runs when no earlier stage failed, skipped ones included. When a mirror would remove more tags than the remote
    allows, it waits among Airflow's required actions; once a person approves the removals there, over REST or with the
    command, the same run continues. It fails when they are rejected, or nobody responds in time; then clearing this
    task continues the run once they are approved.

    :param sync_run: id of the run, as pushed by a listing task; None for the one listing task upstream of this task
    :param approve_removals: whether the run may remove more tags than its remote allows, whichever these will be. It
        counts when the DAG's author sets it, not when the run's trigger does
    :param approval_timeout: how long a stopped run waits for a response; zero for not at all, None for the setting
        ``approval_hours``
    :param trust_triggers: whether a user who may trigger the DAG may approve removals in the parameters of a run
    """

    template_fields: Sequence[str] = ("sync_run", "approve_removals")
    ui_color = "#d8f0d8"
    operator_extra_links = SYNC_LINKS

    def __init__(
        self,
        *,
        sync_run: str | None = None,
        approve_removals: bool | str = False,
        approval_timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RegistryRetryPolicy())
        kwargs.setdefault("trigger_rule", "none_failed")
        kwargs.setdefault("outlets", version_outlets())
        super().__init__(**kwargs)
        self.sync_run = sync_run
        self.approve_removals = approve_removals
        self.approval_timeout = approval_timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """``repository``, ``version`` in the documented shape or None, ``holds`` as tag, digest and reason.

        ``unchanged_version`` is the latest version when nothing differed from it, else None; ``removals_approved_by``
        is who approved the removal of more tags than the remote allows, None where no approval was needed.
        """
        with open_stage(context, "commit_version") as stage:
            run, _ = stage.find(find_sync_run(self, context, self.sync_run))
            if as_flag(self.approve_removals, "approve_removals") and self._may_approve(stage, run, context):
                user = context["dag_run"].triggering_user_name
                with suppress(RunEnded):  # a repeat after the commit returns the same version
                    approved_by = user or f"the parameters of {run.key.run_id}"
                    stage.database.runs.approve_removals(run.id, approved_by, in_advance=True)
            return self._commit(stage, run, context)

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
        """Continues after a response: as ``execute`` when the tags ``seen`` were approved.

        Raises :class:`AirflowFailException` when they were rejected, or nobody responded in time. ``stopped_for`` is
        why the sync had stopped, ``stopped_by`` the name of the error.
        """
        response = ApprovalResponse.of_event(event)
        with open_stage(context, "commit_version") as stage:
            run, _ = stage.find(sync_run)
            if not response.is_approved:
                refusal = _APPROVABLE[stopped_by]
                raise _final(run, refusal(response.refusal(stopped_for, refusal.approvable)))
            self.log.info("%s approved %s at %s", response.by, _APPROVABLE[stopped_by].approvable, response.at)
            with suppress(RunEnded):
                stage.database.runs.approve_removals(run.id, response.by or "", seen=seen)
            return self._commit(stage, run, context, response)

    def _commit(
        self, stage: Stage, run: SyncRun, context: Context, response: ApprovalResponse | None = None
    ) -> dict[str, Any]:
        """The version and its consequences; stops for removals that were not approved, and asks once."""
        from registry_sync.sync.commit_version import commit_version

        withhold_declared(self)
        try:
            result = commit_version(stage.database, run, report=TaskReport(self.log))
        except SyncError as refused:
            if response is None and isinstance(refused, ApprovalRequired):
                self._ask(stage, run, context, refused)
            raise _final(run, refused) from refused.__cause__
        return self._returned(stage, run, context, result, None if response is None else response.at)

    def _ask(self, stage: Stage, run: SyncRun, context: Context, refused: ApprovalRequired) -> None:
        """Waits for a person to approve; returns when the sync is not to wait, or cannot."""
        timeout = stage.settings.approval_wait if self.approval_timeout is None else self.approval_timeout
        if timeout <= timedelta(0):
            return
        repository = stage.database.repositories.get(run.repository_id)
        if not can_ask(context, *question(refused, repository.name, repository.latest_number)):
            return
        waiting = f"{refused}: choose Approve in the required actions of the run, or {_how_to_approve(run)}"
        stage.database.runs.report_waiting(run.id, f"{type(refused).__name__}: {waiting}")
        self.log.warning("%s. The run waits for this for %s", waiting, timeout)
        notify_of_waiting(self.on_failure_callback, context, type(refused)(waiting))
        wait_for_response(run, refused, str(refused), timeout)

    def _returned(
        self, stage: Stage, run: SyncRun, context: Context, result: CommitResult, approved_at: datetime | None
    ) -> dict[str, Any]:
        from registry_sync.pulp.version_documents import version_document
        from registry_sync.sync.commit_version import SHOWN_HOLDS

        repository = stage.database.repositories.get(run.repository_id)
        latest = stage.database.versions.latest(run.repository_id) if result.version is None else None
        set_links(context, run.repository_id, run.remote, result.version or latest)
        upstream = upstream_dataset(run.remote)
        self.record_lineage(upstream, version_dataset(repository.name, result.version, upstream))
        stage.span.record(
            version=None if result.version is None else result.version.number, held_tags=len(result.holds)
        )
        self._sweep(stage)
        if stage.metrics is not None and not run.state.is_settled:
            now_latest = result.version or latest
            number = None if now_latest is None else now_latest.number
            stage.metrics.record_success(number, len(result.holds), utc_now())
        if result.version is not None and not (run.state.is_settled and has_event(context, result.version)):
            emit_asset_events(context, stage.database, repository, result.version)
        holds = [{"tag": hold.tag, "digest": hold.digest, "reason": hold.reason} for hold in result.holds[:SHOWN_HOLDS]]
        recorded = stage.database.runs.get(run.id)
        summary = version_summary(result, None if latest is None else latest.number, recorded.usage.received_bytes)
        approved_at = approved_at or recorded.removals_approved_at
        RunNote(about_sync(repository.name, run.key.scope), summary, _details(run, result, holds, approved_at)).push(
            context
        )
        return {
            "repository": repository.name,
            "version": version_document(result.version) if result.version else None,
            "unchanged_version": version_document(latest) if latest else None,
            "hold_count": len(result.holds),
            "holds": holds,
            "removals_approved_by": result.removals_approved_by,
        }

    def _may_approve(self, stage: Stage, run: SyncRun, context: Context) -> bool:
        """Whether the author set the parameter, and the selection of the run."""
        from registry_sync.domain.runs import Authority

        # All parameters count, ``sync_run`` among them: an approval is for the run it was written for.
        authority, ti = self.authority(context, stage.settings), context["ti"]
        is_of_this_dag_run = (run.key.dag_id, run.key.run_id) == (ti.dag_id, ti.run_id)
        if is_of_this_dag_run and Authority.TRIGGER not in (authority, run.authority):
            return True
        self.log.warning(
            "approve_removals may not be set by the trigger of a run, nor for a sync of another DAG run, and is "
            "ignored here"
        )
        return False

    def _sweep(self, stage: Stage) -> None:
        """Removes abandoned resumable downloads; the version is committed, so a failure is only logged."""
        try:
            count = stage.blobs.sweep_resumables(RESUMABLES_KEPT_SECONDS)
        except RegistrySyncError as problem:
            self.log.warning("resumable downloads could not be swept: %s", problem)
            return
        if count:
            self.log.info("swept %s that no task continued", format_count(count, "resumable download"))


def _details(
    run: SyncRun, result: CommitResult, holds: Sequence[Mapping[str, Any]], approved_at: datetime | None
) -> tuple[str, ...]:
    """The sentences of the run's note about what a person may have to look at."""
    details = []
    if result.removals_approved_by is not None:
        details.append(approved_note(result.removals_approved_by, approved_at))
    if holds:
        details.append(held_note(holds, len(result.holds)))
    if result.version is not None and result.version.referrers_problem is not None:
        details.append(referrers_note(result.version.referrers_problem))
    if result.filtered_tags:
        details.append(platforms_warning(result.filtered_tags, run.remote.platforms or ()))
    return tuple(details)


def _final(run: SyncRun, refused: SyncError) -> SyncError:
    """The error that ends the task; one that may be approved afterwards says how."""
    if isinstance(refused, ApprovalRequired):
        return refused.with_message(f"{refused}: {_how_to_approve(run)}")
    return refused


def _how_to_approve(run: SyncRun) -> str:
    """The command that approves the removals and continues the run; it clears this task as well."""
    which = f" --task '{run.key.scope}'" if run.key.scope else ""
    return (
        f"airflow registry-sync run approve '{run.key.run_id}' --dag-id '{run.key.dag_id}'{which}, or start a run with "
        "approve_removals"
    )
