"""Airflow's parts out of one process: what all of them import is imported once, and lies in memory once.

:mod:`local_airflow.startup` runs this file with the number of a socket and, as JSON, one ``[name, log, arguments]``
for each part, the arguments being those of ``airflow``. The first part becomes of this process itself; each other is
a child that leads a session of its own. Their ids are sent as one JSON line, the first part's excepted. A part goes
on when it has read one byte, by when its id is written down; when the other end is closed before, it ends.
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

#: What the parts import first of all. What an Airflow does not have is left to the parts.
IMPORTED = (
    "airflow.__main__",
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


def launch(control: socket.socket, parts: Sequence[tuple[str, str, list[str]]]) -> None:
    """Starts the parts; returns when the first of them has ended, and in each child when that has."""
    gc.disable()  # nothing of what is imported goes again
    for module in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # nor is it looked through by any part, which would copy its memory
    gc.enable()
    (_, _, mine), *others = parts
    pids = {}
    for name, log, arguments in others:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _write_to(log)
            _run(control, arguments)
            return
        pids[name] = pid
    control.sendall(json.dumps(pids).encode() + b"\n")
    _run(control, mine)


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
    sys.path.pop(0)  # the folder of this file, whose modules are none of Airflow's
    launch(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
