"""Starts Airflow's components from one process, so that their common imports are done and kept in memory once.

:mod:`local_airflow.startup` runs this file with the number of a socket and, as JSON, one ``[name, log, arguments]``
per component, with the arguments of ``airflow``. This process itself becomes the first component; each other one is a
child that leads a session of its own. Their ids, except the first one's, are sent as one JSON line. A component
continues when it has read one byte, which is sent once its id is recorded; when the socket is closed before, it ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

#: The modules that the components import. Those that an Airflow does not have are skipped.
IMPORTED = (
    "airflow.__main__",
    "airflow.cli.cli_parser",  # and with it the auth manager, whose commands are some of Airflow's
    "airflow.cli.commands.api_server_command",
    "airflow.cli.commands.dag_processor_command",
    "airflow.cli.commands.scheduler_command",
    "airflow.cli.commands.triggerer_command",
    "airflow.executors.local_executor",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.jobs.dag_processor_job_runner",
    "airflow.dag_processing.manager",
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.routes",
    "uvicorn",
)
#: How many versions of the execution API, from the newest on, apply their changes to the one before: those of the
#: second restore a route that Airflow has for older ones alone.
_EXECUTION_API_VERSION_COUNT = 2
#: The component that tasks are forked from, and our module of what they need, which is not installed everywhere.
FORKS_TASKS = "scheduler"
PREPARED_BY = "registry_sync.operators.preloading"

#: New objects, and collections of one generation before one of the next, before garbage is searched for.
_COLLECTED_AFTER = (50_000, 20, 50)


def launch(control: socket.socket, parts: Sequence[tuple[str, str, list[str]]]) -> None:
    """Starts the components; returns when the first one has ended, and in each child when that one has."""
    gc.disable()  # nothing that is imported becomes garbage
    with contextlib.suppress(ImportError):
        serve_newest_versions_alone()
    for module in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    with contextlib.suppress(ImportError):
        importlib.import_module(PREPARED_BY).load_modules()
    gc.freeze()  # nor is it scanned by any component, which would copy its memory
    # What the API server makes of its routes is kept as well: fewer searches save a seventh of its start.
    gc.set_threshold(*_COLLECTED_AFTER)
    gc.enable()
    (_, _, mine), *others = parts
    pids = {}
    for name, log, arguments in others:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _write_to(log)
            if name == FORKS_TASKS:
                _prepare_tasks()
            _run(control, arguments)
            return
        pids[name] = pid
    control.sendall(json.dumps(pids).encode() + b"\n")
    _run(control, mine)


def serve_newest_versions_alone() -> None:
    """From now on Airflow's execution API is served in its three newest versions, unless it was loaded before.

    The API server makes its routes anew for each version when the first task asks, and so does every process that runs
    the API in itself: nine versions take four seconds of the processor, these three one. All tasks are of this Airflow
    and ask for the newest.
    """
    cadwyn: Any = importlib.import_module("cadwyn")
    whole = cadwyn.VersionBundle

    def newest(head: Any, *versions: Any) -> Any:
        count = _EXECUTION_API_VERSION_COUNT
        before = (cadwyn.Version(version.value) for version in versions[count : count + 1])
        return whole(head, *versions[:count], *before)

    cadwyn.VersionBundle = newest
    try:
        importlib.import_module("airflow.api_fastapi.execution_api.versions")
    finally:
        cadwyn.VersionBundle = whole


def _prepare_tasks() -> None:
    """Does what each task would spend a tenth of a second of the processor on, while other components start."""
    with contextlib.suppress(ImportError):
        importlib.import_module(PREPARED_BY).rehearse()
    with contextlib.suppress(ImportError):  # loads Airflow's plugins
        importlib.import_module("airflow.sdk.listener").get_listener_manager()
    with contextlib.suppress(ImportError):  # reads the certificates that clients of the API server trust
        importlib.import_module("airflow.sdk.api.client").Client(base_url="http://127.0.0.1", token="").close()


def _write_to(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _run(control: socket.socket, arguments: list[str]) -> None:
    with control:
        if not control.recv(1):
            return
    from airflow.__main__ import main

    sys.argv = [os.path.join(os.path.dirname(sys.executable), "airflow"), *arguments]  # noqa: PTH118, PTH120
    main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules are not Airflow's
    launch(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
