"""Tasks of requests that were done at once, kept for clients that read the task that they were given.

A sync is a task that is a DAG run; a change or a deletion is done when its request is responded to, and its task has
ended before anybody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Text, cast, delete, false, func, insert, or_, select

from registry_sync.db.engine import Transactions
from registry_sync.db.filtering import Searched, compared, condition, without_dashes
from registry_sync.db.queries import storable
from registry_sync.db.tables import finished_tasks
from registry_sync.domain.filters import EVERYTHING, Filter, Match, Operator
from registry_sync.domain.runs import FinishedTask
from registry_sync.errors import RecordNotFound

#: How long a task is kept after its end.
KEPT = timedelta(days=90)
_ERROR_LENGTH = 2000


class FinishedTaskStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, task: FinishedTask) -> None:
        """Records a task; those that ended too long ago are deleted."""
        error = None if task.error is None else storable(task.error, _ERROR_LENGTH)
        lists = {name: list(getattr(task, name)) for name in ("created_resources", "reserved_resources")}
        with self._transactions.writing() as connection:
            connection.execute(delete(finished_tasks).where(finished_tasks.c.finished_at < task.finished_at - KEPT))
            connection.execute(insert(finished_tasks), {**vars(task), **lists, "error": error})

    def get(self, task_id: str) -> FinishedTask:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(finished_tasks).where(finished_tasks.c.task_id == task_id)).one_or_none()
        if row is None:
            raise RecordNotFound(f"there is no task {task_id[:255]!r}")
        return _task(row)

    def delete(self, task_id: str) -> None:
        """Raises :class:`RecordNotFound`."""
        with self._transactions.writing() as connection:
            gone = connection.execute(delete(finished_tasks).where(finished_tasks.c.task_id == task_id))
        if not gone.rowcount:
            raise RecordNotFound(f"there is no task {task_id[:255]!r}")

    def purge(self, before: datetime, *, is_failed: Sequence[bool], limit: int) -> int:
        """Deletes at most ``limit`` tasks that ended before, the oldest first; returns their number."""
        ended = select(finished_tasks.c.task_id).where(
            finished_tasks.c.finished_at < before, finished_tasks.c.error.is_not(None).in_(list(is_failed))
        )
        oldest = ended.order_by(finished_tasks.c.finished_at).limit(limit)
        with self._transactions.writing() as connection:
            gone = connection.execute(delete(finished_tasks).where(finished_tasks.c.task_id.in_(oldest)))
        return gone.rowcount

    def first(
        self,
        count: int,
        *,
        ordering: str = "-created_at",
        is_failed: Sequence[bool] = (False, True),
        where: Filter = EVERYTHING,
    ) -> tuple[list[FinishedTask], int]:
        """The first ``count`` tasks, ordered by ``created_at``, ``started_at`` or ``finished_at``, and how many exist.

        Only the failed ones, the others, or both.
        """
        statement = select(finished_tasks).where(finished_tasks.c.error.is_not(None).in_(list(is_failed)))
        statement = statement.where(condition(where, _SEARCHED))
        key = getattr(finished_tasks.c, ordering.removeprefix("-"))
        keys = [key, finished_tasks.c.task_id]
        ordered = statement.order_by(*(key.desc() for key in keys) if ordering.startswith("-") else keys)
        with self._transactions.reading() as connection:
            total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
            rows = connection.execute(ordered.limit(count)).all()
        return [_task(row) for row in rows], total


def _is_about(match: Match) -> ColumnElement[bool]:
    """Whether one of these ids is in one of its paths."""
    paths = cast(finished_tasks.c.reserved_resources, Text)
    return or_(false(), *(compared(paths, Match("", (value,), Operator.CONTAINS)) for value in match.values))


def _made(match: Match) -> ColumnElement[bool]:
    """Whether one of these is among its paths: a repository with the number of a version, or an id without one."""
    paths = cast(finished_tasks.c.created_resources, Text)
    ends = [f"/{made_id}/" if number is None else f"/{made_id}/versions/{number}/" for made_id, number in match.values]
    return or_(false(), *(compared(paths, Match("", (end,), Operator.CONTAINS)) for end in ends))


def _has_cid(match: Match) -> ColumnElement[bool]:
    """Correlation ids are task ids without their dashes."""
    return compared(without_dashes(finished_tasks.c.task_id), match)


_SEARCHED: dict[str, Searched] = {
    "id": finished_tasks.c.task_id,
    "cid": _has_cid,
    "reserved": _is_about,
    "created": _made,
    **{name: finished_tasks.c[name] for name in ("name", "created_at", "started_at", "finished_at")},
}


def _task(row: Row[Any]) -> FinishedTask:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for a row as a map
    lists = {name: tuple(values[name]) for name in ("created_resources", "reserved_resources")}
    return FinishedTask(**{**values, **lists})
