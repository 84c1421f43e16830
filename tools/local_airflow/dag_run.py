"""One DAG run, followed over the REST API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_airflow.errors import ApiError, DagBroken
from local_airflow.rest import AirflowApi, quote

POLL_SECONDS = 0.2
#: The DAG processor takes a few seconds to parse the DAG files for the first time.
DAG_SECONDS = 90
#: A task that has not been scheduled yet: nothing to report.
WAITING = ("waiting", 0)
FINAL_STATES = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskState:
    """The state of a task instance. ``map_index`` is -1 for a task that is not mapped; ``operator`` its class."""

    task_id: str
    map_index: int
    label: str
    state: str
    try_number: int
    seconds: float
    operator: str = ""

    @classmethod
    def parse(cls, response: dict[str, Any]) -> TaskState:
        """The state in an entry of the REST API."""
        index, label = int(response["map_index"]), response.get("rendered_map_index") or ""
        return cls(
            task_id=response["task_id"],
            map_index=index,
            label="" if label == str(index) else label,  # Airflow shows the index where no label is rendered yet
            state=response["state"] or "waiting",
            try_number=int(response["try_number"]),
            seconds=float(response["duration"] or 0),
            operator=response.get("operator_name") or "",
        )

    @property
    def name(self) -> str:
        """Task id, with the map index of a mapped task."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def await_dag(api: AirflowApi, dag_id: str, timeout_seconds: float = DAG_SECONDS) -> None:
    """Waits until the DAG can be triggered. Raises :class:`DagBroken`, with the import errors there are."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            dag = api.request("GET", f"/dags/{quote(dag_id)}")
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if not dag.get("is_stale"):
                return
        broken = list(api.every("/importErrors", "import_errors"))
        if broken:
            errors = "\n\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in broken)
            raise DagBroken(f"The DAG {dag_id} is missing, and these files cannot be imported:\n\n{errors}")
        if time.monotonic() > deadline:
            raise DagBroken(f"The DAG {dag_id} did not appear within {timeout_seconds:.0f} seconds")
        time.sleep(POLL_SECONDS)


class DagRun:
    """A run of ``dag_id``."""

    def __init__(self, api: AirflowApi, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self._api = api
        self._path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"

    @classmethod
    def trigger(cls, api: AirflowApi, dag_id: str, conf: dict[str, Any]) -> DagRun:
        """A new run with ``conf``. Raises :class:`ApiError` when the DAG refuses the parameters."""
        response = api.request("POST", f"/dags/{quote(dag_id)}/dagRuns", {"logical_date": None, "conf": conf})
        return cls(api, dag_id, response["dag_run_id"])

    def state(self) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return str(self._api.request("GET", self._path)["state"])

    def fail(self) -> None:
        """Ends the run and its tasks."""
        self._api.request("PATCH", self._path, {"state": "failed"})

    def tasks(self) -> list[TaskState]:
        """The task instances, in no particular order."""
        return [TaskState.parse(task) for task in self.task_responses()]

    def task_responses(self) -> list[dict[str, Any]]:
        """The task instances as in the REST API."""
        return list(self._api.every(f"{self._path}/taskInstances", "task_instances"))

    def changes(self) -> Iterator[TaskState]:
        """Every change of a task's state, as it happens, until the run has ended."""
        seen: dict[tuple[str, int], tuple[str, int]] = {}
        while True:
            is_final = self.state() in FINAL_STATES  # read first: then no change can follow the read of the tasks
            for task in self.tasks():
                key, now = (task.task_id, task.map_index), (task.state, task.try_number)
                if seen.get(key, WAITING) != now:
                    seen[key] = now
                    yield task
            if is_final:
                return
            time.sleep(POLL_SECONDS)

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """An XCom of a task; None when it has none."""
        path = f"{self._path}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        try:
            return self._api.request("GET", path, query={"map_index": map_index, "deserialize": "false"})["value"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def log(self, task_id: str, try_number: int, map_index: int = -1) -> list[dict[str, Any]]:
        """The events in the log of a try, oldest first; empty without a log."""
        path = f"{self._path}/taskInstances/{quote(task_id)}/logs/{try_number}"
        response = self._api.request("GET", path, query={"map_index": map_index, "full_content": "true"})
        return [event if isinstance(event, dict) else {"event": event} for event in response["content"]]

    def reason(self, task: TaskState, try_number: int) -> str:
        """Why a try of a task failed, in one line: the error that ended it, from its log."""
        try:
            events = self.log(task.task_id, try_number, task.map_index)
        except ApiError:
            return "its log cannot be read"
        for event in reversed(events):
            for detail in event.get("error_detail") or []:
                if isinstance(detail, dict) and detail.get("exc_type"):
                    return error_line(detail["exc_type"], detail.get("exc_value") or "")
            if event.get("level") in {"error", "critical"}:
                return str(event["event"])
        return "its log names no error"

    def log_path(self, task: TaskState, folder: Path) -> Path:
        """The log of a task's last try below Airflow's folder of task logs."""
        parts = [f"dag_id={self.dag_id}", f"run_id={self.run_id}", f"task_id={task.task_id}"]
        if task.map_index >= 0:
            parts.append(f"map_index={task.map_index}")
        return folder.joinpath(*parts, f"attempt={task.try_number}.log")


def error_line(kind: str, message: str) -> str:
    """An error in one line. The operators wrap an error that is not retried; then the message has its type."""
    return message if kind == "AirflowFailException" and message else f"{kind}: {message}".rstrip(": ")
