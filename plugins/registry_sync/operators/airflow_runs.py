"""What a task asks Airflow of DAG runs: who began its own, whether others have ended, whether the commit still comes.

All of it goes through the task's own connection to the API server, because tasks cannot reach Airflow's database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry_sync.domain.runs import DagRunEnd
from registry_sync.errors import StagesUnfinished
from registry_sync.hooks.dag_runs import triggered_by

if TYPE_CHECKING:
    from registry_sync.domain.runs import AskedBy, SyncRun

_NOT_ENDED = ("queued", "running")
#: States in which a task will not run any more unless it is cleared.
_PASSED = frozenset({"skipped", "success", "removed"})


def asked_by(context: Mapping[str, Any]) -> AskedBy:
    """Who or what began the DAG run of a task, when, and whether it was cleared since."""
    from registry_sync.domain.runs import AskedBy

    dag_run = context["dag_run"]
    return AskedBy(
        triggered_by=triggered_by(dag_run),
        dag_run_started_at=dag_run_started_at(context),
        is_cleared=bool(getattr(dag_run, "clear_number", 0)),
    )


def dag_run_started_at(context: Mapping[str, Any]) -> datetime | None:
    """When the DAG run of a task began, which a cleared one does anew; None when nobody says."""
    started_at: datetime | None = getattr(context.get("dag_run"), "start_date", None)
    return started_at


def dag_run_end(context: Mapping[str, Any], run: SyncRun) -> DagRunEnd | None:
    """How the DAG run of a sync has ended; None while it goes on."""

    def has(*states: str) -> bool:
        count = context["ti"].get_dr_count(dag_id=run.key.dag_id, run_ids=[run.key.run_id], states=list(states))
        return bool(count)

    if has(*_NOT_ENDED):
        return None
    if has("success"):
        return DagRunEnd.SUCCESS
    return DagRunEnd.FAILED if has("failed") else DagRunEnd.GONE


def refuse_lost_commit(context: Mapping[str, Any]) -> None:
    """Raises :class:`StagesUnfinished` when the commit that is to follow a repeated task was skipped and stays so.

    A run that is marked as failed skips what had not begun, and clearing what has failed leaves that skipped: such a
    run would end well without a version.
    """
    ti, task = context["ti"], context.get("task")
    commits = [] if task is None else list(_commits_after(task))
    if not commits:
        return
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=commits, run_ids=[ti.run_id]).get(ti.run_id, {})
    if states and all(state in _PASSED for state in states.values()):
        raise StagesUnfinished(
            f"{', '.join(commits)} of this run was skipped or has ended before, and does not run again by itself, so "
            f"that no version would be made. Clear {ti.task_id} with all that come after it (Downstream in the "
            "dialog), or start a new run"
        )


def _commits_after(task: Any) -> Iterator[str]:
    from registry_sync.operators.commit_version import CommitVersionOperator

    for after in task.get_flat_relatives(upstream=False):
        kind = getattr(after, "operator_class", type(after))
        if isinstance(kind, type) and issubclass(kind, CommitVersionOperator):
            yield after.task_id
