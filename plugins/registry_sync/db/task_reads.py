"""Sync runs by their Airflow runs, many at once and with fresh counts: three queries for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select

from registry_sync.db import run_counts
from registry_sync.db.batches import in_batches
from registry_sync.db.sync_runs import read_run
from registry_sync.db.tables import sync_runs
from registry_sync.db.transactions import Transactions
from registry_sync.domain.runs import RunState, SyncRun


class TaskReads:
    """Reads only."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def by_run_ids(self, dag_id: str, run_ids: Sequence[str]) -> dict[str, SyncRun]:
        """The lone sync runs of these runs of a DAG, by run id; those that have not begun are left out."""
        found: dict[str, SyncRun] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(run_ids):
                of_batch = select(sync_runs).where(
                    sync_runs.c.dag_id == dag_id, sync_runs.c.run_id.in_(batch), sync_runs.c.scope == ""
                )
                runs = [read_run(row) for row in connection.execute(of_batch)]
                counts = run_counts.count_many(connection, [run.id for run in runs if run.state is RunState.RUNNING])
                for run in runs:
                    found[run.key.run_id] = replace(run, counts=counts.get(run.id, run.counts))
        return found
