"""The first task of the DAG, as whoever triggers a run begins it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.operators.run_notes import RUN_NOTE_KEY
from support.task_contexts import TaskContext, rendered, sync_dag

DIGEST = f"sha256:{'a' * 64}"
LOGIN = {"login": "AKIA0123456789", "password": "a secret of the cloud"}


def list_tags(**conf: Any) -> TaskContext:
    """The DAG's first task, run with these parameters."""
    context = TaskContext(conf=conf, dag_id="registry_sync", run_id=f"manual__{conf}"[:200])
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    task.fetch_tasks = ()
    task.execute(rendered(task, context))
    return context


def refusal(**conf: Any) -> str:
    """Why that task fails at once."""
    context = TaskContext(conf=conf, dag_id="registry_sync", run_id=f"manual__{conf}"[:200])
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    with pytest.raises(AirflowFailException) as failed:
        task.execute(rendered(task, context))
    said = str(failed.value)
    noted = context.returned.get(RUN_NOTE_KEY)
    assert noted is None or noted["summary"].removeprefix("failed: ") in said
    return said
