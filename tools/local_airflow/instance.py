"""One local Airflow: start, state and stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from local_airflow import processes
from local_airflow.errors import NotRunning, PortTaken
from local_airflow.layout import Layout
from local_airflow.ports import free_port, is_taken
from local_airflow.rest import AirflowApi
from local_airflow.running import RunFolder, Running
from local_airflow.settings import (
    USERNAME,
    Settings,
    airflow_settings,
    load_secrets,
    process_environment,
    write_settings,
)
from local_airflow.startup import Startup

#: How long the components of Airflow may take to end after SIGTERM.
GRACE_SECONDS = 5


class Instance:
    """The local Airflow of a :class:`Layout`.

    ``overrides`` are settings, section to option to value, that replace the usual ones; ``env`` is added to the
    environment of the processes.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.layout = layout
        self._overrides = overrides or {}
        self._env = dict(env or {})
        self._folder = RunFolder(layout.state)

    def running(self) -> Running | None:
        """The running instance; None when none runs or a component has ended."""
        recorded = self._folder.read()
        return recorded if recorded is not None and recorded.processes and not recorded.ended() else None

    def require_running(self) -> Running:
        """The running instance. Raises :class:`NotRunning`."""
        running = self.running()
        if running is None:
            raise NotRunning("No Airflow runs for this checkout. Start it with: make up")
        return running

    def recorded(self) -> Running | None:
        """The last started instance that was not stopped, whether or not all of its processes still run."""
        return self._folder.read()

    def password(self) -> str:
        """The password of the one user, ``admin``."""
        return load_secrets(self.layout)["admin_password"]

    def api(self, running: Running | None = None) -> AirflowApi:
        """A client of the running instance. Raises :class:`NotRunning`."""
        running = running or self.require_running()
        return AirflowApi(running.url, USERNAME, self.password())

    def settings(self, port: int) -> Settings:
        """The settings of an instance with its API server on ``port``."""
        settings = airflow_settings(self.layout, port, load_secrets(self.layout))
        for section, options in self._overrides.items():
            settings.setdefault(section, {}).update(options)
        return settings

    def environment(self, port: int) -> dict[str, str]:
        """The environment of its processes; with it, the ``airflow`` command uses this instance."""
        return {**process_environment(self.layout, self.settings(port)), **self._env}

    def start(self, port: int | None = None, *, temporary: bool = False, pull_port: int | None = None) -> Running:
        """The running instance, or a new one on ``port`` (None: any free one).

        With a ``pull_port`` its pull server runs as well, there. A temporary instance that is started again as a
        permanent one becomes permanent. Raises :class:`PortTaken` and :class:`StartFailed`; then nothing that was
        started keeps running.
        """
        with self._folder.lock():
            running = self.running()
            if running is not None:
                return self._keep(running, port, pull_port, temporary=temporary)
            self._stop_recorded()
            for variable, wanted in (("PORT", port), ("PULL_PORT", pull_port)):
                if wanted is not None and is_taken(wanted):
                    raise _taken(variable, wanted)
            try:
                return self._start(Running(port or free_port(), temporary, pull_port=pull_port))
            except BaseException:
                self._stop_recorded()
                raise

    def _keep(self, running: Running, port: int | None, pull_port: int | None, *, temporary: bool) -> Running:
        if port not in (None, running.port):
            raise PortTaken(f"Airflow runs at {running.url} already. To move it: make down, then PORT={port} again")
        if running.temporary and not temporary:
            running = self._folder.write(replace(running, temporary=False))
        if pull_port is None or running.pull_port is not None:
            return running
        if is_taken(pull_port):
            raise _taken("PULL_PORT", pull_port)
        startup = self._startup(running)
        running = startup.spawn_pull_server(self._folder.write(replace(running, pull_port=pull_port)))
        startup.await_pull_server(running)
        return running

    def _start(self, running: Running) -> Running:
        self.layout.make_private()
        write_settings(self.layout, self.settings(running.port), self.password())
        return self._startup(running).run(running, self.api(running))

    def _startup(self, running: Running) -> Startup:
        return Startup(self.layout, self.environment(running.port), self._folder.write)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> bool:
        """Stops the instance, including running tasks; False when there was none."""
        with self._folder.lock():
            return self._stop_recorded(grace_seconds)

    def _stop_recorded(self, grace_seconds: float = GRACE_SECONDS) -> bool:
        recorded = self._folder.read()
        if recorded is None:
            return False
        servers = [record for record in recorded.processes if record.name == "api-server"]
        processes.stop([record for record in recorded.processes if record not in servers], grace_seconds)
        processes.stop(servers, min(grace_seconds, 1))  # it closes at once and then hangs in its exit
        self._folder.forget()
        return True

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Surrounds the start and use of an instance: a temporary one is stopped when its last use ends."""
        with self._folder.use() as use:
            try:
                yield
            finally:
                with self._folder.lock():
                    recorded = self._folder.read()
                    if recorded is not None and recorded.temporary and self._folder.is_last_use(use):
                        self._stop_recorded()


def _taken(variable: str, port: int) -> PortTaken:
    return PortTaken(f"Port {port} is taken by another program. Choose another, such as: {variable}={free_port()}")
