"""Results of the mirrors of fleets: one row for each mirror of each DAG run, which repeats of its task replace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, insert, select

from registry_sync.db.engine import Transactions
from registry_sync.db.fleet_tables import mirror_results
from registry_sync.db.queries import fetch_page, in_batches, is_one_of, storable
from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest

#: How long results are kept; the last one of a repository as long as it is the last.
KEPT = timedelta(days=90)
_ERROR_LENGTH = 4000
_row = mirror_results.c


class MirrorResultStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, result: MirrorResult) -> None:
        """Records the result of a mirror in its DAG run, in place of that of an earlier try."""
        with self._transactions.writing() as connection:
            replace_results(connection, [result])

    def of_task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, MirrorResult]:
        """The results of a task of a DAG run with all its map indexes, by repository."""
        of_task = (_row.dag_id == dag_id, _row.run_id == run_id, _row.task_id == task_id)
        with self._transactions.reading() as connection:
            rows = connection.execute(select(mirror_results).where(*of_task).order_by(_row.position)).all()
        return {row.repository: read_result(row) for row in rows}

    def page(
        self,
        request: PageRequest,
        *,
        outcomes: Sequence[MirrorOutcome] | None = None,
        run_id: str | None = None,
        dag_id: str | None = None,
    ) -> Page[MirrorResult]:
        """The last result of each repository, or with ``run_id`` all of that DAG run; by repository by default.

        With ``dag_id`` the last one in that DAG, whichever DAG has synced the repository since; only of ``outcomes``,
        None for all. Ordered by ``repository``, ``finished_at``, ``seconds`` or ``received_bytes``.
        """
        wanted = [] if dag_id is None else [_row.dag_id == dag_id]
        statement = _last(*wanted) if run_id is None else select(mirror_results).where(_row.run_id == run_id, *wanted)
        rows = statement.subquery()
        chosen = select(rows)
        if outcomes is not None:
            chosen = chosen.where(rows.c.outcome.in_([outcome.value for outcome in outcomes]))
        orderings = {name: rows.c[name] for name in ("repository", "finished_at", "seconds", "received_bytes")}
        ties = (rows.c.repository, rows.c.dag_id, rows.c.run_id, rows.c.task_id)
        with self._transactions.reading() as connection:
            found, total = fetch_page(connection, chosen, request, orderings, *ties)
        return Page(tuple(map(read_result, found)), total)

    def delete_old(self, repositories: Sequence[str] | None = None) -> int:
        """Deletes results older than :data:`KEPT` that are not the last of their repository; returns their number.

        Of ``repositories``, which costs as much as there are of these; None for all, which reads every result.
        """
        later = mirror_results.alias()
        is_last = (
            ~select(later.c.repository)
            .where(later.c.repository == _row.repository, later.c.finished_at > _row.finished_at)
            .exists()
        )
        old = delete(mirror_results).where(_row.finished_at < utc_now() - KEPT, ~is_last)
        with self._transactions.writing() as connection:
            if repositories is None:
                return connection.execute(old).rowcount
            parts = (is_one_of(connection, _row.repository, names) for names in in_batches(repositories))
            return sum(connection.execute(old.where(are_named)).rowcount for are_named in parts)


_IDENTITY = ("dag_id", "run_id", "task_id", "repository")
_SAME = delete(mirror_results).where(*(_row[name] == bindparam(f"{name}_given") for name in _IDENTITY))
_INSERT = insert(mirror_results)


def replace_results(connection: Connection, results: Sequence[MirrorResult]) -> None:
    """Records results in place of earlier ones of the same mirrors in their task, within the caller's transaction."""
    rows = [
        {
            **vars(result),
            "outcome": result.outcome.value,
            "error": None if result.error is None else storable(result.error, _ERROR_LENGTH),
        }
        for result in results
    ]
    connection.execute(_SAME, [{f"{name}_given": row[name] for name in _IDENTITY} for row in rows])
    connection.execute(_INSERT, rows)


def _last(*wanted: ColumnElement[bool]) -> Select[Any]:
    """The last row of each repository, of those that are ``wanted``."""
    newest = func.row_number().over(partition_by=_row.repository, order_by=(_row.finished_at.desc(), _row.run_id))
    numbered = select(mirror_results, newest.label("age")).where(*wanted).subquery()
    return select(*(numbered.c[column.name] for column in mirror_results.columns)).where(numbered.c.age == 1)


def read_result(row: Row[Any]) -> MirrorResult:
    """A row of ``mirror_results`` as a value."""
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for a row as a map
    return MirrorResult(**{**values, "outcome": MirrorOutcome(values["outcome"])})
