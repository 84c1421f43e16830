"""Our own syncs: runs of the DAG ``registry_sync`` in a real local Airflow, from the trigger to the run's end."""

from __future__ import annotations

import datetime as dt
import shutil
import time

from support.airflow_instance import DAG_ID, AirflowInstance

_POLL_SECONDS = 0.25


class AirflowSync:
    """Syncs of one repository. ``seconds`` is what the last run took by Airflow's own clock of its end."""

    name = "registry-sync"

    def __init__(self, airflow: AirflowInstance, registry_url: str, repository: str) -> None:
        self._airflow = airflow
        self._conf = {"repository": repository.replace("/", "-"), "url": registry_url, "upstream_name": repository}
        self.seconds = 0.0
        self.tasks: dict[str, str] = {}

    def empty(self) -> None:
        """Removes the embedded database and blob store; no run is on, and each task opens them anew."""
        shutil.rmtree(self._airflow.home / "registry_sync", ignore_errors=True)

    def first(self) -> None:
        """One run. Raises :class:`RuntimeError` when it does not end well."""
        began = time.time()
        run_id = self._airflow.trigger(conf=self._conf)
        path = f"/dags/{DAG_ID}/dagRuns/{run_id}"
        while (run := self._airflow.api("GET", path))["state"] not in ("success", "failed"):
            time.sleep(_POLL_SECONDS)
        self.seconds = dt.datetime.fromisoformat(run["end_date"].replace("Z", "+00:00")).timestamp() - began
        self.tasks = self._airflow.task_states(run_id)
        if run["state"] != "success":
            raise RuntimeError(f"the run failed: {self._airflow.reasons(run_id)}")

    def again(self) -> None:
        """The same once more, when nothing has changed."""
        self.first()
