"""A real Airflow for tests: the parts that ``make up`` starts, in a folder and on a port of the test's own.

It shares the code of ``tools/local_airflow``, so that a test of the one is a test of the other. Runs are
remembered by their id, so that tests speak of runs alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import NullPool, create_engine, make_url, text

from local_airflow import migration, processes
from local_airflow.dag_run import FINAL_STATES, DagRun, TaskState, await_dag
from local_airflow.errors import ApiError
from local_airflow.instance import Instance
from local_airflow.layout import CHECKOUT, Layout
from local_airflow.running import Running
from local_airflow.settings import write_settings
from local_airflow.startup import COMMANDS

T = TypeVar("T")
DAG_ID = "registry_sync"
#: Each look at what Airflow's database does not tell is a request that the API server works for.
POLL_SECONDS = 0.2
#: For several times the patience with Airflow's SQLite, ``local_airflow.settings.SQLITE_PATIENCE_SECONDS``.
BUSY_SECONDS = 90
#: How often a request is made again that Airflow's own routes answer with an error of its SQLite.
BUSY_TIMES = 8
#: More than the ``triggerer_health_check_threshold`` of Airflow.
HEARTBEAT_AGE = timedelta(minutes=10)
#: The DAG files of a test are there before the start and stay as they are: parsing them again and again tells nothing.
#: An asset that a DAG waits for counts from the next clean-up on. And an Airflow that waits for a test looks less often
#: whether there is something to do: each look costs a hundredth of a second of a core.
SPARING = {
    "dag_processor": {"min_file_process_interval": "3600", "refresh_interval": "3600"},
    "scheduler": {"parsing_cleanup_interval": "3", "scheduler_idle_sleep_time": "0.5"},
}


class AirflowInstance:
    """An Airflow that runs between ``with`` and its end.

    ``folder`` gets everything it writes, its own home included. ``settings`` are Airflow's, section to option to
    value, laid over those of ``make up`` and :data:`SPARING`, such as ``{"core": {"executor": "LocalExecutor"}}``;
    ``env`` is added to the environment of its processes, such as ``{"AIRFLOW_CONN_QUAY": "..."}``. ``database`` is a
    folder that :func:`make_database` gave, for a start without a migration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dags: Path = CHECKOUT / "dags",
        plugins: Path = CHECKOUT / "plugins",
        settings: Mapping[str, Mapping[str, str]] | None = None,
        env: Mapping[str, str] | None = None,
        database: Path | None = None,
    ) -> None:
        self.layout = Layout(folder=folder, dags=dags, plugins=plugins)
        sections = {*SPARING, *(settings or {})}
        overrides = {name: {**SPARING.get(name, {}), **(settings or {}).get(name, {})} for name in sections}
        self.instance = Instance(self.layout, overrides=overrides, env=env)
        self._database = database
        self._runs: dict[str, DagRun] = {}

    # -- running --------------------------------------------------------------------------------------------------

    def __enter__(self) -> AirflowInstance:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.instance.stop(grace_seconds=0)

    def start(self) -> Running:
        """Starts it, or again after :meth:`stop` with all it knew, and waits until it is healthy."""
        if self._database is not None and not self.layout.database.exists():
            self.layout.home.mkdir(parents=True, exist_ok=True)
            for file in (self.layout.database, self.layout.migrated):
                shutil.copy(self._database / file.name, file)
        running = self.instance.start()
        self._api = self.instance.api(running)
        self._states = RunStates(self.instance.settings(running.port)["database"]["sql_alchemy_conn"])
        return running

    def stop(self) -> None:
        """Stops it and keeps what it knows."""
        self.instance.stop()

    @property
    def home(self) -> Path:
        """``AIRFLOW_HOME``."""
        return self.layout.home

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return self.instance.require_running().url

    @property
    def environment(self) -> dict[str, str]:
        """What a command must have in its environment to speak of this instance."""
        return self.instance.environment(self.instance.require_running().port)

    def process_log(self, part: str) -> str:
        """What ``api-server``, ``scheduler``, ``dag-processor`` or ``triggerer`` has printed since its start."""
        return (self.layout.process_logs / f"{part}.log").read_text(errors="replace")

    # -- REST -----------------------------------------------------------------------------------------------------

    def password(self) -> str:
        """The password of the admin."""
        return self.instance.password()

    def token(self) -> str:
        """A bearer token of the admin."""
        return self._api.token()

    def api(self, method: str, path: str, json: Any = None) -> Any:
        """The decoded response of ``/api/v2`` + ``path``. Raises ``local_airflow.errors.ApiError`` with ``status``."""
        return _patiently(lambda: self._api.request(method, path, json))

    def await_dag(self, dag_id: str = DAG_ID, timeout_seconds: float = 60) -> None:
        """Waits until the DAG can be triggered; an import error of a DAG file is raised."""
        await_dag(self._api, dag_id, timeout_seconds)

    # -- runs -----------------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str = DAG_ID, conf: Mapping[str, Any] | None = None) -> str:
        """The id of a new run with these parameters; also where Airflow's own SQLite is busy at first."""
        self.await_dag(dag_id)
        run = _patiently(lambda: DagRun.trigger(self._api, dag_id, dict(conf or {})))
        self._runs[run.run_id] = run
        return run.run_id

    def remember(self, dag_id: str, run_id: str) -> str:
        """Lets the other methods speak of a run that was triggered by something else."""
        self._runs[run_id] = DagRun(self._api, dag_id, run_id)
        return run_id

    def await_runs(self, dag_id: str, count: int = 1, timeout_seconds: float = 60) -> list[dict[str, Any]]:
        """The runs of a DAG, oldest first, once there are as many; also those that were not triggered here."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = self.api("GET", f"/dags/{dag_id}/dagRuns?order_by=id")["dag_runs"]
            return len(found) >= count

        _await(are_there, timeout_seconds, lambda: f"{dag_id} has only {found}")
        return [{**run, "dag_run_id": self.remember(dag_id, run["dag_run_id"])} for run in found]

    def wait(self, run_id: str, timeout_seconds: float = 120) -> str:
        """``success`` or ``failed``, when the run has ended. A run that takes longer fails the test."""
        run = self._runs[run_id]

        def has_ended() -> bool:
            return self._states.of_run(run) in FINAL_STATES

        _await(has_ended, timeout_seconds, lambda: f"{run_id} runs on: {run.tasks()}")
        return run.state()

    def sync(self, **conf: str) -> str:
        """The id of a run of ``registry_sync`` that has ended well; the reasons of one that has not are raised."""
        run_id = self.trigger(conf=conf)
        if self.wait(run_id) != "success":
            raise AssertionError(f"the sync failed: {self.reasons(run_id)}")
        return run_id

    def await_deadline(self, run_id: str, timeout_seconds: float = 60) -> str:
        """``success`` or ``failed``, when the run's deadline has passed and what it calls has ended."""
        run = self._runs[run_id]

        def has_ended() -> bool:
            return self._states.of_deadline(run) in ("success", "failed")

        _await(has_ended, timeout_seconds, lambda: f"the deadline of {run_id} is {self._states.of_deadline(run)}")
        return str(self._states.of_deadline(run))

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        """The task instances as the REST API gives them."""
        return self._runs[run_id].task_responses()

    def task_states(self, run_id: str) -> dict[str, str]:
        """State by task; mapped ones are ``fetch_blobs[0]`` and so on."""
        return {task.name: task.state for task in self._runs[run_id].tasks()}

    def task(self, run_id: str, task_id: str, map_index: int = -1) -> TaskState | None:
        """A task instance; None before it exists."""
        found = [task for task in self._runs[run_id].tasks() if (task.task_id, task.map_index) == (task_id, map_index)]
        return found[0] if found else None

    def task_log(self, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """The messages in the log of a try, one a line, with the errors that ended it."""
        lines = []
        for event in self._runs[run_id].log(task_id, try_number, map_index):
            lines.append(str(event.get("event", "")))
            lines += [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in event.get("error_detail") or []]
        return "\n".join(lines)

    def reasons(self, run_id: str) -> dict[str, str]:
        """Why tasks failed, by task."""
        run = self._runs[run_id]
        return {task.name: run.reason(task, task.try_number) for task in run.tasks() if task.state == "failed"}

    def xcom(self, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task returned; None when it returned nothing."""
        return self._runs[run_id].xcom(task_id, key, map_index)

    # -- failures -------------------------------------------------------------------------------------------------

    def await_task(
        self, run_id: str, task_id: str, map_index: int = -1, *, state: str = "running", timeout_seconds: float = 60
    ) -> TaskState:
        """A task instance, when it is in ``state``."""
        reached: list[TaskState] = []

        def is_there() -> bool:
            if self._states.of_task(self._runs[run_id], task_id, map_index) != state:
                return False
            task = self.task(run_id, task_id, map_index)
            if task is not None and task.state == state:
                reached.append(task)
            return bool(reached)

        _await(is_there, timeout_seconds, lambda: f"{task_id} is not {state}: {self.task_states(run_id)}")
        return reached[0]

    def kill_task(self, run_id: str, task_id: str, map_index: int = -1) -> int:
        """Kills the process of a running task as ``kill -9`` does, and gives its id.

        The id comes from Airflow and is believed only when the process is one that this instance started.
        """
        self.await_task(run_id, task_id, map_index)
        responses = self.task_instances(run_id)
        pid = next(a["pid"] for a in responses if (a["task_id"], a["map_index"]) == (task_id, map_index))
        ours = [member for record in self.instance.require_running().processes for member in processes.members(record)]
        if pid not in ours:
            raise AssertionError(f"process {pid} of {task_id} is not one of this Airflow")
        os.kill(pid, signal.SIGKILL)
        return int(pid)

    def kill_part(self, part: str, *, job_type: str) -> None:
        """Kills a part, such as ``triggerer``, with all its children, as a machine that goes down does.

        Its last heartbeat, that of a ``job_type`` such as ``TriggererJob``, is then as long ago as the other parts wait
        for one before they take over what it had: half a minute, in which nothing happens.
        """
        for record in self.instance.require_running().processes:
            if record.name == part:
                processes.stop([record], grace_seconds=0)
        self._states.age_heartbeats(job_type)

    def start_part(self, part: str) -> None:
        """Starts a killed part again, beside the others."""
        running = self.instance.recorded()
        assert running is not None
        command = [str(self.layout.python), str(self.layout.program), *COMMANDS[part]]
        environment = self.instance.environment(running.port)
        started = processes.spawn(part, command, environment, self.layout.process_logs / f"{part}.log")
        (dead,) = (record for record in running.processes if record.name == part)
        self.instance._folder.write(running.without_process(dead).with_process(started))

    def parse_again(self, dag_id: str) -> None:
        """Has the file of a DAG parsed again, as soon as the DAG processor comes to it."""
        file_token = self.api("GET", f"/dags/{dag_id}")["file_token"]
        self.api("PUT", f"/parseDagFile/{file_token}")


class RunStates:
    """States of runs and tasks as Airflow's own database has them: who waits for one costs the API server nothing."""

    def __init__(self, url: str) -> None:
        patient = make_url(url)
        if patient.get_backend_name() == "sqlite":
            patient = patient.update_query_dict({"timeout": str(BUSY_SECONDS)})
        self._engine = create_engine(patient, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def of_run(self, run: DagRun) -> str | None:
        """As :meth:`DagRun.state`; None for a run that is not there."""
        where = "dag_id = :dag_id AND run_id = :run_id"
        return self._read("dag_run", where, {"dag_id": run.dag_id, "run_id": run.run_id})

    def of_task(self, run: DagRun, task_id: str, map_index: int) -> str | None:
        """The state of a task instance, ``waiting`` where it has none yet; None where it is not there."""
        where = "dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id AND map_index = :map_index"
        key: dict[str, str | int] = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id}
        return self._read("task_instance", where, key | {"map_index": map_index})

    def of_deadline(self, run: DagRun) -> str | None:
        """The state of what the run's deadline calls, ``scheduled`` until it has passed; None without a deadline."""
        of_run = "SELECT callback_id FROM deadline JOIN dag_run ON dag_run.id = dagrun_id"
        where = f"id IN ({of_run} WHERE dag_id = :dag_id AND run_id = :run_id)"
        return self._read("callback", where, {"dag_id": run.dag_id, "run_id": run.run_id})

    def age_heartbeats(self, job_type: str) -> None:
        """Lets the last heartbeats of jobs that have ended without saying so be long ago."""
        long_ago = f"{datetime.now(timezone.utc) - HEARTBEAT_AGE:%Y-%m-%d %H:%M:%S.%f}"
        statement = text("UPDATE job SET latest_heartbeat = :at WHERE job_type = :job_type AND state = 'running'")
        with self._engine.connect() as connection:
            connection.execute(statement, {"at": long_ago, "job_type": job_type})

    def _read(self, table: str, where: str, key: Mapping[str, str | int]) -> str | None:
        query = text(f"SELECT coalesce(state, 'waiting') FROM {table} WHERE {where}")
        with self._engine.connect() as connection:
            state: str | None = connection.scalar(query, key)
            return state


def _patiently(request: Callable[[], T]) -> T:
    """The response; asked again while Airflow's own SQLite is busy. Of a database error nothing is left.

    Each of them took as long as Airflow waits for its database, so they are counted and not timed.
    """
    times = 0
    while True:
        try:
            response = request()
            break
        except ApiError as problem:
            times += 1
            if problem.status != 500 or "Database error" not in str(problem) or times > BUSY_TIMES:
                raise
            time.sleep(POLL_SECONDS)
    return response


def make_database(folder: Path) -> Path:
    """A folder with a migrated database of Airflow, for instances to start with; made in ``folder``, once."""
    layout = Layout(folder=folder)
    if migration.is_migrated(layout):
        return layout.home
    migration.drop_half_made(layout)
    instance = Instance(layout)
    write_settings(layout, instance.settings(port=0), instance.password())
    command = [str(layout.python), str(layout.program), *migration.COMMAND]
    subprocess.run(command, env=instance.environment(port=0), check=True, capture_output=True)
    migration.record_migrated(layout)
    return layout.home


def _await(condition: Callable[[], bool], timeout_seconds: float, complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_seconds} seconds: {complaint()}")
        time.sleep(POLL_SECONDS)
