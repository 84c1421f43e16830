"""What a measurement was made on: the machine, and the versions of all programs."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.syncs.commands import PROGRAMS
from registry_sync import __version__
from support.registry import PROGRAM as REGISTRY

_VERSION = re.compile(r"v?\d+\.\d+[\w.+~-]*")
#: Prints the size in memory of an interpreter with what Airflow has imported when a task begins, then with what is
#: prepared for the tasks of a sync besides.
_SIZES = """
import importlib, pathlib, airflow.dag_processing.dagbag, airflow.sdk.execution_time.task_runner
from local_airflow.launch import IMPORTED
from registry_sync.operators.preloading import rehearse

def import_airflow():
    for name in IMPORTED:
        importlib.import_module(name)

for prepare in (import_airflow, rehearse):
    prepare()
    print(*(line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line))
"""


def described(now: dt.datetime) -> dict[str, Any]:
    """The machine, its load at this moment, and versions by name; those that are not installed are left out."""
    return {
        "date": now.date().isoformat(),
        "processor": _first(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int((_first(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) / 1024**2),
        "load": round(os.getloadavg()[0], 1),
        "system": _first(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"') or platform.system(),
        "linux": platform.release().partition("-")[0],
        "own_modules_mib": own_modules_mib(),
        "versions": _versions(),
    }


def own_modules_mib() -> float:
    """By how much an interpreter with Airflow grows by what is prepared in it for the tasks of a sync."""
    command = [sys.executable, "-W", "ignore", "-c", _SIZES]
    env = {**os.environ, "AIRFLOW_HOME": tempfile.gettempdir()}
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    with_airflow, with_ours = map(int, output.split())
    return round((with_ours - with_airflow) / 1024, 1)


def _versions() -> dict[str, str]:
    found = {"registry-sync": __version__, "Python": platform.python_version(), "Airflow": version("apache-airflow")}
    commands: dict[str, Sequence[str]] = {"docker-registry": (REGISTRY, "--version")}
    for name, program in PROGRAMS.items():
        if program.path is not None:
            commands[name] = (program.path, "--version" if name == "skopeo" else "version")
    for name, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if match := _VERSION.search(done.stdout + done.stderr):
            found[name] = match[0].removeprefix("v")
    return found


def _first(path: Path, name: str, separator: str = ":") -> str:
    """The value of the first line that begins with ``name``; empty without one."""
    for line in path.read_text().splitlines() if path.exists() else []:
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return ""
