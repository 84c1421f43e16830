"""A real forward proxy for tests: Debian's ``tinyproxy`` on a free loopback port, read by its own log."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

PROGRAM = "/usr/bin/tinyproxy"
_REQUEST = re.compile(r"Request \(file descriptor \d+\): (?P<method>\S+) (?P<target>\S+) HTTP/")


class ForwardProxy:
    """Runs between ``with`` and its end. ``login`` is the user name and password that it requires, None for none."""

    def __init__(self, folder: Path, *, login: tuple[str, str] | None = None) -> None:
        self._folder = folder
        self._login = login
        self._log = folder / "tinyproxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its address, without user name and password."""
        return f"http://{self.netloc}"

    def requests(self) -> list[tuple[str, str]]:
        """Method and target of every request it read, those that it refused included."""
        return [(found["method"], found["target"]) for found in _REQUEST.finditer(self._log.read_text())]

    def __enter__(self) -> ForwardProxy:
        for _ in range(5):  # somebody may take the free port first
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            if self._start():
                return self
        raise RuntimeError(f"tinyproxy did not start: {self._log.read_text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> bool:
        config = self._folder / "tinyproxy.conf"
        lines = [
            f"Port {self.port}",
            "Listen 127.0.0.1",
            "Timeout 60",
            "MaxClients 100",
            "LogLevel Info",
            f'LogFile "{self._log}"',
            "Allow 127.0.0.1",
        ]
        if self._login is not None:
            lines.append("BasicAuth {} {}".format(*self._login))
        config.write_text("\n".join(lines) + "\n")
        self._log.touch()
        self._process = subprocess.Popen(
            [PROGRAM, "-d", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def tls_before(port: int, chain_path: Path, key_path: Path) -> Iterator[int]:
    """A port that speaks TLS and hands on what it gets to ``port``, as what stands before a proxy at https does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_path, key_path)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    opened: list[socket.socket] = []

    def derived_result(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                target.sendall(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            outer = context.wrap_socket(plain, server_side=True)
            inner = socket.create_connection(("127.0.0.1", port))
            opened.extend((outer, inner))
            back = threading.Thread(target=derived_result, args=(inner, outer), daemon=True)
            back.start()
            derived_result(outer, inner)
            back.join(timeout=5)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(timeout=5)
        for side in opened:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=5)
        for side in opened:
            side.close()
