"""The start of Airflow's components, as parallel as possible, until all of them are healthy."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from local_airflow import launch, migration, processes
from local_airflow.errors import ApiError, StartFailed
from local_airflow.layout import Layout
from local_airflow.processes import ProcessRecord
from local_airflow.pull_server import PullServer
from local_airflow.rest import AirflowApi
from local_airflow.running import Running

#: The components of Airflow and their commands; the process of the first one starts the others. Task logs are read from
#: a shared folder, so they are not served on a port.
COMMANDS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
FIRST = next(iter(COMMANDS))
PULL_SERVER = "pull-server"
#: The names of the components in the health check.
HEALTH_NAMES = ("metadatabase", "scheduler", "dag_processor", "triggerer")
START_SECONDS = 180
POLL_SECONDS = 0.1
LOG_LINES = 25


class Startup:
    """One start. ``write`` records the processes started so far, and is called before the next one is started."""

    def __init__(self, layout: Layout, env: Mapping[str, str], write: Callable[[Running], Running]) -> None:
        self._layout = layout
        self._env = env
        self._write = write

    def run(self, running: Running, api: AirflowApi) -> Running:
        """``running`` with all components, healthy. Raises :class:`StartFailed`; then some may keep running."""
        migrating: ProcessRecord | None = None
        if not migration.is_migrated(self._layout):
            migration.drop_half_made(self._layout)
            # the imports of the components do not read the database, so they run during the migration
            command = [str(self._layout.python), str(self._layout.program), *migration.COMMAND]
            running = self._spawn(running, "migration", command)
            migrating = running.processes[-1]
        if running.pull_port is not None:
            running = self.spawn_pull_server(running)
        control, theirs = socket.socketpair()
        with control:
            with theirs:
                running = self._spawn_launcher(running, theirs)
            running = self._find_others(running, control)
            if migrating is not None:
                self._await_migration(migrating)
                running = self._write(running.without_process(migrating))
            with contextlib.suppress(BrokenPipeError):  # a component that ended is found below, with its log
                control.sendall(bytes(len(COMMANDS)))
        self._await_health(running, api)
        if running.pull_port is not None:
            self.await_pull_server(running)
        return running

    def spawn_pull_server(self, running: Running) -> Running:
        """``running`` with the process of its pull server."""
        arguments = ("registry-sync", "serve", "--port", str(running.pull_port), "--workers", "1")
        return self._spawn(running, PULL_SERVER, [str(self._layout.python), str(self._layout.program), *arguments])

    def await_pull_server(self, running: Running) -> None:
        """Waits until the pull server responds. Raises :class:`StartFailed`."""
        deadline = time.monotonic() + START_SECONDS
        while not PullServer(running.pull_port or 0).is_ready():
            if PULL_SERVER in running.ended():
                raise self._failure(PULL_SERVER, "ended")
            if time.monotonic() > deadline:
                raise self._failure(PULL_SERVER, f"was not ready within {START_SECONDS} seconds")
            time.sleep(POLL_SECONDS)

    def _spawn_launcher(self, running: Running, control: socket.socket) -> Running:
        for name in COMMANDS:
            self._log(name).unlink(missing_ok=True)
        parts = [(name, str(self._log(name)), arguments) for name, arguments in COMMANDS.items()]
        control.set_inheritable(True)
        command = [str(self._layout.python), launch.__file__, str(control.fileno()), json.dumps(parts)]
        return self._spawn(running, FIRST, command)

    def _find_others(self, running: Running, control: socket.socket) -> Running:
        """With the parts that the first of them has started, which go on only when they are told to."""
        control.settimeout(START_SECONDS)
        try:
            with control.makefile() as lines:
                found = lines.readline()
        except TimeoutError:
            raise self._failure(FIRST, f"was not ready within {START_SECONDS} seconds") from None
        if not found:
            raise self._failure(FIRST, "ended")
        for name, pid in json.loads(found).items():
            running = self._write(running.with_process(processes.find(name, pid)))
        return running

    def _spawn(self, running: Running, name: str, command: list[str]) -> Running:
        log = self._log(name)
        log.unlink(missing_ok=True)
        return self._write(running.with_process(processes.spawn(name, command, self._env, log)))

    def _await_migration(self, migrating: ProcessRecord) -> None:
        status = processes.wait(migrating, START_SECONDS)
        if status is None:
            raise self._failure("migration", f"did not end within {START_SECONDS} seconds")
        if status != 0:
            raise self._failure("migration", "failed")
        migration.record_migrated(self._layout)

    def _await_health(self, running: Running, api: AirflowApi) -> None:
        deadline = time.monotonic() + START_SECONDS
        health: dict[str, str] = {}
        is_warm = False
        while not all(health.get(name) == "healthy" for name in HEALTH_NAMES):
            for name in running.ended():
                raise self._failure(name, "ended")
            if time.monotonic() > deadline:
                late = [name for name in HEALTH_NAMES if health.get(name) != "healthy"]
                part = late[0].replace("_", "-") if health else "api-server"
                raise self._failure(part, f"was not ready within {START_SECONDS} seconds")
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(ApiError):
                health = api.health()
                if not is_warm:
                    api.warm_up()
                    is_warm = True

    def _failure(self, name: str, what: str) -> StartFailed:
        whose = "The" if name == PULL_SERVER else "Airflow's"
        return StartFailed(f"{whose} {name} {what}. The end of {self._log(name)}:\n\n{self._log_end(name)}")

    def _log(self, name: str) -> Path:
        return self._layout.process_logs / f"{name}.log"

    def _log_end(self, name: str) -> str:
        log = self._log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(lines[-LOG_LINES:])
