"""Syncs whose DAG run has ended without anybody saying so here: found by asking Airflow, and ended too.

A DAG run may be deleted, and whoever sees runs end may not reach this database just then. Such a sync would be running
for ever, and keep what it noted from being collected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry_sync.domain.runs import DagRunEnd, SyncRun

if TYPE_CHECKING:
    from registry_sync.db.runs.run_ends import RunEndStore


def end_lost_runs(
    runs: RunEndStore,
    end_of: Callable[[SyncRun], DagRunEnd | None],
    *,
    report: Callable[[str], None],
    repository_id: str | None = None,
    without: str | None = None,
) -> int:
    """Ends the syncs, of one repository or of all, whose DAG run has ended; how many. ``end_of`` asks Airflow.

    ``without`` is the id of a sync that is known to go on. Costs one query, and a question for each sync that is said
    to be running.
    """
    count = 0
    for run in runs.unended(repository_id=repository_id):
        end = None if run.id == without else end_of(run)
        if end is not None and runs.end(run.key.dag_id, run.key.run_id, end.state, end.reason):
            count += 1
            report(
                f"the sync of DAG run {run.key.run_id} of {run.key.dag_id} has ended {end.state.value}: {end.reason}"
            )
    return count
