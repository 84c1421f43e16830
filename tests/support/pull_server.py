"""The pull server as a process of its own, over the database and the blob store of an installation."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

from support.certificates import ServerCertificate

_PROGRAM = "import json, sys; from registry_sync.serve.server import *; serve(ServerOptions(**json.loads(sys.argv[1])))"
_START_SECONDS = 60


class PullServer:
    """Runs between ``with`` and its end, at a free port; ``folder`` is that of ``Installation.embedded``.

    ``certificate`` makes it speak https. ``log`` is what it printed.
    """

    def __init__(self, folder: Path, *, certificate: ServerCertificate | None = None, workers: int = 1) -> None:
        self.folder = folder
        self.port = 0
        self.workers = workers
        self._certificate = certificate
        self._log = folder / "pull-server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()
        self.session.trust_env = False
        if certificate is not None:
            self.session.verify = str(certificate.ca_path)

    def __enter__(self) -> PullServer:
        import json

        options: dict[str, Any] = {
            "sql_alchemy_conn": f"sqlite:///{self.folder / 'registry_sync.db'}",
            "blob_store": (self.folder / "blobs").as_uri(),
            "port": self.port,
            "workers": self.workers,
        }
        if self._certificate is not None:
            options |= {"certificate": str(self._certificate.chain_path), "key": str(self._certificate.key_path)}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the pull server did not start: {self.log[-2000:]}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.session.close()
        self.stop()

    def ask_to_stop(self) -> None:
        """Sends the signal, and does not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stops it and its workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, or https with a certificate."""
        return f"{'https' if self._certificate else 'http'}://{self.netloc}"

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """One request, redirects not followed, the body as it is sent."""
        given = {"Accept-Encoding": "identity", **(headers or {})}
        return self.session.request(method, self.url + path, headers=given, allow_redirects=False, **options)

    def token(self, name: str, auth: tuple[str, str] | None = None) -> dict[str, str]:
        """The header with a token for pulling ``name``."""
        found = self.session.get(f"{self.url}/v2/token", params={"scope": f"repository:{name}:pull"}, auth=auth)
        found.raise_for_status()
        return {"Authorization": f"Bearer {found.json()['token']}"}

    def _is_ready(self) -> bool:
        """Once a worker answers; the port is that of the listening socket, which the first process opens."""
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            family = [psutil.Process(self._process.pid)]
            family += family[0].children(recursive=True)
            for connection in (found for process in family for found in process.net_connections("tcp")):
                if connection.status == psutil.CONN_LISTEN:
                    self.port = connection.laddr.port
        if not self.port:
            return False
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return self.session.get(f"{self.url}/v2/", timeout=2).status_code == 401
        return False
