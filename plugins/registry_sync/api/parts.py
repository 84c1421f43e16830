"""What routes work on: the metadata database, opened once per process at the first request that needs it."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import Depends, Request

from registry_sync.api.threads import PATIENCE_SECONDS, run
from registry_sync.db.database import Database
from registry_sync.errors import DatabaseUnavailable
from registry_sync.hooks.stores import open_database


class Parts:
    """Opened parts of the installation; threads share one. :meth:`close` may be followed by another use."""

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
        """Closes what is open."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None


async def database_of(request: Request) -> Database:
    """The database, as a dependency."""
    parts: Parts = request.app.state.parts
    opened = parts.opened
    return opened if opened is not None else await run(parts.database)


UsedDatabase = Annotated[Database, Depends(database_of)]
