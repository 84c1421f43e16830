"""Runs a DAG to its end in a process of its own, with Airflow's provider for OpenLineage: ``lineage_program FOLDER``.

``FOLDER`` has the DAG file. A program of its own, since Airflow loads the listeners of providers once in a process.
It prints how many processes were forked meanwhile, and the states of the tasks.
"""

from __future__ import annotations

import os
import sys
import warnings
from datetime import datetime, timezone


def main(folder: str) -> str:
    """The states of the tasks, as one line."""
    from airflow.dag_processing.dagbag import DagBag

    from local_airflow.launch import serve_newest_versions_alone
    from support.dag_runs import short_sleeps

    with warnings.catch_warnings(), short_sleeps():
        warnings.simplefilter("ignore")
        bag = DagBag(folder)
        if bag.import_errors:
            raise AssertionError(bag.import_errors)
        (dag,) = bag.dags.values()
        serve_newest_versions_alone()
        run = dag.test(logical_date=datetime.now(timezone.utc))
        return " ".join(sorted(f"{task.task_id}={task.state}" for task in run.get_task_instances()))


if __name__ == "__main__":
    forks: list[int] = []
    os.register_at_fork(after_in_parent=lambda: forks.append(1))
    states = main(sys.argv[1])
    print(f"\nFORKS {len(forks)} STATES {states}")  # at once: other threads write as well
