"""The dependencies of routes: the metadata database, opened once per process, and a bounded pool of threads.

All work that waits for a database runs in one of these threads. A request that finds none free waits a short time,
without a thread, and then gets 503 with ``Retry-After``. Code on the event loop is quick and never blocks.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute

from registry_sync.db.database import Database
from registry_sync.errors import DatabaseUnavailable
from registry_sync.hooks.stores import open_database


class OpenedDatabase:
    """The database of the process, shared by its threads. It can be used again after :meth:`close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: Database | None = None

    def database(self) -> Database:
        """The metadata database, ready for use. Raises :class:`~registry_sync.errors.DatabaseError`."""
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            raise DatabaseUnavailable("the metadata database is being opened; try again later")
        try:
            if self._database is None:
                self._database = open_database(patience_seconds=PATIENCE_SECONDS)
            return self._database
        finally:
            self._lock.release()

    @property
    def opened(self) -> Database | None:
        """The metadata database if it is open."""
        return self._database

    def close(self) -> None:
        """Closes the database if it is open."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None


async def database_of(request: Request) -> Database:
    """The database as a dependency."""
    parts: OpenedDatabase = request.app.state.parts
    opened = parts.opened
    return opened if opened is not None else await run(parts.database)


UsedDatabase = Annotated[Database, Depends(database_of)]


#: The number of requests that one process serves at a time.
THREAD_COUNT = 10
#: How long a request waits for one of them, and then again for the lock of a database.
PATIENCE_SECONDS = 5.0
#: The ``Retry-After`` of responses to requests that may succeed later.
RETRY_AFTER_SECONDS = 5

P = ParamSpec("P")
R = TypeVar("R")


class ServerBusy(Exception):
    """No thread of the API became free in time."""

    def __init__(self) -> None:
        super().__init__("All threads of this API are in use; try again later.")


class _Limits:
    """``slots`` limits requests, which wait for one first; ``threads`` separates our threads from Airflow's."""

    def __init__(self) -> None:
        self.slots = anyio.CapacityLimiter(THREAD_COUNT)
        self.threads = anyio.CapacityLimiter(THREAD_COUNT)


_limits: RunVar[_Limits] = RunVar("registry_sync_threads")


async def run(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of ``work``, run in a thread of the pool. Raises :class:`ServerBusy`."""
    limits, borrower = _limits.get(None), object()
    if limits is None:
        limits = _Limits()
        _limits.set(limits)
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            await limits.slots.acquire_on_behalf_of(borrower)
    except TimeoutError:
        raise ServerBusy from None
    try:
        return await anyio.to_thread.run_sync(functools.partial(work, *args, **kwargs), limiter=limits.threads)
    finally:
        limits.slots.release_on_behalf_of(borrower)


def in_own_thread(work: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """``work`` as a coroutine function for FastAPI with the same parameters, run in a thread of the pool."""

    @functools.wraps(work)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        return await run(work, *args, **kwargs)

    return awaited


class ThreadRoute(APIRoute):
    """A route whose function runs in a thread of the pool."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # A route is created again where its router is included, and is then a coroutine function already.
        is_awaited = inspect.iscoroutinefunction(endpoint)
        super().__init__(path, endpoint if is_awaited else in_own_thread(endpoint), **options)


class Router(APIRouter):
    """A router whose routes are plain functions and run in threads of the pool."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=ThreadRoute, **options)
