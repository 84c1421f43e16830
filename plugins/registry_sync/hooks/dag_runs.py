"""Runs of DAGs: who began them, how they ended, and those that failed continued, through Airflow's own functions.

What takes Airflow's metadata database is only for the API server and for commands, not for tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_sync.domain.runs import DagRunEnd, RunKey
from registry_sync.errors import ConfigurationError, RecordNotFound

#: The note of a run that was canceled over REST: Airflow itself has no state for it.
CANCELED_NOTE = "Canceled over REST"
#: What our notes of runs begin with; notes of people are left alone.
NOTE_PREFIX = "registry-sync: "
#: What the note of a run begins with that ended well and made no version.
NO_VERSION_NOTE = f"{NOTE_PREFIX}no version was made"
#: Runs that nobody in person began, by Airflow's type of run.
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "asset", "backfill": "backfill"}

if TYPE_CHECKING:
    from airflow.models import DagRun


def dag_of_run(run: DagRun, session: Any) -> Any:
    """The DAG as it was for ``run``. Raises :class:`ConfigurationError` when Airflow does not know it any more."""
    from airflow.models.dagbag import DBDagBag

    dag = DBDagBag().get_dag_for_run(run, session=session)
    if dag is None:
        raise ConfigurationError(f"Airflow does not know the DAG {run.dag_id!r} any more")
    return dag


def triggered_by(dag_run: Any) -> str | None:
    """Who or what began a run: a user's name, ``schedule``, ``asset NAME, NAME`` or ``backfill``; None: nobody says.

    ``dag_run`` is the one of a task's context or the one of Airflow's database.
    """
    run_type = getattr(dag_run, "run_type", "")
    kind = _TRIGGERS.get(str(getattr(run_type, "value", run_type)))
    user: str | None = getattr(dag_run, "triggering_user_name", None)
    if kind == "asset":
        events = getattr(dag_run, "consumed_asset_events", None) or ()
        names = sorted({event.asset.name for event in events if event.asset is not None})
        return f"asset {', '.join(names)}" if names else kind
    if kind == "backfill" and user:
        return f"backfill of {user}"
    return kind or user


def run_end(key: RunKey) -> DagRunEnd | None:
    """How the DAG run of that key has ended, as Airflow's database says; None while it goes on."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter(DagRun.dag_id == key.dag_id, DagRun.run_id == key.run_id).one_or_none()
        return DagRunEnd.GONE if run is None else end_of(run)


def end_of(run: DagRun) -> DagRunEnd | None:
    """How a run has ended; None while it goes on."""
    if str(run.state) not in ("failed", "success"):
        return None
    return DagRunEnd.CANCELED if run.note == CANCELED_NOTE else DagRunEnd(str(run.state))


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
