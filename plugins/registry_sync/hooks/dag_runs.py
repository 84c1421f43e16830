"""DAG runs: who started them, how they ended, and continuing failed ones, through Airflow's own functions.

Functions that use Airflow's metadata database are for the API server and for commands only, not for tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_sync.domain.runs import DagRunEnd, RunKey
from registry_sync.errors import ConfigurationError, RecordNotFound

#: The note of a run that was canceled over REST: Airflow has no state for that.
CANCELED_NOTE = "Canceled over REST"
#: The prefix of our notes of runs; notes of users are not changed.
NOTE_PREFIX = "registry-sync: "
#: The prefix of the note of a run that succeeded without a version.
NO_VERSION_NOTE = f"{NOTE_PREFIX}no version was made"
#: The XCom key of a listing task for the plan of its dry run.
PLAN_KEY = "plan"
#: Runs that no user started, by Airflow's run type.
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "asset", "backfill": "backfill"}

if TYPE_CHECKING:
    from airflow.models import DagRun


def dag_of_run(run: DagRun, session: Any) -> Any:
    """The DAG version of ``run``. Raises :class:`ConfigurationError` when Airflow no longer knows it."""
    from airflow.models.dagbag import DBDagBag

    dag = DBDagBag().get_dag_for_run(run, session=session)
    if dag is None:
        raise ConfigurationError(f"Airflow does not know the DAG {run.dag_id!r} any more")
    return dag


def triggered_by(dag_run: Any) -> str | None:
    """Who or what started a run: a user's name, ``schedule``, ``asset NAME, NAME`` or ``backfill``; None if unknown.

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
    """The end of the DAG run of that key, from Airflow's database; None while it is running."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter(DagRun.dag_id == key.dag_id, DagRun.run_id == key.run_id).one_or_none()
        return DagRunEnd.GONE if run is None else end_of(run)


def end_of(run: DagRun) -> DagRunEnd | None:
    """The end of a run; None while it is running."""
    if str(run.state) not in ("failed", "success"):
        return None
    return DagRunEnd.CANCELED if run.note == CANCELED_NOTE else DagRunEnd(str(run.state))


def continue_run(dag_id: str, run_id: str) -> int:
    """Clears the failed tasks of a run, so that the scheduler runs them again; returns their number.

    Like ``Clear`` with ``Only failed`` in the UI. 0 when nothing of the run has failed; safe to repeat. Raises
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


def plan_of_run(dag_id: str, run_id: str) -> dict[str, Any] | None:
    """The plan that the dry run of a DAG run found, in the form of its document; None before it has."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        xcom = (
            session.query(XComModel)
            .filter(XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == PLAN_KEY)
            .order_by(XComModel.task_id)
            .first()
        )
        plan: dict[str, Any] | None = None if xcom is None else XComModel.deserialize_value(xcom)
        return plan
