"""nginx with a server block as a page of the documentation has it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_MAIN = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {blocks}
}}
"""


class Nginx:
    """Runs between ``with`` and its end; ``blocks`` gives what stands in its ``http`` block, from its port.

    The socket is opened here and inherited, so that the port is free and connections wait for nginx to accept them.
    """

    def __init__(self, folder: Path, blocks: Callable[[int], str]) -> None:
        self._folder = folder
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        folder.mkdir(parents=True)
        user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, blocks=blocks(self.port), user=user))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nginx:
        environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin",  # Debian has it where only root looks
            "NGINX": f"{self._socket.fileno()};",
        }
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["nginx", "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[self._socket.fileno()],
            )
        self._socket.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=20)

    @property
    def log(self) -> str:
        """What it said so far."""
        return "".join(path.read_text() for name in ("output", "error.log") if (path := self._folder / name).is_file())
