"""Syncs requested over REST: written by the API server after its access checks, read by the task of the run.

The parameters of a DAG run are controlled by whoever triggers it. Only a process with write access to this database can
write a row here, so a run acts on the row and not on its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches, storable
from registry_sync.db.tables import sync_requests
from registry_sync.domain.records import SyncMode
from registry_sync.domain.runs import RequestedSync
from registry_sync.errors import RecordNotFound

#: How long a request is kept, so that its run can be cleared and repeated.
KEPT = timedelta(days=90)
_ERROR_LENGTH = 2000


class SyncRequestStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, request: RequestedSync) -> None:
        """Records a request before its DAG run is triggered; requests too old to be repeated are deleted."""
        with self._transactions.writing() as connection:
            connection.execute(delete(sync_requests).where(sync_requests.c.requested_at < request.requested_at - KEPT))
            connection.execute(insert(sync_requests), {**vars(request), "mode": request.mode.value})

    def get(self, dag_id: str, request_id: str) -> RequestedSync:
        """The request of that id for that DAG. Raises :class:`RecordNotFound`."""
        statement = select(sync_requests).where(sync_requests.c.id == request_id, sync_requests.c.dag_id == dag_id)
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise RecordNotFound(f"the sync {request_id[:255]!r} of the DAG {dag_id!r} was not requested over REST")
        return _request(row)

    def errors(self, request_ids: Sequence[str]) -> dict[str, str]:
        """Why requests could not start, by their ids; those that could are omitted."""
        found: dict[str, str] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(request_ids):
                statement = select(sync_requests.c.id, sync_requests.c.error).where(
                    sync_requests.c.id.in_(batch), sync_requests.c.error.is_not(None)
                )
                found.update({row.id: row.error for row in connection.execute(statement)})
        return found

    def note_error(self, request_id: str, error: str | None) -> None:
        """Records why a request cannot start, None once it did; ignores an unknown one."""
        values = {"error": None if error is None else storable(error, _ERROR_LENGTH)}
        with self._transactions.writing() as connection:
            connection.execute(update(sync_requests).where(sync_requests.c.id == request_id).values(**values))

    def withdraw(self, request_id: str) -> None:
        """Deletes a request whose run was not triggered; safe to repeat."""
        with self._transactions.writing() as connection:
            connection.execute(delete(sync_requests).where(sync_requests.c.id == request_id))


def _request(row: Row[Any]) -> RequestedSync:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for a row as a map
    return RequestedSync(**{**values, "mode": SyncMode(row.mode)})
