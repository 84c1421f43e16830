"""The pull server as processes of its own, which need the metadata database and the blob store and no Airflow.

Settings are read once, by the command, and given to the workers; a worker imports nothing of Airflow.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.domain.file_modes import GROUP_TOO, OWNER_ONLY, FileModes
from registry_sync.domain.serving import DEFAULT_URL_SECONDS, BlobDelivery
from registry_sync.errors import ConfigurationError
from registry_sync.serve.access_log import AccessLog
from registry_sync.serve.delivery import Delivery
from registry_sync.serve.file_sender import FileSender
from registry_sync.serve.metrics import MetricsServer, PullMetrics, check_address, metrics_address
from registry_sync.serve.pull_api import PATIENCE_SECONDS, PullApp
from registry_sync.serve.pull_notes import open_notes
from registry_sync.serve.slow_clients import (
    BUFFER_BYTES,
    HEAD_SECONDS,
    READ_SECONDS,
    connection_limit,
    watch_slow_readers,
)
from registry_sync.serve.stopping import refusing, reserve_port

DEFAULT_PORT = 5050
DEFAULT_WORKERS = 2
#: How long a download may go on after the server was told to stop, in seconds.
GRACE_SECONDS = 30
_GIVEN = "_REGISTRY_SYNC_SERVE"


@dataclass(frozen=True)
class ServerOptions:
    """``certificate`` and ``key`` are PEM files, None serves plain HTTP. URLs are those of the settings.

    ``login_url`` is the Airflow whose users may log in, None for robots alone. ``trusted_proxies`` are the addresses
    and networks whose ``X-Forwarded-For`` counts. ``metrics`` is where they are served, as ``host:port``, None for
    nowhere. ``access_log`` is a file or ``-`` for standard output, None for none. ``head_seconds`` and
    ``read_seconds`` bound slow clients.
    """

    sql_alchemy_conn: str
    blob_store: str
    share_with_group: bool = False
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = DEFAULT_WORKERS
    certificate: str | None = None
    key: str | None = None
    service: str = "registry-sync"
    contact: str | None = None
    login_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    blob_delivery: str = BlobDelivery.DIRECT.value
    signed_url_seconds: int = DEFAULT_URL_SECONDS
    metrics: str | None = None
    access_log: str | None = None
    head_seconds: int = HEAD_SECONDS
    read_seconds: int = READ_SECONDS

    @property
    def file_modes(self) -> FileModes:
        """The permissions of files of the embedded stores."""
        return GROUP_TOO if self.share_with_group else OWNER_ONLY


def serve(options: ServerOptions) -> None:
    """Serves until it is told to stop (SIGTERM, SIGINT); downloads under way then end first, and new ones get 503.

    Raises :class:`ConfigurationError` for a certificate without a key, files that cannot be read, a port that is taken,
    or a blob store from which bytes cannot be sent in the way that is set.
    """
    if bool(options.certificate) != bool(options.key):
        raise ConfigurationError("TLS needs both a certificate and its key")
    for name in filter(None, (options.certificate, options.key)):
        if not Path(name).is_file():
            raise ConfigurationError(f"there is no file {name}")
    if options.blob_delivery != BlobDelivery.DIRECT.value:
        _open_store(options)  # what is wrong is said once, and not by each worker
    if options.access_log is not None:
        AccessLog(options.access_log, modes=options.file_modes).close()
    with tempfile.TemporaryDirectory(prefix="registry-sync-metrics-") as folder:
        counted = None
        if options.metrics is not None:
            check_address(*metrics_address(options.metrics))
            counted = str(Path(folder) / "numbers")
        os.environ[_GIVEN] = json.dumps({"options": asdict(options), "counted": counted})
        _granian(options).serve()


def _granian(options: ServerOptions) -> Any:
    """The server; it answers with 503 what comes while it stops."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings

    reserved = reserve_port(options.host, options.port)
    tls = None
    if options.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    server: Any = Granian(
        "registry_sync.serve.server:make_app",
        factory=True,
        address=options.host,
        port=reserved.getsockname()[1],
        interface=Interfaces.ASGI,
        workers=options.workers,
        websockets=False,
        # HTTP/2 has no bound for a client that opens a connection and sends nothing, nor for one that opens no window.
        # Where both are offered, a client that has not said which one it speaks may wait for as long as it likes.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=options.head_seconds * 1000, max_buffer_size=BUFFER_BYTES),
        backlog=4096,
        backpressure=connection_limit(),
        log_access=False,
        respawn_failed_workers=True,
        workers_kill_timeout=GRACE_SECONDS,
        ssl_cert=Path(options.certificate) if options.certificate else None,
        ssl_key=Path(options.key) if options.key else None,
        process_name="registry-sync serve",
    )
    end_workers = server.shutdown

    def shutdown(exit_code: int = 0) -> None:
        with refusing(reserved, tls):
            end_workers(exit_code)

    server.shutdown = shutdown
    return server


def make_app() -> PullApp:
    """The app of one worker, as :func:`serve` was told to make it."""
    from registry_sync.hooks.pull_clients import PullClients
    from registry_sync.users.airflow_logins import AirflowLogins

    given = json.loads(os.environ[_GIVEN])
    options = ServerOptions(**given["options"])
    watch_slow_readers(options.read_seconds)
    database = Database.connect(options.sql_alchemy_conn, PATIENCE_SECONDS, modes=options.file_modes)
    database.ready()
    store, delivery = _open_store(options)
    return PullApp(
        database,
        store,
        service=options.service,
        users=AirflowLogins(options.login_url) if options.login_url else None,
        trusted_proxies=tuple(ip_network(text, strict=False) for text in options.trusted_proxies),
        delivery=delivery,
        open_client=PullClients(options.contact),
        files=FileSender(idle_seconds=options.head_seconds),
        **_watching(options, given["counted"], database),
    )


def _watching(options: ServerOptions, counted: str | None, database: Database) -> dict[str, Any]:
    """What of :class:`PullApp` counts, logs and remembers."""
    observers, closing = open_notes(database, options.access_log, options.file_modes)
    watching: dict[str, Any] = {"observers": observers, "closing": closing}
    if options.metrics is not None and counted is not None:
        metrics = PullMetrics(Path(counted))
        observers.append(metrics.count)
        watching["count_on_demand"] = metrics.count_on_demand
        closing.append(MetricsServer(metrics, *metrics_address(options.metrics)).close)
    return watching


def _open_store(options: ServerOptions) -> tuple[BlobStore, Delivery]:
    from registry_sync.hooks.stores import open_blob_store

    store = open_blob_store(options.blob_store, modes=options.file_modes)
    return store, Delivery(store, BlobDelivery(options.blob_delivery), options.signed_url_seconds)
