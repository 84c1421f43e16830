"""DAG runs in the process of the test, by Airflow's own ``dag.test()``: seconds for the first, half of one after.

For breadth: what a stage does with this or that content. What concerns processes, retries after a crash or the
scheduler requires :class:`~support.airflow_instance.AirflowInstance`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from local_airflow.launch import serve_newest_versions_alone

if TYPE_CHECKING:
    import pytest
    from airflow.sdk import DAG


#: Which sleeps for a second whenever nothing can run, as after each failure.
_LOOP = "airflow.sdk.definitions.dag"
_LOOP_SECONDS = 0.02


@contextmanager
def short_sleeps() -> Iterator[None]:
    """The loop of ``dag.test()`` does not sleep for long; whatever else sleeps does so as ever."""
    sleep = time.sleep

    def shortened(seconds: float) -> None:
        sleep(_LOOP_SECONDS if sys._getframe(1).f_globals.get("__name__") == _LOOP else seconds)

    with patch("time.sleep", shortened):
        yield


_checked_schemas: set[str] = set()


@contextmanager
def schemas_checked_once() -> Iterator[None]:
    """Airflow checks the schema of each parameter whenever it reads the value, hundreds of times in each task.

    Values are validated as ever.
    """
    from jsonschema import Draft202012Validator

    check = Draft202012Validator.check_schema

    def check_once(schema: Any, *others: Any) -> None:
        if (text := json.dumps(schema, sort_keys=True)) not in _checked_schemas:
            check(schema, *others)
            _checked_schemas.add(text)

    with patch.object(Draft202012Validator, "check_schema", check_once):
        yield


@dataclass(frozen=True)
class FinishedRun:
    """What became of a run. ``tasks`` is state by task, mapped ones as ``fetch_blobs[0]``."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task returned; None when it returned nothing."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.scalar(
                XComModel.get_many(
                    run_id=self.run_id, key=key, task_ids=task_id, dag_ids=self.dag_id, map_indexes=map_index
                )
            )
            return None if found is None else XComModel.deserialize_value(found)

    @property
    def version(self) -> dict[str, Any] | None:
        """The version that the run made, in the documented shape; None when it made none."""
        committed = self.xcom("commit_version")
        return None if committed is None else committed["version"]


class InProcessSync:
    """Runs ``registry_sync``, or another DAG of the DAGs folder."""

    def __call__(self, dag_id: str = "registry_sync", **conf: Any) -> FinishedRun:
        """The run with these parameters, when it has ended, well or not."""
        dag, defaults = _dag(dag_id)
        # a run leaves its parameters with the DAG object, so that each run is given all of them
        return _run(dag, {**defaults, **conf})


def runner_of(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FinishedRun]:
    """Runs a DAG of ``code``, a file of ``folder``, with these parameters in the process of the test, to its end."""
    folder.mkdir()
    (folder / "dags_of_test.py").write_text(code, encoding="utf-8")
    path = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "of_test", "classpath": path, "kwargs": {"path": str(folder)}}]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))

    def run(dag_id: str, **conf: Any) -> FinishedRun:
        from airflow.dag_processing.dagbag import DagBag

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bag = DagBag(folder)
        assert bag.import_errors == {}
        return _run(bag.dags[dag_id], conf or None)

    return run


def _run(dag: DAG, conf: dict[str, Any] | None = None) -> FinishedRun:
    """The run to its end; ``dag.test()`` would wait for a person for ever, so that a stopped sync fails at once."""
    at_once = patch.dict(os.environ, {"AIRFLOW__REGISTRY_SYNC__APPROVAL_HOURS": "0"})
    with warnings.catch_warnings(), short_sleeps(), schemas_checked_once(), at_once:
        warnings.simplefilter("ignore")  # those of Airflow's own code are not ours to mend
        serve_newest_versions_alone()
        run = dag.test(run_conf=conf, logical_date=datetime.now(timezone.utc))
        tasks = {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state or "waiting")
            for ti in run.get_task_instances()
        }
    return FinishedRun(dag.dag_id, run.run_id, str(run.state), tasks)


@cache
def _dag(dag_id: str) -> tuple[DAG, dict[str, Any]]:
    """The DAG and the values of its parameters before any run."""
    from airflow.dag_processing.dagbag import DagBag

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bag = DagBag()
    if bag.import_errors:
        raise AssertionError(f"DAG files that cannot be imported: {bag.import_errors}")
    dag = bag.dags[dag_id]
    return dag, dag.params.dump()
