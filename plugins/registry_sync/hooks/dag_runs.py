"""Runs of DAGs that have failed, continued through Airflow's own functions.

Only where Airflow's metadata database can be reached: in the API server and in commands, not in tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_sync.errors import ConfigurationError, RecordNotFound

if TYPE_CHECKING:
    from airflow.models import DagRun


def dag_of_run(run: DagRun, session: Any) -> Any:
    """The DAG as it was for ``run``. Raises :class:`ConfigurationError` when Airflow does not know it any more."""
    from airflow.models.dagbag import DBDagBag

    dag = DBDagBag().get_dag_for_run(run, session=session)
    if dag is None:
        raise ConfigurationError(f"Airflow does not know the DAG {run.dag_id!r} any more")
    return dag


def continue_run(dag_id: str, run_id: str) -> int:
    """Clears the failed tasks of a run, so that the scheduler runs them again; how many they were.

    As ``Clear`` with ``Only failed`` does in the UI. 0 when nothing of the run has failed; safe when repeated. Raises
    :class:`RecordNotFound` for an unknown run, :class:`ConfigurationError` for a DAG that is gone or paused.
    """
    from airflow.models import DagModel, DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).one_or_none()
        if run is None:
            raise RecordNotFound(f"Airflow has no run {run_id!r} of the DAG {dag_id!r}")
        dag = dag_of_run(run, session)
        record = DagModel.get_dagmodel(dag_id, session=session)
        if record is not None and record.is_paused:
            raise ConfigurationError(
                f"the DAG {dag_id!r} is paused, so nothing of it runs; unpause it in Airflow first"
            )
        return int(dag.clear(run_id=run_id, only_failed=True, session=session))
