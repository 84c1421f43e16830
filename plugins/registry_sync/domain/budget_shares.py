"""The budget of requests and pulls of one account at a registry, shared by all processes of an installation.

An account is a registry's host and the user that reads it. Processes that use it hold leases; what a lease grants is
never more than what all others leave, so that a process which joins gets its part only once the others have given it
up, and one that died gives it back when its lease expires.

Where mirrors with a priority above zero use an account, pulls are spread over the registry's window: of those that it
allowed at the window's start, half is kept for these mirrors, and less as the window passes, so that what is important
and comes late finds some left. Other accounts keep nothing back: nobody would use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: How long a lease lasts that its holder does not renew.
LEASE = timedelta(seconds=60)
#: The share of a window's pulls that is kept for important mirrors at its start.
KEPT_SHARE = 0.5
#: How long pulls are kept for important mirrors after the last of them asked for one.
IMPORTANT_FOR = timedelta(days=8)
#: The pulls that a process gets at once, so that not each costs a transaction.
BATCH = 5
#: Reports arrive out of order: only when more pulls remain than these beyond what is known, a new window has begun.
REPORT_SLACK = 10
#: How soon a waiting process asks again; and how late, when nobody said how long the window is.
SHORTEST_WAIT_SECONDS = 0.5
UNKNOWN_WAIT_SECONDS = 3600.0


def is_of_new_window(remaining: int, known: int) -> bool:
    """Whether a registry that reports ``remaining`` pulls after ``known`` ones has begun to count anew."""
    return remaining > known + REPORT_SLACK


@dataclass(frozen=True)
class ReportedPulls:
    """The pulls that a registry allows: what it reported last, at ``reported_at``.

    ``limit`` and ``window_seconds`` None are unknown. ``began_at`` is the earliest start of the window that is known.
    """

    remaining: int
    reported_at: datetime
    began_at: datetime
    limit: int | None = None
    window_seconds: int | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the registry starts to count anew; None when unknown."""
        return None if self.window_seconds is None else self.began_at + timedelta(seconds=self.window_seconds)

    def kept(self, now: datetime, floor: int = 0) -> int:
        """The pulls that are kept for important mirrors at ``now``, of those that a window has above ``floor``."""
        if not self.limit or not self.window_seconds:
            return 0
        passed = (now - self.began_at).total_seconds() / self.window_seconds
        return round(max(0, self.limit - floor) * KEPT_SHARE * min(1.0, max(0.0, 1 - passed)))

    def followed_by(self, other: ReportedPulls) -> ReportedPulls:
        """What is known after another report, which may be of an earlier time: processes write theirs late."""
        if other.reported_at < self.began_at:
            return self
        is_over = self.ends_at is not None and other.reported_at >= self.ends_at
        is_later = other.reported_at >= self.reported_at
        if is_later and (is_over or is_of_new_window(other.remaining, self.remaining)):
            return other
        latest = other if is_later else self
        return replace(latest, remaining=min(self.remaining, other.remaining), began_at=self.began_at)


@dataclass(frozen=True)
class BudgetLease:
    """What a process holds of an account: pulls that are not made yet, and requests per second.

    ``waiting_since`` is since when it waits for pulls, for a mirror of ``priority``; None when it does not.
    """

    holder: str
    pulls: int = 0
    requests_per_second: float = 0.0
    priority: int = 0
    waiting_since: datetime | None = None


@dataclass(frozen=True)
class PullGrant:
    """The pulls that a process may make, at least one, or how long it waits before it asks again."""

    pulls: int = 0
    wait_seconds: float = 0.0


def granted_pulls(
    known: ReportedPulls,
    own: BudgetLease,
    others: Iterable[BudgetLease],
    *,
    floor: int,
    now: datetime,
    has_important: bool,
) -> PullGrant:
    """What ``own``, which holds no pulls, gets of what ``known`` allows above ``floor``.

    ``has_important``: whether mirrors with a priority use the account. One that waits longer, or for a more important
    mirror, goes first: a batch is left to it.
    """
    others = list(others)
    ahead_count = sum(_is_ahead(other, own) for other in others)
    held = sum(other.pulls for other in others)
    free = known.remaining - floor - held - ahead_count * BATCH
    kept = known.kept(now, floor) if has_important and own.priority <= 0 else 0
    if free > kept:
        return PullGrant(min(BATCH, free - kept))
    if free > 0 and kept and known.limit and known.window_seconds:  # only what is kept stands in the way
        released_at = 1 - (free - 1) / ((known.limit - floor) * KEPT_SHARE)
        passed_seconds = (now - known.began_at).total_seconds()
        return PullGrant(0, max(SHORTEST_WAIT_SECONDS, released_at * known.window_seconds - passed_seconds))
    if known.remaining > floor:  # others make theirs, or give them back
        return PullGrant(0, SHORTEST_WAIT_SECONDS)
    if known.ends_at is None:
        return PullGrant(0, UNKNOWN_WAIT_SECONDS)
    return PullGrant(0, max(SHORTEST_WAIT_SECONDS, (known.ends_at - now).total_seconds()))


def _is_ahead(other: BudgetLease, own: BudgetLease) -> bool:
    """Whether ``other`` waits for pulls and gets them before ``own``."""
    if other.waiting_since is None:
        return False
    if other.priority != own.priority:
        return other.priority > own.priority
    return own.waiting_since is None or other.waiting_since < own.waiting_since


def granted_rate(total: float, others: Iterable[float]) -> float:
    """The requests per second of one holder: an equal part of ``total``, and never more than ``others`` leave."""
    taken = list(others)
    return max(0.0, min(total / (len(taken) + 1), total - sum(taken)))
