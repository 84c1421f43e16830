"""``python -m local_airflow up|down|status|token|sync``: what ``make`` calls.

Results go to standard output, everything else to standard error. Parameters are read from the environment, through
which ``make`` passes its variables with any characters.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType

from local_airflow.errors import LocalAirflowError, PortTaken
from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.ports import free_port, is_taken
from local_airflow.pull_server import DEFAULT_PORT as DEFAULT_PULL_PORT
from local_airflow.pull_server import PullServer
from local_airflow.sync_command import sync
from local_airflow.terminal import say

DEFAULT_PORT = 8080
INTERRUPTED = 128 + signal.SIGINT


def up(instance: Instance, env: Mapping[str, str]) -> None:
    """Starts Airflow and the pull server unless they run, and prints their addresses."""
    running = instance.running()
    port, pull_port = requested_port(env), requested_port(env, "PULL_PORT")
    if running is None:
        say("Starting Airflow and the pull server")
        port = port or DEFAULT_PORT
    served_at = running.pull_port if running is not None else None
    if pull_port is not None and served_at not in (None, pull_port):
        raise PortTaken(f"The pull server runs at port {served_at} already. To move it: make down, then again")
    if pull_port is None:
        pull_port = free_port() if is_taken(DEFAULT_PULL_PORT) else DEFAULT_PULL_PORT
    running = instance.start(port, pull_port=pull_port)
    print(f"{running.url}  user: admin  password: {instance.password()}")
    server = PullServer(running.pull_port or pull_port)
    print(server.command() or f"{server.url} serves to container clients what `make sync` syncs; nothing so far")


def down(instance: Instance, _env: Mapping[str, str]) -> None:
    """Stops Airflow and the pull server."""
    say("Airflow is stopped" if instance.stop() else "No Airflow ran for this checkout")


def status(instance: Instance, _env: Mapping[str, str]) -> None:
    """Prints the address and the state of each component. Raises :class:`NotRunning`."""
    recorded = instance.recorded()
    ended = recorded.ended() if recorded is not None else []
    if recorded is not None and ended:
        raise LocalAirflowError(f"Of the Airflow at {recorded.url} these have ended: {', '.join(ended)}. Run: make up")
    running = instance.require_running()
    print(running.url)
    for name, state in instance.api().health().items():
        print(f"{name}: {state}")
    if running.pull_port is not None:
        server = PullServer(running.pull_port)
        print(f"pull_server: {'healthy' if server.is_ready() else 'unhealthy'} at {server.url}")


def token(instance: Instance, _env: Mapping[str, str]) -> None:
    """Prints a bearer token. Raises :class:`NotRunning`."""
    print(instance.api().token())


def requested_port(env: Mapping[str, str], variable: str = "PORT") -> int | None:
    """The variable as a number; None when it is not set."""
    text = env.get(variable, "")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalAirflowError(f"{variable}={text}: use a number from 1 to 65535")
    return int(text)


def _sync(instance: Instance, env: Mapping[str, str]) -> None:
    sync(instance, env, requested_port(env))


COMMANDS = {"up": up, "down": down, "status": status, "token": token, "sync": _sync}


def main() -> int:
    """The exit status: 0, 1 after an error (which was printed), 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="local_airflow", description="The local Airflow of this checkout.")
    parser.add_argument("command", choices=COMMANDS)
    command = COMMANDS[parser.parse_args().command]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        command(Instance(Layout.of_checkout()), os.environ)
    except LocalAirflowError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted")
        return INTERRUPTED
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handles a termination like Ctrl-C, so that started processes are stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
