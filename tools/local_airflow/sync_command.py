"""``make sync``: one sync of a repository through the DAG ``registry_sync``.

It uses the Airflow that runs for this checkout, or starts one for as long as the sync takes. Where Docker Hub is out of
reach and nothing else was requested, a sample that is served on this machine is synced in its place.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from local_airflow.dag_run import DagRun, TaskState, await_dag
from local_airflow.errors import ApiError, LocalAirflowError, SyncFailed
from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.ports import LOOPBACK
from local_airflow.pull_server import PullServer
from local_airflow.reach import why_out_of_reach
from local_airflow.rest import PULP, AirflowApi
from local_airflow.sample import NAME as SAMPLE_NAME
from local_airflow.sample import SampleRegistry, sample_registry
from local_airflow.terminal import Board, say

DAG_ID = "registry_sync"
DEFAULT_REMOTE = "https://registry-1.docker.io"
DEFAULT_NAME = "library/hello-world"

#: Variables that are passed unchanged when set, and their parameters of the DAG.
PASSED_ON = {
    "SEMVER": "semver",
    "NEWEST": "newest",
    "ORDER": "order",
    "NEWER_THAN": "newer_than",
    "POLICY": "policy",
    "MODE": "mode",
    "CONN": "conn_id",
    "PUBLISH_AS": "publish_as",
}
#: The same for lists, separated by blanks or commas.
LISTS = {"TAGS": "tags", "EXCLUDE_TAGS": "exclude_tags", "PLATFORMS": "platforms"}
#: An entry of a list; commas in the braces of a glob are part of it.
_ENTRY = re.compile(r"(?:\{[^{}\s]*\}|[^\s,])+")
_REFUSED_WHOLE = ("OtherUpstream", "TriggerRefused", "ConfigurationError", "InvalidReference", "NameTaken")
#: The variable of each parameter, and its possible values, for the message about another value.
VARIABLES = {
    "repository": ("REPOSITORY", "a name such as hello-world"),
    "url": ("REMOTE", "the address of a registry without a path, such as https://quay.io"),
    "upstream_name": ("NAME", "the name of a repository there, such as library/hello-world"),
    "tags": ("TAGS", "names or globs such as 3.*, separated by blanks or commas"),
    "exclude_tags": ("EXCLUDE_TAGS", "names or globs such as 3.*, separated by blanks or commas"),
    "semver": ("SEMVER", "a range of versions such as >=3.18, with blanks between bounds"),
    "newest": ("NEWEST", "the number of versions, such as 3"),
    "order": ("ORDER", "version, first_seen, pushed or name"),
    "newer_than": ("NEWER_THAN", "a duration such as 90d, or a date; with ORDER=first_seen or pushed"),
    "platforms": ("PLATFORMS", "platforms such as linux/amd64, separated by blanks or commas"),
    "policy": ("POLICY", "immediate, on_demand or streamed"),
    "mode": ("MODE", "mirror or additive"),
    "conn_id": ("CONN", "the id of an Airflow connection"),
    "publish_as": ("PUBLISH_AS", "a base path in lower case, such as team/alpine"),
}


def sync(instance: Instance, env: Mapping[str, str], port: int | None) -> None:
    """Prints the repository version as JSON; one of the sample says so in ``sample``.

    An Airflow that runs for this checkout is used; otherwise one is started, on ``port`` or any free one, and
    stopped at the end. Raises :class:`SyncFailed` and what starting raises.
    """
    conf = parameters(env)
    with contextlib.ExitStack() as closing:
        sample = None
        if (reason := why_docker_hub_is_missing(conf, env)) is not None:
            say(f"Docker Hub is out of reach: {reason}")
            say("A sample of the same shape takes its place, made now and served here; REMOTE= names a registry")
            sample = closing.enter_context(sample_registry(instance.layout))
            conf = in_place_of_docker_hub(conf, env, sample)
        closing.enter_context(instance.in_use())
        version = _synced(instance, conf, port)
        served = publish(instance, conf)
    if sample is not None:
        say(f"This is the sample from {sample.url}, made on this machine; it does not come from Docker Hub")
        version = {**version, "sample": {"url": sample.url, "upstream_name": SAMPLE_NAME, "reason": reason}}
    say(served)
    print(json.dumps(version, indent=2))


def _synced(instance: Instance, conf: dict[str, Any], port: int | None) -> Any:
    say(f"Syncing {conf['upstream_name']} from {conf['url']} into the repository {conf['repository']}")
    if instance.running() is None:
        say("Starting Airflow for this sync; `make up` keeps one running")
    api = instance.api(instance.start(port, temporary=True))
    await_dag(api, DAG_ID)
    try:
        run = DagRun.trigger(api, DAG_ID, conf)
    except ApiError as error:
        raise SyncFailed(refusal(str(error), conf)) from None
    try:
        follow(run)
    except KeyboardInterrupt:
        with contextlib.suppress(LocalAirflowError):
            run.fail()
        raise
    if run.state() != "success":
        raise SyncFailed(failure(run, run.tasks(), instance))
    return synced_version(run)


def publish(instance: Instance, conf: Mapping[str, Any]) -> str:
    """Has everybody on this machine pull the repository under its name, unless something is distributed of it already.

    Returns how it is pulled, or why it is not. A sync is none the worse when that fails.
    """
    name = conf["repository"]
    try:
        base_path = _base_path(instance.api(), name)
    except ApiError as error:
        return f"It is not served to container clients: {error}"
    running = instance.running()
    if running is None or running.pull_port is None:
        return f"`make up` serves it to container clients as {base_path}"
    command = PullServer(running.pull_port).command(base_path)
    return command or f"It is served to container clients that log in: {LOOPBACK}:{running.pull_port}/{base_path}"


def _base_path(api: AirflowApi, repository: str) -> str:
    """Where a repository is distributed: a public one first; under its own name when it was not until now."""
    found = api.request("GET", "/repositories/docker/docker/", query={"name": repository}, below=PULP)["results"]
    href = found[0]["pulp_href"] if found else ""
    known = [
        distribution
        for distribution in api.every_document("/distributions/docker/docker/")
        if href and (distribution["repository"] or distribution["repository_version"] or "").startswith(href)
    ]
    if known:
        return str(min(known, key=lambda distribution: bool(distribution["private"]))["base_path"])
    new = {"name": repository, "base_path": repository, "repository": href, "private": False}
    return str(api.request("POST", "/distributions/docker/docker/", new, below=PULP)["base_path"])


def why_docker_hub_is_missing(conf: Mapping[str, Any], env: Mapping[str, str]) -> str | None:
    """Why a sample has to take the place of Docker Hub; None when nothing has to.

    Raises :class:`SyncFailed` when Docker Hub is out of reach and more than the default was requested of it: a sample
    is not what was meant, and the tries of a sync would take minutes. A connection may have a proxy, and is not judged.
    """
    if conf["url"] != DEFAULT_REMOTE or env.get("CONN"):
        return None
    reason = why_out_of_reach(DEFAULT_REMOTE)
    if reason is None or not (env.get("REMOTE") or env.get("NAME")):
        return reason
    raise SyncFailed(
        f"Docker Hub is out of reach: {reason}; {conf['upstream_name']} cannot be synced from {DEFAULT_REMOTE}.\n"
        "REMOTE=https://… names a registry that this machine reaches, such as a mirror of Docker Hub; CONN= names an "
        "Airflow connection with a proxy. `make sync` without NAME and REMOTE syncs a sample that is made here."
    )


def in_place_of_docker_hub(conf: Mapping[str, Any], env: Mapping[str, str], sample: SampleRegistry) -> dict[str, Any]:
    """``conf`` for a sync of the sample: into a repository of its own, apart from those of Docker Hub."""
    changed = {**conf, "url": sample.url, "upstream_name": SAMPLE_NAME}
    if not env.get("REPOSITORY"):
        changed["repository"] = SAMPLE_NAME
        if sample.has_moved:
            changed["replace_upstream"] = True
    return changed


def parameters(env: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of the DAG by the variables; an empty variable counts as not set.

    Raises :class:`LocalAirflowError` for a flag that is neither true nor false.
    """
    name = env.get("NAME") or DEFAULT_NAME
    conf: dict[str, Any] = {
        "repository": env.get("REPOSITORY") or name.rstrip("/").rpartition("/")[2],
        "url": (env.get("REMOTE") or DEFAULT_REMOTE).rstrip("/"),
        "upstream_name": name,
    }
    lists = {parameter: _ENTRY.findall(env.get(name, "")) for name, parameter in LISTS.items()}
    conf.update({parameter: entries for parameter, entries in lists.items() if entries})
    conf.update({parameter: env[name] for name, parameter in PASSED_ON.items() if env.get(name)})
    replaces = env.get("REPLACE_UPSTREAM", "").lower()
    if replaces not in ("", "true", "false"):
        raise LocalAirflowError(f"REPLACE_UPSTREAM={replaces} cannot be used: it is true or false")
    if replaces:
        conf["replace_upstream"] = replaces == "true"
    return conf


def follow(run: DagRun) -> None:
    """Shows every change of the run's tasks until the run ends, and why a try failed that is retried."""
    board = Board()
    for task in run.changes():
        text = progress_line(task)
        if task.state == "up_for_retry":
            text += f"  {run.reason(task, task.try_number)}"
        board.show(task.name, text)


def progress_line(task: TaskState) -> str:
    """Task with map index, state, duration if any, and the label of a mapped task."""
    seconds = f"{task.seconds:6.1f} s" if task.seconds else " " * 8
    label = f"  {task.label}" if task.label and task.map_index >= 0 else ""
    return f"  {task.name:<20} {task.state:<14} {seconds}{label}".rstrip()


def synced_version(run: DagRun) -> Any:
    """The version that equals the upstream: the one that the run made, or the latest when nothing had changed."""
    tasks = run.tasks()
    committed = run.xcom(task_of("CommitVersionOperator", tasks)) or {}
    if committed.get("version") is not None:
        return committed["version"]
    listed = run.xcom(task_of("ListTagsOperator", tasks), key="summary") or {}
    say("Nothing changed upstream: no new version")
    return committed.get("unchanged_version") or listed.get("unchanged_version")


def task_of(operator: str, tasks: Iterable[TaskState]) -> str:
    """The id of the task with that operator, whatever its name in the DAG."""
    return next((task.task_id for task in tasks if task.operator == operator), operator)


def refusal(error: str, conf: Mapping[str, Any]) -> str:
    """The variable whose value the DAG refuses, with its possible values; otherwise ``error`` unchanged."""
    refused = re.search(r"Invalid input for param (\w+):", error)
    if refused is None or refused[1] not in VARIABLES:
        return error
    variable, possible = VARIABLES[refused[1]]
    value = conf.get(refused[1])
    shown = re.sub(r"//[^/]*@", "//***@", " ".join(value) if isinstance(value, list) else str(value))
    return f"{variable}={shown} cannot be used: {variable} is {possible}"


def stored_selection(reasons: Iterable[str], listing: str) -> list[str]:
    """The note that a failed sync keeps its options with the remote; empty where the sync was refused as a whole.

    ``listing`` is the listing task, whose log has the options.
    """
    if any(reason.startswith(_REFUSED_WHOLE) for reason in reasons):
        return []
    kept = "The rules for tags, PLATFORMS and POLICY, now or before, stay with the remote until changed"
    return [f"{kept}; TAGS=* selects all tags. The log of {listing} has the values that were used."]


def failure(run: DagRun, tasks: Iterable[TaskState], instance: Instance) -> str:
    """The failed tasks, their reasons and logs, and the options that are kept."""
    lines, reasons, tasks = [], [], list(tasks)
    for task in sorted(tasks, key=lambda task: (task.task_id, task.map_index)):
        if task.state == "failed":
            reasons.append(run.reason(task, task.try_number))
            lines += [
                f"the task {task.name} failed: {as_typed_here(reasons[-1], instance.layout)}",
                f"  its log: {run.log_path(task, instance.layout.task_logs)}",
            ]
    if not lines:
        lines.append(
            f"the run {run.run_id} of {run.dag_id} failed without a failed task; see {instance.layout.process_logs}"
        )
    lines += stored_selection(reasons, task_of("ListTagsOperator", tasks))
    lines.append("Fix the cause and run the command again: stored content is not fetched twice.")
    return "\n".join(lines)


def as_typed_here(reason: str, layout: Layout) -> str:
    """``reason`` with its parameters and commands as they are typed in this checkout."""
    reason = re.sub(
        r"(?:say|set) replace_upstream( \(Replace the upstream in the form, [^)]*\))?",
        "set REPLACE_UPSTREAM=true",
        reason,
    )
    command = f"AIRFLOW_HOME={shlex.quote(str(layout.home))} {shlex.quote(str(layout.program))} registry-sync"
    return reason.replace("airflow registry-sync", command)
