"""Clients that send or read next to nothing: others pull meanwhile, and they are ended in time."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry_sync.serve.file_sender import LARGE_BYTES
from support.certificates import CertificateAuthority
from support.pull_server import PullServer, published_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="slow readers are found by asking Linux")
#: A thousand in all. For those that read the kernel holds megabytes each, of what all programs of the machine share.
_READING, _OTHERS = 50, 300
_HANDSHAKES = 8
#: One is sent past the server, a part of it by the server.
_LAYER_BYTES = LARGE_BYTES
#: ``TCP_ESTABLISHED`` (linux/tcp_states.h): neither side has ended the connection.
_ESTABLISHED = 1


@dataclass(frozen=True)
class SlowServer:
    """Gives clients seconds where others give them a minute; ``layer`` is a large blob of ``app``."""

    server: PullServer
    layer: str

    def open(self, first: bytes = b"") -> socket.socket:
        """A connection with a small buffer for what the server sends."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", self.server.port))
        made.sendall(first)
        return made

    def pull(self) -> None:
        """What any client does, all of it."""
        assert self.server.ask("GET", "/v2/app/manifests/latest", timeout=30).status_code == 200
        assert len(self.server.ask("GET", f"/v2/app/blobs/{self.layer}", timeout=30).content) == _LAYER_BYTES
        part = self.server.ask("GET", f"/v2/app/blobs/{self.layer}", {"Range": "bytes=1-"}, timeout=30)
        assert len(part.content) == _LAYER_BYTES - 1


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("slow")
    here, layer = published_image(folder, _LAYER_BYTES)
    yield folder, layer
    here.database.close()


def _is_open(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == _ESTABLISHED


def _send_a_byte(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(b"a")


def _read_a_byte(connection: socket.socket) -> None:
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.recv(1)


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_others_pull_while_slow_clients_wait_and_are_ended(installation: tuple[Path, str]) -> None:
    folder, layer = installation
    with PullServer(folder, head_seconds=2, read_seconds=4) as running, contextlib.ExitStack() as closing:
        slow = SlowServer(running, layer)
        blob = f"GET /v2/app/blobs/{layer} HTTP/1.1\r\nHost: x\r\n"
        firsts = {
            "says nothing": (b"", None),
            "sends a byte at a time": (b"GET /v2/ HTTP/1.1\r\nX: ", _send_a_byte),
            "reads a file a byte at a time": (f"{blob}\r\n".encode(), _read_a_byte),
            "reads a part a byte at a time": (f"{blob}Range: bytes=1-\r\n\r\n".encode(), _read_a_byte),
            "speaks HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", None),
        }
        clients = [
            (name, closing.enter_context(slow.open(first)), act)
            for name, (first, act) in firsts.items()
            for _ in range(_READING if "reads" in name else _OTHERS)
        ]
        slow.pull()
        deadline = time.monotonic() + 60
        while still := [(name, connection, act) for name, connection, act in clients if _is_open(connection)]:
            assert time.monotonic() < deadline, {name for name, _, _ in still}
            for _, connection, act in still:
                if act is not None:
                    act(connection)
            slow.pull()
            time.sleep(0.2)
        assert "took less than" in running.log


def test_a_handshake_that_is_not_finished_keeps_nobody_out(installation: tuple[Path, str], tmp_path: Path) -> None:
    folder, layer = installation
    certificate = CertificateAuthority(tmp_path).server()
    with PullServer(folder, certificate=certificate, head_seconds=2) as running, contextlib.ExitStack() as closing:
        slow = SlowServer(running, layer)
        for first in (b"", b"\x16\x03\x01\x02\x00\x01"):
            for _ in range(_HANDSHAKES):
                closing.enter_context(slow.open(first))
        slow.pull()
