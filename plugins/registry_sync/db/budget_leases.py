"""Budgets of accounts at registries: what each account allows, and the leases of the processes that use it.

Each method is one transaction that locks the account's row, so that processes decide one after the other. Times are the
database server's on PostgreSQL, and the machine's on SQLite, so that no two machines' clocks are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.fleet_tables import budget_leases, registry_accounts
from registry_sync.db.queries import built_once, insert_or_keep
from registry_sync.domain.budget_shares import (
    IMPORTANT_FOR,
    LEASE,
    BudgetLease,
    PullGrant,
    ReportedPulls,
    granted_pulls,
    granted_rate,
)
from registry_sync.domain.quantities import utc_now

_account, _lease = registry_accounts.c, budget_leases.c


@built_once
def _expiry(account: str, holder: str) -> Select[Any]:
    return select(_lease.expires_at).where(_lease.account == account, _lease.holder == holder, _lease.pulls > 0)


class AccountBudgetStore:
    """Each method is a short transaction and may be repeated. ``clock`` None is the database's own."""

    def __init__(self, transactions: Transactions, clock: Callable[[], datetime] | None = None) -> None:
        self._transactions = transactions
        self._clock = clock

    def report(
        self, account: str, remaining: int, limit: int | None, window_seconds: int | None, *, age_seconds: float = 0.0
    ) -> ReportedPulls:
        """Records what a registry reported ``age_seconds`` ago, and returns what is known from it."""
        with self._transactions.writing() as connection:
            at = self._now(connection) - timedelta(seconds=age_seconds)
            known = _pulls(self._locked(connection, account))
            reported = ReportedPulls(remaining, at, at, limit, window_seconds)
            if known is not None:
                reported = known.followed_by(reported)
            connection.execute(update(registry_accounts).where(_account.account == account).values(**vars(reported)))
            return reported

    def take_pulls(
        self,
        account: str,
        holder: str,
        *,
        running: int = 0,
        made: int = 0,
        floor: int = 0,
        priority: int = 0,
    ) -> PullGrant | None:
        """Pulls for ``holder``, or how long it has to wait.

        Of those that it got before, ``running`` are under way, and ``made`` have ended without a report. None when
        nothing is known of the account, or its window has ended: the registry has to be asked, by a request that is no
        pull.
        """
        with self._transactions.writing() as connection:
            now = self._now(connection)
            row = self._locked(connection, account)
            known, important_at = _pulls(row), now if priority > 0 else row.important_at
            leases = self._leases(connection, account, now)
            own = leases.pop(holder, BudgetLease(holder))
            if known is not None and made:
                known = replace(known, remaining=max(0, known.remaining - made))
            if made or priority > 0:
                values = {"remaining": None if known is None else known.remaining, "important_at": important_at}
                connection.execute(update(registry_accounts).where(_account.account == account).values(**values))
            own = replace(own, pulls=running, priority=priority)
            ends_at = None if known is None else known.ends_at
            if known is None or (ends_at is not None and now >= ends_at):
                self._keep(connection, account, own, now)
                return None
            is_shared = important_at is not None and now - important_at < IMPORTANT_FOR
            grant = granted_pulls(known, own, leases.values(), floor=floor + running, now=now, has_important=is_shared)
            waiting_since = None if grant.pulls else own.waiting_since or now
            self._keep(connection, account, replace(own, pulls=running + grant.pulls, waiting_since=waiting_since), now)
            return grant

    def share_rate(self, account: str, holder: str, total: float) -> float:
        """The requests per second of ``holder``, of ``total`` for all; 0 until others have given up their part."""
        with self._transactions.writing() as connection:
            now = self._now(connection)
            self._locked(connection, account)
            leases = self._leases(connection, account, now)
            own = leases.pop(holder, BudgetLease(holder))
            # One that waits for its part counts, though it has none yet.
            others = [other.requests_per_second for other in leases.values()]
            rate = granted_rate(total, others)
            self._keep(connection, account, replace(own, requests_per_second=rate), now)
            return rate

    def pause(self, account: str, seconds: float) -> None:
        """Records that the registry accepts no requests for that long."""
        with self._transactions.writing() as connection:
            row, now = self._locked(connection, account), self._now(connection)
            until = max(filter(None, (row.paused_until, now + timedelta(seconds=seconds))))
            values = {"paused_until": until}
            connection.execute(update(registry_accounts).where(_account.account == account).values(**values))

    def paused_seconds(self, account: str) -> float:
        """How long the registry accepts no more requests of the account; 0 when it does."""
        with self._transactions.reading() as connection:
            until = connection.execute(
                select(_account.paused_until).where(_account.account == account)
            ).scalar_one_or_none()
            return 0.0 if until is None else max(0.0, (until - self._now(connection)).total_seconds())

    def release(self, account: str, holder: str, *, made: int = 0) -> None:
        """Ends the lease: what it had left is everybody's. ``made`` as in :meth:`take_pulls`."""
        with self._transactions.writing() as connection:
            row = self._locked(connection, account)
            if made and row.remaining is not None:
                values = {"remaining": max(0, row.remaining - made)}
                connection.execute(update(registry_accounts).where(_account.account == account).values(**values))
            connection.execute(delete(budget_leases).where(_lease.account == account, _lease.holder == holder))

    def is_held(self, account: str, holder: str) -> bool:
        """Whether ``holder`` still has the pulls of its last batch, which one that stood still cannot know by itself.

        False once its lease has expired, also where it was renewed since for a part of the rate.
        """
        with self._transactions.reading() as connection:
            expires_at = connection.execute(*_expiry(account, holder)).scalar_one_or_none()
            return expires_at is not None and expires_at > self._now(connection)

    def leases(self, account: str) -> list[BudgetLease]:
        """The leases that have not expired, by holder."""
        with self._transactions.reading() as connection:
            found = self._leases(connection, account, self._now(connection))
        return [found[holder] for holder in sorted(found)]

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name != "postgresql":
            return utc_now()
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(timezone.utc)

    @staticmethod
    def _locked(connection: Connection, account: str) -> Any:
        """The row of the account, made where there is none, locked until the transaction ends."""
        connection.execute(insert_or_keep(connection, registry_accounts), {"account": account})
        return connection.execute(select(registry_accounts).where(_account.account == account).with_for_update()).one()

    @staticmethod
    def _leases(connection: Connection, account: str, now: datetime) -> dict[str, BudgetLease]:
        alive = select(budget_leases).where(_lease.account == account, _lease.expires_at > now)
        return {
            row.holder: BudgetLease(row.holder, row.pulls, row.requests_per_second, row.priority, row.waiting_since)
            for row in connection.execute(alive)
        }

    @staticmethod
    def _keep(connection: Connection, account: str, lease: BudgetLease, now: datetime) -> None:
        """Renews a lease, and removes those that have expired."""
        gone = (_lease.expires_at <= now) | (_lease.holder == lease.holder)
        connection.execute(delete(budget_leases).where(_lease.account == account, gone))
        row = {**vars(lease), "account": account, "expires_at": now + LEASE}
        connection.execute(insert_or_keep(connection, budget_leases), row)


def _pulls(row: Any) -> ReportedPulls | None:
    if row.remaining is None:
        return None
    return ReportedPulls(row.remaining, row.reported_at, row.began_at, row.limit, row.window_seconds)
