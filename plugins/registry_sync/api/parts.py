"""What routes work on: the metadata database, opened once per process at the first request that needs it."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import Depends, Request

from registry_sync.db.database import Database
from registry_sync.hooks.stores import open_database


class Parts:
    """Opened parts of the installation; threads share one. :meth:`close` may be followed by another use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: Database | None = None

    def database(self) -> Database:
        """The metadata database, ready for use. Raises :class:`~registry_sync.errors.DatabaseError`."""
        with self._lock:
            if self._database is None:
                self._database = open_database()
            return self._database

    def close(self) -> None:
        """Closes what is open."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None


def database_of(request: Request) -> Database:
    """The database, as a dependency."""
    parts: Parts = request.app.state.parts
    return parts.database()


UsedDatabase = Annotated[Database, Depends(database_of)]
