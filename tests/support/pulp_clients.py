"""Pulp's own clients, unmodified, in the environments that ``make test`` installs them in."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_airflow.layout import CHECKOUT

PROGRAMS = Path(__file__).parent / "pulp_programs"
TIMEOUT_SECONDS = 240


def python_of(generation: str) -> Path:
    """The interpreter of an environment: ``today``, or ``then`` for the time of the documented workflow."""
    python: Path = CHECKOUT / ".local/pulp" / generation / "bin/python"
    assert python.exists(), f"Pulp's clients are not installed; run: make .local/pulp/{generation}/installed"
    return python


def _environment(home: Path) -> dict[str, str]:
    """Settings and caches are in ``home``; loopback is reached without the machine's proxy."""
    folders = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "cache")}
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PULP_"))}
    return {**kept, **folders, **direct}


@dataclass(frozen=True)
class Done:
    """What a command ended with, and what it printed."""

    status: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.output)


class PulpCommand:
    """The ``pulp`` command with one server and login."""

    def __init__(self, process: subprocess.Popen[str], *login: str) -> None:
        self._process = process
        self._login = login

    def __call__(self, command: str, *words: str, status: int = 0) -> Done:
        """Runs ``pulp <command>`` with further words, which may have blanks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*self._login, *command.split(), *words]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the program of the commands has ended"
        found = json.loads(line)
        done = Done(found["status"], found["output"], found["errors"])
        assert done.status == status, f"pulp {command}: {found}"
        return done


@contextmanager
def pulp_command(url: str, user: str, password: str, home: Path) -> Iterator[PulpCommand]:
    """The command for a user of a server; what it keeps is in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    program = [str(python_of("today")), str(PROGRAMS / "commands.py")]
    with subprocess.Popen(
        program, cwd=home, env=_environment(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield PulpCommand(process, "--base-url", url, "--username", user, "--password", password)
        assert process.stdin is not None
        process.stdin.close()


def walk_with_libraries(generation: str, home: Path, *words: str) -> dict[str, Any]:
    """What the client libraries of a generation read on their way through the workflow: see ``libraries.py``."""
    home.mkdir(parents=True, exist_ok=True)
    program = [str(python_of(generation)), str(PROGRAMS / "libraries.py"), *words]
    done = subprocess.run(
        program, cwd=home, env=_environment(home), capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
