"""The pull server over the database and the blob store of an installation: processes of its own, or a thread."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.serving import DistributionSpec
from registry_sync.oci.client import RegistryReader
from registry_sync.serve.pull_api import PullApp
from support.certificates import ServerCertificate
from support.filling import place
from support.images import ContentBuilder
from support.listening import listening_ports
from support.registry import RegistryServer
from support.rest_api import served
from support.syncing import Installation

#: Its first process comes out of one that has imported what every pull server imports for most of a second.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["registry_sync.serve.server", "granian", __name__])
_START_SECONDS = 60
#: A look at which processes are its own takes 3 ms of the processor.
_POLL_SECONDS = 0.1


def published_image(folder: Path, layer_bytes: int) -> tuple[Installation, str]:
    """An installation below ``folder`` that serves ``app:latest`` to everybody, and the digest of its one layer."""
    build = ContentBuilder(41)
    layer = build.blob(layer_bytes)
    build.tag("latest", build.image([layer]))
    here = Installation.embedded(folder)
    with RegistryServer(folder / "upstream") as upstream:
        place(upstream, "app", build.content())
        here.sync("app", upstream.url, "app")
    repository = here.database.repositories.by_name("app")
    here.database.distributions.create(DistributionSpec("app", "app", repository.id, is_private=False))
    return here, layer


class PullClient:
    """Asks a pull server at ``url``."""

    url: str
    session: requests.Session

    @property
    def log(self) -> str:
        """What the server logged so far."""
        raise NotImplementedError

    @property
    def netloc(self) -> str:
        return self.url.partition("://")[2]

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


def _session(certificate: ServerCertificate | None = None) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    if certificate is not None:
        session.verify = str(certificate.ca_path)
    return session


class ThreadedPullServer(PullClient):
    """The app in this process, by uvicorn, as Airflow's API server runs apps.

    ``open_client`` opens registries for blobs that are not stored, None for none.
    """

    def __init__(self, here: Installation, open_client: Callable[[RemoteSpec], RegistryReader] | None = None) -> None:
        self._here = here
        self._open_client = open_client
        self._lines = _Lines()
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> ThreadedPullServer:
        self.session = self._closing.enter_context(_session())
        logger = logging.getLogger("registry_sync.serve")
        logger.addHandler(self._lines)
        self._closing.callback(logger.removeHandler, self._lines)
        self.url = self._closing.enter_context(served(self._app()))
        return self

    def _app(self) -> PullApp:
        return PullApp(self._here.database, self._here.store, open_client=self._open_client)

    def __exit__(self, *reason: object) -> None:
        self._closing.close()

    @property
    def log(self) -> str:
        return "\n".join(self._lines.messages)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _serve(options: dict[str, Any], environment: dict[str, str], folder: Path, log: Path) -> None:
    """The first process of a pull server, as one that a shell has started there."""
    from registry_sync.serve.server import ServerOptions, serve

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    serve(ServerOptions(**options))


class PullServer(PullClient):
    """Runs between ``with`` and its end, at a free port; ``folder`` is that of ``Installation.embedded``.

    ``certificate`` makes it speak https; ``environment`` are variables of its own; ``options`` are others of
    ``ServerOptions``. ``log`` is what it printed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        certificate: ServerCertificate | None = None,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.folder = folder
        self._options = options
        self._environment = dict(environment or {})
        self.port = 0
        self.workers = workers
        self._certificate = certificate
        self._log = folder / "pull-server.log"
        self._process: ForkServerProcess | None = None
        self.session = _session(certificate)

    def __enter__(self) -> PullServer:
        options: dict[str, Any] = {
            "sql_alchemy_conn": f"sqlite:///{self.folder / 'registry_sync.db'}",
            "blob_store": (self.folder / "blobs").as_uri(),
            "port": self.port,
            "workers": self.workers,
        }
        if self._certificate is not None:
            options |= {"certificate": str(self._certificate.chain_path), "key": str(self._certificate.key_path)}
        options |= self._options
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self._environment}
        self._process = _processes.Process(target=_serve, args=(options, environment, self.folder, self._log))
        self._process.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if not self._process.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the pull server did not start: {self.log[-2000:]}")
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.session.close()
        self.stop()

    def processes(self) -> list[psutil.Process]:
        """Its first process and those that it started, such as its workers."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    @property
    def blob_store(self) -> str:
        """The URL of the blob store."""
        return str(self._options.get("blob_store", (self.folder / "blobs").as_uri()))

    def ask_to_stop(self) -> None:
        """Sends the signal, and does not wait."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> None:
        """Stops it and its workers."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(timeout=40)
        if self._process.is_alive():
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.join()
        self._process = None

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:  # type: ignore[override]
        """``http://127.0.0.1:port``, or https with a certificate."""
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def _is_ready(self) -> bool:
        """Once all workers listen and one of them answers; the port is that which they share."""
        with contextlib.suppress(psutil.Error):
            listening = self._listening()
            shared = set.intersection(*listening) if len(listening) == self.workers else set()
            self.port = shared.pop() if len(shared) == 1 else 0
        if not self.port:
            return False
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return self.session.get(f"{self.url}/v2/", timeout=2).status_code == 401
        return False

    @property
    def metrics_ports(self) -> set[int]:
        """Where its workers serve metrics."""
        return set.union(*self._listening()) - {self.port}

    def _listening(self) -> list[set[int]]:
        """The ports of each process that listens."""
        assert self._process is not None
        over_ipv6 = ":" in self._options.get("host", "")
        family = psutil.Process(self._process.pid).children(recursive=True)
        return list(filter(None, (listening_ports(process.pid, over_ipv6=over_ipv6) for process in family)))
