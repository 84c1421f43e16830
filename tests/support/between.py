"""Transactions of a database with something that happens between two of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from registry_sync.db.database import Database


class BetweenWrites:
    """As ``database``; ``happens`` is called once, before the second transaction that writes."""

    def __init__(self, database: Database, happens: Callable[[], None]) -> None:
        self._database, self._happens = database, happens
        self._count = 0

    def reading(self) -> AbstractContextManager[Connection]:
        return self._database.reading()

    def writing(self) -> AbstractContextManager[Connection]:
        self._count += 1
        if self._count == 2:
            self._happens()
        return self._database.writing()
