"""The pull API inside Airflow's API server, which mounts it below ``/v2``.

A mounted app gets no lifespan events unless it is FastAPI's, so everything is opened at the first request. Replies say
that they are not compressed: Airflow wraps all apps in a middleware that otherwise compresses them for clients that
accept it, and takes ``Content-Length`` away with it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import httpx

from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.pull_clients import PullClients
from registry_sync.hooks.pull_counters import count_on_demand, count_pull
from registry_sync.hooks.settings import load_settings
from registry_sync.hooks.stores import open_blobs, open_database
from registry_sync.serve.blob_bodies import Receive, Send
from registry_sync.serve.delivery import Delivery
from registry_sync.serve.pull_api import PATIENCE_SECONDS, PullApp
from registry_sync.serve.pull_notes import open_notes
from registry_sync.serve.replies import Scope, unavailable
from registry_sync.serve.slow_clients import READ_SECONDS, watch_slow_readers
from registry_sync.users.airflow_logins import AirflowLogins, UserLogin

MOUNT = "/v2"
_log = logging.getLogger(__name__)


class MountedPullApp:
    """Serves as the pull server does, with the database and the store of the settings.

    Users log in at the API server itself. ``open_app`` makes the app, given how a login is checked. A client that takes
    too little of a reply is cut off as at the pull server; connections that ask for other things of Airflow are not
    looked at.
    """

    def __init__(
        self, open_app: Callable[[UserLogin], PullApp] | None = None, *, read_seconds: float = READ_SECONDS
    ) -> None:
        self._open_app = open_app or open_pull_app
        self._opening: asyncio.Task[PullApp] | None = None
        self._read_seconds = read_seconds
        self._clients: Counter[tuple[str, int]] = Counter()
        self._end_watch: Callable[[], None] | None = None

    def close(self) -> None:
        """Looks for slow clients no more."""
        if self._end_watch is not None:
            self._end_watch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI calls it."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        uncompressed = _uncompressed(send)
        try:
            app = await self._opened(scope["app"])
        except RegistrySyncError as problem:
            _log.error("the pull API cannot be opened: %s", problem)
            refused = unavailable("the server cannot answer now; try again", 5)
            await refused.reply().send(scope, receive, uncompressed)
            return
        with self._watched(scope.get("client")):
            await app(scope, receive, uncompressed)

    @contextmanager
    def _watched(self, client: tuple[str, int] | None) -> Iterator[None]:
        """A client whose reading is watched meanwhile."""
        if client is None:
            yield
            return
        if self._end_watch is None:
            self._end_watch = watch_slow_readers(self._read_seconds, lambda: frozenset(self._clients.copy()))
        key = (client[0], client[1])
        self._clients[key] += 1
        try:
            yield
        finally:
            self._clients[key] -= 1
            if not self._clients[key]:
                del self._clients[key]

    async def _opened(self, airflow: Any) -> PullApp:
        """The app, opened once for all who wait; tried again by the next request after a failure."""
        if self._opening is None:
            users = AirflowLogins("http://localhost", httpx.ASGITransport(airflow, raise_app_exceptions=False))
            self._opening = asyncio.create_task(asyncio.to_thread(self._open_app, users))
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except RegistrySyncError:
            if self._opening is opening:
                self._opening = None
            raise


def open_pull_app(users: UserLogin) -> PullApp:
    """The app for the settings in force. Raises :class:`RegistrySyncError` while it cannot be opened."""
    settings = load_settings()
    store = open_blobs(settings)
    delivery = Delivery(store, settings.blob_delivery, settings.signed_url_seconds)
    database = open_database(settings, patience_seconds=PATIENCE_SECONDS)
    observers, closing = open_notes(database, settings.pull_access_log, settings.file_modes)
    for close in closing:
        atexit.register(close)  # Airflow does not say to a mounted app that it stops
    return PullApp(
        database,
        store,
        users=users,
        trusted_proxies=tuple(ip_network(text, strict=False) for text in settings.pull_trusted_proxies),
        delivery=delivery,
        open_client=PullClients(settings.contact),
        observers=[count_pull, *observers],
        count_on_demand=count_on_demand,
    )


def _uncompressed(send: Send) -> Send:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if all(name != b"content-encoding" for name, _ in headers):
                headers.append((b"content-encoding", b"identity"))
            message = {**message, "headers": headers}
        await send(message)

    return sent
