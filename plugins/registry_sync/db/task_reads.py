"""Sync runs by their Airflow runs, many at once and with fresh counts: three queries for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select

from registry_sync.db import run_counts
from registry_sync.db.batches import in_batches
from registry_sync.db.run_rows import read_run
from registry_sync.db.tables import sync_runs
from registry_sync.db.transactions import Transactions
from registry_sync.domain.runs import RunState, SyncRun


class TaskReads:
    """Reads only."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def by_run_ids(self, dag_id: str, run_ids: Sequence[str]) -> dict[str, SyncRun]:
        """The sync runs of these runs of a DAG, by run id; those that have not begun are left out.

        Of a run that was begun anew after it had settled, the last one, which names the versions that were made before.
        So of a DAG run that has several syncs: the one of the task ``list_tags``, else the first by its scope.
        """
        found: dict[str, SyncRun] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(run_ids):
                of_batch = select(sync_runs).where(sync_runs.c.dag_id == dag_id, sync_runs.c.run_id.in_(batch))
                # The one that is shown comes last.
                rows = connection.execute(of_batch.order_by(sync_runs.c.scope.desc(), sync_runs.c.attempt))
                for run in map(read_run, rows):
                    found[run.key.run_id] = replace(run, made_before=_made(found.get(run.key.run_id)))
                shown = [run for run in found.values() if run.state is RunState.RUNNING]
                counts = run_counts.count_many(connection, [run.id for run in shown])
                found |= {run.key.run_id: replace(run, counts=counts.get(run.id, run.counts)) for run in shown}
        return found


def _made(run: SyncRun | None) -> tuple[tuple[str, int], ...]:
    """The versions that a run, and those before it, made: repository and number."""
    if run is None:
        return ()
    own = () if run.version_number is None else ((run.repository_id, run.version_number),)
    return (*run.made_before, *own)
