"""``make sync``: one sync of a repository through the DAG ``registry_sync``.

It uses the Airflow that runs for this checkout, or starts one for as long as the sync takes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from local_airflow.dag_run import DagRun, TaskState, await_dag
from local_airflow.errors import LocalAirflowError, SyncFailed
from local_airflow.instance import Instance
from local_airflow.terminal import Board, say

DAG_ID = "registry_sync"
DEFAULT_REMOTE = "https://registry-1.docker.io"
DEFAULT_NAME = "library/hello-world"

#: Variables that are handed on as they are when given, and the parameters of the DAG they become.
PASSED_ON = {"POLICY": "policy", "MODE": "mode", "CONN": "conn_id"}


def sync(instance: Instance, env: Mapping[str, str], port: int | None) -> None:
    """Prints the repository version as JSON.

    An Airflow that runs for this checkout is used; otherwise one is started, on ``port`` or any free one, and
    stopped at the end. Raises :class:`SyncFailed` and what starting raises.
    """
    conf = parameters(env)
    with instance.in_use():
        say(f"Syncing {conf['upstream_name']} from {conf['url']} into the repository {conf['repository']}")
        if instance.running() is None:
            say("Starting Airflow for this sync; `make up` keeps one running")
        api = instance.api(instance.start(port, temporary=True))
        await_dag(api, DAG_ID)
        run = DagRun.trigger(api, DAG_ID, conf)
        try:
            follow(run)
        except KeyboardInterrupt:
            with contextlib.suppress(LocalAirflowError):
                run.fail()
            raise
        if run.state() != "success":
            raise SyncFailed(failure(run, run.tasks(), instance))
        print(json.dumps(synced_version(run), indent=2))


def parameters(env: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of the DAG that the variables ask for; an empty variable is one that is not given."""
    name = env.get("NAME") or DEFAULT_NAME
    conf: dict[str, Any] = {
        "repository": env.get("REPOSITORY") or name.rstrip("/").rpartition("/")[2],
        "url": (env.get("REMOTE") or DEFAULT_REMOTE).rstrip("/"),
        "upstream_name": name,
    }
    tags = env.get("TAGS", "").replace(",", " ").split()
    if tags:
        conf["tags"] = tags
    conf.update({parameter: env[name] for name, parameter in PASSED_ON.items() if env.get(name)})
    if env.get("REPLACE_UPSTREAM"):
        conf["replace_upstream"] = env["REPLACE_UPSTREAM"].lower() == "true"
    return conf


def follow(run: DagRun) -> None:
    """Shows every change of the run's tasks until the run ends, and why a try failed that is made again."""
    board = Board()
    for task in run.changes():
        text = progress_line(task)
        if task.state == "up_for_retry":
            text += f"  {run.reason(task, task.try_number)}"
        board.show(task.name, text)


def progress_line(task: TaskState) -> str:
    """Task with map index, state, seconds when it took any, and what a mapped task is about."""
    seconds = f"{task.seconds:6.1f} s" if task.seconds else " " * 8
    label = f"  {task.label}" if task.label and task.map_index >= 0 else ""
    return f"  {task.name:<20} {task.state:<14} {seconds}{label}".rstrip()


def synced_version(run: DagRun) -> Any:
    """The version that equals the upstream now: the one the run made, or the latest when nothing had changed."""
    committed = run.xcom("commit_version") or {}
    if committed.get("version") is not None:
        return committed["version"]
    listed = run.xcom("list_tags", key="summary") or {}
    say("Nothing changed upstream: no new version")
    return committed.get("unchanged_version") or listed.get("unchanged_version")


def failure(run: DagRun, tasks: Iterable[TaskState], instance: Instance) -> str:
    """Which tasks failed, why, and where to read on."""
    lines = []
    for task in sorted(tasks, key=lambda task: (task.task_id, task.map_index)):
        if task.state == "failed":
            lines += [
                f"the task {task.name} failed: {run.reason(task, task.try_number)}",
                f"  its log: {run.log_path(task, instance.layout.task_logs)}",
            ]
    if not lines:
        lines.append(
            f"the run {run.run_id} of {run.dag_id} failed before a task did; see {instance.layout.process_logs}"
        )
    lines.append("Mend what it names and run the same command again: what is stored already is not fetched twice.")
    return "\n".join(lines)
