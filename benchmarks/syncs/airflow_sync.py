"""Our own syncs: runs of the DAG ``registry_sync`` in a real local Airflow, from the trigger to the run's end."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.results import TookTooLong, Usage
from benchmarks.syncs.contender import PASSES, Source
from benchmarks.syncs.own_storage import OwnStorage
from local_airflow import processes
from local_airflow.settings import LOCAL_SETTINGS
from support.airflow_instance import DAG_ID, AirflowInstance
from support.hostile_registry import wait_until
from support.images import RepositoryContent
from support.postgres import Postgres

#: Of an Airflow that is stopped while others are measured nobody may believe that it has died. It looks for work as
#: often as that of ``make up`` does.
_SETTINGS = {
    "scheduler": {
        "scheduler_health_check_threshold": "7200",
        "orphaned_tasks_check_interval": "7200",
        "scheduler_idle_sleep_time": "0.1",
    },
    "triggerer": {"triggerer_health_check_threshold": "7200"},
}
_CONNECTION = "benchmark"
#: An Airflow has nothing left to do when it takes at most so much of a core for so long: its scheduler looks for work.
_IDLE_CORES, _WINDOW_SECONDS = 0.25, 1.0
#: After so many windows it is measured as it is.
_MOST_WINDOWS = 15
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
#: A task has succeeded, and its run has ended, a moment before it notes what follows.
_NOTED_SECONDS = 10.0
#: What each task notes at its end: its run, its largest size, and its size before it began, when its DAG was read.
_NOTING = '''
import json, os, pathlib

_at_start = {{}}


def _kib(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def task_policy(task):
    """Notes how large each task was."""
    _at_start.setdefault(os.getpid(), _kib("VmRSS:"))
    for name in ("on_success_callback", "on_skipped_callback", "on_failure_callback", "on_retry_callback"):
        setattr(task, name, [*(getattr(task, name) or ()), _note])


def _note(context):
    ti, start_kib = context["ti"], _at_start[os.getpid()]
    noted = {{"run": ti.run_id, "task": ti.task_id, "peak_kib": _kib("VmHWM:"), "start_kib": start_kib}}
    with open({path!r}, "a") as file:
        file.write(json.dumps(noted) + "\\n")


__all__ += ["task_policy"]
'''


def noted_tasks(path: Path, run_id: str, count: int) -> list[dict[str, Any]]:
    """What the ``count`` tasks of a run that have succeeded noted in ``path``; waits for the last of them.

    Raises :class:`RuntimeError` where fewer note anything.
    """

    def noted() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [task for task in map(json.loads, lines) if task["run"] == run_id]

    if not wait_until(lambda: len(noted()) >= max(1, count), _NOTED_SECONDS):
        raise RuntimeError(f"of {count} tasks of {run_id} only these noted their size: {noted()}")
    return noted()


class MeasuredAirflow:
    """An Airflow with registry-sync in its settings, on SQLite or in ``server``; ``name`` says on which.

    Its processes stand still but in :meth:`awake`, so that it costs others nothing.
    """

    def __init__(self, folder: Path, *, server: Postgres | None = None, ca_path: Path | None = None) -> None:
        self.name = "registry-sync" if server is None else "registry-sync, PostgreSQL"
        self.storage = OwnStorage(folder / "storage", server)
        self._noted = folder / "tasks"
        settings: dict[str, dict[str, str]] = {**_SETTINGS, "registry_sync": self.storage.settings}
        if server is not None:
            url = server.make_database("airflow").replace("postgresql://", "postgresql+psycopg://")
            settings["database"] = {"sql_alchemy_conn": url, "sql_alchemy_conn_async": url}
        extra = {"allow_any_host": True, **({"ca_certificate": str(ca_path)} if ca_path else {})}
        env = {f"AIRFLOW_CONN_{_CONNECTION.upper()}": json.dumps({"conn_type": "registry", "extra": extra})}
        self.instance = AirflowInstance(folder / "airflow", settings=settings, env=env)

    def __enter__(self) -> MeasuredAirflow:
        config = self.instance.home / "config"
        config.mkdir(parents=True)
        local_settings = LOCAL_SETTINGS + _NOTING.format(path=str(self._noted))
        (config / "airflow_local_settings.py").write_text(local_settings)
        self.instance.start()
        try:
            self.instance.await_dag()
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.instance.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self.instance.__exit__(None, None, None)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """It runs for the time of the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def run(self, conf: Mapping[str, Any], timeout_seconds: float) -> Usage:
        """A run, from its trigger to its end by Airflow's clock; the processor's time is that of all of Airflow.

        It begins when Airflow has nothing else to do: neither what it has missed while it stood still, nor the end of
        the tasks of the run before, which outlasts that run.

        Raises :class:`RuntimeError` when it does not end well.
        """
        airflow = self.instance
        await_idle(self._cpu_seconds)
        cpu_before, began = self._cpu_seconds(), time.time()
        body = {"logical_date": None, "conf": dict(conf)}
        run_id = airflow.remember(DAG_ID, airflow.api("POST", f"/dags/{DAG_ID}/dagRuns", body)["dag_run_id"])
        try:
            state = airflow.wait(run_id, timeout_seconds)
        except AssertionError:
            airflow.api("PATCH", f"/dags/{DAG_ID}/dagRuns/{run_id}", {"state": "failed"})
            raise TookTooLong(timeout_seconds) from None
        run = airflow.api("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}")
        if state != "success":
            raise RuntimeError(f"the run failed: {airflow.reasons(run_id)}")
        seconds = dt.datetime.fromisoformat(run["end_date"].replace("Z", "+00:00")).timestamp() - began
        cpu_seconds = self._cpu_seconds() - cpu_before
        tasks = noted_tasks(self._noted, run_id, list(airflow.task_states(run_id).values()).count("success"))
        grown_kib = max(task["peak_kib"] - task["start_kib"] for task in tasks)
        return Usage(seconds, cpu_seconds, max(task["peak_kib"] for task in tasks) / 1024, grown_kib / 1024)

    def _pids(self) -> list[int]:
        recorded = self.instance.instance.recorded()
        return [] if recorded is None else [pid for one in recorded.processes for pid in processes.members(one)]

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _cpu_seconds(self) -> float:
        """Of all its processes, those that have ended included, whether they were waited for or not yet."""
        recorded = self.instance.instance.recorded()
        sessions = set() if recorded is None else {one.pid for one in recorded.processes}
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) in sessions:
                    ticks += sum(map(int, fields[11:15]))
        return ticks / _TICKS_PER_SECOND


def await_idle(cpu_seconds: Callable[[], float], sleep: Callable[[float], None] = time.sleep) -> bool:
    """Waits until what ``cpu_seconds`` has used so far hardly grows; False where it does so to the end."""
    before = cpu_seconds()
    for _ in range(_MOST_WINDOWS):
        sleep(_WINDOW_SECONDS)
        now = cpu_seconds()
        if now - before <= _IDLE_CORES * _WINDOW_SECONDS:
            return True
        before = now
    return False


class AirflowSync:
    """Syncs of one repository by an Airflow."""

    passes = PASSES

    def __init__(self, airflow: MeasuredAirflow, source: Source) -> None:
        self.name = airflow.name
        self._airflow = airflow
        self._repository = source.repository
        self._conf = {"repository": source.repository, "url": source.url, "upstream_name": source.repository}
        if source.ca_path is not None:
            self._conf["conn_id"] = _CONNECTION

    def empty(self) -> None:
        self._airflow.storage.empty()

    def ready(self) -> AbstractContextManager[None]:
        return self._airflow.awake()

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        return self._airflow.run(self._conf, timeout_seconds)

    def check(self, content: RepositoryContent) -> None:
        self._airflow.storage.check(self._repository, content)
