"""A thousand slow clients of the API server: others pull meanwhile, and those that read a reply too slowly are ended.

The app is that which Airflow mounts, in the server that Airflow runs. What sends no whole request is seen by no app
there, so that a proxy alone bounds it; here it holds a connection and nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.routing import Mount

from registry_sync.serve.mounted import MOUNT, MountedPullApp
from registry_sync.serve.pull_api import PullApp
from support.pull_server import published_image
from support.rest_api import served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="slow readers are found by asking Linux")
#: For those that read the kernel holds megabytes each, of what all programs of the machine share.
_SILENT, _SENDING, _READING = 500, 400, 100
_LAYER_BYTES = 8 * 1024 * 1024
#: ``TCP_ESTABLISHED`` (linux/tcp_states.h): neither side has ended the connection.
_ESTABLISHED = 1


def _is_open(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == _ESTABLISHED


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_a_thousand_slow_clients_stop_no_pull_and_readers_are_ended(tmp_path: Path) -> None:
    here, layer = published_image(tmp_path, _LAYER_BYTES)
    path = f"/v2/app/blobs/{layer}"
    mounted = MountedPullApp(lambda users: PullApp(here.database, here.store, users=users), read_seconds=4)
    with contextlib.ExitStack() as closing:
        closing.callback(here.database.close)
        closing.callback(mounted.close)
        url = closing.enter_context(served(Starlette(routes=[Mount(MOUNT, mounted)])))
        port = int(url.rpartition(":")[2])

        def opened(first: bytes, count: int) -> list[socket.socket]:
            made = []
            for _ in range(count):
                connection = closing.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", port))
                connection.sendall(first)
                made.append(connection)
            return made

        def pull() -> None:
            assert len(requests.get(url + path, timeout=60).content) == _LAYER_BYTES

        pull()
        silent = opened(b"", _SILENT)
        sending = opened(b"GET /v2/ HTTP/1.1\r\nX: ", _SENDING)
        reading = opened(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), _READING)
        pull()
        deadline = time.monotonic() + 90
        while still := [connection for connection in reading if _is_open(connection)]:
            assert time.monotonic() < deadline, f"{len(still)} of {_READING} are still read"
            for connection in still:
                connection.setblocking(False)
                with contextlib.suppress(OSError):
                    connection.recv(1)
            for connection in sending:
                connection.sendall(b"a")
            pull()
        assert all(map(_is_open, silent)), "they are nobody's but the server's"
        pull()
