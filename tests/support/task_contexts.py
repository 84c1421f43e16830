"""A task's context without a DAG run around it: what an operator reads of it, its XComs and its asset events."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from airflow.sdk import AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from registry_sync.domain.asset_names import VERSIONS_ALIAS


@dataclass
class TaskContext:
    """``returned`` has the XComs that were pushed while it ran; ``user`` triggered the run, with ``conf``."""

    user: str | None = "anna"
    conf: dict[str, Any] | None = None
    map_index: int = -1
    dag_id: str = "promote"
    run_id: str = "manual__1"
    task_id: str = "task"
    run_type: str = "manual"
    try_number: int = 1
    max_tries: int = 0
    id: UUID = field(default_factory=uuid4)
    returned: dict[str, Any] = field(default_factory=dict)
    events: OutletEventAccessors = field(default_factory=OutletEventAccessors)

    def xcom_push(self, key: str, value: Any) -> None:
        """As a task instance does."""
        self.returned[key] = value

    def get_task_states(self, _dag_id: str, **_which: Any) -> dict[str, dict[str, str]]:
        """As a task instance does; nothing has been mapped."""
        return {}

    def get_dr_count(self, **_which: Any) -> int:
        """As a task instance queries Airflow; here every run continues."""
        return 1

    def given(self) -> dict[str, Any]:
        """What ``execute`` is given."""
        dag_run = SimpleNamespace(
            run_id=self.run_id, run_type=self.run_type, triggering_user_name=self.user, conf=self.conf
        )
        return {"ti": self, "dag_run": dag_run, "outlet_events": self.events}

    def reported(self, alias: str = VERSIONS_ALIAS) -> list[dict[str, Any]]:
        """The asset events of new versions, or of another alias."""
        return [event.extra for event in self.events[AssetAlias(alias)].asset_alias_events]


@cache
def sync_dag() -> Any:
    """The DAG ``registry_sync``."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag().dags["registry_sync"]


def rendered(task: Any, context: TaskContext, dag: Any = None) -> dict[str, Any]:
    """Renders a task's templates as Airflow does before it runs, and gives the context."""
    dag = dag or sync_dag()
    params = {name: value for name, value in dag.params.dump().items() if isinstance(value, (str, list, bool, int))}
    given = {**context.given(), "dag": dag, "params": {**dict.fromkeys(dag.params), **params, **(context.conf or {})}}
    given["run_id"] = context.run_id
    task.render_template_fields(given)
    return given
