"""DAG runs: who started them, how they ended, and continuing failed ones, through Airflow's own functions.

Functions that use Airflow's metadata database are for the API server and for commands only, not for tasks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from registry_sync.domain.runs import DagRunEnd, RunKey
from registry_sync.errors import ConfigurationError, RecordNotFound, SyncError

#: The start of the note of a run that was canceled over REST: Airflow has no state for that.
CANCELED_NOTE = "Canceled over REST"
CANCELED_NOTES = (CANCELED_NOTE, "Canceled from the command line")
#: The author of our notes of runs, as Airflow records it; notes of users are not changed.
NOTE_AUTHOR = "registry-sync"
#: The length of Airflow's column for notes.
NOTE_LENGTH = 1000
#: The prefix of our notes in earlier releases, which recorded no author.
_FORMER_PREFIX = "registry-sync: "
#: The start of the note of a run that succeeded without a version.
NO_VERSION_NOTE = "no version was made"
#: The XCom key of a listing task for the plan of its dry run.
PLAN_KEY = "plan"
#: The option of the question whether a stopped sync may remove its tags (:mod:`registry_sync.operators.approvals`).
APPROVE = "Approve"
#: The operators whose tasks ask it, as Airflow records them.
COMMIT_OPERATORS = ("CommitVersionOperator", "FetchAndCommitOperator")
#: Runs that no user started, by Airflow's run type.
_TRIGGERS = {"scheduled": "schedule", "asset_triggered": "asset", "backfill": "backfill"}

if TYPE_CHECKING:
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote


def conf_repository(conf: Mapping[str, Any] | None) -> str | None:
    """The repository that the parameters of a run name, without blanks around it; None if they name none."""
    given = (conf or {}).get("repository")
    return given.strip() or None if isinstance(given, str) else None


def permits_run_id(run_id: str) -> bool:
    """Whether ``allowed_run_id_pattern`` of this Airflow permits the id; an empty one permits Airflow's own alone."""
    from airflow.configuration import conf

    pattern = conf.get("scheduler", "allowed_run_id_pattern", fallback="").strip()
    try:
        return bool(pattern) and re.match(pattern, run_id) is not None
    except re.error:
        logging.getLogger(__name__).warning("[scheduler] allowed_run_id_pattern is no regular expression")
        return False


def is_own_note(note: DagRunNote) -> bool:
    """Whether we wrote a run's note, and not a user, and it does not say that the run was canceled."""
    text = note.content or ""
    is_ours = note.user_id == NOTE_AUTHOR or (note.user_id is None and text.startswith(_FORMER_PREFIX))
    return is_ours and not says_canceled(text)


def says_canceled(text: str | None) -> bool:
    """Whether the text of a run's note says that the run was canceled over REST or by the command."""
    return (text or "").startswith(CANCELED_NOTES)


def has_canceled_note() -> Any:
    """:func:`says_canceled` as a condition on Airflow's table of runs."""
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote

    first, second = (DagRunNote.content.startswith(start, autoescape=True) for start in CANCELED_NOTES)
    return DagRun.dag_run_note.has(first | second)


def own_note(note: DagRunNote | None) -> str | None:
    """The text of a note that we wrote, None for another one and for none."""
    if note is None or not is_own_note(note):
        return None
    return (note.content or "").removeprefix(_FORMER_PREFIX) or None


def says_no_version(note: DagRunNote | None) -> bool:
    """Whether the note is ours and says that the run succeeded without a version."""
    text = "" if note is None or not is_own_note(note) else note.content or ""
    return text.removeprefix(_FORMER_PREFIX).startswith(NO_VERSION_NOTE)


def has_no_version() -> Any:
    """:func:`says_no_version` as a condition on Airflow's table of runs."""
    from airflow.models import DagRun
    from airflow.models.dagrun import DagRunNote

    own = (DagRunNote.user_id == NOTE_AUTHOR) & DagRunNote.content.startswith(NO_VERSION_NOTE, autoescape=True)
    former = DagRunNote.content.startswith(f"{_FORMER_PREFIX}{NO_VERSION_NOTE}", autoescape=True)
    return DagRun.dag_run_note.has(own | former)


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


def trigger_run(
    dag_id: str,
    conf: dict[str, Any],
    user_name: str,
    *,
    by: str,
    run_id: str | None = None,
    run_after: datetime | None = None,
) -> str:
    """Starts a run and returns its id; ``by`` is ``rest_api`` or ``cli``. ``run_id`` None lets Airflow make one.

    It runs ``run_after`` at the earliest, None for at once. Raises :class:`ConfigurationError` when the DAG cannot run
    in its current state, or does not accept ``conf``.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound, DagRunAlreadyExists, ParamValidationError
    from airflow.models import DagModel
    from airflow.utils.types import DagRunTriggeredByType

    dag = DagModel.get_current(dag_id)
    if dag is None or dag.is_stale:
        raise ConfigurationError(f"Airflow does not know the DAG {dag_id!r} that a sync runs (yet)")
    if dag.has_import_errors:
        raise ConfigurationError(f"the DAG {dag_id!r} that a sync runs has import errors")
    if dag.is_paused:
        raise ConfigurationError(f"the DAG {dag_id!r} that a sync runs is paused; unpause it in Airflow")
    try:
        run = trigger_dag(
            dag_id,
            run_id=run_id,
            run_after=run_after,
            conf=conf,
            triggered_by=DagRunTriggeredByType(by),
            triggering_user_name=user_name,
        )
    except DagNotFound:
        raise ConfigurationError(f"Airflow does not know the DAG {dag_id!r} that a sync runs (yet)") from None
    except (DagRunAlreadyExists, ParamValidationError, ValueError) as problem:
        raise ConfigurationError(f"the DAG {dag_id!r} does not accept a sync: {problem}") from problem
    if run is None:
        raise ConfigurationError(f"Airflow started no run of the DAG {dag_id!r}")
    return str(run.run_id)


def start_from_task(dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
    """Starts a run from a task, which cannot access Airflow's database; safe to repeat, as one run has that id.

    Raises :class:`ConfigurationError` when Airflow starts none.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    advice = f"check that the DAG {dag_id!r} exists and is not paused ([registry_sync] sync_dag_id)"
    try:
        response = SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf))
    except AirflowRuntimeError as problem:
        raise ConfigurationError(f"Airflow started no run of the DAG {dag_id!r}; {advice}: {problem}") from problem
    if isinstance(response, ErrorResponse) and response.error != ErrorType.DAGRUN_ALREADY_EXISTS:
        raise ConfigurationError(f"Airflow started no run of the DAG {dag_id!r}; {advice}: {response.detail}")


def cancel_run(dag_id: str, run_id: str, note: str = CANCELED_NOTE, *, by: str) -> None:
    """Ends a run as Airflow does for one marked as failed; its note starts with ``note`` of :data:`CANCELED_NOTES`.

    The name of the user ``by`` follows, and that of the repository, if the run's note or its parameters have it.
    Raises :class:`RecordNotFound` for an unknown run, :class:`SyncError` when it has ended already.
    """
    from airflow.api_fastapi.core_api.datamodels.dag_run import DagRunMutableStates
    from airflow.api_fastapi.core_api.services.public.dag_run import patch_dag_run_state
    from airflow.utils.retries import run_with_db_retries
    from airflow.utils.session import create_session

    for attempt in run_with_db_retries():  # the scheduler may write the run's note at the same time
        with attempt, create_session() as session:
            run = _require_run(session, dag_id, run_id)
            if str(run.state) not in ("queued", "running"):
                raise SyncError(f"the run {run_id!r} of {dag_id!r} has ended: it is {run.state}")
            dag = dag_of_run(run, session)
            noted = own_note(run.dag_run_note)
            about = conf_repository(run.conf) if noted is None else noted.partition(": ")[0]
            run.note = ": ".join(filter(None, (f"{note} by {by}", about)))[:NOTE_LENGTH]
            patch_dag_run_state(dag=dag, dag_run=run, state=DagRunMutableStates.FAILED, session=session)


def _require_run(session: Any, dag_id: str, run_id: str) -> DagRun:
    from airflow.models import DagRun

    run: DagRun | None = session.query(DagRun).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).one_or_none()
    if run is None:
        raise RecordNotFound(f"Airflow has no run {run_id!r} of the DAG {dag_id!r}")
    return run


@dataclass(frozen=True)
class DagRunState:
    """``state`` is Airflow's: queued, running, success, failed. ``failed_tasks`` are by id, once it has failed.

    ``note`` is the run's, None without one. ``has_scheduler`` says of a queued run whether a scheduler could start it.
    ``is_waiting`` says of a running one that nothing of it goes on until somebody has approved or rejected removals.
    """

    state: str
    failed_tasks: tuple[str, ...] = ()
    note: str | None = None
    has_scheduler: bool = True
    is_waiting: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in ("success", "failed")


def run_state(dag_id: str, run_id: str) -> DagRunState:
    """The state of a run. Raises :class:`RecordNotFound`."""
    from airflow.jobs.job import most_recent_job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState

    with create_session() as session:
        run = _require_run(session, dag_id, run_id)
        state = str(run.state)
        failed = run.get_task_instances(state=[TaskInstanceState.FAILED], session=session) if state == "failed" else ()
        has_scheduler = True
        if state == "queued":
            job = most_recent_job(SchedulerJobRunner.job_type, session=session)
            has_scheduler = job is not None and job.is_alive()
        failed_ids = tuple(sorted({task.task_id for task in failed}))
        is_waiting = state == "running" and _only_waits(run, session)
        return DagRunState(state, failed_ids, run.note, has_scheduler, is_waiting)


def _only_waits(run: DagRun, session: Any) -> bool:
    """Whether what has begun and not ended of a run waits for the approval of removals."""
    from airflow.utils.state import State, TaskInstanceState

    unended = run.get_task_instances(state=[state for state in State.unfinished if state is not None], session=session)
    return bool(unended) and all(
        task.state == TaskInstanceState.AWAITING_INPUT and task.operator in COMMIT_OPERATORS for task in unended
    )


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
    return DagRunEnd.CANCELED if says_canceled(run.note) else DagRunEnd(str(run.state))


def continue_run(dag_id: str, run_id: str, *, approved: Collection[str] = (), approved_by: str = "") -> int:
    """Lets a run go on whose removals were approved; returns the number of tasks that run again.

    Tasks that wait for the approval of the syncs ``approved``, by id, get it from ``approved_by``, as if it had been
    given in Airflow's required actions; failed tasks are cleared, as by ``Clear`` with ``Only failed`` in the UI.
    0 when no task waits or has failed; safe to repeat. Raises :class:`RecordNotFound` for an unknown run,
    :class:`ConfigurationError` for a DAG that is gone or paused.
    """
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        run = _require_run(session, dag_id, run_id)
        dag = dag_of_run(run, session)
        record = DagModel.get_dagmodel(dag_id, session=session)
        if record is not None and record.is_paused:
            raise ConfigurationError(
                f"the DAG {dag_id!r} is paused, so nothing of it runs; unpause it in Airflow first"
            )
        resumed = _resume_waiting(run, approved, approved_by, session)
        return resumed + int(dag.clear(run_id=run_id, only_failed=True, session=session))


def _resume_waiting(run: DagRun, approved: Collection[str], approved_by: str, session: Any) -> int:
    """Responds to the questions of waiting tasks of these syncs; returns their number."""
    from airflow.models.hitl import HITLDetail, HITLUser
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.sdk.serde import deserialize
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.state import TaskInstanceState

    is_waiting = (TaskInstance.state == TaskInstanceState.AWAITING_INPUT, TaskInstance.operator.in_(COMMIT_OPERATORS))
    of_run = (TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id)
    resumed = 0
    # Locked in Airflow's order, the task before its question, as where a person responds at the same moment.
    for task in session.query(TaskInstance).filter(*of_run, *is_waiting).with_for_update(of=TaskInstance):
        kwargs: Any = deserialize(task.next_kwargs or {})
        question = session.query(HITLDetail).filter(HITLDetail.ti_id == task.id).with_for_update(of=HITLDetail)
        asked = question.one_or_none()
        if asked is None or asked.response_received or kwargs.get("sync_run") not in approved:
            continue
        asked.responded_by = dict(HITLUser(id=approved_by, name=approved_by))
        asked.responded_at, asked.chosen_options = datetime.now(timezone.utc), [APPROVE]
        event = TriggerEvent(asked.as_resume_event_payload())  # type: ignore[no-untyped-call]
        handle_event_submit(event, task_instance=task, session=session)
        resumed += 1
    return resumed


def is_waiting_for_approval() -> Any:
    """The condition, on Airflow's table of runs, that a task of the run waits for the approval of removals."""
    from airflow.models import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import TaskInstanceState

    is_waiting = TaskInstance.state == TaskInstanceState.AWAITING_INPUT
    return DagRun.task_instances.any(is_waiting & TaskInstance.operator.in_(COMMIT_OPERATORS))


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
